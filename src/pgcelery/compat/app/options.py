"""The options of a task that fall back on a setting.

Source: Celery 5.7, `Task.from_config`. Celery copies the settings when a task is bound; here they
are read whenever the option is, so a setting changed later counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgcelery.compat.utils.deprecated import warn
from pgcelery.compat.utils.imports import symbol_by_name

__all__ = (
    "CALL_OPTIONS",
    "EXEC_OPTIONS",
    "FROM_CONFIG",
    "RULES",
    "Setting",
    "check_rules",
    "check_task_rules",
    "inherit_settings",
)

#: Option of a task, setting it takes its value from while it is None.
FROM_CONFIG = (
    ("serializer", "task_serializer"),
    ("rate_limit", "task_default_rate_limit"),
    ("priority", "task_default_priority"),
    ("time_limit", "task_time_limit"),
    ("soft_time_limit", "task_soft_time_limit"),
    ("track_started", "task_track_started"),
    ("acks_late", "task_acks_late"),
    ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
    ("acks_on_failure", "task_acks_on_failure"),
    ("acks_on_timeout", "task_acks_on_timeout"),
    ("reject_on_worker_lost", "task_reject_on_worker_lost"),
    ("retry_on_worker_lost", "task_retry_on_worker_lost"),
    ("ignore_result", "task_ignore_result"),
    ("store_eager_result", "task_store_eager_result"),
    ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
)

#: Options of a task that every call of it is sent with.
EXEC_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
    "immediate",
    "mandatory",
)

#: Options of a task that are rules about how it is run; see `rules`.
RULES = ("concurrency", "rate_limits", "unique", "placement")

#: Options of `apply_async` that are about rules.
CALL_OPTIONS = (
    "concurrency_key",
    "concurrency_limit",
    "placement",
    "rate_key",
    "rate_units",
    "unique",
    "unique_key",
)

#: What these two take when neither they nor their settings say anything.
_ACK_FALLBACK = frozenset({"acks_on_failure", "acks_on_timeout"})

#: Routing belongs in ``task_routes``.
_DEPRECATED = ("queue", "exchange", "exchange_type", "routing_key", "delivery_mode", "priority")


class Setting:
    """An option that is a setting of the task's app, until the task sets one of its own."""

    __slots__ = ("name", "setting")

    def __init__(self, name: str, setting: str) -> None:
        self.name = name
        self.setting = setting

    def __get__(self, task: Any, owner: Any) -> Any:
        app = owner._app
        if app is None:
            return None
        value = app.conf[self.setting]
        if value is None and self.name in _ACK_FALLBACK:
            either = (owner if task is None else task).acks_on_failure_or_timeout
            return True if either is None else either
        return value


def _raw(cls: type, name: str) -> Any:
    """The class attribute as it lies there, descriptors not called."""
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def inherit_settings(cls: Any) -> None:
    """Let the options that `cls` leaves at None follow the settings."""
    for name, setting in FROM_CONFIG:
        if _raw(cls, name) is None:
            setattr(cls, name, Setting(name, setting))


def check_rules(fun: Any, options: Mapping[str, Any]) -> None:
    """Refuse rules that are wrong for a function, where a task is made of it.

    Raises:
        TypeError: A limit, key or placement is of a wrong type.
        ValueError: One is out of range, or a key is written wrongly.
    """
    # By name: a module that only defines tasks need not load the engine.
    if any(options.get(option) is not None for option in RULES):
        check = symbol_by_name("pgcelery.compat.app.rules:check_function")
        check(fun, bool(options.get("bind")), options)


def check_task_rules(task: Any) -> None:
    """Refuse a class of tasks whose rules are wrong; raises as `check_rules`."""
    if any(getattr(task, option, None) is not None for option in RULES):
        symbol_by_name("pgcelery.compat.app.rules:check_task")(task)


def warn_deprecated(cls: type) -> None:
    """Warn of routing options that are set on the task itself."""
    for name in _DEPRECATED:
        if vars(cls).get(name) is not None and not isinstance(vars(cls)[name], Setting):
            warn(
                description=f"The {name!r} task attribute",
                removal="6.0",
                alternative="Use the task_routes setting instead.",
            )
