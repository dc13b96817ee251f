"""Tasks in threads."""

from __future__ import annotations

from pgcelery.compat.concurrency.base import BasePool, PoolOptions
from pgcelery.engine.pool import ThreadPool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """Threads of the worker's process."""

    @classmethod
    def build(cls, options: PoolOptions) -> ThreadPool:
        """Make the pool."""
        return ThreadPool(options.size, prefetch=options.prefetch)
