"""``app.events``: what of Celery's event API works here.

Source: Celery 5.7, ``celery.app.events``. Event messages are not sent; a dispatcher exists so that
code which sends events of its own runs, and it says that it is disabled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgcelery.compat.events import EventDispatcher

__all__ = ("Events",)


class Events:
    """Dispatchers bound to one app."""

    dispatcher_cls = EventDispatcher

    def __init__(self, app: Any = None) -> None:
        self.app = app

    def Dispatcher(self, *args: Any, **kwargs: Any) -> EventDispatcher:
        """Make a dispatcher."""
        kwargs.setdefault("app", self.app)
        return self.dispatcher_cls(*args, **kwargs)

    @contextmanager
    def default_dispatcher(
        self,
        hostname: str | None = None,
        enabled: bool = True,
        buffer_while_offline: bool = False,
    ) -> Iterator[EventDispatcher]:
        """A dispatcher for the length of a ``with``."""
        yield self.Dispatcher(hostname=hostname, enabled=enabled)
