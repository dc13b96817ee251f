"""What is known of an exception after its frames are gone: billiard's, as Celery hands them out."""

from __future__ import annotations

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback, Traceback

__all__ = ("ExceptionInfo", "ExceptionWithTraceback", "Traceback")
