"""The models notice each of the breaks of the engine that `model/mutations.py` lists.

A break counts as noticed if the model disagrees, or the database refuses what it came to, while the
very same sequence of rules passes on the engine as it is. An error of the harness is none of these.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine

from tests.engine.model.database import Engine
from tests.engine.model.machine import EngineMachine, close
from tests.engine.model.mutations import MUTATIONS, OF_GATES, Mutation, broken
from tests.engine.model.running import STEPS, run_again, run_until_one_fails
from tests.engine.model.tables import Disagreement
from tests.engine.test_gates_model import GatesMachine
from tests.support.database import delete_rows

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(0)]

#: what rows that break the schema's rules come to; not an error in the text of a break
REFUSED = (
    psycopg.errors.IntegrityError,
    psycopg.errors.DataError,
    psycopg.errors.CardinalityViolation,
)
EXAMPLES = 2_000  #: sequences within which each is found, most within 100


@pytest.fixture
def engine(_migrated: tuple[str, list[str]]) -> Iterator[Engine]:
    delete_rows(*_migrated)
    engine = Engine(_migrated[0])
    yield engine
    close(engine)
    delete_rows(*_migrated)


def _name(mutation: Mutation) -> str:
    return mutation.name.replace(" ", "_")


def _is_noticed(
    mutation: Mutation,
    dsn: str,
    machine: type[RuleBasedStateMachine],
    steps: int,
    *says: type[Exception],
) -> None:
    began, kept = time.monotonic(), InMemoryExampleDatabase()
    with broken(dsn, mutation), pytest.raises((*says, *REFUSED)) as caught:
        run_until_one_fails(machine, kept, examples=EXAMPLES, steps=steps)
    run_again(machine, kept, steps=steps)
    what = " | ".join((str(caught.value) or repr(caught.value)).splitlines())
    took = time.monotonic() - began
    print(f"{mutation.name}: {took:.1f} s: {caught.typename}: {what[:200]}")  # noqa: T201


@pytest.mark.parametrize("mutation", MUTATIONS, ids=_name)
def test_a_break_is_noticed(engine: Engine, mutation: Mutation) -> None:
    class Machine(EngineMachine):
        pass

    Machine.engine = engine
    _is_noticed(mutation, engine.dsn, Machine, STEPS, Disagreement)


@pytest.fixture
def database(_migrated: tuple[str, list[str]]) -> Iterator[tuple[str, list[str]]]:
    yield _migrated
    delete_rows(*_migrated)


@pytest.mark.parametrize("mutation", OF_GATES, ids=_name)
def test_a_break_of_the_limits_is_noticed(
    database: tuple[str, list[str]], mutation: Mutation
) -> None:
    class Machine(GatesMachine):
        dsn, tables = database[0], tuple(database[1])

    _is_noticed(mutation, database[0], Machine, 40, AssertionError)
