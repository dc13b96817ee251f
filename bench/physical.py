"""What the machine allows, whoever asks: measured beside the peers, to read distances from.

PostgreSQL's part runs on the server of the peers, over one connection.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from bench.services import Postgres

NAME = "machine"  #: stands where a peer's name does
BATCHES = (500, 100, 10, 1)
PAYLOAD = json.dumps(
    {
        "id": "0198c1c0-aaaa-7bbb-8ccc-0123456789ab",
        "task": "app.tasks.noop",
        "args": [12345],
        "kwargs": {},
        "headers": {"lang": "py", "root_id": "x", "retries": 0},
    }
)
SCHEMA = """
drop table if exists queue, results;
create table queue (
    id bigint generated always as identity primary key, name text not null,
    taken boolean not null default false, payload text not null
) with (fillfactor = 85);
create index on queue (id) where not taken;
create table results (id bigint primary key, result text, at timestamptz default now());
"""
TAKE = """
with next as materialized (
    select id from queue where not taken order by id limit %s for update skip locked
)
update queue q set taken = true from next where q.id = next.id returning q.id, q.payload
"""
FINISH = """
with gone as (delete from queue where id = any(%s) and taken returning id)
insert into results (id, result) select id, 'null' from gone
"""
SEND = """
with sent as (insert into queue (name, payload) values ('noop', %s) returning 1)
select pg_notify('queue', '') from sent
"""


def measure(postgres: Postgres, scale: float = 1.0) -> dict[str, float]:
    """All of them once; tasks or commits a second, and milliseconds of round trips."""
    dsn = postgres.fresh_database()
    values = {
        "limit_calls": _calls(int(50_000 * scale)),
        "limit_pipe": _pipe(int(4_000 * scale)),
    }
    with psycopg.connect(dsn, autocommit=True) as conn:
        for batch in BATCHES:
            n = int(scale * (20_000 if batch >= 100 else 4_000 if batch > 1 else 800))
            values[f"limit_loop{batch}"] = _loop(conn, batch, max(n, batch))
        values["limit_commit"] = _commits(conn, int(1_000 * scale))
        values["limit_select"] = _round_trip(conn, int(1_000 * scale))
        values["limit_notify"] = _notify(dsn, conn, int(200 * scale))
    with postgres.connect() as conn:
        conn.execute(f"drop database {psycopg.conninfo.conninfo_to_dict(dsn)['dbname']}")
    return values


def _rate(n: int, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return n / (time.perf_counter() - begin)


def _noop(*args: Any) -> None:
    return None


def _calls(n: int) -> float:
    """Decode a message, call, encode a result: what a task costs in Python at the least."""

    def work() -> None:
        for _ in range(n):
            body = json.loads(PAYLOAD)
            value = _noop(*body["args"], **body["kwargs"])
            json.dumps({"status": "SUCCESS", "result": value, "task_id": body["id"]})

    return _rate(n, work)


def _pipe(n: int) -> float:
    """A message to a child process and back, one after the other."""
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_echo, args=(there,))
    child.start()
    message = PAYLOAD.encode()

    def work() -> None:
        for _ in range(n):
            here.send_bytes(message)
            here.recv_bytes()

    rate = _rate(n, work)
    here.send_bytes(b"-")
    child.join()
    return rate


def _echo(pipe: Connection) -> None:
    while (message := pipe.recv_bytes()) != b"-":
        pipe.send_bytes(message)


def _loop(conn: psycopg.Connection[Any], batch: int, n: int) -> float:
    """Claim, decode and call, then delete and store results; each statement a durable commit."""
    conn.execute(SCHEMA)
    fill = "insert into queue (name, payload) select 'noop', %s from generate_series(1, %s)"
    conn.execute(fill, (PAYLOAD, n))
    conn.execute("vacuum analyze queue")
    conn.execute("checkpoint")

    def work() -> None:
        while rows := conn.execute(TAKE, (batch,), prepare=True).fetchall():
            for _, payload in rows:
                _noop(*json.loads(payload)["args"])
            conn.execute(FINISH, ([row[0] for row in rows],), prepare=True)

    return _rate(n, work)


def _commits(conn: psycopg.Connection[Any], n: int) -> float:
    """Insert one row and notify, a commit each."""
    conn.execute(SCHEMA)

    def work() -> None:
        for _ in range(n):
            conn.execute(SEND, (PAYLOAD,), prepare=True)

    return _rate(n, work)


def _round_trip(conn: psycopg.Connection[Any], n: int) -> float:
    """`select 1`, milliseconds, median."""
    took = []
    for _ in range(n):
        begin = time.perf_counter_ns()
        conn.execute("select 1", prepare=True).fetchone()
        took.append(time.perf_counter_ns() - begin)
    return statistics.median(took) / 1e6


def _notify(dsn: str, conn: psycopg.Connection[Any], n: int) -> float:
    """From `pg_notify` until another connection has heard it, milliseconds, median."""
    heard: list[int] = []
    came = threading.Event()
    listening = threading.Event()

    def listen() -> None:
        with psycopg.connect(dsn, autocommit=True) as ear:
            ear.execute("listen heard")
            listening.set()
            for _ in ear.notifies(timeout=30, stop_after=n):
                heard.append(time.perf_counter_ns())
                came.set()

    listener = threading.Thread(target=listen)
    listener.start()
    listening.wait(10)
    took = []
    for i in range(n):
        came.clear()
        begin = time.perf_counter_ns()
        conn.execute("select pg_notify('heard', %s)", (str(i),), prepare=True)
        if not came.wait(5):
            raise RuntimeError("a notification was not heard")
        took.append(heard[-1] - begin)
        time.sleep(0.002)
    listener.join()
    return statistics.median(took) / 1e6
