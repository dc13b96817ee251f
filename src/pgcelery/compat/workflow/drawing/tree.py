"""A workflow as lines of text, a task in each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from pgcelery.compat import states
from pgcelery.compat.workflow.drawing.words import missing, tasks, told
from pgcelery.compat.workflow.node import WAITING
from pgcelery.compat.workflow.outline import Item, printable

if TYPE_CHECKING:
    from pgcelery.compat.workflow.workflow import Workflow


class Signs(NamedTuple):
    """What lines are made of."""

    fork: str  #: before a branch that others follow
    last: str  #: before the last one
    beside: str  #: below a fork
    under: str  #: below the last one
    marks: dict[str, str]  #: by state


UNICODE = Signs(
    "├─ ", "└─ ", "│  ", "   ",
    {
        states.SUCCESS: "✓", states.FAILURE: "✗", states.REVOKED: "⊘", states.STARTED: "▶",
        states.RETRY: "↻", states.PENDING: "○", WAITING: "…",
    },
)  # fmt: skip
ASCII = Signs(
    "+- ", "`- ", "|  ", "   ",
    {
        states.SUCCESS: "*", states.FAILURE: "x", states.REVOKED: "-", states.STARTED: ">",
        states.RETRY: "@", states.PENDING: "o", WAITING: ".",
    },
)  # fmt: skip

Style = Callable[[str, str], str]


def draw(workflow: Workflow, *, style: Style | None = None, signs: Signs = UNICODE) -> str:
    """Draw a workflow.

    Args:
        workflow: The workflow.
        style: Colours a text, given the state that it is about, or ``dim``.
        signs: What lines are made of.
    """
    outline = workflow.outline()
    style = style or _plain
    lines = [
        f"Workflow {printable(workflow.id)}  {style(workflow.state, workflow.state)}  "
        f"{tasks(workflow.total)}: {told(workflow.counts)}"
    ]
    pen = _Pen(style, signs)
    lines += pen.side(outline.branches, "")
    lines += pen.series(outline.items, "")
    if outline.missing:
        lines.append(style(f"not drawn: {printable(missing(outline.missing))}", "dim"))
    return "\n".join(lines)


def _plain(text: str, about: str) -> str:
    return text


class _Pen:
    def __init__(self, style: Style, signs: Signs) -> None:
        self.style = style
        self.signs = signs

    def series(self, items: list[Item], margin: str) -> Iterator[str]:
        """Draw items below each other, and their branches; `margin` is left of them."""
        pending = [(item, margin, margin) for item in reversed(items)]
        while pending:
            item, here, below = pending.pop()
            yield here + self._line(item)
            pending.extend(self._branches(item.branches, below))

    def side(self, branches: list[list[Item]], margin: str) -> Iterator[str]:
        """Draw branches that come after nothing."""
        pending = self._branches(branches, margin)
        while pending:
            item, here, below = pending.pop()
            yield here + self._line(item)
            pending.extend(self._branches(item.branches, below))

    def _branches(self, branches: list[list[Item]], margin: str) -> list[tuple[Item, str, str]]:
        """Give each item of branches with what is left of it and of what is below, last first."""
        found = []
        for number, branch in enumerate(branches, 1):
            over = number == len(branches)
            here = margin + (self.signs.last if over else self.signs.fork)
            below = margin + (self.signs.under if over else self.signs.beside)
            found += [(item, below if place else here, below) for place, item in enumerate(branch)]
        return found[::-1]

    def _line(self, item: Item) -> str:
        mark = self.style(self.signs.marks[item.state], item.state)
        after = self.style(f"  after {', '.join(item.after)}", "dim") if item.after else ""
        if item.many > 1:
            return f"{mark} {item.label} ({told(item.counts)}){after}"
        state = self.style(item.state, item.state)
        return (
            f"{mark} {item.label}  {state}  {self.style(printable(item.nodes[0].id), 'dim')}{after}"
        )
