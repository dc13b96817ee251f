"""The whole engine against its model: its real functions, called in any order.

What the rules are is in `model/machine.py`. ENGINE_SECONDS says for how long sequences of rules are
tried, others each time unless ENGINE_SEED is given; without it there are ENGINE_EXAMPLES of them,
always the same ones.

Promises P7, P8, P13, P23 of docs/guarantees.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import pgcelery.engine
from tests.engine.model.database import Engine
from tests.engine.model.machine import close
from tests.engine.model.mutations import MUTATIONS, OF_GATES, Mutation, plain
from tests.engine.model.running import EXAMPLES, run_sequences
from tests.support.database import delete_rows

pytestmark = pytest.mark.slow

SQL = Path(pgcelery.engine.__file__).parent / "sql"


@pytest.fixture
def engine(_migrated: tuple[str, list[str]]) -> Iterator[Engine]:
    delete_rows(*_migrated)
    engine = Engine(_migrated[0])
    yield engine
    close(engine)


@pytest.mark.timeout(0)
def test_the_engine_agrees_with_the_model(engine: Engine) -> None:
    examples = int(os.environ.get("ENGINE_EXAMPLES", EXAMPLES))
    seconds = float(os.environ.get("ENGINE_SECONDS", "0"))
    seed = os.environ.get("ENGINE_SEED")
    report = run_sequences(
        engine, examples=examples, seconds=seconds, seed=None if seed is None else int(seed)
    )
    print(report)  # noqa: T201


@pytest.fixture(scope="module")
def called() -> dict[str, str]:
    """Texts of the functions that the engine's statements come to, by name."""
    outer = {"functions", "migrations"}
    found: dict[str, str] = {}
    ahead = _functions(path for path in SQL.rglob("*.sql") if path.parent.name not in outer)
    while ahead:
        name = ahead.pop()
        path = SQL / "functions" / f"{name}.sql"
        if name not in found:
            found[name] = plain(path.read_text())
            ahead |= _functions([path])
    return found


def _functions(paths: Iterable[Path]) -> set[str]:
    texts = [plain(path.read_text()) for path in paths]
    return {name for text in texts for name in re.findall(r"pgcelery\.(\w+_v\d+)\(", text)}


@pytest.mark.parametrize("mutation", [*MUTATIONS, *OF_GATES], ids=lambda one: one.name)
def test_what_is_broken_is_a_part_of_what_is_called(
    called: dict[str, str], mutation: Mutation
) -> None:
    assert mutation.function in called
    assert mutation.old in called[mutation.function]
