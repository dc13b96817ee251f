"""Where rules are written: on the task, in the configuration; and in which forms."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pgcelery.compat.app.options import RULES
from pgcelery.compat.app.rules.compiled import Declared, TaskRules
from pgcelery.compat.app.rules.keys import Parameters
from pgcelery.compat.app.rules.options import Concurrency, Placement, RateLimit, Unique
from pgcelery.compat.exceptions import ImproperlyConfigured

__all__ = (
    "Table",
    "check_function",
    "check_task",
    "of_task",
    "read_placement",
    "read_unique",
)

SCOPES = ("worker", "global")

T = TypeVar("T", Concurrency, RateLimit, Unique, Placement)


def _one(cls: type[T], value: Any) -> T:
    """Read one rule: itself, or a dict of its arguments."""
    if isinstance(value, cls):
        return value
    if isinstance(value, Mapping):
        return cls(**value)
    raise TypeError(
        f"{cls.__name__}(...) or a dict of its arguments is expected, not {value!r:.100}"
    )


def _several(cls: type[T], value: Any) -> tuple[T, ...]:
    if value is None or value is False:
        return ()
    many = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_one(cls, each) for each in many)


def _read_concurrency(value: Any) -> tuple[Concurrency, ...]:
    return _several(Concurrency, value)


def _read_rate_limits(value: Any) -> tuple[RateLimit, ...]:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = RateLimit(limit=value)
    return _several(RateLimit, value)


def read_unique(value: Any) -> Unique | None:
    """Read ``unique=``; True is the default one."""
    if value is None or value is False:
        return None
    return Unique() if value is True else _one(Unique, value)


def read_placement(value: Any) -> Placement | None:
    """Read ``placement=``."""
    return None if value is None or value is False else _one(Placement, value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "concurrency": _read_concurrency,
    "rate_limits": _read_rate_limits,
    "unique": read_unique,
    "placement": read_placement,
}


def _read(name: str, option: str, value: Any) -> Any:
    try:
        return _READERS[option](value)
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"{option} of task {name}: {exc}") from exc


def of_task(name: str, task: Any, scope: Any = None) -> Declared:
    """Read what a task, or a class of tasks, says.

    Args:
        name: Its name.
        task: The task; None for one that is not known here.
        scope: What ``task_rate_limit_scope`` says.

    Raises:
        TypeError: An option is nothing that can be read.
        ValueError: It is out of range or written wrongly.
    """
    if task is None:
        return Declared()
    declared = Declared(
        **{option: _read(name, option, getattr(task, option, None)) for option in RULES}
    )
    own_scope = getattr(task, "rate_limit_scope", None) or scope or "worker"
    if own_scope not in SCOPES:
        raise ValueError(f"rate_limit_scope of task {name} is worker or global, not {own_scope!r}")
    celerys = getattr(task, "rate_limit", None)
    if own_scope == "worker" or not celerys:
        return declared
    more = _read(name, "rate_limits", celerys)
    return declared._replace(rate_limits=(*declared.rate_limits, *more))


def check_task(task: Any) -> None:
    """Refuse a task, or a class of tasks, whose rules are wrong; raises as `TaskRules`."""
    if all(getattr(task, option, None) is None for option in RULES):
        return
    # The scope of a rate limit may come from the configuration: that is looked at when it is used.
    declared = of_task(task.name, task, "worker")
    TaskRules(task.name, declared, Parameters.of(task))


def check_function(function: Any, bound: bool, options: Mapping[str, Any]) -> None:
    """Refuse rules that are wrong for a function, before a task is made of it."""
    given = {option: options[option] for option in RULES if options.get(option) is not None}
    if not given:
        return
    name = str(options.get("name") or getattr(function, "__name__", "task"))
    declared = Declared(**{option: _read(name, option, value) for option, value in given.items()})
    TaskRules(name, declared, Parameters(function, bound=bound))


class Table:
    """A setting with rules by task name; exact names first, then the first pattern that fits.

    Args:
        setting: Its name.
        option: Which of `RULES` it sets.
        entries: By name, pattern (``proj.tasks.*``) or compiled expression; None for none.

    Raises:
        ImproperlyConfigured: An entry is wrong.
    """

    def __init__(self, setting: str, option: str, entries: Any) -> None:
        if entries is not None and not isinstance(entries, Mapping):
            raise ImproperlyConfigured(
                f"{setting} is a dict of rules by the names of tasks, not {entries!r:.100}"
            )
        self._exact: dict[str, Any] = {}
        self._patterns: list[tuple[re.Pattern[str], Any]] = []
        for name, value in (entries or {}).items():
            try:
                rule = _READERS[option](value)
            except (TypeError, ValueError) as exc:
                raise ImproperlyConfigured(f"{setting}[{name!r}]: {exc}") from exc
            if isinstance(name, re.Pattern):
                self._patterns.append((name, rule))
            elif not isinstance(name, str):
                raise ImproperlyConfigured(f"{setting}: {name!r} is no name of a task")
            elif any(char in name for char in "*?["):
                self._patterns.append((re.compile(fnmatch.translate(name)), rule))
            else:
                self._exact[name] = rule

    def find(self, name: str, otherwise: Any) -> Any:
        """Give the rule for a task, which may be that there is none; else `otherwise`."""
        if name in self._exact:
            return self._exact[name]
        return next((rule for pattern, rule in self._patterns if pattern.match(name)), otherwise)
