"""Tasks in threads."""

from __future__ import annotations

from typing import Any

from pgcelery.compat.concurrency.base import BasePool, PoolOptions
from pgcelery.engine.pool import ThreadPool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """Threads of the worker's process."""

    @classmethod
    def build(cls, options: PoolOptions) -> ThreadPool:
        """Make the pool."""
        return ThreadPool(options.size, prefetch=options.prefetch)

    @classmethod
    def info(cls, pool: ThreadPool, worker: Any) -> dict[str, Any]:
        """Describe a worker's pool, for ``inspect stats``."""
        return {**super().info(pool, worker), "threads": pool.threads}
