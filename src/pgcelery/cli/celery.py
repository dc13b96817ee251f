"""The main group under Celery's name: ``celery.bin.celery``."""

from __future__ import annotations

from pgcelery.cli.main import celery, main

__all__ = ("celery", "main")
