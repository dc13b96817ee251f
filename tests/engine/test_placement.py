"""What a job wants of its worker, and how well a worker fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgcelery.engine import placement
from pgcelery.engine.placement import decode, encode, parse_label, score

names = st.from_regex(r"[a-z][a-z0-9_.-]{0,5}", fullmatch=True)
values = st.one_of(
    st.integers(-99, 99).map(str),
    st.decimals(-9, 9, places=1, allow_nan=False).map(str),
    st.from_regex(r"[A-Za-z0-9_.:/@+-]{1,5}", fullmatch=True),
)
comparisons = st.sampled_from(["", "=", "!=", ">", ">=", "<", "<="])
wanted = st.builds(lambda compare, value: compare + value, comparisons, values)
requirements = st.dictionaries(names, wanted, max_size=4)
preferences = st.lists(st.tuples(names, wanted, st.integers(1, 1000)), max_size=4)
labels = st.dictionaries(names, values, max_size=6)


def test_nothing_wanted_is_no_text_and_fits_everywhere() -> None:
    assert encode({}) == encode({}, []) == ""
    assert score("", {}) == score("", {"gpu": "1"}) == 1.0
    assert decode("") == ({}, [])


@pytest.mark.parametrize(
    ("value", "has", "met"),
    [
        ("1", "1", True),
        ("1", "1.0", True),
        ("=1", "01", True),
        ("a", "A", False),
        ("!=1", "1.0", False),
        ("!=1", None, True),
        ("1", None, False),
        (">=16", "9", False),  # as numbers, not as text
        (">=16", "16", True),
        ("> 16", "16", False),
        ("<16", "-3.5", True),
        ("<=b", "a", True),  # as text
        (">=9", "abc", True),
        ("<9", None, False),
    ],
)
def test_comparisons(value: str, has: str | None, met: bool) -> None:
    text = encode({"x": value})
    assert score(text, {} if has is None else {"x": has}) == (1.0 if met else None)


def test_preferences_are_weighed() -> None:
    text = encode({"gpu": "1"}, [("zone", "eu", 50), ("zone", "!=us", 25), ("mem", ">=16", 25)])
    assert score(text, {"gpu": "1", "zone": "eu", "mem": "8"}) == 0.75
    assert score(text, {"gpu": "1", "zone": "asia", "mem": "32"}) == 0.5
    assert score(text, {"gpu": "1", "zone": "us"}) == 0.0
    assert score(text, {"zone": "eu", "mem": "32"}) is None


@given(requirements, preferences)
def test_the_text_is_canonical_and_can_be_read(require, prefer) -> None:
    try:
        text = encode(require, prefer)
    except ValueError:
        assert sum(len(label + value) for label, value, *_ in [*require.items(), *prefer]) > 100
        return
    assert len(text) <= 255
    assert text.isascii()
    again = decode(text)
    assert encode(*again) == text
    assert encode(dict(reversed(require.items())), list(reversed(prefer))) == text
    assert set(again.require) == set(require)
    assert sorted(weight for *_, weight in again.prefer) == sorted(one[2] for one in prefer)


@given(requirements, preferences, labels)
def test_a_score_is_a_share_and_a_requirement_decides(require, prefer, has) -> None:
    try:
        text = encode(require, prefer)
    except ValueError:
        return
    found = score(text, has)
    each = [score(encode({label: value}), has) for label, value in require.items()]
    assert (found is None) == (None in each)
    if found is not None:
        assert 0.0 <= found <= 1.0
        met = [weight for label, value, weight in prefer if score(encode({label: value}), has)]
        assert found == (sum(met) / sum(one[2] for one in prefer) if prefer else 1.0)


@given(values, labels)
def test_a_comparison_and_its_opposite_exclude_each_other(value, has) -> None:
    for one, other in (("=", "!="), (">", "<="), ("<", ">=")):
        met = [score(encode({"x": sign + value}), {**has, "x": "5"}) for sign in (one, other)]
        assert sorted(met, key=str) == [1.0, None]


@pytest.mark.parametrize(
    ("require", "prefer", "error", "why"),
    [
        ({"": "1"}, (), ValueError, "name of a label"),
        ({"a b": "1"}, (), ValueError, "name of a label"),
        ({"ü": "1"}, (), ValueError, "name of a label"),
        ({"_a": "1"}, (), ValueError, "name of a label"),
        ({"a" * 64: "1"}, (), ValueError, "name of a label"),
        ({1: "1"}, (), TypeError, "name of a label"),
        ({"a": ""}, (), ValueError, "value of a label"),
        ({"a": ">="}, (), ValueError, "value of a label"),
        ({"a": "==1"}, (), ValueError, "value of a label"),
        ({"a": "1\n"}, (), None, ""),
        ({"a": "x\0"}, (), ValueError, "value of a label"),
        ({"a": "x" * 64}, (), ValueError, "value of a label"),
        ({"a": 1}, (), TypeError, "is text"),
        ({"a": None}, (), TypeError, "is text"),
        ({}, [("a", "1", 0)], ValueError, "1 to 1000"),
        ({}, [("a", "1", 1001)], ValueError, "1 to 1000"),
        ({}, [("a", "1", True)], TypeError, "whole number"),
        ({}, [("a", "1", 1.0)], TypeError, "whole number"),
        ({f"label{i}": "x" * 40 for i in range(9)}, (), ValueError, "at most 255"),
    ],
)
def test_bad_input_is_refused(require, prefer, error, why) -> None:
    if error is None:
        assert decode(encode(require, prefer)).require == {"a": "1"}
        return
    with pytest.raises(error, match=why):
        encode(require, prefer)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "1", '{"x":1}', '{"r":{"a":1}}', '{"r":{"a":"=1"}}', '{"r":{}}', '{ "r":{"a":"1"}}',
     '{"p":[["a","1"]]}', '{"p":[["a","1",0]]}', '{"r":{"b":"1","a":"1"}}'],
)  # fmt: skip
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an encoded placement"):
        decode(text)


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"x":1}', '{"p":[["a","1"]]}'])
def test_what_cannot_be_read_has_no_score(text: str) -> None:
    with pytest.raises(ValueError, match="not an encoded placement"):
        score(text, {})


def test_what_the_database_writes_has_a_score() -> None:
    own = '{"p": [["worker", "celery@a host", 100]], "r": {"gpu": "1"}}'
    assert score(own, {"gpu": "1", "worker": "celery@a host"}) == 1.0
    assert score(own, {"gpu": "1", "worker": "b"}) == 0.0
    assert score(own, {"worker": "celery@a host"}) is None


def test_what_is_required_is_said_for_people() -> None:
    assert (
        placement.describe(encode({"gpu": "1", "mem": ">=16"}, [("zone", "eu", 5)]))
        == "gpu=1, mem>=16"
    )
    assert placement.describe("") == ""


def test_labels_of_workers() -> None:
    assert parse_label("gpu=1") == ("gpu", "1")
    assert parse_label(" zone = eu-1/a ") == ("zone", "eu-1/a")
    for bad in ("gpu", "=1", "gpu=", "gpu=1=2", "g pu=1", "gpu=>1", "gpu=ü", "x" * 64 + "=1"):
        with pytest.raises(ValueError, match="label"):
            parse_label(bad)


def test_the_longest_text_is_that_of_the_column() -> None:
    assert placement.LONGEST == 255
