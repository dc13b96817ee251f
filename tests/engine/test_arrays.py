from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgcelery.engine import arrays


@pytest.fixture(scope="module")
def conn(server_dsn: str):
    with psycopg.connect(server_dsn, autocommit=True) as conn:
        arrays.register(conn.adapters)
        yield conn


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))
TIMES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("build", "values"),
    [
        (arrays.TextArray.of, TEXT),
        (arrays.ByteaArray.of, st.binary()),
        (arrays.SmallintArray.of, st.integers(-(2**15), 2**15 - 1)),
        (arrays.IntegerArray.of, st.integers(-(2**31), 2**31 - 1)),
        (arrays.BigintArray.of, st.integers(-(2**63), 2**63 - 1)),
        (arrays.DoubleArray.of, st.floats(allow_nan=False)),
        (arrays.BooleanArray.of, st.booleans()),
        (arrays.TimestampArray.of_times, TIMES),
    ],
    ids=lambda part: getattr(part, "__qualname__", ""),
)
def test_the_server_reads_what_was_built(conn: psycopg.Connection, build, values):
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.none() | values, max_size=20))
    def check(given_values: list) -> None:
        row = conn.execute("select %s", [build(given_values)]).fetchone()
        assert row is not None
        assert row[0] == given_values

    check()


def test_times_count_from_the_servers_epoch():
    assert arrays.timestamp(datetime(2000, 1, 1, tzinfo=UTC)) == 0
    assert arrays.timestamp(datetime(2000, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)) == -1


def test_a_lone_surrogate_is_refused():
    with pytest.raises(UnicodeEncodeError):
        arrays.TextArray.of(["\ud800"])
