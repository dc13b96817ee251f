"""Every row of the catalogue of bad input, through `apply_async` and a real worker."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
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


def test_what_is_too_large_is_refused_before_anything_is_begun(world: World) -> None:
    with psycopg.connect(world.dsn) as conn:
        with pytest.raises(ValueError, match=r"at most 67108864 are allowed \(max_payload_bytes\)"):
            world.module.echo.apply_async(("x" * 70_000_000,), queue="never-made", conn=conn)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with psycopg.connect(world.dsn) as conn:
        made = conn.execute("select from pgcelery.queues where name = 'never-made'").fetchall()
    assert made == []
    world.check()
