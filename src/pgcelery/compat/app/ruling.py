"""Whether rules are about a call at all; only then what knows them is loaded.

Most applications have none, and the modules of `rules` are many.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pgcelery.compat.app.options import CALL_OPTIONS, RULES
from pgcelery.compat.app.priorities import Priorities
from pgcelery.compat.utils.imports import instantiate

__all__ = ("Ruling",)

_CALL_OPTIONS = frozenset(CALL_OPTIONS)
_UNKNOWN = object()

#: Settings with rules by the names of tasks.
_SETTINGS = ("task_concurrency", "task_rate_limits", "task_unique", "task_placement")


class Ruling:
    """What the settings and the tasks of one app say of a call: its priority, and its rules."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._free: dict[str, Any] = {}  # tasks without rules, by name
        app.on_after_configure.connect(self.forget)
        app.conf.bind_to(self.forget)

    def forget(self, *args: Any, **kwargs: Any) -> None:
        """Read everything anew: the settings were changed."""
        self._free = {}
        for name in ("priorities", "_book", "_configured"):
            vars(self).pop(name, None)

    @cached_property
    def priorities(self) -> Priorities:
        """What the priorities of Celery are to the engine."""
        return Priorities(self.app.conf)

    @cached_property
    def _book(self) -> Any:
        return instantiate("pgcelery.compat.app.rules:RuleBook", self.app.conf)

    @cached_property
    def _configured(self) -> bool:
        conf = self.app.conf
        scoped = conf.task_rate_limit_scope != "worker"  # or wrong, which the book says
        return scoped or any(conf.get(setting) is not None for setting in _SETTINGS)

    def prepare(self) -> None:
        """Make what the first task of an app with rules in its settings would, before a fork."""
        if self._configured:
            _ = self._book

    def fields(
        self,
        name: str,
        task: Any,
        call: tuple[Any, Any, Any],
        options: dict[str, Any],
        waits: Mapping[str, Any],
        task_id: str,
    ) -> dict[str, Any]:
        """Do as `RuleBook.fields`."""
        if _CALL_OPTIONS.isdisjoint(options) and self._is_free(name, task):
            return {}
        found: dict[str, Any] = self._book.fields(name, task, call, options, waits, task_id)
        return found

    def lets_pass(self, name: str, task: Any) -> bool:
        """Whether it is known that the task has no rules."""
        if self._free.get(name, _UNKNOWN) is task:
            return True
        return "_book" in vars(self) and bool(self._book.lets_pass(name, task))

    def _is_free(self, name: str, task: Any) -> bool:
        if self._free.get(name, _UNKNOWN) is task:
            return True
        own = ("rate_limit_scope", *RULES)
        if self._configured or any(getattr(task, option, None) is not None for option in own):
            return False
        self._free[name] = task
        return True
