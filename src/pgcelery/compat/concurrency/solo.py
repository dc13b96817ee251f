"""Tasks in the worker itself, one at a time."""

from __future__ import annotations

from pgcelery.compat.concurrency.base import BasePool, PoolOptions
from pgcelery.engine.pool import SoloPool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """The thread of the worker."""

    @classmethod
    def build(cls, options: PoolOptions) -> SoloPool:
        """Make the pool."""
        return SoloPool(prefetch=options.prefetch)
