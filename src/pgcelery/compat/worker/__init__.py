"""The worker: `WorkController`, remote control, requests.

Source: Celery 5.7, ``celery.worker``.
"""

from __future__ import annotations

from pgcelery.compat.worker.controller import WorkController

__all__ = ("WorkController",)
