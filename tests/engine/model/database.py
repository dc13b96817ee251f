"""The engine's side: its statements as a node sends them, and all that its tables hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import pq
from psycopg import sql as pgsql

from pgcelery.engine import Client, EngineConfig, Outcome
from pgcelery.engine.arrays import BigintArray, ByteaArray, IntegerArray, TextArray, register
from pgcelery.engine.columns import columns, is_plain, of_plain, queue_key
from pgcelery.engine.database import load
from pgcelery.engine.link import Param, Statement
from pgcelery.engine.outbox import again_params, ended_params
from pgcelery.engine.relay import Relay
from pgcelery.engine.statements import (
    Kind,
    Row,
    beat_row,
    outcome_row,
    statements,
    upkeep_row,
    wide_row,
)
from pgcelery.engine.territory import OWN, Territory
from tests.engine.model.plans import (
    LEASE,
    QUEUES,
    UNIT_S,
    UPKEEP_LEASE,
    Claim,
    Ending,
    Plan,
    Sent,
    seconds,
)
from tests.engine.model.tables import Seen, demand

SCHEMA = "pgcelery"
_INT4, _INT8, _TEXT, _BYTEA, _FLOAT8 = 23, 20, 25, 17, 701

_DUMP = b"""
select json_build_object(
 'jobs', (select coalesce(json_agg(json_build_array(
    j.id, j.queue_id, j.priority, j.max_deliveries, convert_from(j.payload, 'UTF8'),
    ceil(j.ttl_s / {u}), ceil(j.delay_s / {u}), ceil(j.lives_s / {u}),
    ceil(extract(epoch from j.due_at - now()) / {u}),
    ceil(extract(epoch from j.expires_at - now()) / {u}),
    j.parents, j.flags & 1 = 1, j.flags & 128 = 128, j.workflow, j.joined, j.last_token, j.parked,
    case when j.sent is distinct from null then json_build_array(
        (j.sent).queue_id, (j.sent).priority, (j.sent).max_deliveries,
        convert_from((j.sent).payload, 'UTF8'), ceil((j.sent).ttl_s / {u}),
        ceil((j.sent).delay_s / {u}), ceil((j.sent).lives_s / {u})) end
  ) order by j.seq), '[]') from pgcelery.jobs j),
 'scheduled', (select coalesce(json_agg(json_build_array(
    s.job_id, s.deliveries, s.flags, s.queue_id, s.priority,
    ceil(extract(epoch from s.due_at - now()) / {u}),
    s.seq = j.seq and s.due_at = j.due_at)), '[]')
  from pgcelery.scheduled s left join pgcelery.jobs j on j.id = s.job_id),
 'ready', (select coalesce(json_agg(json_build_array(
    r.job_id, r.deliveries, r.flags, r.queue_id, r.priority, r.seq = j.seq and r.tag = 0)), '[]')
  from pgcelery.ready r left join pgcelery.jobs j on j.id = r.job_id),
 'running', (select coalesce(json_agg(json_build_array(
    r.job_id, r.delivery, r.flags, r.queue_id, r.token, r.worker_id)), '[]')
  from pgcelery.running r),
 'nodes', (select coalesce(json_agg(json_build_array(
    n.job_id, n.pending, n.failed, n.joined)), '[]') from pgcelery.nodes n),
 'edges', (select coalesce(json_agg(json_build_array(e.parent, e.child)), '[]')
  from pgcelery.edges e),
 'results', (select coalesce(json_agg(json_build_array(
    s.id, s.state, s.token, convert_from(s.result, 'UTF8'),
    ceil(extract(epoch from s.expires_at - now()) / {u}), s.finished_at is not null)), '[]')
  from pgcelery.results s),
 'cancels', (select coalesce(json_agg(json_build_array(
    c.job_id, c.terminate, ceil(extract(epoch from c.requested_at - now()) / {u}))), '[]')
  from pgcelery.cancels c),
 'late', (select coalesce(json_agg(json_build_array(
    l.job_id, l.token, l.state, l.reason, ceil(extract(epoch from l.at - now()) / {u}))), '[]')
  from pgcelery.late l),
 'workers', (select coalesce(json_agg(json_build_array(
    w.id, ceil(extract(epoch from w.lease_until - clock_timestamp()) / {u}))), '[]')
  from pgcelery.workers w),
 'upkeep', (select json_build_array(l.worker_id, ceil(extract(epoch from l.until - now()) / {u}))
  from pgcelery.leases l),
 'stopped', (select coalesce(json_agg(json_build_array(
    t.workflow, ceil(extract(epoch from t.at - now()) / {u}))), '[]') from pgcelery.stopped t),
 'offers', (select coalesce(json_agg(json_build_array(
    o.token, o.queue_id, o.worker_id, o.channel, ceil(extract(epoch from o.until - now()) / {u}))),
    '[]') from pgcelery.offers o),
 'unlimited', (select count(*) from pgcelery.gated) + (select count(*) from pgcelery.comers)
  + (select count(*) from pgcelery.lines) + (select count(*) from pgcelery.timers))
