from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, Outcome, SchemaMismatch, State, arrays
from pgcelery.engine.arrays import IntegerArray, TextArray
from pgcelery.engine.columns import columns, no_follow_ups
from pgcelery.engine.outbox import ended_params
from pgcelery.engine.statements import Kind
from tests.support.jobs import Recorder, new_job, running

MIGRATE = """
import sys
from pgcelery.engine import Client, EngineConfig
print(len(Client(EngineConfig(dsn=sys.argv[1])).migrate()))
"""


def test_an_empty_database_is_refused_with_what_to_do(fresh_dsn: str):
    client = Client(EngineConfig(dsn=fresh_dsn))
    with pytest.raises(SchemaMismatch, match="pgcelery db migrate"):
        client.enqueue([new_job()])
    with pytest.raises(SchemaMismatch, match="is missing"):
        client.check_schema()
    client.close()


def test_ten_processes_that_migrate_at_once_apply_each_migration_once(fresh_dsn: str):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, fresh_dsn], stdout=subprocess.PIPE, text=True
        )
        for _ in range(10)
    ]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    client = Client(EngineConfig(dsn=fresh_dsn))
    status = client.schema_status()
    assert status.pending == []
    assert sum(counts) == status.latest
    client.check_schema()
    client.close()


def test_any_schema_name_works(fresh_dsn: str):
    config = EngineConfig(dsn=fresh_dsn, schema='ten"ant 1')
    client = Client(config)
    client.migrate()
    with running(config, Recorder()):
        job = new_job()
        client.enqueue([job])
        assert client.wait([job.id], 10)
    client.close()


def test_a_newer_schema_is_accepted_unless_it_says_that_it_breaks(fresh_dsn: str):
    client = Client(EngineConfig(dsn=fresh_dsn))
    client.migrate()
    with psycopg.connect(fresh_dsn) as conn:
        conn.execute("insert into pgcelery.migrations values (9998, '9998_later', false)")
    client.check_schema()
    with psycopg.connect(fresh_dsn) as conn:
        conn.execute("insert into pgcelery.migrations values (9999, '9999_breaking', true)")
    with pytest.raises(SchemaMismatch, match="upgrade pgcelery"):
        client.check_schema()
    client.close()


def test_a_role_that_does_not_own_the_schema_can_work(fresh_dsn: str):
    owner = Client(EngineConfig(dsn=fresh_dsn))
    owner.migrate()
    with psycopg.connect(fresh_dsn, autocommit=True) as conn:
        conn.execute("drop role if exists pgcelery_test_app")
        conn.execute("create role pgcelery_test_app login password 'secret'")
        for grant in (
            "grant usage on schema pgcelery to pgcelery_test_app",
            "grant select, insert, update, delete on all tables in schema pgcelery"
            " to pgcelery_test_app",
            "grant usage on all sequences in schema pgcelery to pgcelery_test_app",
        ):
            conn.execute(grant)
    dsn = psycopg.conninfo.make_conninfo(fresh_dsn, user="pgcelery_test_app", password="secret")
    config = EngineConfig(dsn=dsn)
    client = Client(config)
    client.check_schema()
    with running(config, Recorder()):
        job = new_job()
        client.enqueue([job])
        assert client.wait([job.id], 10)
    client.close()
    owner.close()
    with psycopg.connect(fresh_dsn, autocommit=True) as conn:
        conn.execute("drop owned by pgcelery_test_app")
        conn.execute("drop role pgcelery_test_app")


def test_workers_of_before_workflows_still_work_on_the_new_schema(client: Client, dsn: str):
    """What they call is there under its old name and takes its old arguments."""
    queue = client.intern(["q"])["q"]
    jobs = columns(
        [new_job(b"a", id="a"), new_job(b"b", id="b", parents=("a",))], {("q", ""): queue}
    )
    # Keys and their limits stood where the rules are; workflows and lives were not known yet.
    keys = [TextArray.of([None, None]), IntegerArray.of([None, None])]
    old_jobs = [*jobs[:12], *keys, *jobs[15:]]
    nothing = no_follow_ups()
    none = [*nothing[:13], TextArray.of([]), IntegerArray.of([]), *nothing[16:]]
    with psycopg.connect(dsn, autocommit=True) as conn:
        arrays.register(conn.adapters)

        def call(function: str, *given: object) -> list[tuple]:
            places = ", ".join(["%s"] * len(given))
            return conn.execute(f"select * from pgcelery.{function}({places})", given).fetchall()  # noqa: S608

        assert call("enqueue_v1", *old_jobs) == [([],)]
        (me,) = conn.execute(
            "insert into pgcelery.workers (name, host, pid, queues, info, lease_until)"
            " values ('old', 'h', 1, '{q}', '{}', now() + interval '1 minute') returning id"
        ).fetchone()

        conn.execute("insert into pgcelery.inbox (worker_id, body, expires_at)"
                     " values (%s, 'hello', now() + interval '1 minute')", [me])  # fmt: skip
        conn.execute("insert into pgcelery.ready values (0, 0, 1, 'x', 0, 0)")
        beats = call("beat_v1", me, 30.0)  # nothing of a kind that they do not know
        assert [(row[0], bytes(row[4])) for row in beats] == [(Kind.MESSAGE, b"hello")]
        conn.execute("delete from pgcelery.ready where queue_id = 0")

        def step(outcomes: list[Outcome]) -> list[tuple]:
            ended = ended_params(outcomes, lambda name: queue)[:5]
            return call("step_v1", me, 10, IntegerArray.of([queue]), *ended, *none)

        ran = []
        outcomes: list[Outcome] = []
        while claims := [row for row in step(outcomes) if row[0] == Kind.CLAIM]:
            ran += [row[1] for row in claims]
            outcomes = [Outcome(row[1], row[2], State.COMPLETED) for row in claims]
    assert ran == ["a", "b"]
    assert {one.state for one in client.results(["a", "b"]).values()} == {State.COMPLETED}
