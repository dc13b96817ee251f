"""The current app's tasks, where Celery 2 had its only registry.

Source: Celery 5.7, the made-up module ``celery.registry``.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat import current_app
from pgcelery.compat.local import Proxy

__all__ = ("tasks",)

tasks: Any = Proxy(lambda: current_app.tasks)
