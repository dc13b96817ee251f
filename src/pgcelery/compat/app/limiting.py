"""``app.limits``: limits as they stand, and changing them at run time; ours, not Celery's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from pgcelery.compat.app.rules.rates import parse_rate
from pgcelery.engine import LimitChange, LimitInfo, LimitValues

__all__ = ("Limit", "Limits", "rate_text")

_UNITS = {1.0: "s", 60.0: "m", 3600.0: "h", 86400.0: "d"}


class Limit(NamedTuple):
    """A limit as it stands: one key of it, or what is set for all of its keys.

    Attributes:
        name: What `Limits.set` goes by.
        key: Calls with the same one share the limit; "" for a limit without keys. None in the row
            that says what is set for all keys.
        kind: ``slots``: how many run at once; ``rate``: how many start in a time. None when it is
            only set, and no call has it just now.
        slots: How many may run at once; None for as many as wanted.
        in_use: How many do, with those that are about to.
        rate: As ``100/m``; None where calls are not counted by time.
        burst: How many may start at once after a pause.
        weight: Share of the workers against other keys.
        waiting: Calls that wait; 1000 means that or more.
        opens_at: When a rate lets the next one start; None for now.
        declared: What the tasks say.
        set: What is set for just this row; None when nothing is.
        set_at: When; for a row without its own, when what is set for the name was.
    """

    name: str
    key: str | None
    kind: str | None
    slots: int | None
    in_use: int | None
    rate: str | None
    burst: int | None
    weight: float | None
    waiting: int
    opens_at: datetime | None
    declared: dict[str, Any]
    set: dict[str, Any] | None
    set_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, as JSON can say them."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in self._asdict().items()
        }


class Limits:
    """The limits of an app's database."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def set(
        self,
        name: str,
        key: str | None = None,
        *,
        slots: int | None = None,
        weight: float | None = None,
        rate: str | float | None = None,
        burst: int | None = None,
    ) -> LimitChange:
        """Overrule what tasks say of a limit, at once, for all workers and until `unset`.

        It replaces what was set for the same name and key before. A limit takes what fits it: slots
        if it says how many run at once, rate and burst if it says how many start. Where it is
        lowered nothing that runs is stopped.

        Args:
            name: The limit's.
            key: One of its keys; None for all that have nothing set of their own.
            slots: How many may run at once.
            weight: Share of the workers against other keys, above 0.
            rate: How many may start, as ``100/m``; a number is that many a second.
            burst: How many may start at once after a pause.

        Returns:
            How many live keys it holds for, and in ``unfit`` what fits none of them.

        Raises:
            ValueError: A value that no limit can have, such as 0; nothing was changed.
            TypeError: A rate that is neither text nor a number.
        """
        given = None if rate is None else parse_rate("rate", rate)
        return self._engine.set_limit(  # type: ignore[no-any-return]
            name,
            key=key,
            slots=slots,
            weight=weight,
            rate=None if given is None else given.units,
            period_s=None if given is None else given.period_s,
            burst=burst,
        )

    def unset(self, name: str, key: str | None = None) -> bool:
        """Let what tasks say hold again, or for a key what is set for the name.

        Returns:
            Whether anything had been set for just this name and key.

        Raises:
            ValueError: A name or a key that there cannot be.
        """
        return bool(self._engine.unset_limit(name, key))

    def list(self, name: str | None = None, key: str | None = None, *, limit: int = 100) -> Any:
        """List limits that calls have just now or that are set, those with most waiting first.

        Args:
            name: Only this one's.
            key: Only this key's.
            limit: Most to give.
        """
        found = self._engine.limits(name, key, limit=limit)
        return [_limit(one) for one in found]

    def __iter__(self) -> Iterator[Limit]:
        return iter(self.list())

    def get(self, name: str, key: str | None = None) -> Limit | None:
        """Look one up: a key of a limit, or with None what is set for all of its keys."""
        found = self.list(name, key, limit=1)  # what is set for all keys comes first
        return next((one for one in found if one.key == key), None)

    @property
    def _engine(self) -> Any:
        return self.app.engine


def _limit(info: LimitInfo) -> Limit:
    return Limit(
        info.name,
        info.key,
        info.kind,
        info.slots,
        info.in_use,
        rate_text(info.rate, info.period_s),
        info.burst if info.rate is not None else None,
        info.weight,
        info.waiting,
        info.opens_at,
        _values(info.said) or {},
        _values(info.set),
        info.set_at or info.name_set_at,
    )


def _values(values: LimitValues | None) -> dict[str, Any] | None:
    """What is said, as `Limits.set` takes it; a limit on slots says nothing of bursts."""
    if values is None:
        return None
    said = {
        "slots": values.slots,
        "rate": rate_text(values.rate, values.period_s),
        "burst": values.burst,
        "weight": values.weight,
    }
    return {name: value for name, value in said.items() if value is not None}


def rate_text(rate: int | None, period_s: float | None) -> str | None:
    """Write a rate as Celery does, ``100/m``; where that is not possible, ``3 in 2.5 s``."""
    if rate is None or period_s is None:
        return None
    unit = _UNITS.get(period_s)
    return f"{rate}/{unit}" if unit else f"{rate} in {period_s:g} s"
