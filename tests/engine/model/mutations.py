"""Deliberate breaks of the engine, made in a migrated database, one at a time.

Each replaces a piece of one function's text. A test that does not notice is no test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg


class Mutation(NamedTuple):
    """What is replaced by what, wherever it stands in a function; blanks count as one."""

    name: str
    function: str
    old: str
    new: str


MUTATIONS = [
    Mutation("finish: no fence", "finish_v4", "where r.token = g.token", "where r.job_id = g.id"),
    Mutation(
        "reschedule: no fence", "reschedule_v2", "where r.token = o.token", "where r.job_id = o.id"
    ),
    Mutation("end: no fence", "end_v1", "where r.token = end_v1.run and", "where"),
    Mutation("record: fence not locked", "record_v1", "record_v1.run for update", "record_v1.run"),
    Mutation(
        "record: children not told", "record_v1", "if f.parents is not null then", "if false then"
    ),
    Mutation(
        "reschedule: the delay of what is given back",
        "reschedule_v2",
        "o.state = 4 or o.delay_s is not null",
        "o.state = 4",
    ),
    Mutation(
        "children: counted down twice",
        "free_v1",
        "n.pending - l.arrived",
        "n.pending - 2 * l.arrived",
    ),
    Mutation(
        "children: freed with a parent missing",
        "free_v1",
        "l.pending <= l.arrived",
        "l.pending <= l.arrived + 1",
    ),
    Mutation("children: a failure is not told", "free_v1", "l.failed + l.bad > 0", "false"),
    Mutation("children: nodes are not locked", "free_v1", "for update of n", ""),
    Mutation("claim: wish to cancel ignored", "step_v4", "then 8 else 0", "then 0 else 0"),
    Mutation("claim: expiry ignored", "step_v4", "then 16 else 0", "then 0 else 0"),
    Mutation(
        "claim: stays ready",
        "step_v4",
        "delete from pgcelery.ready r using picked p where r.ctid = p.at"
        " returning r.job_id, r.deliveries, r.flags",
        "select r.job_id, r.deliveries, r.flags"
        " from pgcelery.ready r join picked p on r.ctid = p.at",
    ),
    Mutation(
        "claim: before its time",
        "step_v4",
        "where s.queue_id = any (all_ids) and s.due_at <= now()",
        "where s.queue_id = any (all_ids)",
    ),
    Mutation("claim: delivery not counted", "step_v4", "g.deliveries + 1", "1"),
    Mutation(
        "upkeep: delivery not counted",
        "maintain_v2",
        "d.seq, d.job_id, d.delivery, d.flags",
        "d.seq, d.job_id, 0, d.flags",
    ),
    Mutation(
        "upkeep: at most once runs again",
        "maintain_v2",
        "g.delivery >= j.max_deliveries as over",
        "false as over",
    ),
    Mutation(
        "upkeep: prunes what a workflow needs",
        "maintain_v2",
        "s.id = o.id and o.workflow in",
        "false and o.workflow in",
    ),
    Mutation(
        "upkeep: forgets that a run is lost", "maintain_v2", "d.flags | 32 from", "d.flags from"
    ),
    Mutation(
        "upkeep: a wish to cancel ignored",
        "maintain_v2",
        "c.job_id is not null or g.delivery >=",
        "g.delivery >=",
    ),
    Mutation(
        "upkeep: does not say that a run is cancelled",
        "maintain_v2",
        "when d.cancelled then 8",
        "when d.cancelled then 0",
    ),
    Mutation("upkeep: takes runs of the living", "maintain_v2", "w.lease_until < now()", "true"),
    Mutation(
        "reclaim: counts a delivery",
        "reclaim_v2",
        "l.delivery - 1, l.flags",
        "l.delivery, l.flags",
    ),
    Mutation(
        "late outcome: takes the wish to cancel",
        "finish_v4",
        "d.state >= 10 and d.token = any (ended)",
        "d.state >= 10",
    ),
    Mutation("result: written over when final", "put_result_v1", "where s.finished_at is null", ""),
    Mutation(
        "cancel: children not told", "cancel_v1", "if job.flags & 1 = 1 then", "if false then"
    ),
    Mutation("cancel: no wish for what runs", "cancel_v1", "if ended then", "if true then"),
    Mutation(
        "relay: ignores a wish to cancel",
        "relay_v3",
        "and not exists (select from pgcelery.cancels c"
        " where c.job_id in (relay_v3.job_id, e.child))",
        "",
    ),
    Mutation(
        "relay: ignores other parents", "relay_v3", "n.pending = 1 and n.joined is null", "true"
    ),
    Mutation(
        "replay: of what has not ended", "replay_v1", "if refused is not null then", "if false then"
    ),
    Mutation("enqueue: again though it is there", "enqueue_v4", "where j.parked", "where true"),
    Mutation(
        "one: not told that it is there",
        "enqueue_one_v2",
        "return ( select",
        "return 0 * ( select",
    ),
    Mutation("one: all first", "enqueue_one_v2", "values ($2, $3, place", "values ($2, 0, place"),
    Mutation("enqueue: twice in one call", "enqueue_v4", "(twice is null or", "(true or"),
    Mutation("join: counted once a place", "join_v2", "coalesce(n.joined, '{}') ||", "n.joined ||"),
    Mutation("purge: children not told", "purge_v2", "cardinality(awaited) > 0", "false"),
    Mutation(
        "hand: before its turn",
        "hand_v1",
        "first_id is distinct from hand_v1.id or",
        "first_id is null or",
    ),
    Mutation(
        "hand: a wish to cancel ignored",
        "hand_v1",
        " or exists (select from pgcelery.cancels c where c.job_id = hand_v1.id)",
        "",
    ),
    Mutation(
        "hand: while a queue is paused", "hand_v1", " or exists (select from pgcelery.paused)", ""
    ),
    Mutation(
        "hand: expiry ignored",
        "hand_v1",
        " and (j.expires_at is null or j.expires_at > now())",
        "",
    ),
    Mutation("hand: of any length", "hand_v1", "octet_length(j.payload) < 5000", "true"),
    Mutation(
        "hand: stays ready",
        "hand_v1",
        "delete from pgcelery.ready r where r.ctid = first_at; if not found then return false;"
        " end if;",
        "",
    ),
    Mutation(
        "hand: the offer stays",
        "hand_v1",
        "delete from pgcelery.offers o where o.ctid = offer.at;",
        "",
    ),
    Mutation("hand: past its time", "hand_v1", " and o.until > now()", ""),
    Mutation("hand: one offer to two", "hand_v1", " for update skip locked", ""),
    Mutation("hand: the oldest first", "hand_v1", "order by o.token desc", "order by o.token"),
    Mutation(
        "hand: to who is gone",
        "hand_v1",
        "if pg_try_advisory_xact_lock_shared(1885823845, hashtext(offer.channel)) then",
        "if false then",
    ),
    Mutation(
        "hand: says nothing", "hand_v1", "perform pg_notify(offer.channel, told), ", "perform "
    ),
    Mutation(
        "hand: says nothing of children", "hand_v1", "j.priority, first_flags)", "j.priority, 0)"
    ),
    Mutation("hand: of any queue", "hand_v1", "where o.queue_id = of_queue and", "where"),
    Mutation(
        "offer: outlasts the lease",
        "offer_v1",
        "least(w.lease_until, now() + make_interval(secs => for_s))",
        "now() + make_interval(secs => for_s)",
    ),
    Mutation(
        "offer: while a queue is paused", "offer_v1", " or exists (select from pgcelery.paused)", ""
    ),
    Mutation("offer: of who is unknown", "offer_v1", "ends_at is null or", ""),
    Mutation(
        "offer: not renewed",
        "offer_v1",
        "set until = coalesce(ends_at, now())",
        "set until = o.until",
    ),
    Mutation("offer: past ones stay", "offer_v1", "m.until < now()", "false"),
    Mutation("offer: takes those of others", "offer_v1", " and m.worker_id = offer_v1.me", ""),
    Mutation(
        "reclaim: offers stay",
        "reclaim_v3",
        "delete from pgcelery.offers o where o.worker_id = me;",
        "",
    ),
    Mutation(
        "reclaim: does not wait for who takes one",
        "reclaim_v3",
        "delete from pgcelery.offers o where o.worker_id = me;",
        "delete from pgcelery.offers o where o.ctid = any (array( select m.ctid"
        " from pgcelery.offers m where m.worker_id = me for update skip locked));",
    ),
    Mutation(
        "reclaim: gives nothing back",
        "reclaim_v3",
        "return pgcelery.reclaim_v2(me, known);",
        "return '{}';",
    ),
]

#: of what the model of limits holds
OF_GATES = [
    Mutation("slots: not given back", "release_v2", "l.in_use - f.slots", "l.in_use"),
    Mutation("slots: not given back by a step", "admit_v3", "l.in_use - c.freed", "l.in_use"),
    Mutation("slots: more than there are", "pass_v1", "other.in_use >= other.slots", "false"),
]


@contextmanager
def broken(dsn: str, mutation: Mutation) -> Iterator[None]:
    """Break a function for the length of the block, for everybody on that database."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(
            "select pg_get_functiondef(p.oid) from pg_proc p"
            " where p.pronamespace = 'pgcelery'::regnamespace and p.proname = %s",
            [mutation.function],
        ).fetchone()
        assert row is not None, f"there is no {mutation.function}"
        whole = row[0]
        text = plain(whole)
        assert mutation.old in text, f"{mutation.function} has no {mutation.old!r}"
        conn.execute(_pragma(text.replace(mutation.old, mutation.new)).encode())
        try:
            yield
        finally:
            conn.execute(whole.encode())


def plain(text: str) -> str:
    """Take comments out of a function's text, and make all blanks one."""
    code = " ".join(line.partition("--")[0] for line in text.splitlines())
    return " ".join(code.split()).replace('"pgcelery".', "pgcelery.")


def _pragma(text: str) -> str:
    """Give plpgsql's pragma the line that it has to itself."""
    return text.replace("#variable_conflict use_column", "\n#variable_conflict use_column\n")
