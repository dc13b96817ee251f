"""Receiving events.

Source: Celery 5.7, ``celery.events.receiver`` and ``kombu.mixins.ConsumerMixin`` (``consume``).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from kombu.entity import Queue
from kombu.exceptions import ContentDisallowed, DecodeError, OperationalError

from pgcelery.compat._state import app_or_default
from pgcelery.compat.events.batch import keep_s, unpack
from pgcelery.compat.events.event import get_exchange
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.ids import uuid
from pgcelery.compat.utils.time import adjust_timestamp
from pgcelery.engine import EngineError, EventReader

__all__ = ("EventReceiver",)

logger = logging.getLogger("celery.events")

#: added to the own clock for events of clients, whose clocks nobody sets
CLIENT_CLOCK_SKEW = -1

_LOOK_S = 1.0  # between two looks at `EventReceiver.should_stop`


class EventReceiver:
    """Hears the events of every node, from the moment it begins to capture.

    Args:
        channel: A connection of the app; kept and not used.
        handlers: Functions by event type; ``"*"`` gets what has no other.
        routing_key: Topic pattern of the types to hear: ``task.#``, ``*.online``.
        node_id: Name of this receiver.
        app: The app.
        queue_prefix: For the name of `queue`.
        accept: Serializers to accept; default ``event_serializer`` and JSON.
        queue_ttl: Seconds for which events are kept; a minute at least.
        queue_expires: Not used.
        queue_exclusive: Not used.
        queue_durable: Not used.

    Attributes:
        should_stop: Set it to end `capture` within a second.

    Raises:
        ImproperlyConfigured: Both exclusive and durable.
    """

    app: Any = None
    should_stop = False

    def __init__(
        self,
        channel: Any = None,
        handlers: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
        routing_key: str = "#",
        node_id: str | None = None,
        app: Any = None,
        queue_prefix: str | None = None,
        accept: Collection[str] | None = None,
        queue_ttl: float | None = None,
        queue_expires: float | None = None,
        queue_exclusive: bool | None = None,
        queue_durable: bool | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        conf = self.app.conf
        exclusive = conf.event_queue_exclusive if queue_exclusive is None else queue_exclusive
        durable = conf.event_queue_durable if queue_durable is None else queue_durable
        if exclusive and durable:
            raise ImproperlyConfigured(
                "Queue cannot be both exclusive and durable, choose one or the other."
            )
        self.channel = channel
        self.handlers: Any = {} if handlers is None else handlers
        self.routing_key = routing_key
        self.node_id = node_id or uuid()
        self.queue_prefix: str = queue_prefix or conf.event_queue_prefix
        self.exchange = get_exchange(channel, name=conf.event_exchange)
        ttl = conf.event_queue_ttl if queue_ttl is None else queue_ttl
        self._keep_s = keep_s(ttl)
        self.queue = Queue(
            f"{self.queue_prefix}.{self.node_id}",
            exchange=self.exchange,
            routing_key=routing_key,
            message_ttl=ttl,
            expires=conf.event_queue_expires if queue_expires is None else queue_expires,
            exclusive=exclusive,
            durable=durable,
            auto_delete=not durable,
        )
        self.accept = {conf.event_serializer, "json"} if accept is None else accept
        self.clock = self.app.clock
        self.adjust_clock = self.clock.adjust
        self.forward_clock = self.clock.forward
        self._wanted = topic(routing_key)

    @property
    def connection(self) -> Any:
        """The connection that was given."""
        return self.channel

    def process(self, type: str, event: dict[str, Any]) -> None:
        """Give an event to its handler, if it has one."""
        handler = self.handlers.get(type) or self.handlers.get("*")
        if handler:
            handler(event)

    def capture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> None:
        """Handle events until `should_stop`, `limit` or `timeout`; see `consume`."""
        for _ in self.consume(limit=limit, timeout=timeout, wakeup=wakeup):
            pass

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True
    ) -> Iterator[None]:
        """Do as `capture` does, one event a step."""
        return self.consume(limit=limit, timeout=timeout, wakeup=wakeup)

    def consume(
        self,
        limit: int | None = None,
        timeout: float | None = None,
        safety_interval: float = _LOOK_S,
        wakeup: bool = True,
        **kwargs: Any,
    ) -> Iterator[None]:
        """Handle events, one a step.

        Args:
            limit: How many; None for no limit.
            timeout: Seconds without any after which to give up; None for never.
            safety_interval: Seconds between two looks at `should_stop`.
            wakeup: Ask workers for a heartbeat at once.
            **kwargs: Not used.

        Raises:
            TimeoutError: Nothing came for `timeout` seconds.
            kombu.exceptions.OperationalError: The database is away; begin anew.
        """
        with self._reader() as reader:
            if wakeup:
                self.wakeup_workers()
            count, heard_at = 0, time.monotonic()
            while not self.should_stop and not (limit and count >= limit):
                left_s = safety_interval
                if timeout:
                    left_s = min(left_s, heard_at + timeout - time.monotonic())
                    if left_s <= 0:
                        raise TimeoutError("timed out")
                with _as_kombus():
                    events = self._decoded(reader.read(left_s))
                for event in events:
                    self.process(*self.event_from_message(event))
                    count, heard_at = count + 1, time.monotonic()
                    yield
                    if self.should_stop or count == limit:
                        break

    @contextmanager
    def _reader(self) -> Iterator[EventReader]:
        with _as_kombus():
            reader = EventReader(self.app.engine.config, keep_s=self._keep_s)
        with closing(reader):
            yield reader

    def _decoded(self, bodies: list[bytes]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for body in bodies:
            try:
                events += unpack(body, self.accept)
            except (ContentDisallowed, DecodeError) as exc:
                logger.warning("Events that cannot be read were dropped: %r", exc)
        return [one for one in events if self._wanted(one["type"])]

    def wakeup_workers(self, channel: Any = None) -> None:
        """Ask every worker for a heartbeat."""
        with _as_kombus():
            self.app.control.broadcast("heartbeat")

    def event_from_message(
        self,
        body: dict[str, Any],
        localize: bool = True,
        now: Callable[[], float] = time.time,
        adjust_timestamp: Callable[[float, float], float] = adjust_timestamp,
    ) -> tuple[str, dict[str, Any]]:
        """Set the clocks by an event that has come.

        Returns:
            Its type, and itself with ``local_received``; its timestamp is local if `localize`.
        """
        type: str = body["type"]
        if type == "task-sent":
            body["clock"] = (self.clock.value or 1) + CLIENT_CLOCK_SKEW
            self.adjust_clock(body["clock"])
        elif "clock" in body:
            self.adjust_clock(body["clock"] or 0)
        else:
            body["clock"] = self.forward_clock()
        if localize and "utcoffset" in body and "timestamp" in body:
            body["timestamp"] = adjust_timestamp(body["timestamp"], body["utcoffset"])
        body["local_received"] = now()
        return type, body


def topic(pattern: str) -> Callable[[str], bool]:
    """Make a test for event types of a topic pattern: ``*`` is one word, ``#`` any number."""
    if pattern == "#":
        return lambda type: True
    words = pattern.split(".")
    regex = "".join(r"(?:\.[^.]+)*" if word == "#" else r"\." + _word(word) for word in words)
    # A dot before each word, so that # may stand for none.
    match = re.compile(regex).fullmatch
    return lambda type: match("." + type.replace("-", ".")) is not None


def _word(word: str) -> str:
    return "[^.]+" if word == "*" else re.escape(word)


@contextmanager
def _as_kombus() -> Iterator[None]:
    try:
        yield
    except EngineError as exc:
        raise OperationalError(str(exc)) from exc
