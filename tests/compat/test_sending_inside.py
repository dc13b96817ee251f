"""Calls sent in a transaction of the application's, by the drivers and layers that it may have.

Promise P3 of docs/guarantees.md.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy
from kombu.exceptions import EncodeError, OperationalError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import orm

from pgcelery.compat.app.base import Celery
from pgcelery.compat.canvas import chain, chord, group
from pgcelery.engine import Client, EngineConfig, State
from tests.support.commits import fetch
from tests.support.database import new_database
from tests.support.jobs import Recorder, running
from tests.support.process import ROOT
from tests.support.tasks import body
from tests.support.wait import wait_for


@pytest.fixture
def app(client: Client) -> Iterator[Celery]:
    app = Celery("inside", broker=client.config.dsn, set_as_current=False)
    app.finalize()
    yield app
    app.close()
    app.close_engine()


class Way(NamedTuple):
    """What is passed as `conn`, and how its transaction ends."""

    conn: Any
    commit: Callable[[], None]
    rollback: Callable[[], None]


def _of(conn: Any, given: Any = None) -> Way:
    return Way(conn if given is None else given, conn.commit, conn.rollback)


@contextmanager
def by_psycopg(dsn: str) -> Iterator[Way]:
    with psycopg.connect(dsn) as conn:
        yield _of(conn)


@contextmanager
def by_a_cursor(dsn: str) -> Iterator[Way]:
    with psycopg.connect(dsn) as conn, conn.cursor() as cursor:
        yield _of(conn, cursor)


@contextmanager
def by_other_rows(dsn: str) -> Iterator[Way]:
    with psycopg.connect(dsn, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as conn:
        yield _of(conn)


@contextmanager
def by_psycopg2(dsn: str) -> Iterator[Way]:
    with closing(psycopg2.connect(dsn)) as conn:
        yield _of(conn)


@contextmanager
def by_other_rows_of_psycopg2(dsn: str) -> Iterator[Way]:
    factory = psycopg2.extras.RealDictCursor
    with closing(psycopg2.connect(dsn, cursor_factory=factory)) as conn:
        yield _of(conn, conn.cursor())


@contextmanager
def by_session(dsn: str, driver: str = "psycopg") -> Iterator[Way]:
    with _engine(dsn, driver) as engine, orm.Session(engine) as session:
        yield _of(session)


@contextmanager
def by_session_on_psycopg2(dsn: str) -> Iterator[Way]:
    with by_session(dsn, "psycopg2") as way:
        yield way


@contextmanager
def by_scoped_session(dsn: str) -> Iterator[Way]:
    with _engine(dsn, "psycopg") as engine:
        session = orm.scoped_session(orm.sessionmaker(engine))
        yield _of(session)
        session.remove()


@contextmanager
def by_connection(dsn: str) -> Iterator[Way]:
    with _engine(dsn, "psycopg") as engine, engine.connect() as conn:
        yield _of(conn)


@contextmanager
def _engine(dsn: str, driver: str) -> Iterator[sqlalchemy.Engine]:
    url = sqlalchemy.make_url(dsn).set(drivername=f"postgresql+{driver}")
    engine = sqlalchemy.create_engine(url)
    yield engine
    engine.dispose()


WAYS = [
    by_psycopg,
    by_a_cursor,
    by_other_rows,
    by_psycopg2,
    by_other_rows_of_psycopg2,
    by_session,
    by_session_on_psycopg2,
    by_scoped_session,
    by_connection,
]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, dsn: str) -> Iterator[Way]:
    with request.param(dsn) as way:
        yield way


def test_a_call_is_sent_if_its_transaction_commits(app: Celery, client: Client, way: Way) -> None:
    app.send_task("t", task_id="rolled-back", conn=way.conn)
    way.rollback()
    app.send_task("t", (1, 'a"\\{}', None), task_id="committed", using=way.conn, countdown=60)
    assert client.job("committed") is None
    way.commit()
    assert client.job("rolled-back") is None
    job = client.job("committed")
    assert job is not None
    assert job.state is State.SCHEDULED
    app.send_task("t", (1, 'a"\\{}', None), task_id="usual", countdown=60)
    usual = client.job("usual")
    assert usual is not None
    assert body(job) == body(usual)
    assert (job.queue, job.name, job.priority) == (usual.queue, usual.name, usual.priority)


def test_a_canvas_is_sent_if_its_transaction_commits(app: Celery, client: Client, way: Way) -> None:
    @app.task(shared=False)
    def t(*args: Any) -> None: ...

    def send() -> list[str]:
        steps = chain(t.si(), t.si(), app=app).apply_async(conn=way.conn)
        members = group([t.si(), t.si()], app=app).apply_async(conn=way.conn)
        joined = chord((t.si() for _ in range(3)), t.s(), app=app).apply_async(conn=way.conn)
        return [steps.id, steps.parent.id, *(one.id for one in members), joined.id]

    undone = send()
    way.rollback()
    done = send()
    assert fetch(client.config.dsn, "select id from pgcelery.jobs") == []
    way.commit()
    there = {id for (id,) in fetch(client.config.dsn, "select id from pgcelery.jobs")}
    assert len(there) == 8
    assert there >= set(done)
    assert not there & set(undone)


def test_times_and_limits_come_through_psycopg2(app: Celery, client: Client, dsn: str) -> None:
    options: dict[str, Any] = {
        "expires": 90, "unique_key": "only", "concurrency_key": 'k "1"', "concurrency_limit": 2,
        "priority": 3, "queue": "crème",
    }  # fmt: skip
    with closing(psycopg2.connect(dsn)) as conn:
        first = app.send_task("t", task_id="first", conn=conn, **options)
        again = app.send_task("t", task_id="again", conn=conn, **options)
        conn.commit()
    assert (first.id, again.id) == ("first", "first")
    job = client.job("first")
    assert job is not None
    assert (job.queue, job.priority) == ("crème", 6)
    assert job.expires_at is not None
    ((gate,),) = fetch(dsn, "select (gates[1]).key from pgcelery.jobs")
    assert gate == 'k "1"'


def test_a_savepoint_takes_its_calls_along(app: Celery, client: Client, dsn: str) -> None:
    with _engine(dsn, "psycopg") as engine, orm.Session(engine) as session:
        app.send_task("t", task_id="kept", conn=session)
        inner = session.begin_nested()
        app.send_task("t", task_id="dropped", conn=session)
        inner.rollback()
        session.commit()
    assert client.job("kept") is not None
    assert client.job("dropped") is None


def test_without_a_transaction_it_is_sent_at_once(app: Celery, client: Client, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        app.send_task("t", task_id="at-once", conn=conn)
        assert client.job("at-once") is not None


def test_a_countdown_counts_from_the_send(app: Celery, client: Client, dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("select pg_sleep(0.4)")
        ((now,),) = fetch(dsn, "select clock_timestamp()")
        app.send_task("t", task_id="later", conn=conn, countdown=60)
        conn.commit()
    job = client.job("later")
    assert job is not None
    assert job.due_at is not None
    assert 60 <= (job.due_at - now).total_seconds() < 65


@pytest.mark.parametrize("driver", [by_psycopg, by_psycopg2], ids=["psycopg", "psycopg2"])
def test_workers_hear_of_it_with_the_commit(client: Client, dsn: str, driver: Any) -> None:
    config = EngineConfig(dsn=dsn, poll_min_s=60.0, poll_max_s=60.0)
    handler = Recorder()
    app = Celery("inside", broker=dsn, set_as_current=False)
    with running(config, handler, queues=("celery",)), driver(dsn) as way:
        app.send_task("t", task_id="warm", conn=way.conn)
        way.commit()
        wait_for(lambda: handler.recorded == ["warm"])
        # The polls that come sooner, for what had just been going on, are over.
        wait_for(lambda: _idle_for(dsn) > 1.0, 30)
        app.send_task("t", task_id="unheard", conn=way.conn)
        way.rollback()
        app.send_task("t", task_id="heard", conn=way.conn)
        way.commit()
        wait_for(lambda: "heard" in handler.recorded)
    assert handler.ran == ["warm", "heard"]
    app.close_engine()


@pytest.mark.parametrize("option", ["listen", "notify_inside"])
def test_commits_need_not_notify(client: Client, dsn: str, option: str) -> None:
    app = Celery("inside", broker=dsn, set_as_current=False)
    with psycopg.connect(dsn, autocommit=True) as ear, psycopg.connect(dsn) as conn:
        ear.execute("listen pgcelery")
        for heard in (True, False):
            app.conf.broker_transport_options = {option: heard}
            app.close_engine()
            app.send_task("t", conn=conn)
            app.send_task("t", conn=conn)
            conn.commit()
            found = [notice.payload for notice in ear.notifies(timeout=0.2)]
            assert len(found) == heard
    app.close_engine()


def _idle_for(dsn: str) -> float:
    """Seconds since a worker last asked for jobs."""
    query = (
        "select extract(epoch from clock_timestamp() - max(query_start)) from pg_stat_activity"
        " where datname = current_database() and query like '%%step_v%%'"
        " and pid <> pg_backend_pid()"
    )
    return float(fetch(dsn, query)[0][0] or 0)


# -- what is refused


def test_bad_input_leaves_the_transaction_as_it_was(app: Celery, way: Way, client: Client) -> None:
    app.send_task("t", task_id="before", conn=way.conn)
    for options, error in (
        ({"args": [object()]}, EncodeError),
        ({"task_id": "nul\0"}, ValueError),
        ({"queue": "q" * 300}, ValueError),
        ({"countdown": "soon"}, TypeError),
    ):
        with pytest.raises(error):
            app.send_task("t", conn=way.conn, **options)
    app.send_task("t", task_id="after", conn=way.conn)
    way.commit()
    assert client.job("before") is not None
    assert client.job("after") is not None


def test_what_the_server_refuses_is_raised_as_it_is(app: Celery, dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        with pytest.raises(psycopg.errors.UndefinedTable):
            conn.execute("select * from nowhere")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            app.send_task("t", conn=conn)
        conn.rollback()


@pytest.mark.parametrize("driver", [psycopg, psycopg2], ids=["psycopg", "psycopg2"])
def test_a_closed_connection_is_refused(app: Celery, dsn: str, driver: Any) -> None:
    conn = driver.connect(dsn)
    conn.close()
    with pytest.raises(OperationalError, match="conn is closed"):
        app.send_task("t", conn=conn)


@pytest.mark.parametrize("driver", [psycopg, psycopg2], ids=["psycopg", "psycopg2"])
def test_another_database_is_refused_by_name(
    app: Celery, server_dsn: str, driver: Any, dsn: str
) -> None:
    home = conninfo_to_dict(dsn)["dbname"]
    with new_database(server_dsn) as other:
        name = conninfo_to_dict(other)["dbname"]
        with closing(driver.connect(other)) as conn:
            with pytest.raises(ValueError, match=f"database '{name}' at .* has no pgcelery schema"):
                app.send_task("t", conn=conn)
            cursor = conn.cursor()
            cursor.execute("select 1")  # the transaction goes on
            assert cursor.fetchone() == (1,)
            conn.rollback()
            with closing(Client(EngineConfig(dsn=other))) as client:
                client.migrate()
            with pytest.raises(ValueError, match=f"{name}.*are sent in database '{home}'"):
                app.send_task("t", conn=conn)


def test_the_same_database_by_another_way_is_the_same(
    app: Celery, client: Client, dsn: str
) -> None:
    with psycopg.connect(dsn) as conn:
        here = conn.info.host
    found = fetch(dsn, "select split_part(setting, ',', 1) from pg_settings"
                       " where name = 'unix_socket_directories'")  # fmt: skip
    other = "127.0.0.1" if here.startswith("/") else found[0][0]
    if here.startswith("/"):  # the tests' own server listens on sockets only
        other = f"{here}/."
    with psycopg.connect(dsn, host=other) as conn:
        assert conn.info.host != here
        app.send_task("t", task_id="by another way", conn=conn)
        conn.commit()
    assert client.job("by another way") is not None


def test_what_is_no_such_connection_is_refused(app: Celery, dsn: str) -> None:
    with _engine(dsn, "psycopg") as engine:
        for given in (object(), 5, engine):
            with pytest.raises(TypeError, match="conn must be a psycopg connection"):
                app.send_task("t", conn=given)
    lite = sqlalchemy.create_engine("sqlite://")
    with lite.connect() as conn, pytest.raises(TypeError, match=r"Connection of sqlite3\."):
        app.send_task("t", conn=conn)
    lite.dispose()


def test_asynchronous_connections_are_refused(app: Celery, dsn: str) -> None:
    async def send() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            app.send_task("t", conn=conn)

    with pytest.raises(TypeError, match="must not be asynchronous, as AsyncConnection is"):
        asyncio.run(send())


DJANGO = """
    import django, json, sys
    from django.conf import settings
    parts = json.loads(sys.argv[1])
    settings.configure(
        USE_TZ=True,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"],
                        "HOST": parts.get("host", ""), "PORT": parts.get("port", ""),
                        "USER": parts.get("user", ""), "PASSWORD": parts.get("password", "")},
            "elsewhere": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        },
    )
    django.setup()
    from django.db import connection, transaction
    from pgcelery import Celery
    app = Celery("django", broker=sys.argv[2], set_as_current=False)

    def there(id):
        return app.engine.job(id) is not None

    class Oops(Exception): pass

    try:
        with transaction.atomic():
            app.send_task("t", task_id="rolled back", using="default")
            raise Oops
    except Oops:
        pass
    with transaction.atomic():
        app.send_task("t", task_id="outer", using="default")
        try:
            with transaction.atomic():
                app.send_task("t", task_id="inner", using=connection)
                raise Oops
        except Oops:
            pass
        seen = there("outer")
    app.send_task("t", task_id="autocommit", using="default")
    connection.close()
    app.send_task("t", task_id="reconnected", using="default")
    ids = ("rolled back", "outer", "inner", "autocommit", "reconnected")
    print(seen, [there(id) for id in ids])
    try:
        app.send_task("t", using="elsewhere")
    except TypeError as exc:
        print(exc)
"""


def test_django(dsn: str, client: Client) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DJANGO), json.dumps(conninfo_to_dict(dsn)), dsn],
        cwd=Path(ROOT), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "False [False, True, False, True, True]"
    assert second.endswith("not DatabaseWrapper of sqlite3.Connection") or "sqlite" in second
