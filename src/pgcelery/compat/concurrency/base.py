"""What kinds of pool have in common.

Source: Celery 5.7, ``celery.concurrency.base`` (names only: the pools are the engine's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ("BasePool", "PoolOptions")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What a worker asks of its pool."""

    size: int  #: processes or threads
    max_tasks_per_child: int | None = None
    max_memory_per_child_kib: int | None = None
    #: tasks a slot may hold, the running one included; None lets their length decide
    prefetch: int | None = None


class BasePool:
    """A kind of pool; `build` makes the engine's pool for one worker."""

    #: whether ``--concurrency`` means processes
    is_cpu_bound = False
    #: whether its size can change
    can_grow = True

    @classmethod
    def build(cls, options: PoolOptions) -> Any:
        """Make the pool."""
        raise TypeError(f"{cls.__name__} is no pool")

    @classmethod
    def info(cls, pool: Any, worker: Any) -> dict[str, Any]:
        """Describe a worker's pool, for ``inspect stats``."""
        module = cls.__module__.split(".")[-1]
        return {
            "implementation": f"celery.concurrency.{module}:TaskPool",
            "max-concurrency": pool.size,
        }
