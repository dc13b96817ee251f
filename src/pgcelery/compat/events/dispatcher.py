"""Sending events.

Source: Celery 5.7, ``celery.events.dispatcher``. Sending never waits and never fails: the app's
writer gathers events, sends them a fifth of a second later if somebody listens, and keeps the last
ten thousand while the database is away.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from pgcelery.compat._state import app_or_default
from pgcelery.compat.events import event
from pgcelery.compat.utils.nodenames import anon_nodename
from pgcelery.compat.utils.time import utcoffset

__all__ = ("EventDispatcher",)


class EventDispatcher:
    """Sends events of one node.

    Args:
        connection: Kept and not used: the app knows the way.
        hostname: Name of the node; default one for this process.
        enabled: Whether `send` sends.
        channel: Not used.
        buffer_while_offline: Not used; events always wait for the database.
        app: The app.
        serializer: Default the ``event_serializer`` setting.
        groups: Groups that `send` sends; none given means all.
        delivery_mode: Not used.
        buffer_group: Groups of which events are sent `buffer_limit` at a time, or by `flush`.
        buffer_limit: How many.
        on_send_buffered: Called when one was kept back.

    Attributes:
        groups: As given; may be changed.
        on_enabled: Functions that `enable` calls.
        on_disabled: Functions that `disable` calls.
    """

    app: Any = None
    DISABLED_TRANSPORTS: frozenset[str] = frozenset()

    def __init__(
        self,
        connection: Any = None,
        hostname: str | None = None,
        enabled: bool = True,
        channel: Any = None,
        buffer_while_offline: bool = True,
        app: Any = None,
        serializer: str | None = None,
        groups: Iterable[str] | None = None,
        delivery_mode: int = 1,
        buffer_group: Iterable[str] | None = None,
        buffer_limit: int = 24,
        on_send_buffered: Callable[[], Any] | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        self.connection = connection
        self.channel = channel
        self.hostname: str = hostname or anon_nodename()
        self.buffer_while_offline = buffer_while_offline
        self.delivery_mode = delivery_mode
        self.serializer: str = serializer or self.app.conf.event_serializer
        self.groups = set(groups or ())
        self.buffer_group = frozenset(buffer_group or ())
        self.buffer_limit = buffer_limit
        self.on_send_buffered = on_send_buffered
        self.exchange = event.get_exchange(connection, name=self.app.conf.event_exchange)
        self.clock = self.app.clock
        self.headers = {"hostname": self.hostname}
        self.pid = os.getpid()
        self.mutex = threading.Lock()
        self.on_enabled: set[Callable[[], Any]] = set()
        self.on_disabled: set[Callable[[], Any]] = set()
        self._group_buffer: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._closed = False
        self.enabled = enabled
        if enabled:
            self.enable()

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def enable(self) -> None:
        """Send from now on."""
        self._closed, self.enabled = False, True
        for callback in list(self.on_enabled):
            callback()

    def disable(self) -> None:
        """Send no more."""
        if self.enabled:
            self.enabled = False
            self.close()
            for callback in list(self.on_disabled):
                callback()

    def sends(self, group: str) -> bool:
        """Whether events of a group are sent now."""
        return self.enabled and not self._closed and (not self.groups or group in self.groups)

    def send(
        self,
        type: str,
        blind: bool = False,
        utcoffset: Callable[[], float] = utcoffset,
        retry: bool = False,
        retry_policy: Any = None,
        Event: Callable[..., Any] = event.Event,
        **fields: Any,
    ) -> None:
        """Send an event, unless this dispatcher or its group is switched off.

        Args:
            type: As ``task-sent``; the group comes first.
            blind: Leave the app's clock alone, and say none.
            utcoffset: Gives the hours west of UTC.
            retry: Not used.
            retry_policy: Not used.
            Event: Makes the event.
            **fields: What the serializer can say.
        """
        group = event.group_from(type)
        if not self.sends(group):
            return
        made = self._made(type, fields, blind, Event, utcoffset)
        if group not in self.buffer_group:
            self._put(made)
            return
        with self.mutex:
            self._group_buffer[group].append(made)
            full = len(self._group_buffer[group]) >= self.buffer_limit
        if full:
            self.flush()
        elif self.on_send_buffered is not None:
            self.on_send_buffered()

    def publish(
        self,
        type: str,
        fields: dict[str, Any],
        producer: Any = None,
        blind: bool = False,
        Event: Callable[..., Any] = event.Event,
        **kwargs: Any,
    ) -> None:
        """Send an event whether or not this dispatcher is switched on; the producer is not used."""
        self._put(self._made(type, fields, blind, Event, utcoffset))

    def _made(
        self,
        type: str,
        fields: dict[str, Any],
        blind: bool,
        Event: Callable[..., Any],
        utcoffset: Callable[[], float],
    ) -> Any:
        return Event(
            type,
            hostname=self.hostname,
            utcoffset=utcoffset(),
            pid=self.pid,
            clock=None if blind else self.clock.forward(),
            **fields,
        )

    def _put(self, made: Any) -> None:
        self.app.event_writer.put((self.serializer, made))

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what was kept back for company; what a closed dispatcher keeps stays."""
        if self._closed or not groups:
            return
        with self.mutex:
            kept = [made for buffered in self._group_buffer.values() for made in buffered]
            self._group_buffer.clear()
        for made in kept:
            self._put(made)

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Do nothing: what waits for the database is the app's, whichever dispatcher sent it."""

    def close(self) -> None:
        """Send no more through `send`."""
        self._closed = True
