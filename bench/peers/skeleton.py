"""The least that a Celery-shaped worker on PostgreSQL has to do, as the ceiling of the design.

Durable inserts with a notification, claims of 500, two forked children that get chunks over socket
pairs, JSON in and out, one statement that deletes what is done and inserts its results. No retries,
leases, routing, signals or recovery: it is a yardstick, not a product.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import sys
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg

from bench.driver import Adapter, main
from bench.marks import mark

DSN = os.environ["BENCH_BROKER"]
CHILDREN = int(os.environ.get("BENCH_CONCURRENCY", "2"))
CLAIM, CHUNK, AHEAD = 500, 25, 2
TOLD = 50  #: with more results in one statement nobody is waiting for a single one

SCHEMA = """
create table queue (
    id uuid primary key, seq bigint generated always as identity, name text not null,
    waits boolean not null default false, taken boolean not null default false,
    due_at timestamptz, payload text not null
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);
create index queue_ready on queue (seq) where not taken and not waits;
create table results (
    id uuid primary key, result text not null, at timestamptz not null default now()
);
"""
TAKE = """
with next as materialized (
    select id from queue where not taken and not waits order by seq limit %s
    for update skip locked
)
update queue q set taken = true from next where q.id = next.id returning q.id::text, q.payload
"""
FINISH = """
with done as (select * from unnest(%s::uuid[], %s::text[]) as d(id, result)),
gone as (delete from queue q using done d where q.id = d.id and q.taken returning q.id, d.result)
insert into results (id, result) select id, result from gone
"""
SEND = """
with sent as (insert into queue (id, name, payload) values (%s, 'noop', %s) returning 1)
select pg_notify('queue', '') from sent
"""


def message(i: int) -> tuple[str, str]:
    """An id, and what a Celery message says at the least."""
    name = str(uuid.uuid4())
    body = {"id": name, "task": "noop", "args": [i], "kwargs": {}, "retries": 0, "root_id": name}
    return name, json.dumps(body)


class Producer(Adapter):
    """One connection, and one that listens once it waits for a result."""

    ear: psycopg.Connection[Any] | None = None

    def open(self) -> None:
        self.connection = psycopg.connect(DSN, autocommit=True)

    def close(self) -> None:
        self.connection.close()

    def setup(self) -> None:
        self.connection.execute(SCHEMA)

    def enqueue(self, i: int) -> None:
        self._send(i)

    def bulk(self, numbers: Sequence[int]) -> list[str]:
        ids = []
        with self.connection.transaction(), self.connection.cursor() as cursor:
            with cursor.copy("copy queue (id, name, payload) from stdin") as rows:
                for i in numbers:
                    name, body = message(i)
                    rows.write_row((name, "noop", body))
                    ids.append(name)
            cursor.execute("select pg_notify('queue', '')")
        return ids

    def later(self, numbers: Sequence[int], delay_s: int) -> None:
        with self.connection.transaction(), self.connection.cursor() as cursor:
            due = cursor.execute("select (now() + make_interval(secs => %s))::text", [delay_s])
            at = due.fetchone()
            with cursor.copy("copy queue (id, name, payload, waits, due_at) from stdin") as rows:
                for i in numbers:
                    name, body = message(i)
                    rows.write_row((name, "noop", body, True, at and at[0]))

    def result(self, i: int) -> int:
        if self.ear is None:
            self.ear = psycopg.connect(DSN, autocommit=True)
            self.ear.execute("listen done")
        name = self._send(i)
        while True:
            for told in self.ear.notifies(timeout=5, stop_after=1):
                if name in told.payload:
                    return int(self.results([name])[0])

    def results(self, ids: Sequence[str]) -> list[Any]:
        query = "select id::text, result from results where id = any(%s::uuid[])"
        found = dict(self.connection.execute(query, [list(ids)], prepare=True).fetchall())
        return [json.loads(found[name]) for name in ids]

    def _send(self, i: int) -> str:
        name, body = message(i)
        self.connection.execute(SEND, (name, body), prepare=True)
        return name


def send(pipe: socket.socket, value: Any) -> None:
    """One message: its length, and JSON."""
    body = json.dumps(value).encode()
    pipe.sendall(struct.pack("<I", len(body)) + body)


def receive(pipe: socket.socket) -> Any:
    """The next one; ends a process whose other side is gone."""
    return json.loads(_exactly(pipe, struct.unpack("<I", _exactly(pipe, 4))[0]))


def _exactly(pipe: socket.socket, n: int) -> bytes:
    parts = bytearray()
    while len(parts) < n:
        more = pipe.recv(n - len(parts))
        if not more:
            os._exit(0)
        parts += more
    return bytes(parts)


def child(pipe: socket.socket) -> None:
    """Run chunks."""
    tasks = {"noop": mark}
    while True:
        done = []
        for name, payload in receive(pipe):
            body = json.loads(payload)
            value = tasks[body["task"]](*body["args"], **body["kwargs"])
            done.append((name, json.dumps(value)))
        send(pipe, done)


class Parent:
    """Claims, deals out, records."""

    def __init__(self) -> None:
        self.pipes = [self._fork() for _ in range(CHILDREN)]
        self.ahead = dict.fromkeys(self.pipes, 0)  # chunks that a child has
        self.claims = psycopg.connect(DSN, autocommit=True)
        self.ear = psycopg.connect(DSN, autocommit=True)
        self.ear.execute("listen queue")
        self.wakeups = selectors.DefaultSelector()
        for one in (*self.pipes, self.ear):
            self.wakeups.register(one, selectors.EVENT_READ)
        self.waiting: list[Any] = []
        self.done: list[Any] = []
        self.running = 0
        self.more = True

    def _fork(self) -> socket.socket:
        here, there = socket.socketpair()
        if os.fork() == 0:
            here.close()
            child(there)
        there.close()
        return here

    def turn(self) -> None:
        """One round of the loop."""
        if self.more and len(self.waiting) < CLAIM // 2:
            rows = self.claims.execute(TAKE, (CLAIM,), prepare=True).fetchall()
            self.more = len(rows) == CLAIM
            self.waiting += rows
        self._deal()
        pause = 1.0 if not self.done else 0.001 if self.running else 0
        ready = {key.fileobj for key, _ in self.wakeups.select(pause)}
        if self.ear in ready:
            list(self.ear.notifies(timeout=0))
            self.more = True
        for pipe in ready & set(self.pipes):
            ended = receive(pipe)
            self.done += ended
            self.running -= len(ended)
            self.ahead[pipe] -= 1
        if self.done and (len(self.done) >= CLAIM // 2 or not self.running or not ready):
            self._finish()

    def _deal(self) -> None:
        for pipe in self.pipes:
            while self.ahead[pipe] < AHEAD and self.waiting:
                n = min(CHUNK, max(1, len(self.waiting) // (2 * CHILDREN)))
                chunk, self.waiting = self.waiting[:n], self.waiting[n:]
                send(pipe, chunk)
                self.ahead[pipe] += 1
                self.running += n

    def _finish(self) -> None:
        names, values = map(list, zip(*self.done, strict=True))
        with self.claims.pipeline():
            self.claims.execute(FINISH, (names, values), prepare=True)
            if len(names) <= TOLD:
                told = ",".join(names)
                self.claims.execute("select pg_notify('done', %s)", (told,), prepare=True)
        self.done = []


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        parent = Parent()
        while True:
            parent.turn()
    else:
        main(Producer())
