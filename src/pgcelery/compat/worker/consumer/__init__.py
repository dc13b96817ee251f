"""What remote control commands reach as ``state.consumer``.

Source: Celery 5.7, ``celery.worker.consumer`` (attributes and methods that commands use).
"""

from __future__ import annotations

from pgcelery.compat.worker.consumer.consumer import Consumer

__all__ = ("Consumer",)
