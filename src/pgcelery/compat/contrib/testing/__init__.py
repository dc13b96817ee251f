"""Apps and workers for tests.

Source: Celery 5.7, ``celery.contrib.testing``.
"""

from __future__ import annotations
