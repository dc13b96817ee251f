"""Tasks in processes."""

from __future__ import annotations

from typing import Any

from pgcelery.compat.concurrency.base import BasePool, PoolOptions
from pgcelery.compat.utils.log import set_process_index
from pgcelery.engine.pool import PreforkPool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """Forked processes, one task each."""

    is_cpu_bound = True

    @classmethod
    def build(cls, options: PoolOptions) -> PreforkPool:
        """Make the pool."""
        return PreforkPool(
            options.size,
            max_jobs_per_child=options.max_tasks_per_child,
            max_memory_per_child_kib=options.max_memory_per_child_kib,
            prefetch=options.prefetch,
            on_fork=lambda slot, number: set_process_index(slot),
        )

    @classmethod
    def info(cls, pool: PreforkPool, worker: Any) -> dict[str, Any]:
        """Describe a worker's pool, for ``inspect stats``."""
        children = pool.children()
        busy = sum(child.held > 0 for child in children)
        return {
            **super().info(pool, worker),
            "processes": [child.pid for child in children],
            "max-tasks-per-child": worker.max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [worker.soft_time_limit or 0, worker.time_limit or 0],
            "writes": _writes([child.sent for child in children], busy),
        }


def _writes(sent: list[int], busy: int) -> dict[str, Any]:
    """How tasks were spread over the processes, in shares of all and in numbers."""
    total = sum(sent)
    share = [f"{count / total if total else 0:.2f}" for count in sent]
    return {
        "total": total,
        "avg": f"{1 / len(sent) if total else 0:.2f}",
        "all": ", ".join(share),
        "raw": ", ".join(map(str, sent)),
        "strategy": "fair",
        "inqueues": {"total": len(sent), "active": busy},
    }
