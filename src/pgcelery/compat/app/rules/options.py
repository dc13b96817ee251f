"""What a task may say about how it is run: `Concurrency`, `RateLimit`, `Unique`, `Placement`.

Celery has nothing like them but a rate limit of each worker alone. All of them are values that are
checked when they are made, so that a mistake shows where it was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pgcelery.compat.app.envelope import check_text
from pgcelery.compat.app.rules.keys import Key
from pgcelery.compat.app.rules.rates import Rate, parse_rate
from pgcelery.engine import Strategy
from pgcelery.engine.placement import encode

__all__ = ("Concurrency", "Placement", "RateLimit", "Unique", "check_count")

STRATEGIES = {
    "queue": Strategy.WAIT,
    "cancel_in_progress": Strategy.CANCEL_IN_PROGRESS,
    "cancel_newest": Strategy.CANCEL_NEWEST,
    "replace": Strategy.REPLACE_WAITING,
    "debounce": Strategy.REPLACE_WAITING,
}
STICKY = {None: 0, "soft": 1, "hard": 2}
WINDOWS = ("sliding", "fixed")

#: Largest number that the database keeps.
MOST = 2**31 - 1
#: Smallest and largest weight.
LIGHTEST, HEAVIEST = 1e-6, 1e9
#: Longest time that anything is remembered: a hundred years.
LONGEST_S = 100 * 365.25 * 86400

#: A text, perhaps with fields, or a function of the task's arguments.
KeySource = str | Callable[..., str | int]


def check_count(what: str, value: Any) -> int:
    """Check a whole number of at least 1.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is below 1 or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number, not {value!r:.100}")
    if not 1 <= value <= MOST:
        raise ValueError(f"{what} is 1 to {MOST}, not {value!r:.100}")
    return int(value)


def _check_name(what: str, name: Any) -> None:
    if name is not None:
        check_text(f"the name of {what}", name)


