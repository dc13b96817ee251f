"""Names of the worker's own parts, for the ``requires`` of steps.

Source: Celery 5.7, ``celery.worker.components``. The parts themselves are always there before any
step of an application starts.
"""

from __future__ import annotations

from pgcelery.compat.bootsteps import StartStopStep

__all__ = ("Beat", "Consumer", "Hub", "Pool", "StateDB", "Timer")


class Hub(StartStopStep):
    """There is no event loop; the name is here to be required."""


class Timer(StartStopStep):
    """``worker.timer``."""


class Pool(StartStopStep):
    """``worker.pool``."""


class StateDB(StartStopStep):
    """Revoked ids are in the database."""


class Beat(StartStopStep):
    """The schedule."""


class Consumer(StartStopStep):
    """``worker.consumer``."""
