"""Tasks in Django projects."""

from __future__ import annotations
