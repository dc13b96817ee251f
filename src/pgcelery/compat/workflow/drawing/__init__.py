"""Drawings of workflows: text, mermaid and SVG. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pgcelery.compat.workflow.drawing import mermaid, svg, tree

if TYPE_CHECKING:
    from pgcelery.compat.workflow.workflow import Workflow

__all__ = ("FORMATS", "draw")

_DRAW: dict[str, Callable[..., str]] = {"tree": tree.draw, "mermaid": mermaid.draw, "svg": svg.draw}

#: What `draw` can do.
FORMATS = tuple(_DRAW)


def draw(workflow: Workflow, format: str, **options: object) -> str:
    """See `Workflow.draw`."""
    if format not in _DRAW:
        raise ValueError(f"no such format: {format!r}; there are {', '.join(_DRAW)}")
    return _DRAW[format](workflow, **options)
