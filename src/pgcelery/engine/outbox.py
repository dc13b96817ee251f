"""Outcomes between a pool and the database: kept until the database has answered for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pgcelery.engine.arrays import (
    Array,
    BigintArray,
    BooleanArray,
    ByteaArray,
    DoubleArray,
    IntegerArray,
    SmallintArray,
    TextArray,
    TimestampArray,
)
from pgcelery.engine.columns import QueueKey, follow_ups, no_follow_ups
from pgcelery.engine.job import Outcome, State

_NO_FOLLOW_UPS = no_follow_ups()
_NO_DROPS = [BigintArray.of([]), TextArray.of([])]
_NONE_ENDED = [
    BigintArray.of([]),
    TextArray.of([]),
    SmallintArray.of([]),
    ByteaArray.of([]),
    DoubleArray.of([]),
    *_NO_FOLLOW_UPS,
    *_NO_DROPS,
]


class Tray:
    """One kind of outcome: those that wait, and those that are on their way."""

    def __init__(self) -> None:
        self.waiting: list[Outcome] = []
        self.sent: list[Outcome] = []
        self.since: float | None = None  #: monotonic time of the oldest that waits
        self.one_by_one = 0  #: how many to send alone, to find the one the server refuses

    def add(self, outcome: Outcome, now: float) -> None:
        """Put one in."""
        if self.since is None:
            self.since = now
        self.waiting.append(outcome)

    def take(self, most: int) -> list[Outcome]:
        """Move up to `most` on their way, in token order, which is the order of row locks."""
        if self.one_by_one:
            self.one_by_one -= 1
            most = 1
        self.sent, self.waiting = self.waiting[:most], self.waiting[most:]
        self.since = self.since if self.waiting else None
        self.sent.sort(key=lambda outcome: outcome.token)
        return self.sent

    def answered(self) -> list[Outcome]:
        """Give those that the database has answered for; they are no longer kept."""
        done, self.sent = self.sent, []
        return done

    def take_back(self, now: float) -> None:
        """Keep what was on its way for another try: no answer came."""
        if self.sent:
            self.waiting = self.sent + self.waiting
            self.sent = []
            self.since = now

    def isolate(self, now: float) -> None:
        """The server refused what was sent: narrow it down, end the culprit without a result."""
        if len(self.sent) == 1:
            culprit = self.sent[0]
            self.sent = []
            self.add(Outcome(culprit.id, culprit.token, State.FAILED), now)
            return
        self.one_by_one = len(self.sent)
        self.take_back(now)

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not (self.waiting or self.sent)

    def tokens(self) -> list[int]:
        """List the runs it holds outcomes of."""
        return [outcome.token for outcome in (*self.waiting, *self.sent)]


class Doubts:
    """Claims that a pool process may have made for runs of which it did not hear that they ended.

    Once such a run's outcome is answered for, that is settled: the claim is there to be given back,
    or it will never be.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # token of the run: of the claim
        self.settled: set[int] = set()  #: claims to give back, should they be there

    def add(self, run: int, claim: int) -> None:
        """Note that the end of `run` may have made `claim`."""
        self._open[run] = claim

    def settle(self, run: int) -> None:
        """Note that the outcome of `run` was answered for."""
        claim = self._open.pop(run, None)
        if claim is not None:
            self.settled.add(claim)

    def tokens(self) -> list[int]:
        """List the claims that must not be touched yet."""
        return list(self._open.values())

    @property
    def empty(self) -> bool:
        """Whether all were given back."""
        return not (self._open or self.settled)


def ended_params(outcomes: list[Outcome], intern: Callable[[QueueKey], int]) -> list[Any]:
    """Build the arguments of ``step_v4`` from the ended runs on."""
    if not outcomes:
        return _NONE_ENDED
    pairs = [(outcome.token, job) for outcome in outcomes for job in outcome.follow_ups]
    drops = [(outcome.token, id) for outcome in outcomes for id in outcome.drops]
    return [
        BigintArray.of([outcome.token for outcome in outcomes]),
        TextArray.of([outcome.id for outcome in outcomes]),
        SmallintArray.of([outcome.state for outcome in outcomes]),
        ByteaArray.of([outcome.result for outcome in outcomes]),
        DoubleArray.of([outcome.ttl_s for outcome in outcomes]),
        *(follow_ups(pairs, intern) if pairs else _NO_FOLLOW_UPS),
        *(_drops(drops) if drops else _NO_DROPS),
    ]


def _drops(drops: list[tuple[int, str]]) -> list[Array]:
    return [BigintArray.of([token for token, _ in drops]), TextArray.of([id for _, id in drops])]


def again_params(outcomes: list[Outcome], intern: Callable[[QueueKey], int]) -> list[Any]:
    """Build the arguments of ``reschedule_v2`` after the worker."""
    queue_ids: Mapping[str, int] = {
        outcome.queue: intern((outcome.queue, ""))
        for outcome in outcomes
        if outcome.queue is not None
    }
    return [
        BigintArray.of([outcome.token for outcome in outcomes]),
        TextArray.of([outcome.id for outcome in outcomes]),
        SmallintArray.of([outcome.state for outcome in outcomes]),
        ByteaArray.of([outcome.payload for outcome in outcomes]),
        IntegerArray.of(
            [None if outcome.queue is None else queue_ids[outcome.queue] for outcome in outcomes]
        ),
        SmallintArray.of([outcome.priority for outcome in outcomes]),
        TimestampArray.of_times([outcome.due_at for outcome in outcomes]),
        DoubleArray.of([outcome.delay_s for outcome in outcomes]),
        TimestampArray.of_times([outcome.expires_at for outcome in outcomes]),
        BooleanArray.of([outcome.counted for outcome in outcomes]),
        ByteaArray.of([outcome.result for outcome in outcomes]),
    ]
