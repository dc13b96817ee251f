"""Sends every shape of a file, waits until nothing more happens, and prints what did, as JSON.

Environment: SHAPES is a file with a JSON list of shapes; SHAPES_RECORDS the folder of the records.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import canvases
import recording
from canvases import app
from celery.result import AsyncResult, result_from_tuple
from traces import Names, trace

#: Nothing has happened for so long, though something was sent that has not run: it hangs.
SILENCE_S = 1.5
DEADLINE_S = 80
SENTINEL = "sentinel"
pause = threading.Event().wait


class Records:
    """The events of all processes, read as they come."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.events: list[dict[str, Any]] = []
        self._read: dict[Path, int] = defaultdict(int)
        self._sent: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        #: ids of tasks that ended, and have a result as soon as that is stored
        self._stored: set[str] = set()
        self._ready: set[str] = set()

    def read(self) -> bool:
        """Read what is new; whether something has happened to a shape."""
        found = False
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read[path])
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # the rest of it is being written
                    self._read[path] += len(line)
                    found |= self._take(json.loads(line))
        return found

    def _take(self, event: dict[str, Any]) -> bool:
        task_id = event.get("id")
        if str(task_id).startswith(SENTINEL):
            return False
        self.events.append(event)
        if event["event"] == "before_task_publish":
            self._sent[task_id] += 1
        elif event["event"] == "task_postrun":
            self._ended[task_id] += 1
            if event["state"] in ("SUCCESS", "FAILURE") and not event["ignored"]:
                self._stored.add(task_id)
        return True

    def unfinished(self) -> list[str]:
        """Give the ids that were sent but have not run to an end, or have no result yet."""
        running = [i for i, times in self._sent.items() if self._ended[i] < times]
        return [i for i in (*running, *self._stored) if not self._is_ready(i)]

    def _is_ready(self, task_id: str) -> bool:
        if task_id not in self._ready and AsyncResult(task_id, app=app).ready():
            self._ready.add(task_id)
        return task_id in self._ready


def settle(records: Records) -> None:
    """Wait until all that was sent has ended, or nothing happens any more."""
    last = time.monotonic()
    end = last + DEADLINE_S
    while last < end:
        if records.read():
            last = time.monotonic()
        elif time.monotonic() - last > 0.1 and not records.unfinished():
            return
        elif time.monotonic() - last > SILENCE_S:
            found = sentinels_find(records)
            if not found:
                return
            last = time.monotonic()
        pause(0.02)
    raise SystemExit("the shapes did not come to an end")


def sentinels_find(records: Records) -> bool:
    """Whether something happens while the worker does a few more tasks: it was only slow."""
    for _ in range(4):
        task_id = f"{SENTINEL} {time.monotonic_ns()}"
        sent = canvases.ok.apply_async(kwargs={"tag": SENTINEL}, task_id=task_id)
        sent.get(timeout=20, interval=0.02)
    return records.read()


def start(shape: dict[str, Any], run: str) -> Any:
    """Send a shape; gives its result, or the exception that this raised."""
    try:
        if shape.get("inside"):
            return canvases.launch.apply_async(kwargs={"tag": f"{run}/t0", "shape": shape})
        return canvases.send(shape, run)
    except Exception as exc:
        return exc


def outcome(shape: dict[str, Any], result: Any) -> Any:
    """Give the result of a shape that a task sent."""
    if not shape.get("inside") or isinstance(result, Exception):
        return result
    try:
        sent = result.get(timeout=1)
    except Exception as exc:
        return exc
    return None if sent is None else result_from_tuple(sent, app=app)


def main() -> None:
    """Print the traces."""
    shapes = json.loads(Path(os.environ["SHAPES"]).read_text())
    records = Records(os.environ["SHAPES_RECORDS"])
    recording.note("begin")
    results = [start(shape, str(run)) for run, shape in enumerate(shapes)]
    settle(records)
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    names = Names(records.events)
    for event in sorted(records.events, key=lambda event: event["at"]):
        events[names.run_of(event)].append(event)
    found = {
        str(run): trace(names, str(run), events[str(run)], outcome(shape, results[run]))
        for run, shape in enumerate(shapes)
    }
    json.dump({"trace": found, "labels": {}}, sys.stdout, default=repr)


if __name__ == "__main__":
    main()