""".replace(b"{u}", str(UNIT_S).encode())


def config(dsn: str) -> EngineConfig:
    return EngineConfig(dsn=dsn, lease_s=seconds(LEASE))


class Engine:
    """What all sessions of one database share. Queues are made once and stay."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.client = Client(config(dsn))
        self.queue_ids = self.client.intern(QUEUES)
        self.queues = {id: name for name, id in self.queue_ids.items()}
        self.node = statements(SCHEMA)
        relay = Relay(config(dsn), lambda token: None)  # never opened: for its statements
        self.relay, self.end, self.reserve = relay._relay, relay._end, relay._reserve
        oids = (_INT8, _TEXT, _BYTEA, _FLOAT8, _INT4, *self.node.step.oids[12:])
        self.record = Statement(b"record", load("runs/record", SCHEMA), oids)
        with psycopg.connect(dsn) as conn:
            names = conn.execute(
                "select tablename from pg_tables where schemaname = %s and tablename <> all (%s)"
                " order by 1",
                [SCHEMA, ["migrations", "queues"]],
            ).fetchall()
        tables = [pgsql.Identifier(SCHEMA, name) for (name,) in names]
        deleted = [
            pgsql.SQL("t{} as (delete from {})").format(pgsql.SQL(str(n)), table)
            for n, table in enumerate(tables)
        ]
        self._delete = pgsql.SQL("with {} select").format(pgsql.SQL(", ").join(deleted))
        self._truncate = pgsql.SQL("truncate {}").format(pgsql.SQL(", ").join(tables))
        self._emptied = 0

    def intern(self, key: tuple[str, str]) -> int:
        return self.queue_ids[key[0]]

    def empty(self, conn: psycopg.Connection[Any]) -> None:
        """Delete all rows; now and then give back the space as well."""
        self._emptied += 1
        conn.execute(self._truncate if self._emptied % 100 == 0 else self._delete, prepare=True)

    def close(self) -> None:
        self.client.close()


