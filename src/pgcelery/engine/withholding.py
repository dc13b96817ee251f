"""What a node says to the database for its worker's own rates: jobs it withholds, jobs it draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from pgcelery.engine.arrays import BigintArray, IntegerArray, TextArray
from pgcelery.engine.job import Job
from pgcelery.engine.link import Param, Rows, Statement
from pgcelery.engine.statements import Kind, Row, Statements, wide_row
from pgcelery.engine.territory import Territory
from pgcelery.engine.throttle import Throttle


class Send(Protocol):
    """`Node._send`."""

    def __call__(
        self,
        key: str,
        statement: Statement,
        params: list[Param],
        on_rows: Callable[[Rows], None],
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        """Send a statement; nothing is called if the connection breaks."""
        ...


class Withholding:
    """Of one node. What is not answered for when the connection breaks is given back by `reclaim`.

    Args:
        territory: The node's.
        sql: Its statements.
        send: Sends one of them.
        flying: Names of those that were sent and not answered.
        take: Called with what was drawn.
        woken: Called with each place that got jobs.
    """

    def __init__(
        self,
        territory: Territory,
        sql: Statements,
        send: Send,
        flying: set[str],
        take: Callable[[list[Row]], None],
        woken: Callable[[int], None],
    ) -> None:
        self.throttle = Throttle(territory)
        self._territory = territory
        self._sql = sql
        self._send = send
        self._flying = flying
        self._take = take
        self._woken = woken
        self._tokens: list[int] = []
        self._queues: set[str] = set()  # of those

    def put(self, jobs: Iterable[Job]) -> None:
        """Take runs that may not begin yet."""
        for job in jobs:
            self._tokens.append(job.token)
            self._queues.add(job.queue)

    def withhold(self) -> None:
        """Send those away."""
        if not self._tokens or "withhold" in self._flying:
            return
        tokens, self._tokens = self._tokens, []
        ids = self._territory.queues  # what is alike in their places is found when it is claimed
        queues = IntegerArray.of([ids[queue] for queue in self._queues if queue in ids])
        self._queues.clear()
        names = TextArray.of(list(self.throttle.names))

        def filled(rows: Rows) -> None:
            for (place,) in rows:
                self._woken(int.from_bytes(place or b"", "big"))

        def refused(_: str) -> None:
            self._tokens += tokens

        params: list[Param] = [BigintArray.of(sorted(tokens)), queues, names]
        self._send("withhold", self._sql.withhold, params, filled, refused)

    def draw(self, me: int, now: float, want: int) -> int:
        """Ask for what the rates allow and was withheld; how many jobs that may bring."""
        plan = self.throttle.draws(now, want)
        if not plan:
            return 0

        def drawn(rows: Rows) -> None:
            claims = [row for row in map(wide_row, rows) if row.kind is Kind.CLAIM]
            got = Counter(row.name for row in claims)
            for place, asked in plan.items():
                name = self._territory.throttled.get(place)
                self._territory.looked(place, more=name is not None and got[name] >= asked)
            if claims:
                self._take(sorted(claims, key=lambda row: row.token or 0))

        params: list[Param] = [
            me,
            IntegerArray.of(list(plan)),
            IntegerArray.of(list(plan.values())),
        ]
        self._send("draw", self._sql.draw, params, drawn)
        return sum(plan.values())
