"""Texts with fields: the small language in which keys of limits are written."""

from __future__ import annotations

import pickle
from collections import defaultdict
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgcelery.compat.app.rules.expressions import Call, ExpressionError, Missing, Template
from pgcelery.compat.app.rules.keys import Parameters

ORDER = {"tenant": 7, "lines": [{"sku": "tea"}, {"sku": "cup"}], "plan": "", "Region": "EU"}
CALL = Call(
    (ORDER, SimpleNamespace(id=5, _secret=1)),
    {"user": {"name": "Ann", "a key": "x"}, "n": 3},
    {"trace": "t-1"},
)


def fill(text: str, call: Call = CALL, **names: Any) -> str:
    thunks = {name: (lambda call, value=value: value) for name, value in names.items()}
    return Template(text).compile(thunks, str)(call)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{tenant}}", "{tenant}"),
        ("tenant:{args[0].tenant}", "tenant:7"),
        ("{args[0]['tenant']}", "7"),
        ('{args[0]["tenant"]}!', "7!"),
        ("{ args[0].lines[-1].sku }/{kwargs.n}", "cup/3"),
        ("{args[1].id}", "5"),
        ("{kwargs.user['a key']}", "x"),
        ("{headers.trace}", "t-1"),
        ("{kwargs.nothing or 'none'}", "none"),
        ("{kwargs.nothing.at.all or args[0].plan or 'free'}", "free"),
        ("{args[7] or args[0].tenant}", "7"),
        ("{len(args[0].lines)}", "2"),
        ("{lower(args[0].Region)}{upper(kwargs.user.name)}", "euANN"),
        ("{'many' if len(args[0].lines) > 1 else 'one'}", "many"),
        ("{'a' if args[0].tenant == 8 else 'b' if not args[0].plan else 'c'}", "b"),
        ("{'in' if 'tea' in args[0].lines[0].sku and kwargs.n <= 3 else 'out'}", "in"),
        ("{'x' if kwargs.n not in args[0] else 'y'}{'}'}", "x}"),
        ("{order.tenant}-{order.tenant}", "9-9"),
        ("ü{kwargs.user.name}ü", "üAnnü"),
    ],
)
def test_fields_are_filled_in(text: str, filled: str) -> None:
    assert fill(text, order={"tenant": 9}) == filled
    assert pickle.loads(pickle.dumps(Template(text))).text == text


