from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError

from pgcelery.compat.message import Message, decode, encode
from pgcelery.compat.serialization import dump, load

JSON = frozenset({"application/json"})
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), plain), st.binary())
def test_a_message_comes_back_as_it_was(headers: dict[str, object], body: bytes) -> None:
    message = Message(headers, {"priority": 3}, body, "application/x", "binary")
    assert decode(encode(message)) == message


def test_headers_keep_what_kombu_tags() -> None:
    headers = {"at": datetime(2024, 1, 2, tzinfo=UTC), "n": Decimal("1.5"), "b": b"\xff"}
    assert decode(encode(Message(headers))).headers == headers


def test_a_header_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError):
        encode(Message({"f": object()}))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x02\x00\x00",
        b"\x01\x00\x00\x00\x02[]",
        b"\x02\x00\x00\x00\x02[]",
        b"\x02\0\0\0\5junk!",
    ],
)
def test_other_bytes_are_no_message(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(payload)


def through(data: object) -> object:
    content_type, encoding, body, compression = dump(data)
    return load(body, content_type, encoding, JSON, compression)


@pytest.mark.parametrize(
    "value",
    [
        "nul \0 in text",
        "lone \ud800 surrogate",
        2**53 + 1,
        10**400,
        -0.0,
        b"\xff\x00",
        UUID(int=5),
        Decimal("0.10"),
        datetime(1, 1, 1),
        datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC),
        {"a": [[[{}]]]},
        "'; drop table jobs; --",
        {"__type__": 1},
        {"__type__": 1, "__value__": 2, "more": 3},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_come_back_equal(value: object) -> None:
    assert through([value]) == [value]


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        print,
        object(),
        {(1, 2): 3},
        {"__type__": "mine", "__value__": 1},
        [{"deep": ({"__type__": "uuid", "__value__": {"hex": "0" * 32}},)}],
        10**5000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_come_back_is_refused(value: object) -> None:
    with pytest.raises(EncodeError):
        dump(value)


def test_a_circle_and_a_bottomless_pit_are_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    deep: object = None
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(EncodeError):
            dump(value)


@pytest.mark.parametrize("method", ["zlib", "gzip", "bzip2"])
def test_compressed_bodies_come_back(method: str) -> None:
    content_type, encoding, body, compression = dump(["x" * 1000], "json", method)
    assert len(body) < 200
    assert load(body, content_type, encoding, JSON, compression) == ["x" * 1000]


def test_content_that_is_not_accepted_is_not_decoded() -> None:
    content_type, encoding, body, compression = dump([1], "pickle", "zlib")
    with pytest.raises(ContentDisallowed):
        load(body, content_type, encoding, JSON, compression)
    with pytest.raises(ContentDisallowed):
        load(b"not even zlib", "application/x-python-serialize", None, JSON, "application/x-gzip")


def test_garbage_is_a_decode_error() -> None:
    for body in (b"{", b"\xff", b'{"__type__": "mine", "__value__": 1}'):
        with pytest.raises(DecodeError):
            load(body, "application/json", "utf-8", JSON)
