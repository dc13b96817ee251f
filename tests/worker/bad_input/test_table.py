"""Every row of the catalogue of bad input, through `apply_async` and a real worker."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.worker.bad_input.rows import OPTIONS, TABLE, Row
from tests.worker.bad_input.world import World


@pytest.mark.parametrize("row", [*TABLE, *OPTIONS], ids=lambda row: row.name)
def test_an_input_ends_as_the_catalogue_accepts(row: Row, world: World) -> None:
    letter, task_id = world.outcome(lambda: row.send(world), row.expected)
    assert letter in row.accepted.split()
    world.check(task_id)


def test_a_time_far_away_waits_and_can_be_revoked(world: World) -> None:
    far = world.module.echo.apply_async((1,), eta=datetime(9999, 12, 31, tzinfo=UTC))
    world.check(far.id)
    assert far.state == "PENDING"
    far.revoke()
    assert far.state == "REVOKED"


def test_the_table_is_complete() -> None:
    assert len(TABLE) == 66
    assert len({row.name for row in [*TABLE, *OPTIONS]}) == len(TABLE) + len(OPTIONS)
