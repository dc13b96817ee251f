"""No module imports one that imports it, whatever lies between: nothing depends on who is first."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (SRC / "pgcelery").rglob("*.py")
}


def statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """What runs when the module is imported; not what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from statements(node)


def imports(source: str) -> set[str]:
    """The modules of ours that a module takes names from, without the packages around them."""
    found: set[str] = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = str(node.module)
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names & MODULES.keys()
            if names - MODULES.keys():
                found.add(module)
    return found & MODULES.keys()


def cycle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def test_there_is_no_cycle_of_imports():
    assert cycle({name: imports(path.read_text()) for name, path in MODULES.items()}) == []


def test_a_cycle_would_be_found():
    sources = {
        "pgcelery": "if True:\n    from pgcelery.engine import job",
        "pgcelery.engine.job": "class A:\n    from pgcelery.engine.node import Node",
        "pgcelery.engine.node": "def f():\n    import pgcelery.demo\nimport pgcelery",
        "pgcelery.demo": "if TYPE_CHECKING:\n    import pgcelery",
    }
    graph = {name: imports(source) for name, source in sources.items()}
    assert graph["pgcelery.demo"] == set()
    assert set(cycle(graph)) == {"pgcelery", "pgcelery.engine.job", "pgcelery.engine.node"}
