"""The model test notices each of the breaks of the engine that `model/mutations.py` lists."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.engine.model.database import Engine
from tests.engine.model.machine import close
from tests.engine.model.mutations import MUTATIONS, Mutation, broken
from tests.engine.model.running import run_sequences
from tests.support.database import delete_rows

pytestmark = [pytest.mark.slow, pytest.mark.model]

EXAMPLES = 400  #: sequences within which each is found


@pytest.fixture
def engine(_migrated: tuple[str, list[str]]) -> Iterator[Engine]:
    delete_rows(*_migrated)
    engine = Engine(_migrated[0])
    yield engine
    close(engine)
    delete_rows(*_migrated)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name.replace(" ", "_"))
def test_a_break_is_noticed(engine: Engine, mutation: Mutation) -> None:
    began = time.monotonic()
    with broken(engine.dsn, mutation), pytest.raises(BaseException) as caught:  # noqa: PT011, B017
        run_sequences(engine, examples=EXAMPLES, shrink=False)
    what = str(caught.value).splitlines() or [repr(caught.value)]
    print(f"{mutation.name}: {time.monotonic() - began:.1f} s: {what[0][:150]}")  # noqa: T201
