"""Statistics may be of a moment when all was empty: what a call costs does not hang on them."""

from __future__ import annotations

import time
from contextlib import closing

import psycopg

from pgcelery.engine import Client, EngineConfig, Gate
from tests.support.jobs import new_job

MANY = 10_000


def enqueue_s(client: Client) -> float:
    jobs = [new_job(gates=(Gate("tenant", "big", slots=2),)) for _ in range(MANY)]
    began = time.monotonic()
    client.enqueue(jobs)
    return time.monotonic() - began


def test_many_jobs_with_a_limit_after_nearly_all_were_deleted(fresh_dsn: str):
    """Looked up in the wrong order it takes ten times as long."""
    with closing(Client(EngineConfig(dsn=fresh_dsn))) as client:
        client.migrate()
        before_s = enqueue_s(client)
        with psycopg.connect(fresh_dsn, autocommit=True) as conn:
            for table in ("jobs", "gated", "comers"):  # all but the last row, so that pages stay
                conn.execute(
                    f"delete from pgcelery.{table}"  # noqa: S608
                    f" where ctid < (select max(ctid) from pgcelery.{table})"
                )
            conn.execute("vacuum analyze")
        assert enqueue_s(client) < 4 * before_s
