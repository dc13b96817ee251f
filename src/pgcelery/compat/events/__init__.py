"""Events: the message shape, and a dispatcher that sends none.

Source: Celery 5.7, ``celery.events``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ("Event", "EventDispatcher", "group_from")


def Event(type: str, _fields: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Make an event: a dict with its ``type`` and ``timestamp`` (seconds since 1970)."""
    return {"timestamp": time.time(), **(_fields or {}), **fields, "type": type}


def group_from(type: str) -> str:
    """Group of an event type: ``task`` of ``task-sent``."""
    return type.split("-", 1)[0]


class EventDispatcher:
    """Takes events and sends none; `enabled` is always False.

    Attributes:
        groups: Groups that remote control switched on.
    """

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        channel: Any = None,
        buffer_while_offline: bool = True,
        enabled: bool = True,
        serializer: str | None = None,
        groups: Iterable[str] | None = None,
        delivery_mode: int = 1,
        buffer_group: Iterable[str] | None = None,
        buffer_limit: int = 24,
        on_send_buffered: Callable[..., Any] | None = None,
        app: Any = None,
    ) -> None:
        self.app = app
        self.hostname = hostname
        self.groups = set(groups or ())
        self.enabled = False
        self.on_enabled: set[Callable[[], Any]] = set()
        self.on_disabled: set[Callable[[], Any]] = set()

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def send(self, type: str, blind: bool = False, **fields: Any) -> None:
        """Send nothing."""

    def publish(self, type: str, fields: dict[str, Any], producer: Any, **kwargs: Any) -> None:
        """Send nothing."""

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Nothing is buffered."""

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        """Nothing is open."""
