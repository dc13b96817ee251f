"""The programs: the worker as a process of its own.

Source: Celery 5.7, ``celery.apps``.
"""

from __future__ import annotations
