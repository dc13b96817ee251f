"""Lets beat answer ``inspect ping``, as long as it ticks.

Source: Celery 5.7, ``celery.beat.BeatPidbox``. A beat that hangs says nothing: that is what a
liveness probe can act on.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from kombu.utils import json

from pgcelery.compat.beat.scheduler import DEFAULT_MAX_INTERVAL
from pgcelery.compat.utils.log import get_logger
from pgcelery.compat.utils.nodenames import default_nodename, host_format
from pgcelery.engine import EngineError
from pgcelery.engine.mailbox import Mailbox

__all__ = ("BeatPidbox", "beat_nodename")

# Kombu does not say its types.
dumps: Any = json.dumps
loads: Any = json.loads

logger = get_logger("celery.beat")

NODENAME_DEFAULT = "celerybeat"


def beat_nodename(hostname: str | None = None) -> str:
    """Complete a node name to ``celerybeat@host``."""
    return host_format(default_nodename(hostname, NODENAME_DEFAULT))


class BeatPidbox:
    """A thread that answers pings, and leaves every other command to the workers."""

    #: seconds until the database is tried again
    retry_interval = 5.0
    #: seconds that `stop` waits for the thread
    join_timeout = 3.0
    #: what `max_tick_age` is at least, unless it is set
    min_tick_age = 60.0
    #: seconds between two looks for messages
    poll_interval = 0.2

    def __init__(self, service: Any) -> None:
        self.service = service
        self.app = service.app
        self.hostname = beat_nodename(service.hostname)
        self.thread: threading.Thread | None = None
        self._shutdown = threading.Event()

    @property
    def max_tick_age(self) -> float:
        """Seconds without a tick after which pings are not answered; 0 answers always."""
        configured = self.app.conf.beat_remote_control_max_tick_age
        if configured is not None:
            return float(configured)
        service = self.service
        interval = service.effective_max_interval or service.max_interval or DEFAULT_MAX_INTERVAL
        return float(max(interval * 2, self.min_tick_age))

    def tick_age(self) -> float | None:
        """Seconds since the last tick; None before the service starts."""
        last: float | None = self.service._last_tick
        return None if last is None else time.monotonic() - last

    def is_stale(self) -> bool:
        """Whether the scheduler seems to hang."""
        age = self.tick_age()
        return bool(self.max_tick_age) and age is not None and age > self.max_tick_age

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self.thread is None or not self.thread.is_alive():
            self._shutdown.clear()
            self.thread = threading.Thread(target=self._loop, name="BeatPidbox", daemon=True)
            self.thread.start()

    def stop(self) -> None:
        """Stop the thread; one that waits for the network is left to itself."""
        self._shutdown.set()
        if self.thread is None:
            return
        self.thread.join(timeout=self.join_timeout)
        if self.thread.is_alive():
            logger.warning(
                "beat pidbox: consumer thread did not stop within %s seconds.", self.join_timeout
            )
        else:
            self.thread = None

    def _loop(self) -> None:
        mailbox = Mailbox(self.app.engine_config, self.hostname, {"role": "beat"})
        while not self._shutdown.is_set():
            pause = self.poll_interval
            try:
                for body, reply_to in mailbox.take():
                    self.on_message(body, reply_to)
            except EngineError as exc:
                pause = self.retry_interval
                logger.error(
                    "beat pidbox: Connection error: %s. Trying again in %s seconds...", exc, pause
                )
            self._shutdown.wait(pause)
        try:
            mailbox.close()
        except EngineError as exc:
            logger.debug("beat pidbox: could not sign off: %s", exc)

    def on_message(self, body: bytes, reply_to: str | None) -> None:
        """Answer one message if it is a ping.

        Raises:
            EngineError: The answer could not be sent.
        """
        try:
            method = loads(body.decode())["method"]
        except Exception:
            # Bytes that are no command: whoever can write them must not be able to silence beat.
            logger.exception("Unreadable remote control message")
            return
        if method != "ping" or reply_to is None:
            return
        if self.is_stale():
            logger.warning(
                "beat pidbox: not answering %s, the scheduler has not ticked for %.1fs"
                " (over the %ss limit).",
                method,
                self.tick_age(),
                self.max_tick_age,
            )
            return
        self.app.engine.reply(reply_to, self.hostname, dumps({"ok": "pong"}).encode())
