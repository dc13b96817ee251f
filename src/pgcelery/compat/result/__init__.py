"""Results: what is known of calls that were sent.

Source: Celery 5.7, `celery.result`.
"""

from __future__ import annotations

from pgcelery.compat._state import _set_task_join_will_block, task_join_will_block
from pgcelery.compat.result.eager import EagerResult
from pgcelery.compat.result.joining import (
    E_WOULDBLOCK,
    allow_join_result,
    assert_will_not_block,
    denied_join_result,
)
from pgcelery.compat.result.many import GroupResult, ResultSet
from pgcelery.compat.result.single import AsyncResult, ResultBase, result_from_tuple

__all__ = (
    "E_WOULDBLOCK",
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultBase",
    "ResultSet",
    "_set_task_join_will_block",
    "allow_join_result",
    "assert_will_not_block",
    "denied_join_result",
    "result_from_tuple",
    "task_join_will_block",
)
