"""What an application holds: send jobs, cancel them, read and await their results.

Every method is one statement in its own transaction, but for `Client.enqueue` with the caller's
connection. Each can be repeated safely, and is, when a connection that lay idle has gone stale.

Promise P4 of docs/guarantees.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeVar

from psycopg.rows import TupleRow

from pgcelery.engine import schema
from pgcelery.engine.arrays import ByteaArray, TextArray
from pgcelery.engine.columns import (
    QueueKey,
    check,
    check_name,
    columns,
    is_plain,
    of_plain,
    queue_key,
)
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import Connections, load
from pgcelery.engine.ears import Ears
from pgcelery.engine.errors import InvalidJob
from pgcelery.engine.exchange import Connection
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.inside import Inside
from pgcelery.engine.job import NewJob, State
from pgcelery.engine.latches import Latches
from pgcelery.engine.limits import Limits
from pgcelery.engine.parts import InParts
from pgcelery.engine.queues import Queues
from pgcelery.engine.results import Results
from pgcelery.engine.statements import statements
from pgcelery.engine.telling import Telling
from pgcelery.engine.transport import exposed_host
from pgcelery.engine.waiting import Waiting
from pgcelery.engine.workflows import Workflows

_BATCH = 1000  # jobs in one statement of an enqueue
_NOBODY = TextArray.of([])
_TRUE = b"\1"
_EXISTED, _HANDED = b"\0\1", b"\0\2"  # answers of enqueue_one_v2

T = TypeVar("T")


class QueueCounts(NamedTuple):
    """How many jobs of a queue are where."""

    ready: int
    scheduled: int
    running: int
    gated: int  #: waiting for a slot of their key


class WorkerInfo(NamedTuple):
    """A live worker."""

    id: int
    name: str
    host: str
    pid: int
    queues: list[str]
    info: dict[str, Any]
    started_at: datetime
    beat_at: datetime


class JobInfo(NamedTuple):
    """A job as it stands in the database."""

    id: str
    queue: str
    name: str
    payload: bytes
    priority: int
    max_deliveries: int
    created_at: datetime
    due_at: datetime | None
    expires_at: datetime | None
    result: bytes | None
    finished_at: datetime | None
    state: State


class Client(Workflows, Latches, Queues, Limits, Results, Waiting, Telling, InParts):
    """The application's side of the engine. Thread-safe; survives a fork; opens nothing until used.

    Raises (any method):
        DatabaseUnavailable: The server cannot be reached; trying again can help.
        SchemaMismatch: The database has no schema of this release.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._connections = Connections(config)
        self._ears = Ears(config)
        self._inside = Inside(config, self._connections)
        self._queue_ids: dict[str, int] = {}
        self._place_ids: dict[QueueKey, int] = {}
        self._told_at: dict[int, float] = {}
        self._sql = statements(config.schema)

    def _run(self, name: str, params: Any = None) -> list[TupleRow]:
        return self._connections.run(load(name, self.config.schema), params)

    # -- schema ---------------------------------------------------------------------------------

    def migrate(self) -> list[str]:
        """Bring the schema to this release's version; return the names of what was applied."""
        return self._of_schema(schema.migrate)

    def check_schema(self) -> None:
        """Raise SchemaMismatch, saying what to do, unless this release fits the database."""
        self._of_schema(schema.check)

    def exposed_host(self) -> str | None:
        """Name the server if what is said to it could be read on the way; else None."""
        with self._connections.lend() as conn:
            return exposed_host(conn)

    def schema_status(self) -> schema.SchemaStatus:
        """Compare the database's schema with this release's."""
        return self._of_schema(schema.status)

    def _of_schema(self, act: Callable[[Connection, str], T]) -> T:
        return self._connections.once(lambda conn: act(conn, self.config.schema))

    # -- jobs -----------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob], *, conn: Any = None) -> dict[str, str]:
        """Insert jobs, all or none, and wake workers once that has committed.

        Args:
            jobs: Parents of a job must be in the same call, or an open latch.
            conn: A psycopg or psycopg2 connection of the caller, whose transaction the jobs then
                belong to: workers see them, and hear of them, if and only if it commits. It is
                neither committed nor rolled back here.

        Returns:
            Jobs that were not created, each with who is there: its own id, if that existed already,
            or that of the job which stands for it (`NewJob.unique`). Nothing was changed for those.

        Raises:
            InvalidJob: Nothing was written.
            TypeError: `conn` is of another kind; nothing was written.
            WrongDatabase: `conn` is connected to another database; nothing was written.
            DatabaseUnavailable: Nothing was written, or, if the connection broke in the commit,
                everything was; sending the same jobs again is safe.
        """
        if not jobs:
            return {}
        for job in jobs:
            check(job, self.config.max_payload_bytes)
        plain = conn is None and len(jobs) == 1 and is_plain(jobs[0])
        if conn is not None:
            self._inside.check(conn)
        queue_ids = {} if plain else self.intern_places({queue_key(job) for job in jobs})
        failpoint("enqueue.begins")
        if conn is not None:
            return _existing([self._inside.enqueue(conn, jobs, queue_ids)])
        existing = self._enqueue_one(jobs[0]) if plain else self._enqueue_all(jobs, queue_ids)
        failpoint("enqueue.committed")
        if not plain and any(gate.strategy for job in jobs for gate in job.gates):
            # Full workers, too, have to look who gives way to whom.
            self._run("queues/tell", {"channel": self.config.schema, "payload": "c"})
        return existing

    def _enqueue_all(
        self, jobs: Sequence[NewJob], queue_ids: dict[QueueKey, int]
    ) -> dict[str, str]:
        roots = [job for job in jobs if not job.parents]
        if len(roots) == 1:
            return self._enqueue_led(jobs, queue_ids, roots[0])
        tells = self._tells({queue_ids[queue_key(job)] for job in roots})
        if len(jobs) <= _BATCH or len(roots) < len(jobs):
            insert = (self._sql.enqueue, columns(jobs, queue_ids))
            ((existing, holders),) = self._connections.ask(insert, *tells)
            return _pairs(existing, holders)
        existed = self._enqueue_many(load("jobs/enqueue", self.config.schema), jobs, queue_ids)
        for tell in tells:
            self._connections.ask(tell)
        return existed

    def _enqueue_led(
        self, jobs: Sequence[NewJob], queue_ids: Mapping[QueueKey, int], first: NewJob
    ) -> dict[str, str]:
        """Do it for jobs of which one waits for no other, and may be handed to a worker."""
        queue_id = queue_ids[queue_key(first)]
        tells = self._tells((queue_id,), but_for=first.id)
        params = [first.id.encode(), queue_id.to_bytes(4, "big"), *columns(jobs, queue_ids)]
        ((existing, holders, handed),) = self._connections.ask(
            (self._sql.enqueue_led, params), *tells
        )
        if handed == _TRUE:  # nobody was told
            self._told_at.pop(queue_id, None)
        return _pairs(existing, holders)

    def _enqueue_one(self, job: NewJob) -> dict[str, str]:
        """Do the same for the job that is sent all day."""
        key = queue_key(job)
        queue_id = self._place_ids.get(key) if job.placement else self._queue_ids.get(job.queue)
        if queue_id is None:
            queue_id = self.intern_places((key,))[key]
        insert = (self._sql.enqueue_one, of_plain(job, queue_id))
        tells = self._tells((queue_id,), but_for=job.id)
        ((answer,),) = self._connections.ask(insert, *tells)
        if answer == _HANDED:  # nobody was told
            self._told_at.pop(queue_id, None)
        return {job.id: job.id} if answer == _EXISTED else {}

    def _enqueue_many(
        self, query: bytes, jobs: Sequence[NewJob], queue_ids: dict[QueueKey, int]
    ) -> dict[str, str]:
        def insert(conn: Connection) -> dict[str, str]:
            existing: dict[str, str] = {}
            for start in range(0, len(jobs), _BATCH):
                part = columns(jobs[start : start + _BATCH], queue_ids)
                existing |= _existing(conn.execute(query, part).fetchall())
                failpoint("enqueue.batch")
            return existing

        return self._connections.transact(insert)

    def intern(self, names: Collection[str]) -> dict[str, int]:
        """Give queue names their ids, making queues that are missing; cached for good.

        Its transaction is its own, so that a caller's long one never holds a new queue's row.
        """
        missing = [name for name in names if name not in self._queue_ids]
        if missing:
            for name in missing:
                check_name("queue", name)
            params = {"names": TextArray.of(missing)}
            self._queue_ids.update({row[0]: row[1] for row in self._run("queues/intern", params)})
        return {name: self._queue_ids[name] for name in names}

    def intern_places(self, keys: Collection[QueueKey]) -> dict[QueueKey, int]:
        """Do the same for queues together with what jobs ask of a worker (`NewJob.placement`)."""
        queues = self.intern({name for name, _ in keys})
        missing = [key for key in keys if key[1] and key not in self._place_ids]
        for name, wants in missing:
            params = {"queue_id": queues[name], "wants": wants}
            self._place_ids[name, wants] = self._run("queues/intern_place", params)[0][0]
            self._run("queues/tell", {"channel": self.config.schema, "payload": "p"})
        return {key: self._place_ids[key] if key[1] else queues[key[0]] for key in keys}

    def cancel(
        self,
        ids: Sequence[str],
        *,
        terminate: bool = False,
        signum: int = 15,
        result: Callable[[str], bytes | None] | None = None,
    ) -> dict[str, State | None]:
        """Cancel jobs: what waits ends now, what runs is asked to, unknown ids are remembered.

        Args:
            ids: In any order; repeats count once.
            terminate: Kill the process that runs it, with `signum`.
            signum: Signal number.
            result: Makes the bytes to keep as the result of a job that ends now.

        Returns:
            The state of each after this: CANCELLED, another final one, RUNNING for asked, None for
            unknown.
        """
        if not ids:
            return {}
        unique = list(dict.fromkeys(check_name("id", one) for one in ids))
        rows = self._run(
            "jobs/cancel",
            {
                "ids": TextArray.of(unique),
                "results": ByteaArray.of([result(one) if result else None for one in unique]),
                "terminate": terminate,
                "signum": signum,
            },
        )
        states = {row[0]: None if row[1] is None else State(row[1]) for row in rows}
        if State.RUNNING in states.values():
            self._run("queues/tell", {"channel": self.config.schema, "payload": "c"})
        return states

    def purge(self, queues: Sequence[str] | None = None) -> int:
        """Delete what waits in queues (all of them for None); return how many jobs that were."""
        rows = self._run("jobs/purge", {"queues": None if queues is None else list(queues)})
        return int(rows[0][0])

    def job(self, id: str) -> JobInfo | None:
        """Look one job up; None when nothing is known of it."""
        rows = self._run("jobs/info", {"id": id})
        return JobInfo._make((*rows[0][:-1], State(rows[0][-1]))) if rows else None

    def scheduled(self, queues: Sequence[str], *, limit: int = 1000) -> list[JobInfo]:
        """List what waits for a time in queues, soonest first, at most `limit`."""
        rows = self._run("jobs/scheduled", {"queues": list(queues), "limit": limit})
        return [JobInfo._make((*row[:-1], State(row[-1]))) for row in rows]

    def counts(self, queues: Sequence[str] | None = None) -> dict[str, QueueCounts]:
        """Count what waits and runs, by queue; queues that never held a job are missing."""
        rows = self._run("queues/counts", {"names": None if queues is None else list(queues)})
        return {row[0]: QueueCounts(*row[1:]) for row in rows}

    # -- workers --------------------------------------------------------------------------------

    def workers(self) -> list[WorkerInfo]:
        """List the workers whose lease holds, oldest first."""
        return [WorkerInfo(*row) for row in self._run("workers/live")]

    def broadcast(
        self,
        body: bytes,
        *,
        destination: Sequence[str] | None = None,
        reply_to: str | None = None,
        ttl_s: float = 300.0,
    ) -> int:
        """Send a message to live workers (all, or those named); return to how many."""
        rows = self._run(
            "control/broadcast",
            {
                "body": body,
                "destination": None if destination is None else list(destination),
                "reply_to": reply_to,
                "ttl_s": ttl_s,
            },
        )
        self._run("queues/tell", {"channel": self.config.schema, "payload": "c"})
        return int(rows[0][0])

    def keep_message(self, body: bytes, keep_s: float) -> None:
        """Keep a message for workers that start within so many seconds; `kept_messages` has it."""
        self._run("control/keep", {"body": body, "keep_s": keep_s})

    def kept_messages(self) -> list[bytes]:
        """List the messages that hold for a worker that starts now, in order."""
        return [row[0] for row in self._run("control/kept")]

    def reply(self, reply_to: str, sender: str, body: bytes) -> None:
        """Answer a message."""
        self._run("control/reply", {"reply_to": reply_to, "sender": sender, "body": body})

    def replies(
        self, reply_to: str, *, timeout_s: float, limit: int | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield (sender, body) of answers as they come, until `limit` or the time is over."""
        deadline = time.monotonic() + timeout_s
        count = 0
        while True:
            for sender, body in self._run("control/replies", {"reply_to": reply_to}):
                yield sender, body
                count += 1
                if count == limit:
                    return
            left = deadline - time.monotonic()
            if left <= 0:
                return
            threading.Event().wait(min(0.02, left))

    # -- events ---------------------------------------------------------------------------------

    def events_heard(self) -> bool:
        """Tell whether anybody listens to the stream of events."""
        return bool(self._run("events/heard")[0][0])

    def append_events(self, bodies: Sequence[bytes], channel: str) -> bool:
        """Append batches to the stream, if anybody listens; tell whether."""
        params = {"bodies": ByteaArray.of(list(bodies)), "channel": channel}
        return bool(self._run("events/append", params))

    def prune_events(self, keep_s: float) -> None:
        """Delete what has been in the stream for longer than `keep_s` seconds."""
        self._run("events/prune", {"keep_s": keep_s})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections. The client can be used again."""
        self._connections.close()
        self._ears.close()


def _existing(rows: Sequence[TupleRow]) -> dict[str, str]:
    if not rows:
        raise InvalidJob("the database answered nothing to an enqueue")
    return dict(zip(*rows[0], strict=True))


def _pairs(existing: bytes | None, holders: bytes | None) -> dict[str, str]:
    if existing == _NOBODY:
        return {}
    return dict(zip(TextArray.read(existing or b""), TextArray.read(holders or b""), strict=True))
