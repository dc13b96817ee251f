"""From facts about a job (``why_v1``) to the one reason why it is where it is, in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

from pgcelery.engine import placement
from pgcelery.engine.job import State, Strategy
from pgcelery.engine.why import COUNTED, Holder, LineState, Parent, ServingWorker, Why

_NO_SLOT, _REPLACED, _PARENT_FAILED = 2048, 4096, 4  # bits of the flags of a claim
_SHOWN = 3  # names in a sentence

Facts = Mapping[str, Any]


def explain(id: str, facts: Facts, payload: bytes | None, result: bytes | None) -> Why:
    """Find the one reason: of all that hold, the one that must be over first."""
    base = Why(
        id=id,
        reason="",
        text="",
        state=None,
        at=_time(facts["at"]) or datetime.now(UTC),
        name=facts.get("name"),
        queue=facts.get("queue"),
        cancel_at=_time(facts.get("cancel_at")),
        expires_at=_time(facts.get("expires_at")),
        payload=payload,
        result=result,
    )
    return _PLACES[facts["place"]](base, facts)


# -- places: one function each ------------------------------------------------------------------


def _ended(base: Why, facts: Facts) -> Why:
    state = State(facts["state"])
    since = _time(facts["finished_at"])
    text = f"It {state.name.lower()} {_ago(since, base.at)}."
    if state is State.CANCELLED:
        text = f"It was cancelled {_ago(since, base.at)}."
    return replace(base, reason="ended", text=text, state=state, since=since, cancel_at=None)


def _nowhere(base: Why, facts: Facts) -> Why:
    text = "A state was stored for this id by hand, but no such job is known."
    if base.name is not None:
        text = "It is known, but neither waits nor runs: its row was taken away by hand."
    return replace(base, reason="nowhere", text=text, state=None)


def _running(base: Why, facts: Facts) -> Why:
    run = facts["run"]
    since = _time(run["started_at"])
    lease = _time(run["lease_until"])
    found = replace(
        base,
        state=State.RUNNING,
        since=since,
        worker=run["worker"],
        host=run["host"],
        pid=run["pid"],
        delivery=run["delivery"],
    )
    again = f", delivery {found.delivery}" if run["delivery"] > 1 else ""
    if lease is None or lease <= base.at:
        who = f"Worker {found.worker}" if found.worker else "Its worker"
        text = (
            f"{who}, which began to run it {_ago(since, base.at)}{again}, has fallen silent: it"
            " is taken from that worker at the next round of upkeep."
        )
        return replace(found, reason="silent", text=text, until=lease)
    where = f"worker {found.worker} (host {found.host}, pid {found.pid})"
    text = f"It runs on {where} since {_stamp(since)}, {_ago(since, base.at)}{again}."
    if base.cancel_at is not None:
        asked = _ago(base.cancel_at, base.at)
        text = f"{text[:-1]}; it was asked to end {asked} and goes on so far."
    return replace(found, reason="running", text=text)


def _parents(base: Why, facts: Facts) -> Why:
    pending, failed, total = facts["pending"], facts["failed"], facts["total"]
    parents = tuple(
        Parent(one["id"], one["name"], None if one["state"] is None else State(one["state"]))
        for one in facts["parents"] or ()
    )
    shown = [
        f"{one.name} {one.id} ({one.state.name.lower()})"
        if one.state is not None
        else f"{one.id} (still being sent)"
        for one in parents[:_SHOWN]
    ]
    text = f"It waits for {pending} of {total} that come before it: {_listed(shown, pending)}."
    if failed:
        text = (
            f"{text[:-1]}; {failed} did not complete, so it will not run, but be ended after them."
        )
    return replace(
        base,
        reason="parent_failed" if failed else "parents",
        text=text,
        state=State.WAITING,
        parents=parents,
        parents_total=total,
        parents_pending=pending,
        parents_failed=failed,
    )


def _ending(base: Why, facts: Facts) -> Why:
    flags = facts["flags"]
    reason, said = "cancelled", "it was cancelled"
    if flags & _NO_SLOT:
        reason, said = "no_slot", "no slot of its limit was free when it came"
    elif flags & _REPLACED:
        reason, said = "replaced", "a newer one of its limit took its place"
    text = f"It will not run: {said}; the next worker to look ends it."
    return replace(base, reason=reason, text=text, state=State.AVAILABLE)


def _parked(base: Why, facts: Facts) -> Why:
    text = "Its run gave it up to a replacement, which has not been sent yet."
    return replace(base, reason="parked", text=text, state=State.WAITING)


def _scheduled(base: Why, facts: Facts) -> Why:
    due = _time(facts["due_at"])
    again = facts["again"]
    found = replace(base, state=State.RETRYABLE if again else State.SCHEDULED, until=due)
    assert due is not None
    if due <= base.at:
        return _doomed(_claimable(found, facts, since=due), base)
    word = "a retry" if again else "a time"
    text = f"It waits for {word}: due at {_stamp(due)}, in {_length(due - base.at)}."
    return _doomed(replace(found, reason="retry" if again else "scheduled", text=text), base)


def _gated(base: Why, facts: Facts) -> Why:
    line = _line(facts["line"], base.at)
    holders = tuple(
        Holder(one["id"], one["name"], one["worker"], _time(one["since"]), one["cancelled"])
        for one in facts["line"]["holders"]
    )
    found = replace(base, state=State.AVAILABLE, line=line, holders=holders)
    place = f"place {_upto(line.ahead, 1)} in its line"
    origin = f" (set at run time, {_stamp(line.set_at)})" if line.set_at else ""
    if line.full:
        text = (
            f"It waits at {line.label}: {line.in_use} of {line.slots} in use{origin}, held by"
            f" {_held(holders, line.in_use)}; {place}."
        )
        if any(one.cancelled for one in holders):
            text = f"{text[:-1]}, and of those that hold it some were asked to end."
        return _doomed(replace(found, reason="limit", text=text), base)
    turn = line.turn_at
    if line.kind == "rate" and turn is not None:
        text = (
            f"It waits at {line.label}, {line.rate} in {line.period_s:g} s{origin}: the next one"
            f" may start {_ahead(line.opens_at, base.at)}, this one, {place},"
            f" {_ahead(turn, base.at)} at the earliest."
        )
        return _doomed(replace(found, reason="rate", text=text, until=turn), base)
    return _doomed(_claimable(found, facts, since=None), base)


def _ready(base: Why, facts: Facts) -> Why:
    state = State.RETRYABLE if facts["state"] == State.RETRYABLE else State.AVAILABLE
    created, due = _time(facts["created_at"]), _time(facts["due_at"])
    since = max((time for time in (created, due) if time is not None), default=None)
    found = _claimable(replace(base, state=state), facts, since=since)
    if facts.get("flags", 0) & _PARENT_FAILED:
        text = (
            "It will not run, because something before it did not complete; a worker ends it when"
            f" its turn comes. {found.text}"
        )
        return replace(found, reason="parent_failed", text=text)
    return _doomed(found, base)


_PLACES: dict[str, Callable[[Why, Facts], Why]] = {
    "ended": _ended,
    "nowhere": _nowhere,
    "running": _running,
    "parents": _parents,
    "ending": _ending,
    "parked": _parked,
    "scheduled": _scheduled,
    "gated": _gated,
    "ready": _ready,
}


def _doomed(found: Why, base: Why) -> Why:
    """Say of one that will be ended instead of run that this is so, and what it waits for."""
    if base.cancel_at is not None:
        said = f"It was cancelled {_ago(base.cancel_at, base.at)}"
        reason = "cancelled"
    elif base.expires_at is not None and base.expires_at <= base.at:
        said = f"It expired {_ago(base.expires_at, base.at)}"
        reason = "expired"
    else:
        return found
    since = base.cancel_at or base.expires_at
    text = f"{said} and will not run; a worker ends it when its turn comes. {found.text}"
    return replace(found, reason=reason, text=text, since=since)


# -- what a worker could claim ------------------------------------------------------------------


def _claimable(base: Why, facts: Facts, since: datetime | None) -> Why:
    """Explain a job that any worker of its queue may claim, or let through and claim."""
    serving = facts["serving"]
    ahead: int | None = serving["ahead"]
    if base.line is not None:
        ahead = base.line.ahead
    wants, limited = placement.split_rate(serving["wants"] or "")
    live = [_worker(one, base.queue, wants, limited) for one in serving["workers"]]
    found = replace(
        base,
        since=since,
        ahead=ahead,
        last_claim=_time(serving["last_claim"]),
        wants=wants,
        workers=tuple(live),
    )
    paused = _time(serving["paused_at"])
    if paused is not None:
        text = f"Its queue {base.queue!r} is paused since {_stamp(paused)}."
        return replace(found, reason="paused", text=text, since=paused)
    if not any(one.serves for one in live):
        text = f"No live worker serves its queue {base.queue!r}: {_living(live)}."
        return replace(found, reason="no_worker", text=text)
    able = [one for one in live if one.serves and one.suits]
    if not able:
        text = (
            f"None of the live workers of its queue {base.queue!r} has the labels it requires"
            f" ({placement.describe(found.wants)}): {_living([one for one in live if one.serves])}."
        )
        return replace(found, reason="no_suitable_worker", text=text)
    found = replace(found, workers=tuple(able))
    if all(one.draining for one in able):
        names = _listed([one.name for one in able[:_SHOWN]], len(able))
        text = f"Those that could take it are draining, and claim nothing: {names}."
        return replace(found, reason="draining", text=text)
    return _in_turn(replace(found, workers=tuple(one for one in able if not one.draining)))


def _in_turn(found: Why) -> Why:
    able, ahead = found.workers, found.ahead or 0
    if all(one.rate for one in able):
        rates = _listed([f"{one.name} {_rate(one.rate)}" for one in able[:_SHOWN]], len(able))
        text = (
            f"It waits for the rate of its workers, which each start so many {found.name}: {rates};"
            f" {_upto(ahead)} before it."
        )
        return replace(found, reason="worker_rate", text=text)
    where = f"line of {found.line.label}" if found.line is not None else f"queue {found.queue!r}"
    before = f"{_upto(ahead)} before it in the {where}"
    waited = f" It waits since {_stamp(found.since)}." if found.since is not None else ""
    names = _listed([f"{one.name} ({_load(one)})" for one in able[:_SHOWN]], len(able))
    if all(one.full for one in able):
        text = f"All workers that could take it are busy: {names}; {before}.{waited}"
        return replace(found, reason="busy", text=text)
    if ahead:
        text = f"It is ready, with {before}, which {names} take first.{waited}"
        return replace(found, reason="queued", text=text)
    text = f"It is next in the {where}: {names} will take it in a moment.{waited}"
    return replace(found, reason="next", text=text)


def _worker(one: Facts, queue: str | None, wants: str, limited: str | None) -> ServingWorker:
    info = one["info"] if isinstance(one["info"], dict) else {}
    size, rates = info.get("size"), info.get("rates")
    return ServingWorker(
        one["name"],
        one["host"],
        one["pid"],
        tuple(one["queues"]),
        one["running"],
        size if isinstance(size, int) and size > 0 else None,
        draining=info.get("draining") is True,
        serves=queue in one["queues"],
        suits=_suits(wants, info.get("labels")),
        rate=rates.get(limited) if isinstance(rates, dict) else None,
    )


def _suits(wants: str, labels: Any) -> bool:
    try:
        return placement.score(wants, labels if isinstance(labels, dict) else {}) is not None
    except ValueError:
        return True  # it asks for something that this release does not know


def _line(facts: Facts, at: datetime) -> LineState:
    opens = _time(facts["opens_at"])
    return LineState(
        facts["name"],
        facts["key"],
        "slots" if facts["rate"] is None else "rate",
        facts["slots"],
        facts["in_use"],
        facts["rate"],
        facts["period_s"],
        opens if opens is not None and opens > at else None,
        None if facts["rate"] is None else turn_at(facts, at),
        facts["ahead"],
        _time(facts["set_at"]),
        Strategy(facts["strategy"]),
    )


def turn_at(line: Facts, at: datetime) -> datetime | None:
    """Work out when a rate comes to a job, if those before it take a unit each; None for now."""
    rate, period_s, units = line["rate"], line["period_s"], line["units"]
    tat = _time(line["tat"])
    wanted = line["ahead"] + units
    if line["fixed"]:
        over = tat is None or at >= tat + timedelta(seconds=period_s)
        begun = at if tat is None or over else tat
        missing = wanted - (rate if over else max(0, rate - line["used"]))
        turn = begun + timedelta(seconds=max(0, ceil(missing / rate)) * period_s)
    else:
        begun = at if tat is None else max(tat, at)
        allowed = max(line["burst"], units)
        turn = begun + timedelta(seconds=(wanted - allowed) * period_s / rate)
    return turn if turn > at else None


# -- words --------------------------------------------------------------------------------------


def _time(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _stamp(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time is not None else "?"


def _length(length: timedelta) -> str:
    seconds = max(0.0, length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{seconds:.1f}".rstrip("0").rstrip(".") + " s"


def _rate(rate: float | None) -> str:
    """Write starts a second as tasks write it."""
    seconds, unit = next(
        (pair for pair in ((1, "s"), (60, "m")) if (rate or 0) * pair[0] >= 1), (3600, "h")
    )
    return f"{(rate or 0) * seconds:g}/{unit}"


def _ago(time: datetime | None, at: datetime) -> str:
    return f"{_length(at - time)} ago" if time is not None else "at an unknown time"


def _ahead(time: datetime | None, at: datetime) -> str:
    return "now" if time is None or time <= at else f"in {_length(time - at)}"


def _upto(count: int, more: int = 0) -> str:
    return f"more than {COUNTED}" if count >= COUNTED else str(count + more)


def _listed(shown: Sequence[str], total: int) -> str:
    rest = total - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def _held(holders: Sequence[Holder], in_use: int) -> str:
    shown = [
        f"{one.name} {one.id} (on {one.worker} since {_stamp(one.since)})"
        if one.since is not None
        else f"{one.name} {one.id} (let through, not claimed yet)"
        for one in holders[:_SHOWN]
    ]
    return _listed(shown, in_use) if shown else "runs that are just ending"


def _load(worker: ServingWorker) -> str:
    return f"{worker.running} of {worker.size}" if worker.size else f"{worker.running} running"


def _living(workers: Sequence[ServingWorker]) -> str:
    if not workers:
        return "no worker lives at all"
    shown = [f"{one.name} serves {', '.join(one.queues) or 'nothing'}" for one in workers[:_SHOWN]]
    return _listed(shown, len(workers))
