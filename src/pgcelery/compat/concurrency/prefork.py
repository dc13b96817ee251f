"""Tasks in processes."""

from __future__ import annotations

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
