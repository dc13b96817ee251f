"""Reading one field of a crontab.

Source: Celery 5.7, ``celery.schedules.crontab_parser``; what it lets pass is let pass here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pgcelery.compat.utils.time import weekday, yearmonth

__all__ = ("Cronspec", "ParseException", "cronfield", "crontab_parser", "expand")

Cronspec = int | str | Iterable[int]

#: ``*`` or ``a-b``, then perhaps ``/step``; everything else is one number or name.
_PART = re.compile(r"(?:(?P<star>\*)|(?P<first>\w+?)-(?P<last>\w+))(?P<stepped>/(?P<step>\w+)?)?")


class ParseException(Exception):
    """A field cannot be read."""


def cronfield(s: Cronspec | None) -> Cronspec:
    """Give what a field says: everything when it says nothing."""
    return "*" if s is None else s


class crontab_parser:
    """Reads fields: ``*``, ``*/15``, ``1,5``, ``10-20/2``, ``mon-fri``, ``jan``; ranges wrap.

    Args:
        max_: How many values there are.
        min_: The first of them.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_

    def parse(self, spec: str) -> set[int]:
        """Give the values that a field names.

        Raises:
            ParseException: It is not written as a field is.
            ValueError: It names a value that does not exist, or a step that is no number.
        """
        found: set[int] = set()
        for part in spec.split(","):
            if not part:
                raise self.ParseException("empty part")
            found.update(self._part(part))
        return found

    def _part(self, part: str) -> Iterable[int]:
        match = _PART.match(part)
        if match is None or (match["star"] and not match["stepped"] and part != "*"):
            return (self._number(part),)
        if match["stepped"] and not match["step"]:
            raise self.ParseException("empty filter")
        values = self._all() if match["star"] else self._range(match["first"], match["last"])
        return values[:: int(match["step"])] if match["step"] else values

    def _all(self) -> list[int]:
        return list(range(self.min_, self.min_ + self.max_))

    def _range(self, first: str, last: str) -> list[int]:
        start, end = self._number(first), self._number(last)
        if start <= end:
            return list(range(start, end + 1))
        return [*range(start, self.min_ + self.max_), *range(self.min_, end + 1)]

    def _number(self, text: str) -> int:
        if text.startswith("-"):
            raise self.ParseException("negative numbers not supported")
        value = _number_or_name(text)
        last = self.min_ + self.max_ - 1
        if value > last:
            raise ValueError(f"Invalid end range: {value} > {last}.")
        if value < self.min_:
            raise ValueError(f"Invalid beginning range: {value} < {self.min_}.")
        return value


def _number_or_name(text: str) -> int:
    for read in (int, yearmonth, weekday):
        try:
            return read(text)
        except (KeyError, ValueError):
            continue
    raise ValueError(f"Invalid weekday literal {text!r}.")


def expand(cronspec: Any, max_: int, min_: int = 0) -> set[int]:
    """Give the values of a field that may be a number, a text, or several numbers.

    Raises:
        ParseException: A text that cannot be read.
        TypeError: Anything else.
        ValueError: A value that does not exist.
    """
    if isinstance(cronspec, int):
        values = {cronspec}
    elif isinstance(cronspec, str):
        values = crontab_parser(max_, min_).parse(cronspec)
    elif isinstance(cronspec, Iterable):
        values = cronspec if isinstance(cronspec, set) else set(cronspec)
    else:
        raise TypeError(
            "Argument cronspec needs to be of any of the following types: "
            f"int, str, or an iterable type. {type(cronspec)!r} was given."
        )
    for value in values:
        if not min_ <= value < min_ + max_:
            raise ValueError(
                f"Invalid crontab pattern.  Valid range is {min_}-{max_ - 1 + min_}. "
                f"'{value}' was found."
            )
    return values
