"""The history checker: what was sent, what ran, what was recorded, and whether that may be.

Pure functions over plain rows, so that hand-made bad histories can show that each rule bites. All
times are seconds of one clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

COMMIT_S = 0.05  #: a record's time is taken within its transaction, before the commit
UNRECORDED_S = 1.0  #: a body that ended so shortly before a strike may not have been recorded


class Call(NamedTuple):
    """What must come of one task."""

    given: Any  #: what its body is called with
    value: Any = None  #: what it returns
    attempts: int = 1  #: retries that it asks for itself, and one
    early: bool = False  #: at most once
    after: tuple[str, ...] = ()  #: tags of what it waits for
    state: str = "SUCCESS"
    error: str = ""  #: the exception's class, if `state` is FAILURE
    most_runs: int = 1  #: of an attempt, whatever happens: a task that kills its process


class Send(NamedTuple):
    """One call of the application: a task, or a canvas."""

    number: int
    kind: str
    calls: Mapping[str, Call]  #: by tag
    acked: float | None  #: when the call returned; None if it raised, last time it was tried


class Run(NamedTuple):
    """One start of a body."""

    id: str
    tag: str
    attempt: int
    token: int
    delivery: int
    pid: int
    group: int  #: the worker's processes
    begun: float
    ended: float | None = None
    given: Any = None
    node: str = ""
    begun_wall: float = 0.0  #: by the worker's own clock


class Recorded(NamedTuple):
    """One time that an end was written; noted by a trigger, in the same transaction."""

    id: str
    token: int | None
    at: float


class Row(NamedTuple):
    """A task as the application sees it at the end."""

    id: str
    tag: str
    state: str | None  #: None while it has not ended
    value: Any = None
    error: str = ""


class Strike(NamedTuple):
    """What was done to whom, when.

    Attributes:
        kind: How it is called in the table.
        pids: Processes that it hit.
        groups: Workers that it hit, with all their processes.
        everyone: It hit all of them.
        reruns: Runs that it hit may be run again.
        overlaps: ... while they still go on: whole processes were stopped.
        fenced_s: A worker that it cut off begins nothing, and lets nothing go on, after so long.
    """

    kind: str
    begun: float
    ended: float
    pids: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()
    everyone: bool = False
    reruns: bool = True
    overlaps: bool = False
    fenced_s: float | None = None

    def hits(self, run: Run) -> bool:
        return self.everyone or run.pid in self.pids or run.group in self.groups


@dataclass
class History:
    sends: Sequence[Send]
    runs: Sequence[Run]
    recorded: Sequence[Recorded]
    rows: Sequence[Row]
    strikes: Sequence[Strike] = ()
    deaths: Mapping[int, float] = field(default_factory=dict)  #: when the dead were last seen


class Violation(NamedTuple):
    promise: str
    text: str


@dataclass
class Verdict:
    tasks: int = 0  #: sent, and acknowledged
    lost: int = 0
    twice: int = 0  #: ends that were recorded more than once
    extra: Counter[str] = field(default_factory=Counter)  #: runs too many, by what excuses them
    violations: list[Violation] = field(default_factory=list)

    def blame(self, promise: str, text: str) -> None:
        self.violations.append(Violation(promise, text))


def check(history: History) -> Verdict:
    """Compare a history with the promises (docs/guarantees.md)."""
    verdict = Verdict()
    calls = _check_sends(history, verdict)
    last = _check_records(history, verdict)
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in history.runs:
        runs[run.id].append(run)
        if run.tag not in calls:
            verdict.blame("P2", f"{run.tag} ran, and nobody sent it")
    for of_it in runs.values():
        of_it.sort(key=lambda run: run.token)
        call = calls.get(of_it[0].tag)
        if call is not None:
            _check_runs(history, verdict, call, of_it, last.get(of_it[0].id))
    _check_order(history, verdict, calls, last)
    _check_fences(history, verdict)
    _check_tokens(history, verdict)
    return verdict


def _check_sends(history: History, verdict: Verdict) -> dict[str, Call]:
    """P1, P2, P4, P5: what was acknowledged ended, as it should; the rest is there whole or not."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in history.rows:
        rows[row.tag].append(row)
    began = {run.id for run in history.runs}
    calls: dict[str, Call] = {}
    for send in history.sends:
        calls.update(send.calls)
        there = [tag for tag in send.calls if rows[tag]]
        if send.acked is None and not there:
            continue
        if send.acked is None and len(there) < len(send.calls):
            verdict.blame(
                "P4", f"of {send.number} ({send.kind}) that raised only {there} are there"
            )
            continue
        verdict.tasks += len(send.calls)
        for tag, call in send.calls.items():
            if len(rows[tag]) > 1:
                verdict.blame("P2", f"{tag} is there {len(rows[tag])} times")
            _check_end(history, verdict, tag, call, rows[tag], began)
    return calls


def _check_end(
    history: History, verdict: Verdict, tag: str, call: Call, rows: list[Row], began: set[str]
) -> None:
    if not rows or rows[0].state is None:
        verdict.lost += 1
        what = f"{tag} {'has not ended' if rows else 'is not there'}"
        verdict.blame("P1/P5", what)
        return
    row = rows[0]
    if call.early and row.state == "FAILURE" and row.error == "WorkerLostError":
        if not history.strikes:
            verdict.blame("P10", f"{tag} was given up though nothing had happened")
    elif (row.state, row.error) != (call.state, call.error):
        verdict.blame(
            "P7", f"{tag} ended as {row.state} {row.error}, not {call.state} {call.error}"
        )
    elif call.state == "SUCCESS" and row.value != call.value:
        verdict.blame("P7", f"{tag} came to {row.value!r}, not {call.value!r}")
    elif call.state == "SUCCESS" and row.id not in began:
        verdict.blame("P7", f"{tag} is a success and never ran")


