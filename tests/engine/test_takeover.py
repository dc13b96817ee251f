"""What the connection before was just doing when it broke must not come after its successor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate
from tests.support.jobs import Recorder, new_job, running
from tests.support.nodes import connect
from tests.support.relays import Proxy
from tests.support.wait import wait_for

LINE = (Gate("line", slots=2),)


@pytest.fixture
def proxy(dsn: str, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(dsn, tmp_path)
    yield proxy
    proxy.close()


def stepping(conn: psycopg.Connection[Any], *, blocked: bool = False) -> set[int]:
    """Pids of nodes' connections whose last statement was a step; of those that wait for locks."""
    rows = conn.execute(
        "select pid from pg_stat_activity"
        " where datname = current_database() and query like '%% A node''s round trip%%'"
        " and (wait_event_type = 'Lock' or not %s)",
        [blocked],
    )
    return {pid for (pid,) in rows}


def test_what_a_broken_connection_claims_after_all_runs(dsn: str, client: Client, proxy: Proxy):
    job = new_job(gates=LINE)
    config, handler = replace(client.config, dsn=proxy.dsn), Recorder()
    with running(config, handler), closing(connect(dsn)) as look:
        warm = new_job(gates=LINE)
        client.enqueue([warm])
        assert client.wait([warm.id], 10)
        with psycopg.connect(dsn) as other:
            other.execute("select from pgcelery.lines for update")
            client.enqueue([job])
            (first,) = wait_for(lambda: stepping(look, blocked=True))
            proxy.cut()
            wait_for(lambda: stepping(look) - {first})
        assert client.wait([job.id], 10)
    assert handler.ran.count(job.id) == 1
