"""Additions: fixtures for pytest, workers for tests, Django, abortable tasks.

Source: Celery 5.7, ``celery.contrib``.
"""

from __future__ import annotations
