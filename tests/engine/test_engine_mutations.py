"""The models notice each of the breaks of the engine that `model/mutations.py` lists."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.model.database import Engine
from tests.engine.model.machine import close
from tests.engine.model.mutations import MUTATIONS, OF_GATES, Mutation, broken
from tests.engine.model.running import run_sequences
from tests.engine.test_gates_model import GatesMachine
from tests.support.database import delete_rows

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(0)]

FOUND = (AssertionError, psycopg.Error, KeyError)  #: and nothing of hypothesis' own
EXAMPLES = 400  #: sequences within which each is found


@pytest.fixture
def engine(_migrated: tuple[str, list[str]]) -> Iterator[Engine]:
    delete_rows(*_migrated)
    engine = Engine(_migrated[0])
    yield engine
    close(engine)
    delete_rows(*_migrated)


def _name(mutation: Mutation) -> str:
    return mutation.name.replace(" ", "_")


def _say(mutation: Mutation, began: float, error: Exception) -> None:
    what = (str(error) or repr(error)).splitlines()[0]
    print(f"{mutation.name}: {time.monotonic() - began:.1f} s: {what[:150]}")  # noqa: T201


@pytest.mark.parametrize("mutation", MUTATIONS, ids=_name)
def test_a_break_is_noticed(engine: Engine, mutation: Mutation) -> None:
    began = time.monotonic()
    with broken(engine.dsn, mutation), pytest.raises(FOUND) as caught:
        run_sequences(engine, examples=EXAMPLES, shrink=False)
    _say(mutation, began, caught.value)


@pytest.fixture
def database(_migrated: tuple[str, list[str]]) -> Iterator[tuple[str, list[str]]]:
    yield _migrated
    delete_rows(*_migrated)


@pytest.mark.parametrize("mutation", OF_GATES, ids=_name)
def test_a_break_of_the_limits_is_noticed(
    database: tuple[str, list[str]], mutation: Mutation
) -> None:
    GatesMachine.dsn, GatesMachine.tables = database[0], tuple(database[1])
    began = time.monotonic()
    with broken(database[0], mutation), pytest.raises(FOUND) as caught:
        run_state_machine_as_test(
            GatesMachine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    _say(mutation, began, caught.value)
