"""How much of the machine there is.

Source: Celery 5.7, ``celery.utils.sysinfo``.
"""

from __future__ import annotations

import math
import os
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

__all__ = (
    "AUTO_CONCURRENCY",
    "CpuBudget",
    "available_cpu_count",
    "cgroup_cpu_quota",
    "cpu_budget",
    "df",
    "is_auto_concurrency",
    "load_average",
)

AUTO_CONCURRENCY = "auto"
CGROUP_ROOT = Path("/sys/fs/cgroup")
PROC_SELF_CGROUP = Path("/proc/self/cgroup")


def is_auto_concurrency(value: object) -> bool:
    """Whether a number of processes is to be found out."""
    return isinstance(value, str) and value.strip().lower() == AUTO_CONCURRENCY


def available_cpu_count() -> int:
    """Give the number of processors this process may run on."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 2
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 2


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _quota(text: str) -> float | None:
    """Read "quota period", both in microseconds; ``max`` and -1 are no limit."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    quota, period = map(int, parts)
    return quota / period if quota and period else None


def _smallest_quota(directory: Path, path: str, v2: bool) -> float | None:
    """Look in a control group and all around it: the smallest limit holds."""
    quotas = []
    inner = PurePosixPath(os.path.normpath("/" + path.lstrip("/")))
    for group in (inner, *inner.parents):
        folder = directory / str(group).lstrip("/")
        if v2:
            quotas.append(_quota(_read(folder / "cpu.max")))
        else:
            period = _read(folder / "cpu.cfs_period_us")
            quotas.append(_quota(_read(folder / "cpu.cfs_quota_us").strip() + " " + period))
    return min((quota for quota in quotas if quota is not None), default=None)


def cgroup_cpu_quota() -> float | None:
    """Give the processors that control groups let this process use; None is no limit."""
    groups = [line.split(":", 2) for line in _read(PROC_SELF_CGROUP).splitlines()]
    paths = {names: path for _, names, path in (group for group in groups if len(group) == 3)}
    if not paths:
        paths = {"": "/", "cpu": "/"}
    if "" in paths:
        found = _smallest_quota(CGROUP_ROOT, paths[""], v2=True)
        if found is not None:
            return found
    for names, path in paths.items():
        for mount in (names, "cpu") if "cpu" in names.split(",") else ():
            found = _smallest_quota(CGROUP_ROOT / mount, path, v2=False)
            if found is not None:
                return found
    return None


class CpuBudget(NamedTuple):
    """How many processes a pool should have, and why."""

    count: int  # type: ignore[assignment]  # tuples have a method of this name
    available: int  #: processors
    quota: float | None  #: processors by control group; None is no limit, or not asked


def cpu_budget(use_cgroup_quota: bool = True) -> CpuBudget:
    """Give the size for a pool: the processors, at most the control group's share rounded up."""
    available = available_cpu_count()
    quota = cgroup_cpu_quota() if use_cgroup_quota else None
    share = available if quota is None else min(available, max(1, math.ceil(quota)))
    return CpuBudget(share, available, quota)


def load_average() -> tuple[float, ...]:
    """Give the load of the last 1, 5 and 15 minutes, with two decimals."""
    return tuple(math.ceil(load * 100) / 100 for load in os.getloadavg())


class df:
    """How full a file system is."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self.path = path

    @property
    def total_blocks(self) -> float:
        """Its size in KiB."""
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> float:
        """Its free blocks."""
        return self.stat.f_bavail

    @property
    def capacity(self) -> int:
        """How much of it is used, in percent."""
        used = self.stat.f_blocks - self.stat.f_bfree
        return math.ceil(used * 100.0 / (used + self.stat.f_bavail) + 0.5)

    @cached_property
    def stat(self) -> os.statvfs_result:
        """What the system says of it."""
        return os.statvfs(os.path.abspath(self.path))
