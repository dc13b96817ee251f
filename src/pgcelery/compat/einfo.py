"""What is known of an exception after its frames are gone: billiard's, as Celery hands them out."""

from __future__ import annotations

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback, Traceback

__all__ = ("ExceptionInfo", "ExceptionWithTraceback", "Traceback", "describe")


def describe(exc: BaseException) -> ExceptionInfo:
    """Give what is known of an exception, also of one that nobody raised."""
    if exc.__traceback__ is None:
        try:
            raise exc
        except BaseException:  # only for its traceback, which `ExceptionInfo` must have
            return ExceptionInfo()
    return ExceptionInfo((type(exc), exc, exc.__traceback__))
