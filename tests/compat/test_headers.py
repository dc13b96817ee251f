"""Heads of messages that are not what the protocol says, also where others like them were right."""

from __future__ import annotations

from typing import Any

import pytest

from pgcelery.compat.app import headers

RIGHT = {"id": "a", "task": "t", "retries": 0, "timelimit": [None, 5.0], "mine": {"any": "thing"}}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"retries": "0"}, {"timelimit": 5}, {"timelimit": [1]}, {"timelimit": ["1", None]}),
        *({"stamped_headers": [1]}, {"chord_parents": [1]}),
    ],
)
def test_what_is_wrong_is_refused_however_often_the_like_was_right(wrong: dict[str, Any]):
    for _ in range(2):
        headers.check_headers(RIGHT)
        headers.check_headers({**RIGHT, "stamped_headers": ["s"], "chord_parents": ["b"]})
        with pytest.raises(TypeError, match=next(iter(wrong))):
            headers.check_headers({**RIGHT, **wrong})


def test_properties_likewise():
    for _ in range(2):
        headers.check_properties({"priority": 3, "delivery_info": {}})
        with pytest.raises(TypeError, match="priority"):
            headers.check_properties({"priority": "3", "delivery_info": {}})


def test_only_so_many_kinds_of_headers_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(headers, "_right", set())
    for n in range(3000):
        headers.check_headers({**RIGHT, f"own-{n}": n})
    headers.check_headers({f"own-{n}": n for n in range(3000)})
    assert len(headers._right) == headers._MOST_RIGHT
    assert max(map(len, headers._right)) < headers._LONGEST_RIGHT
