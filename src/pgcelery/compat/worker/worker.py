"""`WorkController` under Celery's module name."""

from __future__ import annotations

from pgcelery.compat.worker.controller import WorkController

__all__ = ("WorkController",)
