"""The whole engine against its model: its real functions, called in any order.

What the rules are is in `model/machine.py`. ENGINE_SECONDS says for how long sequences of rules are
tried; without it there are a few, always the same ones.

Promises P7, P8, P13, P23 of docs/guarantees.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.engine.model.database import Engine
from tests.engine.model.machine import close
from tests.engine.model.running import run_sequences
from tests.support.database import delete_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def engine(_migrated: tuple[str, list[str]]) -> Iterator[Engine]:
    delete_rows(*_migrated)
    engine = Engine(_migrated[0])
    yield engine
    close(engine)


@pytest.mark.timeout(0)
def test_the_engine_agrees_with_the_model(engine: Engine) -> None:
    report = run_sequences(engine, seconds=float(os.environ.get("ENGINE_SECONDS", "0")))
    print(report)  # noqa: T201
