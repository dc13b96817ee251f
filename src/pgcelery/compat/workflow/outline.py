"""The shape of a workflow for drawings: series and branches, large groups taken together. Pure.

What comes after one task only is drawn below it; where several come after the same task they are
its branches, and what waits for branches comes below all of them. (In terms of graphs: a task is
drawn with its immediate dominator.) Branches of the same shape become one when there are many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from pgcelery.compat.workflow.node import STATES, Node, overall
from pgcelery.compat.workflow.structure import Structure

if TYPE_CHECKING:
    from pgcelery.compat.workflow.workflow import Workflow

#: Branches of the same shape from which on they are drawn as one.
MANY = 6

#: Longest text of arguments in a label.
_ARGS = 60

#: Most tasks that are named as what one waits for.
_NAMED = 3


class Item:
    """A task, or tasks with the same place in branches that were taken together.

    Attributes:
        nodes: The tasks.
        counts: How many are in which state; of a cut workflow more than `nodes` may be known.
        branches: What comes after it side by side.
        after: What it waits for, as labels, where its place does not tell.
    """

    __slots__ = ("after", "branches", "counts", "nodes")

    def __init__(self, node: Node) -> None:
        self.nodes = [node]
        self.counts: Mapping[str, int] = {}
        self.branches: list[list[Item]] = []
        self.after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the tasks."""
        return self.nodes[0].name

    @property
    def many(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @property
    def state(self) -> str:
        """State of the task; of several the one they are all in, else as `Workflow.state`."""
        return next(iter(self.counts)) if len(self.counts) == 1 else overall(self.counts)

    @property
    def label(self) -> str:
        """What it is called: with its arguments, or how many there are."""
        if self.many > 1:
            return f"{printable(self.name)} x {self.many:,}"
        return label(self.nodes[0])


class Outline(NamedTuple):
    """A workflow as items."""

    branches: list[list[Item]]  #: with which it begins
    items: list[Item]  #: what comes after these, in series
    edges: list[tuple[int, int]]  #: (parent, child), as places in the order of `walk`
    missing: dict[str, int]  #: how many tasks of which name are in no item

    def walk(self) -> Iterator[Item]:
        """Iterate over all items, each before its branches, and these before what comes next."""
        pending = list(reversed(self.items))
        for branch in reversed(self.branches):
            pending.extend(reversed(branch))
        while pending:
            item = pending.pop()
            yield item
            for branch in reversed(item.branches):
                pending.extend(reversed(branch))


def printable(text: str) -> str:
    """Write what is not printable as Python would: names and arguments come from outside."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def label(node: Node) -> str:
    """Write a task as a call."""
    args = printable(node.args)
    if len(args) > _ARGS:
        args = f"{args[: _ARGS - 3]}..."
    return f"{printable(node.name)}({args})"


def build(workflow: Workflow) -> Outline:
    """Take the tasks of a workflow together as far as they look alike."""
    structure = workflow.structure
    outline = _Builder(structure, workflow.nodes).build()
    items = list(outline.walk())
    outline.missing.update(_count(workflow, items))
    place = {node.id: index for index, item in enumerate(items) for node in item.nodes}
    found = dict.fromkeys((place[parent], place[child]) for parent, child in structure.edges)
    outline.edges.extend(edge for edge in found if edge[0] != edge[1])
    return outline


def _count(workflow: Workflow, items: list[Item]) -> dict[str, int]:
    """Count the states in each item; gives how many tasks of which name are in none."""
    with_name = Counter(item.name for item in items)
    read = Counter(node.name for node in workflow.nodes.values())
    missing: dict[str, int] = {}
    counts = workflow.counts_by_name if workflow.truncated else {}
    whole = {}
    for name, by_state in counts.items():
        hidden = sum(by_state.values()) - read[name]
        if hidden > 0 and with_name[name] == 1:
            whole[name] = by_state
        elif hidden > 0:
            missing[name] = hidden
    for item in items:
        found = Counter(node.state for node in item.nodes)
        own = {state: found[state] for state in STATES if found[state]}
        item.counts = whole.get(item.name, own)
    return missing


class _Series(NamedTuple):
    """Items one after the other."""

    items: list[Item]  #: the last one first
    shape: int  #: the same for those that look the same
    ends: int  #: in how many tasks it ends


class _Builder:
    """Makes the items of a structure, from its ends to its starts."""

    def __init__(self, structure: Structure, nodes: Mapping[str, Node]) -> None:
        self.structure = structure
        self.nodes = nodes
        self.shapes: dict[object, int] = {}
        self.done: dict[str, _Series] = {}

    def build(self) -> Outline:
        """Do it; edges and counts are left to others."""
        dominated = self._dominated()
        for id in reversed(self.structure.order):
            item = Item(self.nodes[id])
            branches, rest = self._below(dominated[id])
            ends = rest.ends or sum(branch.ends for branch in branches) or 1
            branches = self._together(branches)
            item.branches = [branch.items[::-1] for branch in branches]
            shape = (item.name, *(branch.shape for branch in branches), None, rest.shape)
            rest.items.append(item)
            self.done[id] = _Series(rest.items, self._number(shape), ends)
        branches, rest = self._below(dominated[None])
        return Outline(
            [branch.items[::-1] for branch in self._together(branches)], rest.items[::-1], [], {}
        )

    def _dominated(self) -> dict[str | None, list[str]]:
        """List for each task those whose every way leads through it, and then through no other."""
        above: dict[str | None, str | None] = {}
        depth: dict[str | None, int] = {None: 0}
        found: dict[str | None, list[str]] = {None: []}
        for id in self.structure.order:
            parents = self.structure.parents[id]
            common: str | None = parents[0] if parents else None
            for parent in parents[1:]:
                other: str | None = parent
                while common != other:
                    if depth[common] > depth[other]:
                        common = above[common]
                    else:
                        other = above[other]
                if common is None:
                    break
            above[id], depth[id] = common, depth[common] + 1
            found[id] = []
            found[common].append(id)
        return found

    def _below(self, below: list[str]) -> tuple[list[_Series], _Series]:
        """Give the branches that begin after a task, and what comes below them."""
        joins = [one for one in below if len(self.structure.parents[one]) > 1]
        # Links come beside what was sent to wait.
        waiting = [] if joins else [one for one in below if self.structure.maker(one) is None]
        if joins:
            rest = joins
        elif len(waiting) == 1:
            rest = waiting
        else:
            rest = below if len(below) == 1 else []
        side = set(rest)
        branches = [self.done.pop(one) for one in below if one not in side]
        ends = sum(branch.ends for branch in branches)
        for number, one in enumerate(joins):
            parents = self.structure.parents[one]
            if number or len(parents) != ends:
                self._note(one, parents)
        return branches, self._joined([self.done.pop(one) for one in rest])

    def _note(self, id: str, parents: tuple[str, ...]) -> None:
        more = len(parents) - _NAMED
        names = [label(self.nodes[one]) for one in parents[:_NAMED]]
        self.done[id].items[-1].after = (*names, *([f"{more} more"] if more > 0 else ()))

    def _joined(self, series: list[_Series]) -> _Series:
        if len(series) == 1:
            return series[0]
        items = [item for one in reversed(series) for item in one.items]
        shape = self._number(tuple(one.shape for one in series))
        return _Series(items, shape, series[-1].ends if series else 0)

    def _number(self, shape: object) -> int:
        return self.shapes.setdefault(shape, len(self.shapes))

    @staticmethod
    def _together(branches: list[_Series]) -> list[_Series]:
        """Make one of branches of the same shape, where there are many."""
        alike = Counter(branch.shape for branch in branches)
        first: dict[int, _Series] = {}
        kept = []
        for branch in branches:
            if alike[branch.shape] < MANY:
                kept.append(branch)
            elif branch.shape not in first:
                first[branch.shape] = branch
                kept.append(branch)
            else:
                _merge(first[branch.shape].items, branch.items)
        return kept


def _merge(items: list[Item], others: list[Item]) -> None:
    """Put the tasks of items into those of the same shape."""
    pending = [(items, others)]
    while pending:
        into, more = pending.pop()
        for item, other in zip(into, more, strict=True):
            item.nodes += other.nodes
            item.after = item.after if item.after == other.after else ()
            pending.extend(zip(item.branches, other.branches, strict=True))
