"""A lossy stream of events, from any process to whoever listens at the moment.

Who writes never waits: what is put is gathered, and sent in batches by a thread. Who listens leaves
a lease; while nobody does, nothing is written, and the writer looks at most once a second.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psycopg import sql as pgsql

from pgcelery.engine.arrays import BigintArray
from pgcelery.engine.client import Client
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import connect, load, translated
from pgcelery.engine.errors import DatabaseUnavailable, EngineError, PoolTimeout
from pgcelery.engine.exchange import Connection

logger = logging.getLogger(__name__)

_FULL = 100  # so many are sent without waiting for more
_LOOK_S = 1.0  # between two looks whether somebody listens
_AWAY_S = 2.0  # between two tries while the database is away
_PRUNE_S = 10.0  # between two clearings by one writer
_LAST_S = 1.0  # what the end of the process waits for
_SETTLE_S = 2.0  # a batch that was committed this long after its id was given may be missed
_POLL_S = (1.0, 0.25)  # of a reader that hears notifications, and of one that does not

_writers: weakref.WeakSet[EventWriter] = weakref.WeakSet()


def channel_of(config: EngineConfig) -> str:
    """Name the channel on which new batches are announced."""
    return f"{config.schema}.events"


class EventWriter:
    """Sends events. Thread-safe; in a forked child it starts anew, with nothing gathered.

    Args:
        client: Gives the client whose connections are used; called when there is something to send.
        encode: Makes bodies of what was put, in the writer's thread.
        keep_s: Seconds for which batches are kept.
        flush_s: Seconds for which events wait for company.
        most: Events gathered while they cannot be sent; then the oldest are dropped.
    """

    def __init__(
        self,
        client: Callable[[], Client],
        encode: Callable[[list[Any]], list[bytes]],
        *,
        keep_s: float = 60.0,
        flush_s: float = 0.2,
        most: int = 10_000,
    ) -> None:
        self._client = client
        self._encode = encode
        self._keep_s = keep_s
        self._flush_s = flush_s
        self._most = most
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._items: deque[Any] = deque(maxlen=self._most)
        self._thread: threading.Thread | None = None
        self._sending = self._hurried = False
        self.heard = False  #: whether somebody listened at the last look
        self._look_at = self._prune_at = 0.0

    def put(self, item: Any) -> None:
        """Take one event; it is sent soon, if somebody listens. Never waits, never raises."""
        if self._pid != os.getpid():
            self._reset()
        with self._changed:
            self._items.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()
                _writers.add(self)
            elif len(self._items) in (1, _FULL):
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was put is sent or dropped; False if that took too long."""
        if self._pid != os.getpid() or self._thread is None:
            return True
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not (self._items or self._sending), timeout_s)
            self._hurried = False
            return done

    def close(self, timeout_s: float = _LAST_S) -> None:
        """Send what is there and end the thread; the next `put` starts another."""
        if self._pid != os.getpid() or self._thread is None:
            return
        self.flush(timeout_s)
        with self._changed:
            self._thread = None
            self._items.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        me = threading.current_thread()
        while (items := self._gather(me)) is not None:
            try:
                self._send(items)
            except (DatabaseUnavailable, PoolTimeout) as exc:
                logger.debug("events wait for the database: %s", exc)
                self._put_back(items)
            except Exception:  # whatever it is, it must not end the stream
                logger.warning("%d events were not sent", len(items), exc_info=True)
                self.heard, self._look_at = False, time.monotonic() + _AWAY_S
            finally:
                del items
                with self._changed:
                    self._sending = False
                    self._changed.notify_all()

    def _gather(self, me: threading.Thread) -> list[Any] | None:
        """Wait for something to send, and for its company; None when the thread should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._thread is not me)
            wait_s = self._flush_s
            if not self.heard:
                wait_s = max(wait_s, self._look_at - time.monotonic())
            self._changed.wait_for(
                lambda: (
                    self._hurried
                    or self._thread is not me
                    or (self.heard and len(self._items) >= _FULL)
                ),
                wait_s,
            )
            if self._thread is not me:
                return None
            items = list(self._items)
            self._items.clear()
            self._sending = True
            return items

    def _send(self, items: list[Any]) -> None:
        client = self._client()
        if not self.heard:
            self.heard = client.events_heard()
            self._look_at = time.monotonic() + _LOOK_S
        if not self.heard:
            return
        bodies = self._encode(items)
        self.heard = not bodies or client.append_events(bodies, channel_of(client.config))
        now = time.monotonic()
        if self.heard and now >= self._prune_at:
            self._prune_at = now + _PRUNE_S
            client.prune_events(self._keep_s)

    def _put_back(self, items: list[Any]) -> None:
        with self._changed:
            room = self._most - len(self._items)
            self._items.extendleft(reversed(items[len(items) - room :] if room else []))
            self._hurried = False
            self.heard, self._look_at = False, time.monotonic() + _AWAY_S


@atexit.register
def _send_the_last() -> None:
    for writer in list(_writers):
        writer.flush(_LAST_S)


class EventReader:
    """Hears the stream from its construction on. For one thread.

    Args:
        config: Where.
        keep_s: Seconds for which batches are kept.
        lease_s: Seconds for which events are written for a reader that does not read.

    Raises (any method):
        DatabaseUnavailable: The server cannot be reached; what comes until there is another reader
            is lost.
        SchemaMismatch: The database has no schema of this release.
    """

    def __init__(
        self, config: EngineConfig, *, keep_s: float = 60.0, lease_s: float = 30.0
    ) -> None:
        self._config = config
        self._keep_s = keep_s
        self._lease_s = lease_s
        self._id = uuid.uuid4().hex
        self._seen: dict[int, float] = {}  # id: monotonic time of its insert
        self._conn: Connection = connect(config)
        if config.listen:
            with translated():
                name = pgsql.Identifier(channel_of(config))
                self._conn.execute(pgsql.SQL("listen {}").format(name))
        self._floor: int = self._ask("events/listen", id=self._id, lease_s=lease_s)[0][0]
        self._renew_at = time.monotonic() + lease_s / 3

    def read(self, timeout_s: float) -> list[bytes]:
        """Give the batches that have come, waiting for the first; none when the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if now >= self._renew_at:
                self._ask("events/prune", keep_s=self._keep_s)
                self._ask("events/listen", id=self._id, lease_s=self._lease_s)
                self._renew_at = now + self._lease_s / 3
            bodies = self._new()
            left_s = deadline - time.monotonic()
            if bodies or left_s <= 0:
                return bodies
            self._pause(min(left_s, _POLL_S[not self._config.listen]))

    def _new(self) -> list[bytes]:
        seen = BigintArray.of(list(self._seen))
        rows = self._ask("events/read", floor=self._floor, seen=seen)
        now = time.monotonic()
        self._seen.update({id: now - age_s for id, age_s, _ in rows})
        settled = [id for id, at in self._seen.items() if at < now - _SETTLE_S]
        if settled:
            self._floor = max(settled)
            self._seen = {id: at for id, at in self._seen.items() if id > self._floor}
        return [body for _, _, body in rows]

    def _pause(self, seconds: float) -> None:
        if not self._config.listen:
            threading.Event().wait(seconds)
            return
        with translated():
            for _ in self._conn.notifies(timeout=seconds, stop_after=1):
                pass

    def _ask(self, name: str, **params: Any) -> list[Any]:
        with translated():
            cursor = self._conn.execute(load(name, self._config.schema), params, binary=True)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Listen no more."""
        with suppress(EngineError):
            if not self._conn.closed:
                self._ask("events/leave", id=self._id)
        self._conn.close()
