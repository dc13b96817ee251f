"""Graphs of results: what started what.

Source: Celery 5.7, `celery.utils.graph`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, TextIO

__all__ = ("CycleError", "DependencyGraph", "GraphFormatter")


class GraphFormatter:
    """Writes a graph in the dot language.

    Args:
        root: The node that is drawn as the root.
        type: ``digraph`` or ``graph``.
        id: Name of the graph.
        indent: Level of indentation.
        inw: What one level is.
        **scheme: Attributes of every node; they win over the class's.
    """

    scheme: Mapping[str, Any] = {
        "shape": "box",
        "arrowhead": "vee",
        "style": "filled",
        "fontname": "HelveticaNeue",
    }
    node_scheme: Mapping[str, Any] = {"fillcolor": "palegreen3", "color": "palegreen4"}
    term_scheme: Mapping[str, Any] = {"fillcolor": "palegreen1", "color": "palegreen2"}
    edge_scheme: Mapping[str, Any] = {
        "color": "darkseagreen4",
        "arrowcolor": "black",
        "arrowsize": 0.7,
    }
    graph_scheme: Mapping[str, Any] = {"bgcolor": "mintcream"}

    def __init__(
        self,
        root: Any = None,
        type: str | None = None,
        id: str | None = None,
        indent: int = 0,
        inw: str = " " * 4,
        **scheme: Any,
    ) -> None:
        self.id = id or "dependencies"
        self.root = root
        self.type = type or "digraph"
        self.direction = {"graph": "--", "digraph": "->"}[self.type]
        self.scheme = {**self.scheme, **scheme}
        self.outer, self.inner = inw * indent, inw * (indent + 1)

    def attrs(self, d: Mapping[str, Any] | None, scheme: Mapping[str, Any] | None = None) -> str:
        """Write attributes."""
        merged = {**self.scheme, **(scheme or {}), **(d or {})}
        return ", ".join(f'{key}="{value}"' for key, value in merged.items())

    def head(self, **attrs: Any) -> str:
        """Write the beginning."""
        attributes = self.attrs(attrs, self.graph_scheme)
        return f"{self.outer}{self.type} {self.id} {{\n{self.inner}graph [{attributes}]"

    def tail(self) -> str:
        """Write the end."""
        return f"{self.outer}}}"

    def label(self, obj: Any) -> str:
        """Name a node."""
        return str(obj)

    def node(self, obj: Any, **attrs: Any) -> str:
        """Write a node that has others below it."""
        return self._node(obj, self.node_scheme, attrs)

    def terminal_node(self, obj: Any, **attrs: Any) -> str:
        """Write a node that has none."""
        return self._node(obj, self.term_scheme, attrs)

    def _node(self, obj: Any, scheme: Mapping[str, Any], attrs: Mapping[str, Any]) -> str:
        return f'{self.inner}"{self.label(obj)}" [{self.attrs(attrs, scheme)}]'

    def edge(self, a: Any, b: Any, **attrs: Any) -> str:
        """Write an edge."""
        attributes = self.attrs(attrs, self.edge_scheme)
        return f'{self.inner}"{self.label(a)}" {self.direction} "{self.label(b)}" [{attributes}]'


class DependencyGraph:
    """A directed graph without cycles.

    Args:
        it: ``(node, nodes it points to)`` to begin with.
        formatter: Writes it for `to_dot`.
    """

    def __init__(
        self, it: Iterable[tuple[Any, Iterable[Any]]] | None = None, formatter: Any = None
    ) -> None:
        self.formatter = formatter or GraphFormatter()
        self.adjacent: dict[Any, list[Any]] = {}
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, a: Any, b: Any) -> None:
        """Add an edge from a node to another."""
        self[a].append(b)

    def connect(self, graph: DependencyGraph) -> None:
        """Add the nodes of another graph."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add nodes with their edges."""
        pairs = list(it)
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, deps in pairs:
            for dep in deps:
                self.add_edge(obj, dep)

    def topsort(self) -> list[Any]:
        """List the nodes so that each comes after those it points to.

        Raises:
            CycleError: There is no such order.
        """
        return list(TopologicalSorter(self.adjacent).static_order())

    def valency_of(self, obj: Any) -> int:
        """Count the edges from a node and from those below it."""
        if obj not in self:
            return 0
        return len(self[obj]) + sum(self.valency_of(node) for node in self[obj])

    def edges(self) -> Iterator[Any]:
        """Iterate over the nodes that point to others."""
        return (obj for obj, adjacent in self.items() if adjacent)

    def to_dot(self, fh: TextIO, formatter: Any = None) -> None:
        """Write the graph in the dot language to an open file."""
        draw = formatter or self.formatter
        seen = set()
        lines = [draw.head()]
        for obj, adjacent in self.items():
            if not adjacent:
                seen.add(obj)
                lines.append(draw.terminal_node(obj))
        for obj, adjacent in self.items():
            if obj not in seen and adjacent:
                lines.append(draw.node(obj))
            lines.extend(draw.edge(obj, other) for other in adjacent)
        fh.write("\n".join([*lines, draw.tail()]) + "\n")

    def format(self, obj: Any) -> Any:
        """Name a node."""
        return self.formatter.label(obj) if self.formatter else obj

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: object) -> bool:
        return obj in self.adjacent

    def items(self) -> Iterable[tuple[Any, list[Any]]]:
        """List nodes with those they point to."""
        return self.adjacent.items()

    iteritems = items

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for obj in self:
            yield f"{self.format(obj)}({self.valency_of(obj)})"
            yield from (f"     {self.format(dep)}({self.valency_of(dep)})" for dep in self[obj])

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} nodes>"
