"""The observer pattern of Celery's signals."""

from __future__ import annotations

from pgcelery.compat.utils.dispatch.signal import Signal

__all__ = ("Signal",)
