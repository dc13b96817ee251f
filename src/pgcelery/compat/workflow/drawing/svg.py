"""A workflow as an SVG picture: boxes in layers, one below the other. Pure."""

from __future__ import annotations

from html import escape
from statistics import fmean
from typing import TYPE_CHECKING

from pgcelery.compat import states
from pgcelery.compat.workflow.drawing.words import missing, tasks, told
from pgcelery.compat.workflow.node import WAITING
from pgcelery.compat.workflow.outline import Item, Outline, printable

if TYPE_CHECKING:
    from pgcelery.compat.workflow.workflow import Workflow

#: Fill and line of a box, by state.
COLOURS = {
    states.SUCCESS: ("#dafbe1", "#1a7f37"),
    states.FAILURE: ("#ffebe9", "#cf222e"),
    states.REVOKED: ("#eaeef2", "#57606a"),
    states.STARTED: ("#ddf4ff", "#0969da"),
    states.RETRY: ("#fff8c5", "#9a6700"),
    states.PENDING: ("#ffffff", "#8c959f"),
    WAITING: ("#f6f8fa", "#afb8c1"),
}

# All in pixels.
_WIDTH, _HEIGHT = 200, 44
_GAP_X, _GAP_Y = 24, 48
_MARGIN, _TITLE = 20, 40
_NARROWEST = 480
_LETTERS = 27  # of this font in the width of a box

_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.s{font-size:11px;fill:#57606a}"
    ".e{fill:none;stroke:#8c959f}"
)


def draw(workflow: Workflow) -> str:
    """Draw a workflow; the picture needs no other file, and runs no script."""
    outline = workflow.outline()
    items = list(outline.walk())
    layers = _layers(outline, len(items))
    widest = max(len(layer) for layer in layers)
    width = max(2 * _MARGIN + widest * (_WIDTH + _GAP_X) - _GAP_X, _NARROWEST)
    at = _positions(layers, len(items), width)
    height = _TITLE + 2 * _MARGIN + len(layers) * (_HEIGHT + _GAP_Y) - _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">',
        f"<title>{_text(f'Workflow {workflow.id}')}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN + 8}">{_text(_title(workflow, outline))}</text>',
    ]
    parts += [_edge(at[parent], at[child]) for parent, child in outline.edges]
    parts += [_box(item, *at[place]) for place, item in enumerate(items)]
    return "\n".join([*parts, "</svg>"])


def _title(workflow: Workflow, outline: Outline) -> str:
    rest = f"; not drawn: {missing(outline.missing)}" if outline.missing else ""
    return f"{workflow.state}, {tasks(workflow.total)}: {told(workflow.counts)}{rest}"


def _layers(outline: Outline, many: int) -> list[list[int]]:
    """Put each item into the layer after those of all that it comes after, and below these."""
    above: list[list[int]] = [[] for _ in range(many)]
    below: list[list[int]] = [[] for _ in range(many)]
    for parent, child in outline.edges:
        below[parent].append(child)
        above[child].append(parent)
    left = [len(parents) for parents in above]
    off_centre = [0.0] * many
    layers = []
    layer = [place for place in range(many) if not left[place]]
    while layer:
        layers.append(layer)
        following = []
        for column, place in enumerate(layer):
            off_centre[place] = column - (len(layer) - 1) / 2
            for child in below[place]:
                left[child] -= 1
                if not left[child]:
                    following.append(child)
        layer = sorted(
            following,
            key=lambda child: (fmean(off_centre[parent] for parent in above[child]), child),
        )
    return layers


def _positions(layers: list[list[int]], many: int, width: float) -> list[tuple[float, float]]:
    """Give each item's upper left corner: layers are centred."""
    at = [(0.0, 0.0)] * many
    for number, layer in enumerate(layers):
        start = (width - (len(layer) * (_WIDTH + _GAP_X) - _GAP_X)) / 2
        y = _TITLE + _MARGIN + number * (_HEIGHT + _GAP_Y)
        for column, place in enumerate(layer):
            at[place] = (start + column * (_WIDTH + _GAP_X), y)
    return at


def _edge(parent: tuple[float, float], child: tuple[float, float]) -> str:
    x1, y1 = parent[0] + _WIDTH / 2, parent[1] + _HEIGHT
    x2, y2 = child[0] + _WIDTH / 2, child[1]
    half = (y2 - y1) / 2
    return (
        f'<path class="e" d="M{x1:g} {y1:g}C{x1:g} {y1 + half:g} {x2:g} {y2 - half:g} '
        f'{x2:g} {y2:g}"/>'
    )


def _box(item: Item, x: float, y: float) -> str:
    fill, line = COLOURS[item.state]
    label = item.label
    about = told(item.counts) if item.many > 1 else item.state
    whole = label if item.many > 1 else f"{label} {item.nodes[0].id}"
    return (
        f"<g><title>{_text(f'{whole}: {about}')}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="{line}"/>'
        f'<text x="{x + 10:g}" y="{y + 19:g}">{_text(_short(label))}</text>'
        f'<text class="s" x="{x + 10:g}" y="{y + 35:g}">{_text(_short(about, 34))}</text></g>'
    )


def _short(text: str, letters: int = _LETTERS) -> str:
    return text if len(text) <= letters else f"{text[: letters - 3]}..."


def _text(text: str) -> str:
    return escape(printable(text))
