"""The rules of an app's tasks, and what they make of each call.

A task's rules are read when it is first sent, and again after the app's settings were changed.
Looking up that a task has none is all that they cost it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from pgcelery.compat.app import running
from pgcelery.compat.app.options import CALL_OPTIONS
from pgcelery.compat.app.rules.compiled import Declared, TaskRules
from pgcelery.compat.app.rules.declared import (
    SCOPES,
    Table,
    of_task,
    read_placement,
    read_unique,
)
from pgcelery.compat.app.rules.expressions import Call
from pgcelery.compat.app.rules.keys import Parameters
from pgcelery.compat.app.rules.options import Concurrency, Unique
from pgcelery.compat.exceptions import ImproperlyConfigured

__all__ = ("RuleBook",)

_CALL_OPTIONS = frozenset(CALL_OPTIONS)
_NO_OPTIONS: Mapping[str, Any] = dict.fromkeys(CALL_OPTIONS)

#: Most sets of rules that are kept for calls which bring some of their own.
_KEPT = 500

_SETTINGS = {
    "concurrency": "task_concurrency",
    "rate_limits": "task_rate_limits",
    "unique": "task_unique",
    "placement": "task_placement",
}

#: Options of a call that say that it is part of a canvas.
_CANVAS_OPTIONS = ("chain", "chord", "group_id")

_UNFED = (
    "The first argument of a call that waits for another is None when it is sent: pass the key "
    "with the call (concurrency_key=, rate_key=), or make it of kwargs that are known"
)


class _Entry(NamedTuple):
    """What is known of a task: whose rules they are, and which."""

    task: Any
    rules: TaskRules | None


class _Settings(NamedTuple):
    """The settings that are about this, read."""

    tables: dict[str, Table]
    scope: str


class RuleBook:
    """The rules of the tasks of one app, while its settings stay as they are."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf
        self._entries: dict[str, _Entry] = {}
        self._derived: dict[tuple[str, Declared], TaskRules] = {}

    def fields(
        self,
        name: str,
        task: Any,
        call: tuple[Any, Any, Any],
        options: dict[str, Any],
        waits: Mapping[str, Any],
        task_id: str,
    ) -> dict[str, Any]:
        """Give the fields of a call's `NewJob`; takes the options about rules out of `options`.

        Args:
            name: Name of the task.
            task: The task; None if it is not known here.
            call: Arguments, keyword arguments and headers, each perhaps None.
            options: Those of `sending.build`.
            waits: What it waits for, as `inputs.take` gives it.
            task_id: The call's id.

        Raises:
            TypeError: A key or option of a wrong type.
            ValueError: One out of range, or a function of the application raised.
            ImproperlyConfigured: The settings about rules are wrong.
        """
        entry = self._entries.get(name)
        if entry is None or entry.task is not task:
            entry = self._read(name, task)
        given = _NO_OPTIONS
        if not _CALL_OPTIONS.isdisjoint(options):
            given = {option: options.pop(option, None) for option in CALL_OPTIONS}
        rules = entry.rules
        if given is not _NO_OPTIONS:
            rules, given = self._with_options(name, task, rules, given)
        if rules is None or (options.get("retries") and running.current(task_id) is not None):
            # A retry is the same job, which keeps what it was sent with.
            return {}
        args, kwargs, headers = call
        asked = Call(args or (), kwargs or {}, headers or {})
        alone = (
            not waits
            and not running.in_canvas()
            and all(options.get(option) is None for option in _CANVAS_OPTIONS)
        )
        try:
            return rules.fields(asked, given, alone=alone)
        except (TypeError, ValueError) as exc:
            if "chord_parents" not in waits or waits.get("chord_immutable"):
                raise
            raise type(exc)(f"{exc}. {_UNFED}") from exc

    def lets_pass(self, name: str, task: Any) -> bool:
        """Whether it is known that the task has no rules."""
        entry = self._entries.get(name)
        return entry is not None and entry.task is task and entry.rules is None

    # -- reading

    def _read(self, name: str, task: Any) -> _Entry:
        settings = self._settings
        declared = of_task(name, task, settings.scope)
        said = {
            option: table.find(name, getattr(declared, option))
            for option, table in settings.tables.items()
        }
        configured = declared._replace(**said)
        rules = None
        if any(configured):
            try:
                rules = TaskRules(name, configured, self._parameters(task))
            except ValueError as exc:
                if configured == declared:
                    raise
                names = ", ".join(_SETTINGS[option] for option in said if said[option])
                raise ImproperlyConfigured(f"{names}: {exc}") from exc
        entry = self._entries[name] = _Entry(task, rules)
        return entry

    @cached_property
    def _settings(self) -> _Settings:
        conf = self._conf
        scope = conf.task_rate_limit_scope
        if scope not in SCOPES:
            raise ImproperlyConfigured(f"task_rate_limit_scope is worker or global, not {scope!r}")
        tables = {
            option: Table(setting, option, conf.get(setting))
            for option, setting in _SETTINGS.items()
        }
        return _Settings(tables, scope)

    @staticmethod
    def _parameters(task: Any) -> Parameters | None:
        return None if task is None else Parameters.of(task)

    # -- calls that bring rules of their own

    def _with_options(
        self, name: str, task: Any, rules: TaskRules | None, given: Mapping[str, Any]
    ) -> tuple[TaskRules | None, Mapping[str, Any]]:
        """Give the rules of a call, and its options, in which `placement` is one."""
        before = Declared() if rules is None else rules.declared
        declared = before._replace(
            unique=_unique_of(before.unique, given),
            concurrency=_concurrency_of(name, before.concurrency, given),
        )
        if given["placement"] is not None:
            declared = declared._replace(placement=read_placement(given["placement"]))
        given = {**given, "placement": None}
        if declared is not before and declared != before:
            rules = self._derive(name, task, declared)
        if rules is None and any(value is not None for value in given.values()):
            rules = self._derive(name, task, declared)
        return rules, given

    def _derive(self, name: str, task: Any, declared: Declared) -> TaskRules:
        found = self._derived.get((name, declared))
        if found is None:
            if len(self._derived) >= _KEPT:
                self._derived = {}
            found = TaskRules(name, declared, self._parameters(task))
            self._derived[name, declared] = found
        return found


def _unique_of(own: Unique | None, given: Mapping[str, Any]) -> Unique | None:
    said = given["unique"]
    if said is None or (said is True and own is not None):
        wanted = said is None and given["unique_key"] is not None
        return Unique() if wanted and own is None else own
    return read_unique(said)


def _concurrency_of(
    name: str, own: tuple[Concurrency, ...], given: Mapping[str, Any]
) -> tuple[Concurrency, ...]:
    if own or given["concurrency_key"] is None or given["concurrency_limit"] is None:
        return own
    # A limit of this call's own: its key, under the task's name.
    return (Concurrency(name, name=name),)
