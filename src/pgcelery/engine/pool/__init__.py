"""Where jobs run: in forked children, in threads, or in the thread that owns the worker."""

from __future__ import annotations

from pgcelery.engine.pool.base import ActiveJob, Cut, Doubtful, Pool, Unsure
from pgcelery.engine.pool.prefork import PreforkPool
from pgcelery.engine.pool.solo import SoloPool
from pgcelery.engine.pool.threads import ThreadPool

__all__ = [
    "ActiveJob",
    "Cut",
    "Doubtful",
    "Pool",
    "PreforkPool",
    "SoloPool",
    "ThreadPool",
    "Unsure",
]
