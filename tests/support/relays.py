"""A handler for forked pools that notes its runs in a file, pools that tell what was relayed, and a
proxy that loses what goes over it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgcelery.engine import Client, EngineConfig, Job, Lost, Outcome, State
from pgcelery.engine.job import Handler
from pgcelery.engine.pool import PreforkPool, Unsure
from pgcelery.engine.relay import Step
from tests.support.jobs import new_job, running
from tests.support.wait import wait_for


class Notes:
    """Runs jobs by their payload: ``ok``, ``fail``, ``hold`` (until `release`), ``die``."""

    def __init__(
        self, folder: Path, limits: dict[str, tuple[float | None, float | None]] | None = None
    ):
        self.folder = folder
        self.limits = limits or {}
        self.heard: list[tuple[str, str]] = []
        self.losses: dict[str, Lost] = {}
        self.late_outcomes: list[str] = []
        self.first = False
        (folder / "ran").touch()

    def ran(self) -> list[str]:
        """Ids, as their bodies began."""
        return (self.folder / "ran").read_text().split()

    def begun(self, job_id: str) -> bool:
        return job_id in self.ran()

    def release(self, job_id: str) -> None:
        (self.folder / f"go-{job_id}").touch()

    def hears_first(self) -> bool:
        return self.first

    def received(self, jobs: list[Job]) -> None:
        self.heard += [("received", job.id) for job in jobs]

    def finished(self, outcome: Outcome) -> None:
        self.heard.append(("finished", outcome.id))

    def late(self, outcome: Outcome, reason: str) -> None:
        self.late_outcomes.append(outcome.id)

    def lost(self, job: Job, why: Lost) -> Outcome:
        self.losses[job.id] = why
        again = why.kind == "child_lost" and job.delivery < 3 and job.name == "late"
        state = State.AVAILABLE if again else State.FAILED
        return Outcome(job.id, job.token, state, why.kind.encode(), counted=again)

    def repeats(self, job: Job) -> bool:
        return job.name == "late"

    def interrupted(self, job: Job, limit_s: float) -> None: ...

    def process_started(self) -> None: ...

    def process_stopping(self, exitcode: int) -> None: ...

    def soft_limit_error(self) -> BaseException:
        return TimeoutError("soft")

    def open(self, job: Job) -> Any:
        return _Run(self, job)


class _Run:
    def __init__(self, notes: Notes, job: Job) -> None:
        self.notes, self.job = notes, job
        self.soft_time_limit_s, self.time_limit_s = notes.limits.get(job.id, (None, None))

    def __call__(self) -> Outcome:
        job, notes = self.job, self.notes
        with (notes.folder / "ran").open("a") as file:
            file.write(f"{job.id}\n")
        fed = b"" if job.fed is None else job.fed[2] or b""
        try:
            if job.payload == b"hold":
                wait_for((notes.folder / f"go-{job.id}").exists, timeout_s=60)
            if job.payload == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
        except TimeoutError as error:
            return Outcome(job.id, job.token, State.FAILED, str(error).encode())
        state = State.FAILED if job.payload == b"fail" or job.parent_failed else State.COMPLETED
        return Outcome(job.id, job.token, state, fed + b">" + job.id.encode())


class TellingPool(PreforkPool):
    """Keeps what its children recorded by themselves.

    Args:
        via: A proxy that they reach the database by; the parent does not.
    """

    def __init__(self, size: int = 1, *, via: Proxy | None = None, **options: Any) -> None:
        super().__init__(size, **options)
        self.via = via
        self.steps: list[Step] = []
        self.doubts: list[Unsure] = []

    def start(self, handler: Handler, relay: EngineConfig | None = None) -> None:
        if relay is not None and self.via is not None:
            relay = replace(relay, dsn=self.via.dsn)
        super().start(handler, relay)

    def collect(self) -> Any:
        found = super().collect()
        self.steps += [one for one in found if isinstance(one, Step)]
        self.doubts += [one for one in found if isinstance(one, Unsure)]
        return found

    def relayed(self) -> list[str]:
        """Ids of jobs that children recorded."""
        return [step.outcome.id for step in self.steps]


class Proxy:
    """Passes on what goes to a server, or does not; listens on a Unix socket.

    Attributes:
        lose: ``requests`` cuts a connection instead of passing on what the client says next,
            ``answers`` instead of passing on what the server says next; once each.
        hold: The same words; instead of cutting, nothing is passed on any more over connections
            that carry something meanwhile.
        delay: The same words; it is passed on once this is set to something else.
        accepted: Connections so far.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        parts = conninfo_to_dict(dsn)
        host, number = str(parts.get("host") or "localhost"), int(parts.get("port") or 5432)
        self._target = f"{host}/.s.PGSQL.{number}" if host[0] == "/" else (host, number)
        self.dsn = make_conninfo(dsn, host=str(folder), port=1)
        self.lose = self.hold = self.delay = ""
        self.lost = self.held = self.accepted = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.1"))
        self._listener.listen()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.accepted += 1
                local = isinstance(self._target, str)
                far = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
                far.connect(self._target)
                self._sockets += [near, far]
                for word, source, sink in (("requests", near, far), ("answers", far, near)):
                    args = (word, source, sink)
                    self._threads.append(
                        threading.Thread(target=self._pump, args=args, daemon=True)
                    )
                    self._threads[-1].start()

    def _pump(self, word: str, source: socket.socket, sink: socket.socket) -> None:
        stuck = False
        with suppress(OSError):
            while data := source.recv(65536):
                if self.lose == word:
                    self.lose = ""
                    self.lost += 1
                    break
                if stuck or self.hold == word:
                    stuck = True
                    self.held += 1
                    continue
                if self.delay == word:
                    self.held += 1
                    wait_for(lambda: self.delay != word, timeout_s=60)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break the connections there are."""
        for one in self._sockets[1:]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)


def chain_of(ids: Sequence[str], **options: Any) -> list[Any]:
    """Jobs that wait for one another."""
    return [
        new_job(b"ok", id=one, parents=(ids[place - 1],) if place else (), **options)
        for place, one in enumerate(ids)
    ]


MOVING = ("ready", "running", "scheduled", "nodes", "edges", "gated", "late", "cancels")


@contextmanager
def at_work(client: Client, notes: Notes, pool: TellingPool, **options: Any) -> Iterator[Any]:
    """A worker whose children have a connection already."""
    with running(client.config, notes, pool=pool, **options) as worker:  # type: ignore[arg-type]
        if client.config.relay:
            warm(client, pool)
            wait_for(lambda: not worker._tokens)  # the parent has heard of the last one too
            pool.steps.clear()
        yield worker


def warm(client: Client, pool: TellingPool) -> None:
    """Run chains until every child has recorded something by itself."""
    count = itertools.count()

    def warmed() -> bool:
        last = []
        for _ in range(pool.size):
            ids = [f"warm-{id(pool)}-{next(count)}-{n}" for n in range(3)]
            client.enqueue(chain_of(ids))
            last.append(ids[-1])
        for one in last:
            client.wait([one], 10)
        return len(pool.spares()) == pool.size

    wait_for(warmed)
    pool.steps.clear()


def rows(dsn: str, query: str, *params: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query, params).fetchall()


def contents(dsn: str, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows(dsn, f"select * from pgcelery.{name} order by 1, 2") for name in tables}  # noqa: S608


def settled(dsn: str) -> bool:
    return not any(contents(dsn, *MOVING).values())


def result_of(ids: list[str]) -> bytes:
    """What the last one ends with, or the end of that if a step got its input by the database."""
    return b"".join(b">" + one.encode() for one in ids)
