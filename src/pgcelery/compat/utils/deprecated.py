"""Warnings of what will go.

Source: Celery 5.7, ``celery.utils.deprecated``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable as _CallableType
from typing import Any

from pgcelery.compat.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from pgcelery.compat.utils.imports import qualname

__all__ = ("Callable", "Property", "warn")


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that something is, or with `deprecation` will be, deprecated."""
    kind: type[Warning] = CDeprecationWarning
    text = f"{description} is deprecated and scheduled for removal in version {removal}."
    if deprecation is not None:
        kind = CPendingDeprecationWarning
        text = (
            f"{description} is scheduled for deprecation in version {deprecation} "
            f"and removal in version v{removal}."
        )
    warnings.warn(kind(f"{text} {alternative or ''}".rstrip()), stacklevel=stacklevel + 1)


def Callable(
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _CallableType[[_CallableType[..., Any]], _CallableType[..., Any]]:
    """Decorate a function so that each call warns."""

    def decorate(fun: _CallableType[..., Any]) -> _CallableType[..., Any]:
        @functools.wraps(fun)
        def warned(*args: Any, **kwargs: Any) -> Any:
            warn(description or qualname(fun), deprecation, removal, alternative, stacklevel=2)
            return fun(*args, **kwargs)

        return warned

    return decorate


def Property(
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _CallableType[[_CallableType[..., Any]], property]:
    """Decorate a method so that it is a property whose reading warns."""

    def decorate(fun: _CallableType[..., Any]) -> property:
        return property(
            Callable(deprecation, removal, alternative, description or fun.__name__)(fun)
        )

    return decorate