def _check_choice(what: str, value: Any, known: Iterable[Any]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{what} is one of {', '.join(map(str, known))}, not {value!r}")


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Let at most `limit` calls with the same key run at once, over all workers.

    For ``@app.task(concurrency=Concurrency(...))``; a list of them is passed all or not at all.

    Args:
        key: What calls share: a constant text; a text with fields, ``"tenant:{kwargs.tenant}"`` or
            ``"{order.customer_id}"``; or a function that gets the call's arguments and gives text
            or a whole number. What comes out is 1 to 255 characters long.
        limit: At least 1; None only shares the workers fairly between the keys; or a function of
            the arguments that gives either. The newest call of a key decides, if calls differ.
        strategy: What happens to a call that finds no place: ``queue``: it waits for one;
            ``cancel_in_progress``: the oldest that runs is cancelled; ``cancel_newest``: it is
            cancelled itself; ``replace`` (or ``debounce``): it waits, and what waited before it is
            cancelled.
        weight: Its share of the workers against other keys with calls waiting in the same queue.
        name: What the limit is called. Default: the key if that is constant, so that all tasks that
            say it share it; else the task's name.

    Raises:
        TypeError: Something is of another type.
        ValueError: Something is empty, out of range, or a key with fields is written wrongly.
    """

    key: KeySource
    limit: int | Callable[..., int | None] | None = 1
    strategy: str = "queue"
    weight: float = 1.0
    name: str | None = None
    _key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", Key("a concurrency limit", self.key))
        if not callable(self.limit):
            self.check_limit("a concurrency limit", self.limit)
        _check_choice("the strategy of a concurrency limit", self.strategy, STRATEGIES)
        if self.limit is None and STRATEGIES[self.strategy] != Strategy.WAIT:
            raise ValueError(f"strategy={self.strategy!r} needs a concurrency limit")
        if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)):
            raise TypeError(f"the weight of a concurrency limit is a number, not {self.weight!r}")
        if not LIGHTEST <= self.weight <= HEAVIEST:
            raise ValueError(
                f"the weight of a concurrency limit is above 0, from {LIGHTEST:g} to {HEAVIEST:g},"
                f" not {self.weight!r}"
            )
        _check_name("a concurrency limit", self.name)

    @staticmethod
    def check_limit(what: str, limit: Any) -> int | None:
        """Check a number of calls, or None for no limit."""
        return None if limit is None else check_count(what, limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return Concurrency, (self.key, self.limit, self.strategy, self.weight, self.name)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Let calls start at most at a rate, over all workers.

    For ``@app.task(rate_limits=RateLimit(...))``, or a list of them. In every span of W seconds at
    most ``rate * W + burst`` units start; with ``window="fixed"`` it is the rate in each window of
    its unit, which may be used up at once.

    Args:
        key: What calls share, as in `Concurrency`; None for all calls of the task.
        limit: ``"10/s"``, ``"100/m"``, ``"5/h"``, ``"1000/d"``, or a number a second; or a function
            of the arguments that gives one of these.
        burst: Units that may start at once after a pause. Default: what 0.1 seconds bring and what
            one call takes, but at least 1. Not with a fixed window.
        units: What a call takes of the rate; or a function of the arguments.
        window: ``sliding`` or ``fixed``.
        name: What the limit is called. Default: the key if that is constant, else the task's name,
            with ``:rate`` after it.

    Raises:
        TypeError: Something is of another type.
        ValueError: Something is out of range or written wrongly, or one call takes more than may
            ever start at once.
    """

    key: KeySource | None = None
    limit: str | float | Callable[..., str | float] = "100/m"
    burst: int | None = None
    units: int | Callable[..., int] = 1
    window: str = "sliding"
    name: str | None = None
    _key: Key | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own = None if self.key is None else Key("a rate limit", self.key)
        object.__setattr__(self, "_key", own)
        _check_choice("the window of a rate limit", self.window, WINDOWS)
        if self.burst is not None:
            check_count("the burst of a rate limit", self.burst)
            if self.window == "fixed":
                raise ValueError("a rate limit with a fixed window has no burst: it is the rate")
        _check_name("a rate limit", self.name)
        if not callable(self.units):
            check_count("the units of a call", self.units)
        if not callable(self.limit):
            rate = self.read("a rate limit", self.limit)
            if not callable(self.units):
                self.burst_of("a rate limit", rate, self.units)

    def read(self, what: str, limit: Any) -> Rate:
        """Read a rate that this limit may have."""
        rate = parse_rate(what, limit)
        if self.window == "fixed" and rate.period_s not in (1.0, 60.0, 3600.0, 86400.0):
            raise ValueError(
                f"{what} with a fixed window needs a whole number, such as '30/m', not {limit!r}"
            )
        return rate

    def burst_of(self, what: str, rate: Rate, units: int) -> int:
        """Say how much may start at once, and whether that is enough for one call."""
        if self.window == "fixed":
            most, where = rate.units, "in one window"
        elif self.burst is not None:
            most, where = self.burst, "at once (burst)"
        else:
            # Workers are not woken for each unit of a fast rate, but some times a second.
            return max(min(math.ceil(rate.per_second / 10), MOST), units)
        if units > most:
            raise ValueError(f"{what}: a call takes {units} units, but only {most} start {where}")
        return 1 if self.window == "fixed" else most

    def __reduce__(self) -> tuple[Any, ...]:
        return RateLimit, (self.key, self.limit, self.burst, self.units, self.window, self.name)


@dataclass(frozen=True, slots=True)
class Unique:
    """Send a call only if there is none like it; its sender gets the result of the one there is.

    For ``@app.task(unique=Unique(...))``; ``unique=True`` is ``Unique()``. It does not apply to the
    parts of a canvas, nor to broadcasts.

    Args:
        key: What makes two calls alike, as in `Concurrency`; None for the task and its arguments.
        until: How long: ``done``: until the first has ended; ``started``: until it starts; or a
            number of seconds, or a timedelta, from when it is sent, whatever becomes of it.
        for_: Seconds, or a timedelta, after which it is over in any case; None for never. Only with
            ``done`` and ``started``.
        name: What keys are compared under. Default: the key if that is constant, so that tasks
            which say it share it; else the task's name.

    Raises:
        TypeError: Something is of another type.
        ValueError: Something is out of range, or a key is written wrongly.
    """

    key: KeySource | None = None
    until: str | float | timedelta = "done"
    for_: float | timedelta | None = None
    name: str | None = None
    _key: Key | None = field(init=False, repr=False, compare=False)
    _until: str = field(init=False, repr=False, compare=False)
    _for_s: float | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        own = None if self.key is None else Key("a unique task", self.key)
        until: Any = self.until
        for_s: Any = self.for_
        if isinstance(until, str):
            _check_choice("until of a unique task", until, ("done", "started"))
        elif for_s is not None:
            raise ValueError("a unique task has for_= only with until='done' or 'started'")
        else:
            until, for_s = "time", _seconds(until)
        _check_name("a unique task", self.name)
        object.__setattr__(self, "_key", own)
        object.__setattr__(self, "_until", until)
        object.__setattr__(self, "_for_s", None if for_s is None else _seconds(for_s))

    def __reduce__(self) -> tuple[Any, ...]:
        return Unique, (self.key, self.until, self.for_, self.name)


def _seconds(value: Any) -> float:
    what = "the time of a unique task"
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds or a timedelta, not {value!r}")
    if not 0 < value <= LONGEST_S:
        raise ValueError(f"{what} is above 0 and at most a hundred years, not {value!r} seconds")
    return float(value)


@dataclass(frozen=True, slots=True)
class Placement:
    """Run a task only on workers with certain labels (``pgcelery worker --label gpu=1``).

    For ``@app.task(placement=Placement(...))``.

    Args:
        require: Values by label that a worker must have: ``{"gpu": 1, "mem": ">=16"}``. A value may
            begin with ``=``, ``!=``, ``>``, ``>=``, ``<``, ``<=``; numbers compare as numbers.
        prefer: What is better met, and its weight from 1 to 1000: ``{"zone=eu": 50}`` or
            ``[("zone", "eu", 50)]``.
        sticky: Whether the task, as a step of a canvas, should (``soft``) or must (``hard``) run on
            the worker that ended the last it waited for.

    Raises:
        TypeError: Something is of another type.
        ValueError: Something is out of range or written wrongly, or more than 255 characters long
            in all.
    """

    require: Mapping[str, str | int | float] = field(default_factory=dict)
    prefer: Mapping[str, int] | Iterable[tuple[str, str, int]] = ()
    sticky: str | None = None
    _text: str = field(init=False, repr=False, compare=False)
    _sticky: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.require, Mapping):
            raise TypeError(f"placement: require is a dict of labels, not {self.require!r:.100}")
        if self.sticky is not None:
            _check_choice("placement: sticky", self.sticky, ("soft", "hard"))
        if not isinstance(self.prefer, Mapping):
            object.__setattr__(self, "prefer", _preferences(self.prefer))
        wanted = {label: _label_value(value) for label, value in self.require.items()}
        try:
            text = encode(wanted, _preferences(self.prefer))
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"placement: {exc}") from None
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "_sticky", STICKY[self.sticky])

    def __hash__(self) -> int:
        return hash((self._text, self._sticky))

    def __reduce__(self) -> tuple[Any, ...]:
        return Placement, (dict(self.require), self.prefer, self.sticky)


def _label_value(value: Any) -> Any:
    """Let numbers be written as numbers."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if plain else value


def _preferences(prefer: Any) -> tuple[tuple[str, str, int], ...]:
    if isinstance(prefer, Mapping):
        return tuple((*_halves(wanted), weight) for wanted, weight in prefer.items())
    if isinstance(prefer, (str, bytes)) or not isinstance(prefer, Iterable):
        raise TypeError(f"prefer is a dict or a list of tuples, not {prefer!r:.100}")
    found = []
    for each in prefer:
        if not isinstance(each, (tuple, list)) or len(each) != 3:
            raise TypeError(f"a preference is (label, value, weight), not {each!r:.100}")
        found.append((each[0], _label_value(each[1]), each[2]))
    return tuple(found)


def _halves(wanted: Any) -> tuple[str, str]:
    """Take ``zone=eu`` or ``mem>=16`` apart; the comparison stays with the value."""
    place = next((i for i, char in enumerate(str(wanted)) if char in "=!<>"), None)
    if not isinstance(wanted, str) or place is None:
        raise ValueError(f"a preference is written 'label=value', not {wanted!r:.100}")
    return wanted[:place].strip(), wanted[place:]
