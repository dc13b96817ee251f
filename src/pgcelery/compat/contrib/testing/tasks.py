"""The task by which a test worker is found to work."""

from __future__ import annotations

from pgcelery.compat.app import shared_task

__all__ = ("ping",)


@shared_task(name="celery.ping")
def ping() -> str:
    """Answer."""
    return "pong"
