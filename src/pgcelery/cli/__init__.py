"""The command line: one module a command, with Celery's names, flags and exit codes."""

from __future__ import annotations
