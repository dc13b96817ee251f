"""Whether waiting for a result is allowed here: in a task it could wait for its own worker.

Source: Celery 5.7, `celery.result`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pgcelery.compat._state import _set_task_join_will_block, task_join_will_block

E_WOULDBLOCK = (
    "Never call result.get() within a task!\n"
    "See https://docs.celeryq.dev/en/latest/userguide/tasks.html"
    "#avoid-launching-synchronous-subtasks\n"
)


def assert_will_not_block() -> None:
    """Raise RuntimeError where waiting for a result is not allowed."""
    if task_join_will_block():
        raise RuntimeError(E_WOULDBLOCK)


@contextmanager
def _joining(will_block: bool) -> Iterator[None]:
    before = task_join_will_block()
    _set_task_join_will_block(will_block)
    try:
        yield
    finally:
        _set_task_join_will_block(before)


def allow_join_result() -> AbstractContextManager[None]:
    """Allow waiting for results within the block, although a task runs."""
    return _joining(False)


def denied_join_result() -> AbstractContextManager[None]:
    """Forbid waiting for results within the block."""
    return _joining(True)
