"""Changing the attributes of tasks from the configuration: ``task_annotations``.

Source: Celery 5.7, userguide "Configuration", `task_annotations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgcelery.compat.utils.functional import firstmethod, mlazy
from pgcelery.compat.utils.imports import instantiate

__all__ = ("MapAnnotation", "prepare", "resolve_all")

_for_task = firstmethod("annotate")
_for_any = firstmethod("annotate_any")


class MapAnnotation(dict[str, Any]):
    """Attributes by task name; those of ``*`` are for every task."""

    def annotate_any(self) -> dict[str, Any] | None:
        """Give the attributes for every task."""
        return dict(self["*"]) if "*" in self else None

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """Give the attributes for one task."""
        return dict(self[task.name]) if task.name in self else None


def prepare(annotations: Any) -> list[Any]:
    """Turn the setting into a list of objects with ``annotate`` and ``annotate_any``."""
    if annotations is None:
        return []
    if not isinstance(annotations, (list, tuple)):
        annotations = (annotations,)
    return [_expand(annotation) for annotation in annotations]


def _expand(annotation: Any) -> Any:
    if isinstance(annotation, dict):
        return MapAnnotation(annotation)
    return mlazy(instantiate, annotation) if isinstance(annotation, str) else annotation


def resolve_all(anno: Any, task: Any) -> Iterator[dict[str, Any]]:
    """Give what applies to a task: its own attributes, then those of every task."""
    return (found for found in (_for_task(anno, task), _for_any(anno)) if found)
