"""The registry of remote control commands, and how one is called.

Source: Celery 5.7, ``celery.worker.control`` (`Panel` and its decorators) and kombu's pidbox (an
error becomes ``{'error': repr}`` and the node lives on).
"""

from __future__ import annotations

import logging
from collections import UserDict
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

__all__ = ("Panel", "State", "control_command", "controller_info_t", "inspect_command", "nok", "ok")

logger = logging.getLogger("celery.worker.control")

Command = Callable[..., Any]


class controller_info_t(NamedTuple):
    """What ``--list`` and the command line know of a command."""

    alias: str | None
    type: str
    visible: bool
    default_timeout: float
    help: str
    signature: str | None
    args: list[tuple[str, Any]] | None
    variadic: str | None


class State:
    """What a command is given first.

    Attributes:
        app: The app.
        hostname: Name of the node.
        consumer: Leads to the pool, the timer and the controller.
        tset: Makes a set.
    """

    def __init__(self, app: Any, hostname: str, consumer: Any) -> None:
        self.app = app
        self.hostname = hostname
        self.consumer = consumer
        self.tset = set


class Panel(UserDict[str, Command]):
    """Every command of this process, by name and alias."""

    data: ClassVar[dict[str, Command]] = {}  # type: ignore[misc]
    meta: ClassVar[dict[str, controller_info_t]] = {}

    @classmethod
    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Register a function; also a decorator, with or without arguments."""
        return cls._register(**kwargs)(*args) if args else cls._register(**kwargs)

    @classmethod
    def _register(
        cls,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",
        visible: bool = True,
        default_timeout: float = 1.0,
        help: str | None = None,
        signature: str | None = None,
        args: list[tuple[str, Any]] | None = None,
        variadic: str | None = None,
    ) -> Callable[[Command], Command]:
        def decorate(fun: Command) -> Command:
            command: str = name or fun.__name__
            text = help or (fun.__doc__ or "").strip().split("\n")[0]
            cls.data[command] = fun
            cls.meta[command] = controller_info_t(
                alias, type, visible, default_timeout, text, signature, args, variadic
            )
            if alias:
                cls.data[alias] = fun
            return fun

        return decorate


def control_command(**kwargs: Any) -> Callable[[Command], Command]:
    """Register a command that changes something."""
    return Panel._register(type="control", **kwargs)


def inspect_command(**kwargs: Any) -> Callable[[Command], Command]:
    """Register a command that only answers."""
    return Panel._register(type="inspect", **kwargs)


def ok(value: Any) -> dict[str, Any]:
    """Answer of success."""
    return {"ok": value}


def nok(value: Any) -> dict[str, Any]:
    """Answer of failure."""
    return {"error": value}


def call(state: State, method: str, arguments: dict[str, Any]) -> Any:
    """Run a command; what it raises becomes the answer, but for what ends the worker.

    Raises:
        SystemExit: The command ends the worker.
    """
    if method not in Panel.data:
        logger.error("There is no remote control command %r.", method)
        return nok(repr(KeyError(method)))
    try:
        return Panel.data[method](state, **arguments)
    except Exception as exc:
        # A command may be the application's; the worker must outlive it.
        return _failed(method, exc)


def _failed(method: str, exc: Exception) -> dict[str, Any]:
    logger.error("pidbox command error: %s: %r", method, exc, exc_info=True)
    return nok(repr(exc))
