"""A workflow as text that mermaid draws. Pure.

Source: mermaid's documentation, "Flowcharts" (entity codes in labels, classes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgcelery.compat.workflow.drawing.svg import COLOURS
from pgcelery.compat.workflow.drawing.words import missing, told

if TYPE_CHECKING:
    from pgcelery.compat.workflow.workflow import Workflow


def draw(workflow: Workflow) -> str:
    """Draw a workflow."""
    outline = workflow.outline()
    lines = ["graph TD"]
    for place, item in enumerate(outline.walk()):
        about = told(item.counts) if item.many > 1 else item.state
        lines.append(f'    n{place}["{_text(item.label)}<br/>{_text(about)}"]:::{item.state}')
    if outline.missing:
        lines.append(f'    rest["not drawn: {_text(missing(outline.missing))}"]')
    lines += [f"    n{parent} --> n{child}" for parent, child in outline.edges]
    for state, (fill, line) in COLOURS.items():
        lines.append(f"    classDef {state} fill:{fill},stroke:{line},color:#1f2328")
    return "\n".join(lines)


def _text(text: str) -> str:
    """Write text so that nothing in it means anything."""
    plain = " -_.,()=:/"
    return "".join(one if one.isalnum() or one in plain else f"#{ord(one)};" for one in text)
