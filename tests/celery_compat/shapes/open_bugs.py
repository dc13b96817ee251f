"""Differences that are to be mended. Each is strict too: once it is gone, its line must go."""

from __future__ import annotations

from tests.celery_compat.shapes.accepted import Rules

#: Name -> whether a difference is one of these.
RULES: Rules = {}
