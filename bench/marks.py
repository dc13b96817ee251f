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

    def zero(self, start: int, n: int) -> None:
        """Empty these slots, while a worker may map the file."""
        self._view[start : start + n] = memoryview(bytes(n * 8)).cast("q")

    def wait(
        self,
        start: int,
        n: int,
        timeout_s: float,
        alive: Callable[[], bool],
        poll_s: float = 0.02,
        enough: int = 0,
    ) -> Sequence[int]:
        """The slots once all are filled, or `enough` of them.

        Raises:
            RuntimeError: Not all ran in time, or the worker died.
        """
        end = time.monotonic() + timeout_s
        while (left := (times := self.read(start, n)).count(0)) and n - left < (enough or n):
            if time.monotonic() > end or not alive():
                why = "in time" if alive() else "before the worker died"
                raise RuntimeError(f"{n - left} of {n} tasks ran {why}")
            time.sleep(poll_s)
        return times
