"""The part of a client that looks at limits and changes them at run time."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import TupleRow

from pgcelery.engine.columns import check_limit, check_name
from pgcelery.engine.database import Connections
from pgcelery.engine.errors import InvalidJob
from pgcelery.engine.job import Strategy

COUNTED = 1000  #: what waits in a line is counted no further


class LimitValues(NamedTuple):
    """Values of a limit; None where nothing is said."""

    slots: int | None = None
    weight: float | None = None
    rate: int | None = None
    period_s: float | None = None
    burst: int | None = None


class LimitInfo(NamedTuple):
    """A line of a limit, or what is set at run time for a limit that has no such line just now.

    Attributes:
        name: The limit's.
        key: The line's; None for what is set for all lines of the name.
        kind: ``slots`` or ``rate``; None when there is no line.
        in_use: Slots in use; None when there is no line.
        slots: How many there are; None for as many as wanted.
        weight: Share of the workers' attention.
        strategy: What happens to a job that finds no slot.
        rate: Units that may start within `period_s` seconds.
        period_s: Seconds.
        burst: Units that may start at once after a pause.
        fixed: Whether `rate` is counted within windows, not sliding.
        waiting: Jobs that wait in the line; `COUNTED` means that or more.
        opens_at: When a rate lets the next one through; None for now.
        said: What jobs say of the line; None when there is no line.
        set: What is set at run time for this very key or, in a row without a key, for the name.
        set_at: When that was; None when nothing is set for it.
        name_set_at: When something was set for the name that may hold for this line too.
    """

    name: str
    key: str | None
    kind: str | None
    in_use: int | None
    slots: int | None
    weight: float | None
    strategy: Strategy | None
    rate: int | None
    period_s: float | None
    burst: int | None
    fixed: bool | None
    waiting: int
    opens_at: datetime | None
    said: LimitValues | None
    set: LimitValues | None
    set_at: datetime | None
    name_set_at: datetime | None


class LimitChange(NamedTuple):
    """What came of a limit being set.

    Attributes:
        counting: Live lines it is about that count slots.
        rated: Live lines it is about that have a rate.
        unfit: Which of the given values hold for none of the live lines: ``slots`` where all have a
            rate, ``rate`` and ``burst`` where all count slots. They are kept, for lines to come.
    """

    counting: int
    rated: int
    unfit: tuple[str, ...]


class Limits:
    """What a client does with limits."""

    if TYPE_CHECKING:
        _connections: Connections

        def _run(self, name: str, params: Any = None) -> list[TupleRow]:
            """See `Client`."""

        def _telling(self, queue_id: int) -> tuple[bytes, dict[str, str]]:
            """See `Client`."""

    def set_limit(
        self,
        name: str,
        *,
        key: str | None = None,
        slots: int | None = None,
        weight: float | None = None,
        rate: int | None = None,
        period_s: float | None = None,
        burst: int | None = None,
    ) -> LimitChange:
        """Overrule what jobs say of a limit, at once and until `unset_limit`.

        What was set before for the same name and key is replaced as a whole. A line takes from it
        what fits its kind: `slots` if it counts those, `rate`, `period_s` and `burst` if it has a
        rate. Where a limit is lowered nothing that runs is stopped: nobody is let through until
        there are fewer.

        Args:
            name: The limit's.
            key: One of its lines; None for all that have nothing set of their own.
            slots: How many may be claimed at once.
            weight: Share of the workers' attention, above 0.
            rate: Units that may start within `period_s`.
            period_s: Seconds; with `rate` only, 1 by default.
            burst: Units that may start at once after a pause.

        Raises:
            InvalidJob: Naming what is wrong; nothing was changed.
        """
        _check_line(name, key)
        if slots is None and weight is None and rate is None and burst is None:
            raise InvalidJob(f"limit {name!r}: nothing to set: give slots, weight, rate or burst")
        if period_s is not None and rate is None:
            raise InvalidJob(f"limit {name!r}: period_s is that of a rate, and none is given")
        check_limit(name, slots, weight, rate, period_s, burst)
        if rate is not None and period_s is None:
            period_s = 1.0
        self._apply(name, key, LimitValues(slots, weight, rate, period_s, burst))
        counting, rated = self._run("limits/kinds", {"name": name, "key": key})[0]
        unfit = []
        if rated and not counting:
            unfit = ["slots"] if slots is not None else []
        elif counting and not rated:
            given = {"rate": rate, "burst": burst}
            unfit = [what for what, value in given.items() if value is not None]
        return LimitChange(counting, rated, tuple(unfit))

    def unset_limit(self, name: str, key: str | None = None) -> bool:
        """Let what jobs say hold again, or for a key what is set for the name.

        Returns:
            Whether anything had been set for just this name and key.

        Raises:
            InvalidJob: A name or a key that there cannot be.
        """
        _check_line(name, key)
        found = self._run("limits/exists", {"name": name, "key": key})[0][0]
        self._apply(name, key, LimitValues())
        return bool(found)

    def _apply(self, name: str, key: str | None, values: LimitValues) -> None:
        params = {"name": name, "key": key, **values._asdict()}
        rows = self._run("limits/set", params)
        for queue_id in dict.fromkeys(rows[0][0] or ()):
            self._connections.run(*self._telling(queue_id))

    def limits(
        self, name: str | None = None, key: str | None = None, *, limit: int = 100
    ) -> list[LimitInfo]:
        """List live lines, and values that are set at run time; those with most waiting first.

        A line is live while somebody waits in it, holds a slot of it, or has lately taken units.

        Args:
            name: Only those of this limit.
            key: Only those of this key.
            limit: Most to give.
        """
        if "\0" in (name or "") or "\0" in (key or ""):
            return []  # which the database cannot even be asked
        rows = self._run("limits/list", {"name": name, "key": key, "limit": limit})
        return [_info(row) for row in rows]


def _check_line(name: str, key: str | None) -> None:
    check_name("the name of a limit", name)
    if key is not None and key != "":
        check_name("the key of a limit", key)


def _info(row: TupleRow) -> LimitInfo:
    kind, strategy, set_at = row[2], row[6], row[23]
    return LimitInfo._make(
        (
            *row[:6],
            None if strategy is None else Strategy(strategy),
            *row[7:13],
            None if kind is None else LimitValues(*row[13:18]),
            None if set_at is None else LimitValues(*row[18:23]),
            set_at,
            row[24],
        )
    )
