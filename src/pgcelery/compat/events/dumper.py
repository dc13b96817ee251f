"""Events as lines of text, as they come.

Source: Celery 5.7, ``celery.events.dumper`` (the lines).
"""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.functional import LRUCache

from pgcelery.compat._state import app_or_default

__all__ = ("Dumper", "evdump")

HUMAN_TYPES = {
    "worker-offline": "shutdown",
    "worker-online": "started",
    "worker-heartbeat": "heartbeat",
}
CONNECTION_ERROR = """\
-> Cannot connect to %s: %s.
Trying again %s
"""

#: what is said of a task, by its id
TASK_NAMES: Any = LRUCache(limit=0xFFF)

_AGAIN_S = 2


def humanize_type(type: str) -> str:
    """Give a type in words."""
    return HUMAN_TYPES.get(type.lower()) or type.lower().replace("-", " ")


class Dumper:
    """Writes events to a stream."""

    def __init__(self, out: Any = None) -> None:
        self.out = out or sys.stdout

    def say(self, msg: str) -> None:
        """Write a line, at once."""
        self.out.write(msg + "\n")
        if hasattr(self.out, "flush"):
            self.out.flush()

    def on_event(self, ev: dict[str, Any]) -> None:
        """Write an event."""
        rest = dict(ev)
        timestamp = datetime.fromtimestamp(rest.pop("timestamp"), UTC)
        type = rest.pop("type").lower()
        hostname = rest.pop("hostname")
        if type.startswith("task-"):
            uuid = rest.pop("uuid")
            if type in ("task-received", "task-sent"):
                name, args, kwargs = (rest.pop(field) for field in ("name", "args", "kwargs"))
                TASK_NAMES[uuid] = f"{name}({uuid}) args={args} kwargs={kwargs}"
            task = TASK_NAMES.get(uuid, "")
            self.format_task_event(hostname, timestamp, type, task, rest)
        else:
            self._line(hostname, timestamp, type, "", rest)

    def format_task_event(
        self, hostname: str, timestamp: datetime, type: str, task: str, event: dict[str, Any]
    ) -> None:
        """Write an event of a task."""
        self._line(hostname, timestamp, type, f" {task}", event)

    def _line(
        self, hostname: str, timestamp: datetime, type: str, task: str, rest: dict[str, Any]
    ) -> None:
        fields = ", ".join(f"{name}={rest[name]}" for name in sorted(rest))
        colon = ":" if fields else ""
        self.say(f"{hostname} [{timestamp}] {humanize_type(type)}{colon}{task} {fields}")


def evdump(app: Any = None, out: Any = None) -> None:
    """Write events until interrupted; a database that is away is waited for."""
    app = app_or_default(app)
    dumper = Dumper(out=out)
    dumper.say("-> evdump: starting capture...")
    connection = app.connection_for_read()
    while True:
        try:
            app.events.Receiver(connection, handlers={"*": dumper.on_event}).capture()
        except (KeyboardInterrupt, SystemExit):
            return
        except OperationalError as exc:
            again = f"in {_AGAIN_S} seconds"
            dumper.say(CONNECTION_ERROR % (connection.as_uri(), exc, again))
            threading.Event().wait(_AGAIN_S)