@pytest.mark.parametrize("text", ["plain", "", "{{}}", "a}}b"])
def test_a_text_without_fields_is_constant(text: str) -> None:
    assert Template(text).constant == text.replace("{{", "{").replace("}}", "}")
    assert Template("x{args[0]}").constant is None


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("a{", 2, "never closed"),
        ("a}", 2, "closes nothing"),
        ("{}", 2, "empty"),
        ("{ }", 2, "empty"),
        ("{a{b}}", 3, "within a field"),
        ("k:{args[0].__class__}", 4, "underscore"),
        ("{_x}", 2, "underscore"),
        ("ü:{'ü' + args[0]}", 4, "nothing that an expression may say"),
        ("{open('x')}", 2, "can be called"),
        ("{args[0].format()}", 2, "can be called"),
        ("{len(args, args)}", 2, "can be called"),
        ("{len(*args)}", 6, "nothing that"),
        ("{lower(x=args)}", 2, "can be called"),
        ("{[x for x in args]}", 2, "nothing that"),
        ("{lambda: 1}", 2, "nothing that"),
        ("{(x := 1)}", 3, "nothing that"),
        ("{args[1:2]}", 2, "between the brackets"),
        ("{args[kwargs.n]}", 2, "between the brackets"),
        ("{args[True]}", 2, "between the brackets"),
        ("{args[-'a']}", 2, "between the brackets"),
        ("{1.5}", 2, "whole numbers"),
        ("{b'x'}", 2, "whole numbers"),
        ("{-args[0]}", 2, "`not`"),
        ("{1 < args[0] < 3}", 2, "one comparison"),
        ("{args[0] is None}", 2, "one comparison"),
        ("{f'x'}", 2, "nothing that"),
        ("{'\\x41'}", 3, "backslashes"),
        ("{'a\0'}", 4, "control"),
        ("{args" + ".a" * 30 + "}", 2, "deep"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_the_place(
    text: str, place: int, why: str
) -> None:
    with pytest.raises(ExpressionError, match=why) as caught:
        Template(text)
    said, shown, caret = str(caught.value).split("\n")
    assert f"at character {place}: " in said
    assert shown == f"  {text}"
    assert caret.index("^") == place + 1


@pytest.mark.parametrize("field", ["kwargs.tenant +", "kwargs.", "args[0]:>5", "a b", "1__0", "(a"])
def test_a_syntax_error_is_shown_within_its_field(field: str) -> None:
    text = f"tenant:{{{field}}}:{{args[0]}}"
    with pytest.raises(ExpressionError, match="is wrong at character") as caught:
        Template(text)
    caret = str(caught.value).split("\n")[2].index("^") - 2
    assert text.index("{") < caret <= text.index("}")


def test_a_text_has_at_most_255_characters() -> None:
    assert Template("x" * 255).constant == "x" * 255
    with pytest.raises(ExpressionError, match="255"):
        Template("{args[0]}" * 29)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{kwargs.tenant}", r"kwargs has no 'tenant'; it has 'user', 'n'"),
        ("{args[0].lines[2].sku}", r"args\[0\]\.lines has no 2: it is a list of length 2"),
        ("{args[0]['x'].y}", r"args\[0\] has no 'x'"),
        ("{args[1].nope}", "it is a SimpleNamespace"),
        ("{args[0].tenant.x}", "it is a int"),
        ("{kwargs.n[0]}", "has no 0"),
        ("{None}", "None"),
        ("{kwargs.none.x}", r"kwargs\.none has no 'x': it is None"),
        ("{kwargs.nothing and 1}", "nothing"),
        ("{kwargs.nope or kwargs.none}", "is None"),
    ],
)
def test_what_is_missing_is_named(text: str, why: str) -> None:
    call = CALL._replace(kwargs={**CALL.kwargs, "none": None} if "none" in text else CALL.kwargs)
    with pytest.raises(Missing, match=why):
        fill(text, call)


def test_reading_changes_nothing() -> None:
    counts: Any = defaultdict(list)
    with pytest.raises(Missing):
        fill("{args[0].x}", Call((counts,)))
    assert fill("{args[0]['y'] or 'z'}", Call((counts,))) == "z"
    assert not counts


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        template = Template(text)
    except ExpressionError:
        return
    if template.constant is None:
        assert "{" in text


@given(st.text(st.sampled_from("{}[]().'\"argskw 01,:=<>ornt+-*_!"), max_size=30))
def test_any_text_in_the_alphabet_of_the_language_is_read_or_refused(text: str) -> None:
    try:
        template = Template(text)
    except ExpressionError:
        return
    thunks = dict.fromkeys(template.names, lambda call: None)
    fill_in = template.compile(thunks, str)
    with suppress(Missing, TypeError):  # what its names stand for may not fit
        assert isinstance(fill_in(Call(("a",), {"b": 1})), str)


def function(task: Any, order: Any, /, place: str = "here", *rest: Any, key: int = 1, **more: Any):
    """One of each kind of parameter."""


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (Call(("o",)), ("o", "here", (), 1, {})),
        (Call(("o", "p", 3, 4), {"key": 2, "x": 5}), ("o", "p", (3, 4), 2, {"x": 5})),
        (Call(("o",), {"place": "there"}), ("o", "there", (), 1, {})),
    ],
)
def test_parameters_are_found_however_they_are_passed(call: Call, values: Any) -> None:
    thunks = Parameters(function, bound=True).thunks
    assert list(thunks) == ["order", "place", "rest", "key", "more"]
    assert tuple(thunk(call) for thunk in thunks.values()) == values


def test_a_parameter_that_is_not_passed_is_missing() -> None:
    with pytest.raises(Missing, match="no argument 'order'"):
        Parameters(function, bound=True).thunks["order"](Call())