def _check_records(history: History, verdict: Verdict) -> dict[str, Recorded]:
    """P7: an end is recorded once, and stays."""
    last: dict[str, Recorded] = {}
    for one in history.recorded:
        if one.id in last:
            verdict.twice += 1
            verdict.blame("P7", f"the end of {one.id} was recorded again, by run {one.token}")
        last[one.id] = one
    for row in history.rows:
        if (row.state is not None) != (row.id in last):
            verdict.blame("P7", f"{row.tag} is {row.state}, its end was recorded: {row.id in last}")
    return last


def _check_runs(
    history: History, verdict: Verdict, call: Call, runs: list[Run], end: Recorded | None
) -> None:
    """Check the runs of one job, in the order in which they were claimed."""
    tag = runs[0].tag
    for run in runs:
        if run.given != call.given:
            verdict.blame("P12", f"{tag} was called with {run.given!r}, not {call.given!r}")
    if call.early and len(runs) > 1:
        verdict.blame("P10", f"{tag} began {len(runs)} times, at most once was promised")
    if end is not None and end.token is not None:
        for run in runs:
            _check_against_end(history, verdict, run, end)
    _check_attempts(history, verdict, call, runs)
    for before, after in pairwise(runs):
        _check_overlap(history, verdict, before, after)


def _check_attempts(history: History, verdict: Verdict, call: Call, runs: list[Run]) -> None:
    attempts: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        attempts[run.attempt].append(run)
    if max(attempts) >= call.attempts:
        tried = max(attempts) + 1
        verdict.blame("P13", f"{runs[0].tag} was tried {tried} times, not {call.attempts}")
    for of_it in attempts.values():
        for run in of_it[:-1]:
            _excuse(history, verdict, call, run, len(of_it))


def _check_against_end(history: History, verdict: Verdict, run: Run, end: Recorded) -> None:
    assert end.token is not None
    if run.token > end.token:
        if run.begun < end.at:
            verdict.blame(
                "P7", f"run {end.token} of {run.tag} ended it though {run.token} had begun"
            )
        else:
            verdict.blame("P8", f"{run.tag} ran after it had ended")
    elif run.begun > end.at + COMMIT_S and not _struck(history, run, overlaps=True):
        verdict.blame("P8", f"{run.tag} began in an old run after it had ended")


def _excuse(history: History, verdict: Verdict, call: Call, run: Run, times: int) -> None:
    if call.most_runs > 1:
        if times > call.most_runs:
            verdict.blame(
                "P6", f"{run.tag} ran {times} times, at most {call.most_runs} was promised"
            )
        verdict.extra["they kill their process"] += 1
        return
    why = _struck(history, run)
    if why is None:
        verdict.extra["nothing"] += 1
        verdict.blame("P5", f"{run.tag} ran again though nothing had hit run {run.token}")
    else:
        verdict.extra[why.kind] += 1


def _struck(history: History, run: Run, *, overlaps: bool = False) -> Strike | None:
    """What hit a run, such that it may be run again (or overlap with another)."""
    for strike in history.strikes:
        if not strike.hits(run) or not (strike.overlaps if overlaps else strike.reruns):
            continue
        over = run.ended is not None and run.ended < strike.begun - UNRECORDED_S
        if run.begun <= strike.ended and not over:
            return strike
    return None


def _check_overlap(history: History, verdict: Verdict, before: Run, after: Run) -> None:
    """P9: at most one run at a time."""
    until = before.ended
    if until is None:
        until = history.deaths.get(before.pid, before.begun)
    if after.begun < until and not _struck(history, before, overlaps=True):
        verdict.blame("P9", f"{before.tag}: run {after.token} began while {before.token} went on")


def _check_order(
    history: History, verdict: Verdict, calls: Mapping[str, Call], last: Mapping[str, Recorded]
) -> None:
    """P12: what waits for others begins after these have been recorded."""
    ids = {row.tag: row.id for row in history.rows}
    for run in history.runs:
        call = calls.get(run.tag)
        for tag in call.after if call is not None else ():
            end = last.get(ids.get(tag, ""))
            if end is None or end.at > run.begun + COMMIT_S:
                verdict.blame("P12", f"{run.tag} began before the end of {tag} was recorded")


def _check_fences(history: History, verdict: Verdict) -> None:
    """P9: a worker that is cut off stops by itself before others may take over."""
    for strike in history.strikes:
        if strike.fenced_s is None:
            continue
        over = strike.begun + strike.fenced_s
        for run in history.runs:
            if not strike.hits(run) or run.begun > strike.ended:
                continue
            until = run.ended or history.deaths.get(run.pid, run.begun)
            if run.begun > over:
                verdict.blame("P9", f"{run.tag} began in a worker whose lease was over")
            elif until > over + COMMIT_S:
                verdict.blame(
                    "P9 self-fencing", f"{run.tag} went on in a worker whose lease was over"
                )


def _check_tokens(history: History, verdict: Verdict) -> None:
    """The fence itself: a run's token is never that of another job's."""
    owners: dict[int, str] = {}
    for run in history.runs:
        if owners.setdefault(run.token, run.id) != run.id:
            verdict.blame("P7", f"token {run.token} was given to {owners[run.token]} and {run.id}")


def affected_until(history: History, healed: float, acked: Iterable[str]) -> float:
    """Seconds from healing until the last of the tasks that were there then had ended."""
    before = set(acked)
    ends = [one.at - healed for one in history.recorded if one.id in before and one.at > healed]
    return max(ends, default=0.0)
