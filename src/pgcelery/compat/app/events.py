"""``app.events``: the event classes, bound to the app.

Source: Celery 5.7, ``celery.app.events``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

__all__ = ("Events",)


class Events:
    """Dispatchers, receivers and states of one app."""

    receiver_cls: Any = "pgcelery.compat.events.receiver:EventReceiver"
    dispatcher_cls: Any = "pgcelery.compat.events.dispatcher:EventDispatcher"
    state_cls: Any = "pgcelery.compat.events.state:State"

    def __init__(self, app: Any = None) -> None:
        self.app = app

    @cached_property
    def Receiver(self) -> Any:
        """What hears events."""
        return self.app.subclass_with_self(self.receiver_cls, reverse="events.Receiver")

    @cached_property
    def Dispatcher(self) -> Any:
        """What sends events."""
        return self.app.subclass_with_self(self.dispatcher_cls, reverse="events.Dispatcher")

    @cached_property
    def State(self) -> Any:
        """What events add up to."""
        return self.app.subclass_with_self(self.state_cls, reverse="events.State")

    @contextmanager
    def default_dispatcher(
        self,
        hostname: str | None = None,
        enabled: bool = True,
        buffer_while_offline: bool = False,
    ) -> Iterator[Any]:
        """A dispatcher for the length of a ``with``."""
        with self.Dispatcher(
            hostname=hostname, enabled=enabled, buffer_while_offline=buffer_while_offline
        ) as dispatcher:
            yield dispatcher
