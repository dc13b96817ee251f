"""What processes used: processor time, memory, and what the rest of the machine did meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and its descendants; empty when it is gone."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor time of these and of their dead children, in ticks of 10 ms."""
    return sum(map(_ticks, processes))


def exact_cpu_s(processes: Iterable[psutil.Process]) -> float:
    """The same to the nanosecond, without dead children: for processes that hardly do anything."""
    total = 0
    for process in processes:
        with contextlib.suppress(OSError, IndexError):
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_mb(processes: Iterable[psutil.Process]) -> tuple[float, float]:
    """RSS and PSS together, in MB; PSS counts a shared page once (Linux only)."""
    rss = pss = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            sizes = process.memory_full_info()
            rss, pss = rss + sizes.rss, pss + getattr(sizes, "pss", 0)
    return rss / 1e6, pss / 1e6


class Machine:
    """How many cores others kept busy since this was made.

    Others are all but this process, what it has started and waited for, and the given servers.
    """

    def __init__(self, servers: Iterable[psutil.Process]) -> None:
        self._servers = list(servers)
        self._begin, self._busy, self._own = time.monotonic(), _busy_s(), self._own_s()

    def others(self) -> float:
        """Cores, on average."""
        wall = time.monotonic() - self._begin
        busy, own = _busy_s() - self._busy, self._own_s() - self._own
        return max(0.0, (busy - own) / max(wall, 0.001))

    def _own_s(self) -> float:
        mine = [psutil.Process()]
        return cpu_s([*mine, *(one for server in self._servers for one in tree(server))])


class Worker:
    """A running worker: a parent and its children."""

    def __init__(self, process: psutil.Popen) -> None:
        self.process = process
        self.started_ns = time.time_ns()

    def alive(self) -> bool:
        """Whether the parent still runs."""
        return bool(self.process.poll() is None)

    def family(self) -> list[psutil.Process]:
        """All its processes."""
        return tree(self.process)

    def memory(self) -> tuple[float, float]:
        """RSS and PSS of all its processes, in MB."""
        return memory_mb(self.family())

    def cpu(self) -> float:
        """Seconds of CPU its processes have used."""
        return cpu_s(self.family())

    @contextlib.contextmanager
    def watched(self, every_s: float = 0.1) -> Iterator[dict[str, float]]:
        """The most `rss` and `pss` (as `memory()`) of the block, complete once it has ended."""
        peak = {"rss": 0.0, "pss": 0.0}
        ended = threading.Event()

        def watch() -> None:
            while True:
                rss, pss = self.memory()
                peak.update(rss=max(peak["rss"], rss), pss=max(peak["pss"], pss))
                if ended.wait(every_s):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield peak
        finally:
            ended.set()
            watcher.join()

    def stop(self, patience_s: float = 15) -> None:
        """Warm shutdown; what is left after so long is killed."""
        family = self.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
        _, left = psutil.wait_procs(family, timeout=patience_s)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def _ticks(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _busy_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times) - idle - times.guest - getattr(times, "guest_nice", 0.0))
