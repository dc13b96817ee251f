"""What a job asks of the worker that runs it, as the text that its place goes by. No I/O."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_WANTED = re.compile(r"\s*(>=|<=|!=|>|<|=)?\s*(.*)", re.DOTALL)

Preference = tuple[str, str, int]  #: a label, what it should be, and how much that weighs


def encode(require: Mapping[str, str], prefer: Sequence[Preference]) -> str:
    """Say it in one way only, as JSON; "" when nothing is asked."""
    if not require and not prefer:
        return ""
    asked = {"prefer": sorted(map(list, prefer)), "require": dict(require)}
    return json.dumps(asked, sort_keys=True, separators=(",", ":"))


def decode(text: str) -> tuple[dict[str, str], list[Preference]]:
    """Read what `encode` made."""
    asked = json.loads(text) if text else {}
    return asked.get("require", {}), [
        (name, wanted, weight) for name, wanted, weight in asked.get("prefer", ())
    ]


def score(text: str, labels: Mapping[str, str]) -> float | None:
    """Say how well a worker suits: None not at all, 1.0 as well as any, else a share of that."""
    require, prefer = decode(text)
    if not all(_meets(labels.get(name), wanted) for name, wanted in require.items()):
        return None
    total = sum(weight for _, _, weight in prefer)
    if total <= 0:
        return 1.0
    return sum(w for name, wanted, w in prefer if _meets(labels.get(name), wanted)) / total


def _meets(value: str | None, wanted: str) -> bool:
    match = _WANTED.fullmatch(wanted)
    assert match is not None
    sign, limit = match[1] or "=", match[2]
    if value is None:
        return sign == "!="
    try:
        return _COMPARE[sign](float(value), float(limit))
    except ValueError:
        return _COMPARE[sign](value, limit)


def parse_label(text: str) -> tuple[str, str]:
    """Split ``name=value``.

    Raises:
        ValueError: It is not of that form.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise ValueError(f"a label is name=value, not {text!r}")
    return name.strip(), value.strip()
