"""`DjangoTask`: send when the database transaction of the caller has committed.

Source: Celery 5.7, ``celery.contrib.django.task``.
"""

from __future__ import annotations

import functools
from typing import Any

from django.db import transaction

from pgcelery.compat.app.task import Task

__all__ = ("DjangoTask",)


class DjangoTask(Task[..., Any]):
    """A task with calls that wait for ``on_commit``; outside of a transaction they are at once."""

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `delay` after the commit; never, after a rollback."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Call `apply_async` after the commit; never, after a rollback."""
        transaction.on_commit(functools.partial(self.apply_async, *args, **kwargs))
