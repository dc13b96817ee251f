"""Which workers a job may run on, and which it prefers: a text in the job, labels on the worker.

The text is canonical JSON, so that jobs which want the same have the same text. Pure.

A wanted value may begin with ``=``, ``!=``, ``>``, ``>=``, ``<`` or ``<=``; without one it is
``=``. Two numbers are compared as numbers (``1`` is ``1.0``), anything else as text. A label that a
worker does not have meets ``!=`` and nothing else.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

#: Most characters of an encoded text.
LONGEST = 255

#: Most that one preference weighs.
HEAVIEST = 1000

#: What a throttled place asks for: no label has such a name.
RATE = "pgcelery:rate"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9_.:/@+-]{1,63}", re.ASCII)
_WANTED = re.compile(r"(!=|>=|<=|=|>|<)?\s*(.*)", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?", re.ASCII)

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Wanted(NamedTuple):
    """One thing to find among the labels of a worker."""

    label: str
    compare: str
    value: str
    weight: int = 0  #: of a preference; 0 for a requirement


class Placement(NamedTuple):
    """A decoded text."""

    require: dict[str, str]
    prefer: list[tuple[str, str, int]]


def encode(require: Mapping[str, str], prefer: Sequence[tuple[str, str, int]] = ()) -> str:
    """Write down what a job wants of its worker; the empty text if that is nothing.

    Args:
        require: Wanted values by label; all must be met.
        prefer: Label, wanted value and weight, 1 to 1000, of what is better met.

    Raises:
        TypeError: Something that is no text, or a weight that is no whole number.
        ValueError: Characters that labels do not have, a weight out of range, or more than 255
            characters in all.
    """
    if not require and not prefer:
        return ""
    parts: dict[str, Any] = {}
    if prefer:
        parts["p"] = sorted(
            [*_clean(label, value), _weight(weight)] for label, value, weight in prefer
        )
    if require:
        parts["r"] = dict(sorted(_clean(label, value) for label, value in require.items()))
    text = json.dumps(parts, separators=(",", ":"))
    if len(text) > LONGEST:
        raise ValueError(f"a placement has at most {LONGEST} characters, not {len(text)}: {text}")
    return text


def decode(text: str) -> Placement:
    """Read what `encode` wrote.

    Raises:
        ValueError: It is something else.
    """
    found = _parse(text)
    try:
        canonical = encode(*found) == text
    except (ValueError, TypeError):
        canonical = False
    if not canonical:
        raise ValueError(f"not an encoded placement: {text!r}")
    return found


def score(text: str, labels: Mapping[str, str]) -> float | None:
    """Say how well a worker fits a job.

    Args:
        text: The job's placement, encoded.
        labels: The worker's.

    Returns:
        None if it must not run there; else the weight of the preferences that are met, as a share
        of all, from 0.0 to 1.0; 1.0 for a job that prefers nothing.

    Raises:
        ValueError: `text` is no encoded placement, nor one that the database made for what is to
            run on one worker (``own_place_v1``).
    """
    if not text:
        return 1.0
    require, prefer, total = _read(text)
    if not all(_meets(labels, wanted) for wanted in require):
        return None
    if not total:
        return 1.0
    return sum(wanted.weight for wanted in prefer if _meets(labels, wanted)) / total


def split_rate(text: str) -> tuple[str, str | None]:
    """Take the name out of a throttled place (``throttled_place_v1``): what else it asks, and that.

    The name is None for any other place.
    """
    if RATE not in text:
        return text, None
    parts = json.loads(text)
    name = parts.get("r", {}).pop(RATE, None)
    if name is None:
        return text, None
    asks = {key: value for key, value in parts.items() if value}
    return json.dumps(asks) if asks else "", name.removeprefix("=")


def describe(text: str) -> str:
    """Say for people what is required: ``gpu=1, mem>=16``."""
    return ", ".join(
        f"{one.label}{one.compare}{one.value}" for one in (_read(text)[0] if text else ())
    )


def parse_label(text: str) -> tuple[str, str]:
    """Read a label of a worker, ``zone=eu``.

    Raises:
        ValueError: It is not of that form, or has other characters than letters, digits and
            ``_.-`` in the name, ``_.:/@+-`` in the value, 1 to 63 of each.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"a label is written name=value, not {text!r}")
    return _name(name.strip()), _value(value.strip(), text)


def _parse(text: str) -> Placement:
    if not text:
        return Placement({}, [])
    try:
        parts = json.loads(text)
        require = {str(label): str(value) for label, value in dict(parts.pop("r", {})).items()}
        prefer = [
            (str(label), str(value), int(weight)) for label, value, weight in parts.pop("p", [])
        ]
        if parts:
            raise ValueError("parts that nobody knows")
    except (ValueError, TypeError, AttributeError) as exc:
        raise ValueError(f"not an encoded placement: {text!r}") from exc
    return Placement(require, prefer)


def parse_change(text: str) -> tuple[str, str | None]:
    """Read a change to a worker's labels: ``zone=eu``, or ``zone=`` to take it away (None).

    Raises:
        ValueError: As `parse_label` does.
    """
    name, equals, value = text.partition("=")
    return (_name(name.strip()), None) if equals and not value.strip() else parse_label(text)


@lru_cache(1024)
def _read(text: str) -> tuple[list[Wanted], list[Wanted], int]:
    require, prefer = _parse(text)
    wanted = [Wanted(label, *_split(value)) for label, value in require.items()]
    better = [Wanted(label, *_split(value), weight) for label, value, weight in prefer]
    return wanted, better, sum(one.weight for one in better)


def _meets(labels: Mapping[str, str], wanted: Wanted) -> bool:
    has = labels.get(wanted.label)
    if has is None:
        return wanted.compare == "!="
    compare = _COMPARE[wanted.compare]
    if _NUMBER.fullmatch(has) and _NUMBER.fullmatch(wanted.value):
        return compare(Decimal(has), Decimal(wanted.value))
    return compare(has, wanted.value)


def _clean(label: str, value: str) -> tuple[str, str]:
    """Write one requirement in the one way there is."""
    compare, plain = _wanted(value)
    return _name(label), plain if compare == "=" else compare + plain


def _wanted(value: str) -> tuple[str, str]:
    if not isinstance(value, str):
        raise TypeError(f"the wanted value of a label is text, not {value!r:.100}")
    compare, plain = _split(value)
    return compare, _value(plain, value)


def _split(value: str) -> tuple[str, str]:
    found = _WANTED.fullmatch(value.strip())
    compare, plain = (found[1], found[2]) if found else (None, value)
    return compare or "=", plain


def _name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a label is text, not {name!r:.100}")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the name of a label is 1 to 63 letters, digits and _ . -, a letter or digit first,"
            f" not {name!r:.100}"
        )
    return name


def _value(value: str, shown: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"the value of a label is 1 to 63 letters, digits and _ . : / @ + -, not {shown!r:.100}"
        )
    return value


def _weight(weight: int) -> int:
    if isinstance(weight, bool) or not isinstance(weight, int):
        raise TypeError(f"the weight of a preference is a whole number, not {weight!r:.100}")
    if not 1 <= weight <= HEAVIEST:
        raise ValueError(f"the weight of a preference is 1 to {HEAVIEST}, not {weight!r}")
    return weight