class Session:
    """One connection, on which statements of nodes and of clients are run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.conn = psycopg.connect(
            engine.dsn,
            autocommit=True,
            options="-c lock_timeout=10s -c jit=off -c synchronous_commit=off",
        )
        register(self.conn.adapters)
        self._prepared: set[bytes] = set()

    @property
    def pid(self) -> int:
        return self.conn.info.backend_pid

    def close(self) -> None:
        self.conn.close()

    @property
    def idle(self) -> bool:
        return self.conn.info.transaction_status == pq.TransactionStatus.IDLE

    def transaction(self, command: str) -> None:
        """Begin, commit or roll back; psycopg would forget what is prepared."""
        if command == "begin" or not self.idle:
            _checked(self.conn.pgconn.exec_(command.encode()))

    def ask(self, statement: Statement, params: Sequence[Param]) -> list[list[bytes | None]]:
        """Run a node's statement as `Link` does, and wait for the answer."""
        pgconn = self.conn.pgconn
        if statement.name not in self._prepared:
            _checked(pgconn.prepare(statement.name, statement.text, statement.oids))
            self._prepared.add(statement.name)
        values = [p if isinstance(p, bytes) or p is None else str(p).encode() for p in params]
        formats = [int(isinstance(p, bytes)) for p in params]
        done = _checked(pgconn.exec_prepared(statement.name, values, formats, pq.Format.BINARY))
        width = range(done.nfields)
        return [[done.get_value(row, cell) for cell in width] for row in range(done.ntuples)]

    def run(self, name: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Run one of a client's statements."""
        cursor = self.conn.execute(load(name, SCHEMA), params, prepare=True)
        return cursor.fetchall() if cursor.description else []

    # -- clients ----------------------------------------------------------------------------------

    def enqueue(self, plans: Sequence[Plan]) -> Sent:
        """Insert jobs, with the statement that `Client.enqueue` would choose."""
        jobs = [plan.job() for plan in plans]
        keys = {queue_key(job): self.engine.intern(queue_key(job)) for job in jobs}
        roots = [job for job in jobs if not job.parents]
        # Slow looks are left alone for a while, and this machine may be slow.
        self.conn.execute("select set_config('pgcelery_claims.offers', '', false)", prepare=True)
        if len(jobs) == 1 and is_plain(jobs[0]):
            one = of_plain(jobs[0], keys[queue_key(jobs[0])])
            ((answer,),) = self.ask(self.engine.node.enqueue_one, one)
            existing = {jobs[0].id} if _int(answer) == 1 else set()
            return Sent(existing, self._token(jobs[0].id) if _int(answer) == 2 else None)
        if len(roots) == 1:
            queue_id = keys[queue_key(roots[0])].to_bytes(4, "big")
            params = [roots[0].id.encode(), queue_id, *columns(jobs, keys)]
            ((ids, holders, handed),) = self.ask(self.engine.node.enqueue_led, params)
            demand(ids == holders, f"{ids!r} existed, not {holders!r}")
            token = self._token(roots[0].id) if handed == b"\1" else None
            return Sent(set(TextArray.read(ids or b"")), token)
        ((existing, holders),) = self.run("jobs/enqueue", columns(jobs, keys))
        demand(existing == holders, f"{existing} existed, not {holders}")
        return Sent(set(existing), None)

    def _token(self, id: str) -> int:
        """Of the run of a job that was just handed over."""
        query = "select token from pgcelery.running where job_id = %s"
        row = self.conn.execute(query, [id], prepare=True).fetchone()
        demand(row, f"{id} was handed over and does not run")
        return 0 if row is None else int(row[0])

    @contextmanager
    def pausing(self, paused: bool) -> Iterator[None]:
        """Have a queue that nobody serves paused for the length of the block, if at all."""
        if paused:
            self.conn.execute("insert into pgcelery.paused (queue_id) values (0)")
        yield
        if paused:
            self.conn.execute("delete from pgcelery.paused")

    def cancel(self, ids: Sequence[str], terminate: bool) -> dict[str, int | None]:
        params = {
            "ids": TextArray.of(list(ids)),
            "results": ByteaArray.of([None] * len(ids)),
            "terminate": terminate,
            "signum": 15,
        }
        return dict(self.run("jobs/cancel", params))

    # -- nodes ------------------------------------------------------------------------------------

    def register(self, name: str) -> int:
        params = [name, "host", 1, TextArray.of(QUEUES), "{}", seconds(LEASE)]
        ((id,),) = self.ask(self.engine.node.register, params)
        return _int(id)

    def step(
        self, me: int, territory: Territory, turn: int, want: int, endings: Sequence[Ending]
    ) -> list[Row]:
        ended = ended_params(_outcomes(endings), self.engine.intern)
        params = [me, want, *territory.params(turn), 1e9, *ended]
        return [wide_row(cells) for cells in self.ask(self.engine.node.step, params)]

    def reschedule(self, me: int, endings: Sequence[Ending]) -> list[Row]:
        params = [me, *again_params(_outcomes(endings), self.engine.intern)]
        return [outcome_row(cells) for cells in self.ask(self.engine.node.reschedule, params)]

    def beat(self, me: int) -> list[Row]:
        return [beat_row(c) for c in self.ask(self.engine.node.beat, [me, seconds(LEASE)])]

    def maintain(self, me: int) -> list[Row]:
        # After an outage of upkeep all get a grace, which is told by when the server began, and no
        # test can move that: see faults/test_fence.py. A lease that is over and none differ in that
        # alone.
        self.conn.execute("delete from pgcelery.leases where until < now()", prepare=True)
        params = [me, seconds(UPKEEP_LEASE), 1000]
        return [upkeep_row(cells) for cells in self.ask(self.engine.node.maintain, params)]

    def reclaim(self, me: int, known: Sequence[int]) -> None:
        self.ask(self.engine.node.reclaim, [me, BigintArray.of(known)])

    def offer(
        self, me: int, channel: str, queues: Sequence[str], many: int, lives: int
    ) -> list[tuple[int, str]]:
        ids = IntegerArray.of([self.engine.queue_ids[name] for name in queues])
        params: list[Param] = [me, channel, ids, many, seconds(lives)]
        rows = self.ask(self.engine.node.offer, params)
        return [(_int(token), self.engine.queues[_int(queue)]) for token, queue in rows]

    def withdraw(self, me: int) -> None:
        self.ask(self.engine.node.withdraw, [me])

    def unclaim(self, tokens: Sequence[int]) -> None:
        self.ask(self.engine.node.unclaim, [BigintArray.of(tokens)])

    def reserve(self) -> int:
        return _int(self.ask(self.engine.reserve, [])[0][0])

    def relay(self, me: int, ending: Ending, queues: Sequence[str], token: int) -> Claim | None:
        """Record a run and claim what waits for it, as a pool process does."""
        one = ending.outcome()
        ids = IntegerArray.of([self.engine.queue_ids[name] for name in queues])
        margin_s = seconds(LEASE) * 0.2
        barred = TextArray.of([])
        params = [me, one.token, one.id, one.result, one.ttl_s, token, ids, margin_s, barred]
        (cells,) = self.ask(self.engine.relay, params)
        if cells[0] is None:
            return None
        id, queue_id, _, payload, priority, flags = cells[:6]
        return Claim(
            (id or b"").decode(),
            token,
            self.engine.queues[_int(queue_id)],
            (payload or b"").decode(),
            _int(priority),
            1,
            _int(flags),
            ending.id,
        )

    def end(self, ending: Ending) -> bool:
        one = ending.outcome()
        (cells,) = self.ask(
            self.engine.end, [one.token, one.id, one.result, one.ttl_s, IntegerArray.of([])]
        )
        return cells[0] == b"\1"

    def record(self, ending: Ending) -> bool:
        """Record a run in the transaction of what it did; False, and that undone, if refused."""
        begun = not self.idle
        self.transaction("savepoint run" if begun else "begin")
        self.run("runs/begin", [str(ending.token)])
        one = ending.outcome()
        after = ended_params([one], self.engine.intern)[5:]
        params = [one.token, one.id, one.result, one.ttl_s, 60_000, *after]
        rows = self.ask(self.engine.record, params)
        current = all(_int(cells[0]) != Kind.LATE for cells in rows)
        if not current:
            self.transaction("rollback to run" if begun else "rollback")
        elif not begun:
            self.transaction("commit")
        return current

    def claims(self, rows: Sequence[Row]) -> list[Claim]:
        return [
            Claim(
                row.job_id or "",
                row.token or 0,
                self.engine.queues[row.queue_id or 0],
                (row.payload or b"").decode(),
                row.priority or 0,
                row.delivery or 0,
                row.flags or 0,
                row.fed_by,
            )
            for row in rows
            if row.kind is Kind.CLAIM
        ]

    # -- what there is ----------------------------------------------------------------------------

    def _look(self) -> dict[str, Any]:
        row = self.conn.execute(_DUMP, prepare=True).fetchone()
        assert row is not None
        return row[0]

    def seen(self) -> Seen:
        """What this transaction sees of what others may hold locks of."""
        raw = self._look()
        return Seen(
            frozenset(row[0] for row in raw["scheduled"]),
            {row[0]: row[1] for row in raw["ready"]},
            frozenset(row[0] for row in raw["nodes"]),
            frozenset(row[0] for row in raw["results"] if row[4] is not None and row[4] <= 0),
            frozenset(row[0] for row in raw["offers"]),
        )

    def dump(self, now: int) -> dict[str, Any]:
        """All of it, in the model's units and names."""
        raw, queues = self._look(), self.engine.queues
        demand(raw["unlimited"] == 0, "there are limits")

        def at(units: float | None) -> int | None:
            return None if units is None else int(units) + now

        places: list[tuple[Any, ...]] = []
        for id, deliveries, flags, queue, priority, due, same in raw["scheduled"]:
            demand(same, f"{id} is scheduled where no cancel would find it")
            places.append(("scheduled", id, deliveries, flags, queues[queue], priority, at(due)))
        for id, deliveries, flags, queue, priority, same in raw["ready"]:
            demand(same, f"{id} is ready where no cancel would find it")
            places.append(("ready", id, deliveries, flags, queues[queue], priority))
        for id, delivery, flags, queue, token, worker in raw["running"]:
            places.append(("running", id, delivery, flags, queues[queue], token, worker))
        for id, pending, failed, joined in raw["nodes"]:
            places.append(("node", id, pending, failed, _tuple(joined)))
        jobs = {}
        for (
            id,
            queue,
            *kept,
            due,
            expires,
            parents,
            awaited,
            leads,
            workflow,
            joined,
            last,
            parked,
            sent,
        ) in raw["jobs"]:
            was = None if sent is None else (queues[sent[0]], *sent[1:])
            fixed = (queues[queue], *kept, at(due), at(expires), parents, awaited, leads)
            jobs[id] = (*fixed, workflow, _tuple(joined), last, parked, was)
        upkeep = raw["upkeep"]
        return {
            "jobs": jobs,
            "order": [row[0] for row in raw["jobs"]],
            "places": sorted(places, key=repr),
            "results": {r[0]: (r[1], r[2], r[3], at(r[4]), r[5]) for r in raw["results"]},
            "edges": sorted(tuple(edge) for edge in raw["edges"]),
            "cancels": {id: (terminate, at(when)) for id, terminate, when in raw["cancels"]},
            "late": sorted((*row[:4], at(row[4])) for row in raw["late"]),
            "workers": {id: at(until) for id, until in raw["workers"]},
            "upkeep": None if upkeep is None else (upkeep[0], at(upkeep[1])),
            "stopped": {workflow: at(when) for workflow, when in raw["stopped"]},
            "offers": {o[0]: (queues[o[1]], o[2], o[3], at(o[4])) for o in raw["offers"]},
        }


def territory(engine: Engine, name: str, queues: Sequence[str]) -> Territory:
    """Make what a node of that name claims from."""
    made = Territory({OWN: name}, grace_s=0.1)
    made.serve({queue: engine.queue_ids[queue] for queue in queues})
    return made


def _outcomes(endings: Sequence[Ending]) -> list[Outcome]:
    return sorted((ending.outcome() for ending in endings), key=lambda one: one.token)


def _checked(result: pq.abc.PGresult) -> pq.abc.PGresult:
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result)
    return result


def _int(cell: bytes | None) -> int:
    return int.from_bytes(cell or b"", "big", signed=True)


def _tuple(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)
