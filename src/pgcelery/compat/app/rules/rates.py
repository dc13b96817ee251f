"""Rates as Celery writes them, made exact: ``"100/m"``, ``"0.5/s"``, ``10``."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ("Rate", "parse_rate")

_FORM = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(?:/\s*([smhd]))?\s*", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST = 2**31 - 1
_LONGEST_S = 1e9


class Rate(NamedTuple):
    """Units in a number of seconds."""

    units: int
    period_s: float

    @property
    def per_second(self) -> float:
        """Units in one second."""
        return self.units / self.period_s


def parse_rate(what: str, value: Any) -> Rate:
    """Read a rate; a number is units a second.

    A fraction keeps its worth in whole units: ``"0.5/s"`` is 1 unit in 2 seconds.

    Args:
        what: Whose rate it is, for errors.
        value: Text or a number.

    Raises:
        TypeError: Neither.
        ValueError: Not of that form, zero, negative, not finite, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError(f"{what} is a rate such as '100/m', or a number a second, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} must be finite, not {value!r}")
    try:
        decimal = f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
        return _parse(str(decimal))
    except ValueError as exc:
        raise ValueError(f"{what} {exc}, not {value!r:.50}") from None


@lru_cache(512)
def _parse(text: str) -> Rate:
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("is written as '10/s', '100/m', '5/h' or '1000/d'")
    count, unit = Fraction(found[1]), found[2]
    if not count:
        raise ValueError("must be above 0")
    if count.numerator > _MOST or count.denominator > _MOST:
        raise ValueError(f"must be at most {_MOST}")
    rate = Rate(count.numerator, float(_SECONDS[unit or "s"] * count.denominator))
    if rate.period_s > _LONGEST_S:
        raise ValueError(f"must be at least one in {_LONGEST_S:g} seconds, in few decimals")
    return rate
