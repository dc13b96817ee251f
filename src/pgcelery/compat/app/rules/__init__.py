"""Rules about how tasks are run: limits, rates, uniqueness, placement. Celery has none of this.

They are options of a task, or settings. All of it happens where a call is sent: what the rules say
of its arguments becomes fields of its job, and the engine keeps them.
"""

from __future__ import annotations

from pgcelery.compat.app.rules.book import RuleBook
from pgcelery.compat.app.rules.declared import check_function, check_task
from pgcelery.compat.app.rules.options import Concurrency, Placement, RateLimit, Unique

__all__ = (
    "Concurrency",
    "Placement",
    "RateLimit",
    "RuleBook",
    "Unique",
    "check_function",
    "check_task",
)
