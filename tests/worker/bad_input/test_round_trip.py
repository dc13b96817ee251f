"""Any value that JSON can carry comes back from a real worker as Celery's serializer gives it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.exceptions import EncodeError
from kombu.utils import json as kombu_json

from pgcelery import group
from tests.worker.bad_input.world import World

TEXT = st.text(alphabet=st.characters(), max_size=30)  # NUL and lone surrogates too
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | TEXT
    | st.datetimes()
    | st.dates()
    | st.uuids()
    | st.decimals()
    | st.binary(max_size=30)
)
KEYS = TEXT | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=5)
        | st.integers(1, 300).flatmap(lambda depth: inner.map(lambda one: nested(one, depth)))
    ),
    max_leaves=20,
)


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def alike(one: Any, other: Any) -> bool:
    """Equal, of the same types, in the same order; NaN is like NaN and 0.0 not like -0.0."""
    pending = [(one, other)]
    while pending:
        left, right = pending.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, list):
            if len(left) != len(right):
                return False
            pending += zip(left, right, strict=True)
        elif isinstance(left, dict):
            if list(left) != list(right):
                return False
            pending += [(left[key], right[key]) for key in left]
        elif isinstance(left, float):
            if repr(left) != repr(right):
                return False
        elif repr(left) != repr(right):  # decimals have NaNs of their own
            return False
    return True


def carried(value: Any) -> Any:
    """What Celery's serializer makes of a value; as an argument, and again as a result."""
    once = kombu_json.loads(kombu_json.dumps([[value], {}, {}]))[0][0]
    return kombu_json.loads(kombu_json.dumps({"result": once}))["result"]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(values=st.lists(VALUES, min_size=1, max_size=20))
def test_values_come_back_as_celerys_serializer_gives_them(values: list[Any], world: World) -> None:
    sent = []
    for value in values:
        try:
            sent.append((carried(value), world.module.echo.s(value)))
        except (TypeError, ValueError):  # Celery cannot say it, or not read it, either
            with pytest.raises((EncodeError, TypeError, ValueError)):
                world.module.echo.delay(value)
    if not sent:
        return
    back = group(sig for _, sig in sent).apply_async().get(timeout=30)
    for (expected, _), got in zip(sent, back, strict=True):
        assert alike(got, expected), (got, expected)


def test_what_alike_tells_apart() -> None:
    assert alike([math.nan, {"a": 1}], [math.nan, {"a": 1}])
    assert not alike(0.0, -0.0)
    assert not alike(1, 1.0)
    assert not alike({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not alike(True, 1)
