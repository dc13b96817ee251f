"""JSON as kombu's serializer writes it, times and the like in it as tagged objects."""

from __future__ import annotations

import json
from typing import Any

from kombu.utils.json import object_hook

__all__ = ("TAG", "parse")

#: Stands in a text with tagged objects.
TAG = '"__type__"'

_decode = json.JSONDecoder().raw_decode


def parse(text: str) -> Any:
    """Read a text; each message has two.

    Raises:
        ValueError: It is no JSON.
        KeyError: A tagged object lacks its value; likewise TypeError.
    """
    if TAG in text:  # else the hook would only be called for nothing, once an object
        return json.loads(text, object_hook=object_hook)
    try:
        value, end = _decode(text)
    except ValueError:
        end = -1
    # `json.loads` looks for white space before and after, which takes as long as to read a body.
    return value if end == len(text) else json.loads(text)
