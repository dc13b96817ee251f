"""Autoscaling: Celery's names, for the ``requires`` of steps. Workers have a fixed size.

Source: Celery 5.7, ``celery.worker.autoscale``.
"""

from __future__ import annotations

from pgcelery.compat.bootsteps import StartStopStep

__all__ = ("WorkerComponent",)


class WorkerComponent(StartStopStep):
    """Would start the autoscaler."""
