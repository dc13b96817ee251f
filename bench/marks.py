"""When each task ran, without asking the queue under test.

A task is `mark(i)`: it writes `time.time_ns()` into slot *i* of a file that every worker process
maps. It costs less than a microsecond, so rates and latencies are read from outside.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SLOTS = 1_200_000
_pack = struct.Struct("<q").pack_into
_map: mmap.mmap | None = None


def mark(i: int) -> int:
    """Write the time into slot `i` of the file named by `BENCH_MARKS`, and return `i`."""
    global _map
    if _map is None:
        _map = _open(os.environ["BENCH_MARKS"])
    _pack(_map, i * 8, time.time_ns())
    return i


def _open(path: str | Path) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), SLOTS * 8)


class Marks:
    """The measuring side: a fresh file, and what it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Empty every slot. Only while no worker maps the file."""
        with open(self.path, "wb") as file:
            file.truncate(SLOTS * 8)
        self._view = memoryview(_open(self.path)).cast("q")

    def read(self, start: int, n: int) -> Sequence[int]:
        """Nanoseconds since the epoch in slots start..start+n; 0 where the task has not run."""
        return self._view[start : start + n].tolist()

    def wait(
        self, start: int, n: int, timeout_s: float, alive: Callable[[], bool], poll_s: float = 0.02
    ) -> Sequence[int]:
        """The slots once all are filled.

        Raises:
            RuntimeError: Not all ran in time, or the worker died.
        """
        end = time.monotonic() + timeout_s
        while 0 in (times := self.read(start, n)):
            if time.monotonic() > end or not alive():
                why = "in time" if alive() else "before the worker died"
                raise RuntimeError(f"{n - times.count(0)} of {n} tasks ran {why}")
            time.sleep(poll_s)
        return times
