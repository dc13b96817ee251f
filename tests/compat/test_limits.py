"""What tasks and settings say about limits, and the jobs that calls become. No database."""

from __future__ import annotations

import copy
import enum
import pickle
import re
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from pgcelery import Concurrency, Placement, RateLimit, Unique, chain, chord, group, shared_task
from pgcelery.compat.app import running, sending
from pgcelery.compat.app.rules.compiled import engine_key
from pgcelery.compat.exceptions import ImproperlyConfigured, Reject, Retry
from pgcelery.engine import Gate, Strategy
from pgcelery.engine import Unique as UniqueJob
from pgcelery.engine.placement import encode
from tests.support.tasks import Offline, celery_log


def tenant_of(order: dict[str, Any]) -> Any:
    return order["tenant"]


class Plan(enum.Enum):
    FREE = "free"


@pytest.fixture
def app() -> Offline:
    return Offline("limits")


def gates(app: Offline) -> tuple[Gate, ...]:
    return app.sent().gates


# -- concurrency


def test_the_key_comes_from_a_constant_a_text_the_arguments_or_the_call(app: Offline) -> None:
    @app.task(name="plain", concurrency=Concurrency("everybody", limit=3))
    def plain(): ...

    @app.task(name="tenant", concurrency=Concurrency(tenant_of, limit=2, weight=2))
    def tenant(order): ...

    @app.task(name="text", concurrency=Concurrency("tenant:{order.tenant}", 1, name="tenants"))
    def text(order, n=0): ...

    @app.task(name="free")
    def free(): ...

    sent = []
    for call in (
        lambda: plain.delay(),
        lambda: plain.apply_async(concurrency_key="special"),
        lambda: tenant.delay({"tenant": "ü"}),
        lambda: tenant.delay({"tenant": 7}),
        lambda: tenant.apply_async(({"tenant": 7},), concurrency_key="vip", concurrency_limit=9),
        lambda: text.delay({"tenant": 7}),
        lambda: text.delay(order={"tenant": 7}),
        lambda: text.s({"tenant": 8}).set(concurrency_key="vip").delay(),
        lambda: free.delay(),
        lambda: free.apply_async(concurrency_key="own", concurrency_limit=4),
    ):
        call()
        sent.append(gates(app))
    assert sent == [
        (Gate("everybody", "", 3),),
        (Gate("everybody", "special", 3),),
        (Gate("tenant", "ü", 2, 2.0),),
        (Gate("tenant", "7", 2, 2.0),),
        (Gate("tenant", "vip", 9, 2.0),),
        (Gate("tenants", "tenant:7", 1),),
        (Gate("tenants", "tenant:7", 1),),
        (Gate("tenants", "vip", 1),),
        (),
        (Gate("free", "own", 4),),
    ]


def test_a_constant_key_under_a_name_of_its_own_is_a_key_of_that(app: Offline) -> None:
    app.task(lambda: None, name="t", concurrency=Concurrency("k", name="pool")).delay()
    assert gates(app) == (Gate("pool", "k", 1),)


@pytest.mark.parametrize(
    ("strategy", "engines"),
    [
        ("queue", Strategy.WAIT),
        ("cancel_in_progress", Strategy.CANCEL_IN_PROGRESS),
        ("cancel_newest", Strategy.CANCEL_NEWEST),
        ("replace", Strategy.REPLACE_WAITING),
        ("debounce", Strategy.REPLACE_WAITING),
    ],
)
def test_strategies(app: Offline, strategy: str, engines: Strategy) -> None:
    app.task(lambda: None, name="t", concurrency=Concurrency("k", strategy=strategy)).delay()
    assert gates(app)[0].strategy == engines


def test_several_limits_are_passed_together(app: Offline) -> None:
    limits = [Concurrency("{tenant}", 2), Concurrency("stripe", 5), Concurrency("{user}", name="u")]

    @app.task(name="pay", concurrency=limits, rate_limits=RateLimit("{tenant}", "10/s"))
    def pay(tenant, user): ...

    pay.delay(1, 2)
    assert gates(app) == (
        Gate("pay", "1", 2),
        Gate("stripe", "", 5),
        Gate("u", "2", 1),
        Gate("pay:rate", "1", rate=10, period_s=1.0, burst=1),
    )
    pay.apply_async((1, 2), concurrency_key={"u": "x", "stripe": "y"}, rate_key="z")
    assert [gate.key for gate in gates(app)] == ["1", "y", "x", "z"]
    with pytest.raises(TypeError, match="several concurrency limits: say which"):
        pay.apply_async((1, 2), concurrency_key="x")
    with pytest.raises(ValueError, match="names 'nope'; its limits are pay, stripe, u"):
        pay.apply_async((1, 2), concurrency_key={"nope": "x"})


def test_a_limit_may_be_a_function_of_the_arguments(app: Offline) -> None:
    given: list[Any] = [3]

    @app.task(name="t", concurrency=Concurrency("k", limit=lambda *args, **kwargs: given[0]))
    def task(a=1): ...

    task.delay()
    assert gates(app) == (Gate("k", "", 3),)
    given[0] = None
    task.delay()
    assert gates(app) == (Gate("k", "", None),)
    for bad, error in ((0, ValueError), (True, TypeError), ("2", TypeError), (2.0, TypeError)):
        given[0] = bad
        with pytest.raises(error, match="concurrency limit 'k' of task t"):
            task.delay()
    assert len(app.engine.jobs) == 2


@pytest.mark.parametrize(
    ("fields", "error", "why"),
    [
        ({"key": None}, TypeError, "the key of a concurrency limit"),
        ({"key": 5}, TypeError, "the key of a concurrency limit"),
        ({"key": ""}, ValueError, "1 to 255"),
        ({"key": "x" * 300}, ValueError, "255"),
        ({"key": "a\0"}, ValueError, "NUL"),
        ({"key": "\ud800"}, ValueError, "surrogate"),
        ({"key": "{kwargs.a"}, ValueError, "never closed"),
        ({"limit": 0}, ValueError, "limit"),
        ({"limit": -1}, ValueError, "limit"),
        ({"limit": 2**31}, ValueError, "limit"),
        ({"limit": 1.5}, TypeError, "limit"),
        ({"limit": True}, TypeError, "limit"),
        ({"limit": "2"}, TypeError, "limit"),
        ({"weight": 0}, ValueError, "weight"),
        ({"weight": -1.0}, ValueError, "weight"),
        ({"weight": float("nan")}, ValueError, "weight"),
        ({"weight": 1e-7}, ValueError, "weight"),
        ({"weight": 2 * 10**9}, ValueError, "weight"),
        ({"weight": float("inf")}, ValueError, "weight"),
        ({"weight": True}, TypeError, "weight"),
        ({"weight": "1"}, TypeError, "weight"),
        ({"strategy": "wait"}, ValueError, "queue, cancel_in_progress"),
        ({"strategy": None}, ValueError, "queue, cancel_in_progress"),
        ({"limit": None, "strategy": "replace"}, ValueError, "needs a concurrency limit"),
        ({"name": ""}, ValueError, "name"),
        ({"name": 5}, TypeError, "name"),
    ],
)
def test_a_bad_concurrency_limit_is_refused_when_it_is_written(fields, error, why) -> None:
    with pytest.raises(error, match=why):
        Concurrency(**{"key": "k", **fields})


@pytest.mark.parametrize(
    ("key", "error", "why"),
    [
        (lambda order: None, TypeError, "text or a whole number, not None"),
        (lambda order: 5.0, TypeError, "not 5.0"),
        (lambda order: True, TypeError, "not True"),
        (lambda order: b"x", TypeError, "not b'x'"),
        (lambda order: "", ValueError, "1 to 255 characters long, not 0"),
        (lambda order: "x" * 10_000, ValueError, "not 10000"),
        (lambda order: "\0", ValueError, "NUL"),
        (lambda order: "\ud800", ValueError, "surrogate"),
        (tenant_of, ValueError, "KeyError: 'tenant'"),
        (lambda: "k", ValueError, "TypeError"),
        ("{order.tenant}", ValueError, "order has no 'tenant'; it has 'n'"),
        ("{kwargs.tenant}", ValueError, "kwargs has no 'tenant'"),
        ("{order.n.real.imag.x}", ValueError, "has no 'x'"),
        ("{order.none}", ValueError, "cannot be found"),
        ("{order}", ValueError, "is no text, number, UUID or date"),
        ("{len(order.n)}", ValueError, "TypeError: object of type 'int'"),
        ("{order.n < 'x'}", ValueError, "TypeError"),
    ],
)
def test_a_key_that_cannot_be_is_told_to_the_caller_and_nothing_is_sent(
    app: Offline, key: Any, error: type[Exception], why: str
) -> None:
    for number, rule in enumerate((Concurrency(key), RateLimit(key), Unique(key))):
        option = ("concurrency", "rate_limits", "unique")[number]
        task = app.task(lambda order: None, name=f"t{number}", **{option: rule})
        with pytest.raises(error, match=why) as caught:
            task.delay({"n": 1})
        assert f"for task t{number}" in str(caught.value)
    assert app.engine.jobs == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (0, "0"),
        (Plan.FREE, "free"),
        (True, "true"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_what_a_field_may_be(app: Offline, value: Any, text: str) -> None:
    task = app.task(lambda v: None, name="t", concurrency=Concurrency("{v}"), serializer="pickle")
    task.delay(value)
    assert gates(app) == (Gate("t", text, 1),)


def test_a_key_may_come_from_headers_and_defaults(app: Offline) -> None:
    @app.task(name="t", concurrency=Concurrency("{headers.region or region}"))
    def task(region="eu"): ...

    task.delay()
    task.delay("us")
    task.apply_async(headers={"region": "asia"})
    assert [job.gates[0].key for job in app.engine.jobs] == ["eu", "us", "asia"]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("bind", [False, True])
def test_an_unknown_name_is_refused_when_the_task_is_defined(app: Offline, bind, lazy) -> None:
    def plain(order, n): ...

    def bound(self, order, n): ...

    decorate = app.task(bind=bind, lazy=lazy, concurrency=Concurrency("t:{ordr.tenant}"))
    with pytest.raises(ValueError, match=r"no parameter 'ordr'; it has order, n; args.*\n.*\n +\^"):
        decorate(bound if bind else plain)
    rule = Concurrency("{self}")
    with pytest.raises(ValueError, match="no parameter 'self'"):
        app.task(bind=bind, lazy=lazy, rate_limits=RateLimit(rule.key))(bound if bind else plain)


def test_a_shared_task_is_looked_at_when_it_is_defined() -> None:
    with pytest.raises(ValueError, match="no parameter 'ordr'; it has order"):
        shared_task(concurrency=Concurrency("{ordr}"))(lambda order: None)


def test_classes_of_tasks_and_wrapped_functions_have_parameters_too(app: Offline) -> None:
    class Pay(app.Task):
        name = "pay"
        concurrency = Concurrency("{order}")

        def run(self, order): ...

    app.register_task(Pay()).delay(5)
    assert gates(app) == (Gate("pay", "5", 1),)

    @app.task(name="auto", autoretry_for=(OSError,), bind=True, concurrency=Concurrency("{order}"))
    def auto(self, order): ...

    auto.delay(6)
    assert gates(app) == (Gate("auto", "6", 1),)

    class Wrong(app.Task):
        name = "wrong"
        concurrency = Concurrency("{nope}")

        def run(self, order): ...

    with pytest.raises(ValueError, match="no parameter 'nope'; it has order"):
        app.register_task(Wrong())


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"concurrency": "k"}, TypeError, "concurrency of task t: Concurrency"),
        ({"concurrency": [RateLimit()]}, TypeError, "concurrency of task t"),
        ({"concurrency": {"limit": 2}}, TypeError, "'key'"),
        ({"concurrency": {"key": "k", "limt": 2}}, TypeError, "limt"),
        ({"rate_limits": "lots"}, ValueError, "rate_limits of task t"),
        ({"unique": "yes"}, TypeError, "unique of task t"),
        ({"placement": "gpu"}, TypeError, "placement of task t"),
        ({"concurrency": [Concurrency("{args[0]}"), Concurrency("{kwargs.a}")]}, ValueError,
         "two limits named 't': give one a name="),
        ({"rate_limits": [RateLimit(name=f"r{i}") for i in range(9)]}, ValueError, "8 at most"),
        ({"name": "t" * 252, "rate_limits": RateLimit()}, ValueError, "255"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_at_definition(app, options, error, why) -> None:
    with pytest.raises(error, match=why):
        app.task(**{"name": "t", **options})(lambda: None)


@pytest.mark.parametrize(
    "options",
    [{"concurrency_key": "k"}, {"concurrency_limit": 2}, {"rate_key": "k"}, {"rate_units": 2}],
    ids=str,
)
def test_options_for_limits_that_a_task_does_not_have_are_refused(app: Offline, options) -> None:
    task = app.task(lambda: None, name="t")
    for send in (task.apply_async, lambda **options: app.send_task("unknown", **options)):
        with pytest.raises(TypeError, match=f"{next(iter(options))[:4]}.* needs a task with"):
            send(**options)
    assert app.engine.jobs == []


@pytest.mark.parametrize("limit", [0, -1, True, "2", 1.5])
def test_a_bad_limit_of_a_call_is_refused(app: Offline, limit: Any) -> None:
    task = app.task(lambda: None, name="t", concurrency=Concurrency("k"))
    with pytest.raises((TypeError, ValueError), match="concurrency_limit for task t"):
        task.apply_async(concurrency_limit=limit)


# -- rates


@pytest.mark.parametrize(
    ("rule", "gate"),
    [
        (RateLimit(), Gate("t:rate", rate=100, period_s=60.0)),
        (RateLimit(limit="10/s"), Gate("t:rate", rate=10, period_s=1.0)),
        (RateLimit(limit=" 5 / h "), Gate("t:rate", rate=5, period_s=3600.0)),
        (RateLimit(limit="1000/d"), Gate("t:rate", rate=1000, period_s=86400.0)),
        (RateLimit(limit="20"), Gate("t:rate", rate=20, period_s=1.0, burst=2)),
        (RateLimit(limit=1000), Gate("t:rate", rate=1000, period_s=1.0, burst=100)),
        (RateLimit(limit="0.5/s"), Gate("t:rate", rate=1, period_s=2.0)),
        (RateLimit(limit=0.1), Gate("t:rate", rate=1, period_s=10.0)),
        (RateLimit(limit="2.5/m"), Gate("t:rate", rate=5, period_s=120.0)),
        (RateLimit(limit="33.333/m"), Gate("t:rate", rate=33333, period_s=60000.0)),
        (RateLimit("api"), Gate("api:rate", rate=100, period_s=60.0)),
        (RateLimit("api", name="calls"), Gate("calls", "api", rate=100, period_s=60.0)),
        (RateLimit("{args[0]}"), Gate("t:rate", "7", rate=100, period_s=60.0)),
        (RateLimit(lambda a: a, burst=5), Gate("t:rate", "7", rate=100, period_s=60.0, burst=5)),
        (RateLimit(units=3), Gate("t:rate", rate=100, period_s=60.0, burst=3, units=3)),
        (RateLimit(units=lambda a: a), Gate("t:rate", rate=100, period_s=60.0, burst=7, units=7)),
        (RateLimit(limit=lambda a: f"{a}/h"), Gate("t:rate", rate=7, period_s=3600.0)),
        (RateLimit(limit="9/m", window="fixed", units=9),
         Gate("t:rate", rate=9, period_s=60.0, fixed=True, units=9)),
    ],
    ids=repr,
)  # fmt: skip
def test_rates(app: Offline, rule: RateLimit, gate: Gate) -> None:
    app.task(lambda a: None, name="t", rate_limits=rule).delay(7)
    assert gates(app) == (gate,)


def test_the_units_and_the_key_of_one_call(app: Offline) -> None:
    @app.task(name="t", rate_limits=[RateLimit("{a}", "10/s", burst=8), RateLimit(name="all")])
    def task(a): ...

    task.apply_async((1,), rate_units=4, rate_key=5)
    assert [(gate.name, gate.key, gate.units) for gate in gates(app)] == [
        ("t:rate", "5", 4),
        ("all", "5", 4),
    ]
    for bad, error in ((0, ValueError), (True, TypeError), ("1", TypeError), (9, ValueError)):
        with pytest.raises(error, match="rate limit 't:rate' of task t"):
            task.apply_async((1,), rate_units=bad)


@pytest.mark.parametrize(
    ("fields", "error", "why"),
    [
        ({"limit": "0/s"}, ValueError, "above 0, not '0/s'"),
        ({"limit": 0}, ValueError, "above 0"),
        ({"limit": -1}, ValueError, "written as"),
        ({"limit": ""}, ValueError, "written as"),
        ({"limit": "fast"}, ValueError, "written as"),
        ({"limit": "1/w"}, ValueError, "written as"),
        ({"limit": "1e9/s"}, ValueError, "written as"),
        ({"limit": "٣/s"}, ValueError, "written as"),
        ({"limit": 3 * 10**9}, ValueError, "at most"),
        ({"limit": "1.000000001/s"}, None, ""),
        ({"limit": "1.000000001/m"}, ValueError, "few decimals"),
        ({"limit": 10**400}, ValueError, "written as"),
        ({"limit": float("nan")}, ValueError, "finite"),
        ({"limit": float("inf")}, ValueError, "finite"),
        ({"limit": None}, TypeError, "a rate such as"),
        ({"limit": True}, TypeError, "a rate such as"),
        ({"burst": 0}, ValueError, "burst"),
        ({"burst": 1.5}, TypeError, "burst"),
        ({"burst": True}, TypeError, "burst"),
        ({"units": 0}, ValueError, "units"),
        ({"units": "1"}, TypeError, "units"),
        ({"units": 3, "burst": 2}, ValueError, "takes 3 units, but only 2 start at once"),
        ({"units": 101, "window": "fixed"}, ValueError, "only 100 start in one window"),
        ({"burst": 2, "window": "fixed"}, ValueError, "has no burst"),
        ({"limit": "0.5/s", "window": "fixed"}, ValueError, "whole number, such as '30/m'"),
        ({"window": "hopping"}, ValueError, "sliding, fixed"),
        ({"key": 5}, TypeError, "the key of a rate limit"),
        ({"key": "{"}, ValueError, "the key of a rate limit"),
        ({"name": ""}, ValueError, "name"),
    ],
)
def test_a_bad_rate_limit_is_refused_when_it_is_written(fields, error, why) -> None:
    if error is None:
        assert RateLimit(**fields)
        return
    with pytest.raises(error, match=why):
        RateLimit(**fields)


@pytest.mark.parametrize("bad", [None, "0/s", "x", True])
def test_a_bad_rate_that_comes_out_is_told_to_the_caller(app: Offline, bad: Any) -> None:
    task = app.task(lambda: None, name="t", rate_limits=RateLimit(limit=lambda: bad))
    with pytest.raises((TypeError, ValueError), match="the rate limit 't:rate' of task t"):
        task.delay()
    assert app.engine.jobs == []


def test_celerys_rate_limit_is_for_each_worker_unless_it_is_said_to_be_global(app) -> None:
    app.task(lambda: None, name="own", rate_limit="10/m").delay()
    assert gates(app) == ()
    app.task(lambda: None, name="all", rate_limit="10/m", rate_limit_scope="global").delay()
    assert gates(app) == (Gate("all:rate", rate=10, period_s=60.0),)
    app.conf.task_rate_limit_scope = "global"
    app.tasks["own"].delay()
    assert gates(app) == (Gate("own:rate", rate=10, period_s=60.0),)
    app.task(lambda: None, name="mine", rate_limit="10/m", rate_limit_scope="worker").delay()
    assert gates(app) == ()
    for none in (None, 0, ""):
        app.task(lambda: None, name=f"rate {none}", rate_limit=none).delay()
        assert gates(app) == ()
    app.task(lambda: None, name="none").delay()
    app.conf.task_default_rate_limit = "5/s"
    app.tasks["none"].delay()
    assert gates(app) == (Gate("none:rate", rate=5, period_s=1.0),)
    app.conf.task_rate_limit_scope = "everywhere"
    with pytest.raises(ImproperlyConfigured, match="worker or global, not 'everywhere'"):
        app.tasks["own"].delay()
    app.conf.task_rate_limit_scope = "worker"
    with pytest.raises(ValueError, match="worker or global, not 'here'"):
        app.task(lambda: None, name="bad", rate_limit_scope="here").delay()


# -- uniqueness


def unique(app: Offline) -> UniqueJob | None:
    return app.sent().unique


def test_by_default_two_calls_are_alike_with_the_same_arguments(app: Offline) -> None:
    @app.task(name="t", unique=True)
    def task(a, b=2, *rest, c=3, **more): ...

    keys = []
    for args, kwargs in (
        ((1, 2), {}),
        ((1,), {"b": 2}),
        ((), {"b": 2, "a": 1}),
        ((1, 2), {"x": 1, "c": [1, {"z": 1, "y": 2}]}),
        ((), {"c": [1, {"y": 2, "z": 1}], "a": 1, "x": 1, "b": 2}),
        ((1, 3), {}),
        ((1, "2"), {}),
        ((1, 2, 3), {}),
    ):
        task.apply_async(args, kwargs)
        keys.append(unique(app))
    assert keys[0] == keys[1] == keys[2] == UniqueJob('t=[[],{"a":1,"b":2}]', "done", None)
    assert keys[3] == keys[4]
    assert len({one.key for one in keys}) == 5
    app.send_task("unknown", (1,), {"b": 2, "a": 1}, unique=True)
    assert unique(app) == UniqueJob('unknown=[[1],{"a":1,"b":2}]', "done", None)


def test_a_long_key_is_a_digest(app: Offline) -> None:
    task = app.task(lambda a: None, name="t", unique=True)
    task.delay("x" * 300)
    task.delay("x" * 299 + "y")
    first, second = (job.unique.key for job in app.engine.jobs)
    assert first != second
    assert re.fullmatch("t#[0-9a-f]{64}", first)
    assert len(engine_key("s" * 255, "k" * 255)) <= 255
    assert engine_key("a=b", "c") != engine_key("a", "b=c")
    assert engine_key("a=b", "c") != engine_key("a=b", "d")
    assert "\n" not in engine_key("a", "\n")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Unique("nightly"), UniqueJob("nightly=", "done", None)),
        (Unique("nightly", name="n"), UniqueJob("n=nightly", "done", None)),
        (Unique("{a}"), UniqueJob("t=7", "done", None)),
        (Unique(lambda a: f"x{a}", until="started"), UniqueJob("t=x7", "started", None)),
        (Unique("{a}", until=30), UniqueJob("t=7", "time", 30.0)),
        (Unique("{a}", until=timedelta(minutes=1)), UniqueJob("t=7", "time", 60.0)),
        (Unique("{a}", for_=1.5), UniqueJob("t=7", "done", 1.5)),
        (Unique("{a}", "started", timedelta(1)), UniqueJob("t=7", "started", 86400.0)),
        ({"key": "{a}", "until": 5}, UniqueJob("t=7", "time", 5.0)),
        (False, None),
    ],
    ids=repr,
)
def test_uniqueness(app: Offline, rule: Any, expected: UniqueJob | None) -> None:
    app.task(lambda a: None, name="t", unique=rule).delay(7)
    assert unique(app) == expected


def test_uniqueness_of_one_call(app: Offline) -> None:
    task = app.task(lambda a=1: None, name="t", unique=Unique(until="started"))
    free = app.task(lambda a=1: None, name="free")
    seen = []
    for send in (
        lambda: task.apply_async(unique_key="k"),
        lambda: task.apply_async(unique_key=5),
        lambda: task.s().set(unique_key="k").delay(),
        lambda: task.apply_async(unique=True),
        lambda: task.apply_async(unique=False),
        lambda: task.apply_async(unique=False, unique_key="k"),
        lambda: task.apply_async(unique=Unique(until=9)),
        lambda: free.apply_async(unique=True),
        lambda: free.apply_async(unique_key="k"),
        lambda: free.apply_async(unique={"until": 9}, unique_key="k"),
        lambda: free.delay(),
    ):
        send()
        seen.append(unique(app))
    same = "t=[[],{}]"
    assert seen == [
        UniqueJob("t=k", "started"),
        UniqueJob("t=5", "started"),
        UniqueJob("t=k", "started"),
        UniqueJob(same, "started"),
        None,
        None,
        UniqueJob(same, "time", 9.0),
        UniqueJob("free=[[],{}]"),
        UniqueJob("free=k"),
        UniqueJob("free=k", "time", 9.0),
        None,
    ]
    for bad in (None, "", "x" * 300, 1.5, True):
        if bad is not None:
            with pytest.raises((TypeError, ValueError), match="unique_key for task t"):
                task.apply_async(unique_key=bad)
    with pytest.raises(TypeError, match="Unique"):
        task.apply_async(unique="yes")


@pytest.mark.parametrize(
    ("fields", "error", "why"),
    [
        ({"until": "ended"}, ValueError, "done, started"),
        ({"until": 0}, ValueError, "above 0"),
        ({"until": -1}, ValueError, "above 0"),
        ({"until": float("nan")}, ValueError, "above 0"),
        ({"until": float("inf")}, ValueError, "hundred years"),
        ({"until": True}, TypeError, "seconds or a timedelta"),
        ({"until": None}, TypeError, "seconds or a timedelta"),
        ({"for_": 0}, ValueError, "above 0"),
        ({"for_": "1"}, TypeError, "seconds or a timedelta"),
        ({"until": 5, "for_": 5}, ValueError, "only with until='done' or 'started'"),
        ({"key": ""}, ValueError, "the key of a unique task"),
        ({"name": 1}, TypeError, "name"),
    ],
)
def test_a_bad_unique_is_refused_when_it_is_written(fields, error, why) -> None:
    with pytest.raises(error, match=why):
        Unique(**fields)


def test_arguments_that_are_no_json_want_a_key(app: Offline) -> None:
    task = app.task(lambda a: None, name="t", unique=True, serializer="pickle")
    with pytest.raises(TypeError, match=r"task t is unique by its arguments.*give Unique\(key="):
        task.delay({1, 2})
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        task.delay({"a": 1, 2: 3})
    task.apply_async(({1, 2},), unique_key="k")
    assert unique(app) == UniqueJob("t=k")


def test_the_sender_of_a_second_call_gets_the_result_of_the_first(app, caplog) -> None:
    task = app.task(lambda a: None, name="t", unique=Unique("{a}"))
    first = task.delay(1)
    app.engine.alike["t=1"] = first.id
    published = []
    sending.signals.after_task_publish.connect(
        lambda headers, **_: published.append(headers["id"]), weak=False, dispatch_uid="limits"
    )
    try:
        with celery_log(caplog):
            second = task.apply_async((1,), task_id="second")
    finally:
        sending.signals.after_task_publish.disconnect(dispatch_uid="limits")
    assert (second.id, type(second)) == (first.id, type(first))
    assert app.send_task("t", (1,)).id == first.id
    assert published == ["second"]
    assert "sent before" not in caplog.text
    assert task.delay(2).id not in (first.id, "second")
    assert len(app.engine.jobs) == 2


def test_a_call_that_was_not_sent_is_no_event(app: Offline, monkeypatch) -> None:
    app.conf.task_send_sent_event = True
    told: list[str] = []
    monkeypatch.setattr(sending.sentevents, "tell", lambda app, out: told.append(out.task_id))
    task = app.task(lambda a: None, name="t", unique=Unique("{a}"))
    first = task.delay(1)
    app.engine.alike["t=1"] = first.id
    task.delay(1)
    assert told == [first.id]


def test_parts_of_a_canvas_are_not_unique(app: Offline) -> None:
    task = app.task(lambda *a: None, name="t", unique=True)
    app.finalize()
    for canvas in (
        task.si(1) | task.si(2),
        group(task.si(1), task.si(2)),
        group([task.si(1)]),
        chain(task.si(1), app=app),
        chord([task.si(1), task.si(2)], task.s()),
    ):
        app.engine.jobs.clear()
        canvas.apply_async()
        assert app.engine.jobs
        assert [job.unique for job in app.engine.jobs] == [None] * len(app.engine.jobs)
    task.apply_async(chord_parents="another", task_id="waits")
    assert unique(app) is None
    task.si(1).apply_async(link=task.s())
    assert unique(app) is not None  # a lone call with a link is one
    assert [job.unique for job in app.work().follow_ups] == [None]  # the link
    with running.collecting(alone=True) as jobs:  # beat
        task.delay(1)
    assert jobs[0].unique is not None


def test_a_broadcast_is_not_unique(app: Offline) -> None:
    task = app.task(lambda: None, name="t", unique=True)
    where = {"exchange": "all", "routing_key": ""}
    app.amqp.resolve_queue = lambda options: [("a", where), ("b", where)]
    for job in sending.build(app, "t", task_type=task).jobs:
        assert job.unique is None


# -- placement


def test_placement(app: Offline) -> None:
    gpu = Placement(require={"gpu": 1, "mem": ">=16"}, prefer={"zone=eu": 50}, sticky="soft")
    task = app.task(lambda: None, name="t", placement=gpu)
    task.delay()
    text = encode({"gpu": "1", "mem": ">=16"}, [("zone", "eu", 50)])
    assert (app.sent().placement, app.sent().sticky) == (text, 1)
    assert gpu == Placement({"mem": ">=16", "gpu": 1}, {"zone=eu": 50}, "soft")
    for given, expected in (
        (Placement(sticky="hard"), ("", 2)),
        ({"require": {"ssd": "yes"}}, (encode({"ssd": "yes"}), 0)),
        (Placement(prefer=[("mem", ">=16", 2), ("zone", 3, 1)]),
         (encode({}, [("mem", ">=16", 2), ("zone", "3", 1)]), 0)),
        (Placement(prefer={"mem>=16": 2}), (encode({}, [("mem", ">=16", 2)]), 0)),
        (False, ("", 0)),
    ):  # fmt: skip
        task.apply_async(placement=given)
        assert (app.sent().placement, app.sent().sticky) == expected
    app.send_task("unknown", placement=gpu)
    assert app.sent().placement == text
    task.s().set(placement={"require": {"a": 1}}).delay()
    assert app.sent().placement == encode({"a": "1"})


@pytest.mark.parametrize(
    ("fields", "error", "why"),
    [
        ({"require": ["gpu"]}, TypeError, "require is a dict"),
        ({"require": {"gpu": None}}, TypeError, "is text"),
        ({"require": {"gpu": True}}, TypeError, "is text"),
        ({"require": {"": 1}}, ValueError, "name of a label"),
        ({"require": {"gpu": "=="}}, ValueError, "value of a label"),
        ({"require": {f"l{i}": "x" * 50 for i in range(9)}}, ValueError, "at most 255"),
        ({"prefer": "zone=eu"}, TypeError, "dict or a list"),
        ({"prefer": 5}, TypeError, "dict or a list"),
        ({"prefer": [("zone", "eu")]}, TypeError, "label, value, weight"),
        ({"prefer": {"zone": 5}}, ValueError, "label=value"),
        ({"prefer": {"zone=eu": 0}}, ValueError, "1 to 1000"),
        ({"prefer": {"zone=eu": 1.5}}, TypeError, "whole number"),
        ({"sticky": "firm"}, ValueError, "soft, hard"),
        ({"sticky": True}, ValueError, "soft, hard"),
    ],
)
def test_a_bad_placement_is_refused_when_it_is_written(fields, error, why) -> None:
    with pytest.raises(error, match=why):
        Placement(**fields)


# -- the configuration


def test_rules_come_from_the_configuration_without_a_change_of_code(app: Offline) -> None:
    app.conf.update(
        task_concurrency={
            "proj.*": {"key": "{kwargs.tenant}", "limit": 2},
            "proj.special": [Concurrency("one"), Concurrency("two", 2)],
            "proj.off*": None,
            re.compile("regex[0-9]"): {"key": "re"},
        },
        task_rate_limits={"proj.special": "5/m", "*": RateLimit(name="everything")},
        task_unique={"proj.special": True},
        task_placement={"proj.special": {"require": {"gpu": 1}}},
    )
    app.task(lambda **kwargs: None, name="proj.a").delay(tenant=7)
    assert gates(app) == (
        Gate("proj.a", "7", 2),
        Gate("everything", "", rate=100, period_s=60.0),
    )
    app.send_task("proj.not_known_here", kwargs={"tenant": 8})
    assert gates(app)[0] == Gate("proj.not_known_here", "8", 2)
    app.send_task("proj.special")
    job = app.sent()
    assert [gate.name for gate in job.gates] == ["one", "two", "proj.special:rate"]
    assert job.unique == UniqueJob("proj.special=[[],{}]")
    assert job.placement == encode({"gpu": "1"})
    app.send_task("regex1")
    assert gates(app)[0] == Gate("re", "", 1)


def test_the_configuration_wins_over_the_task_and_can_switch_off(app: Offline) -> None:
    task = app.task(lambda: None, name="t", concurrency=Concurrency("code"), unique=True)
    task.delay()
    assert gates(app)[0].name == "code"
    app.conf.task_concurrency = {"t": {"key": "conf"}}
    task.delay()
    assert gates(app)[0].name == "conf"
    app.conf["task_unique"] = {"*": False}
    app.conf.task_concurrency = {"t": None}
    task.delay()
    assert (gates(app), unique(app)) == ((), None)


def test_annotations_are_rules_too(app: Offline) -> None:
    app.conf.task_annotations = {
        "t": {"concurrency": {"key": "{a}", "limit": 3}, "unique": True},
        "*": {"rate_limits": "9/m"},
    }
    task = app.task(lambda a: None, name="t")
    app.finalize()
    task.delay(1)
    assert gates(app) == (Gate("t", "1", 3), Gate("t:rate", rate=9, period_s=60.0))
    assert unique(app) is not None
    app.conf.task_annotations = {"u": {"concurrency": {"key": "{nope}"}}}
    del app.annotations
    with pytest.raises(ValueError, match="no parameter 'nope'"):
        app.task(lambda a: None, name="u").delay(1)


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("task_concurrency", [1], "task_concurrency is a dict"),
        ("task_concurrency", {5: {"key": "k"}}, "5 is no name"),
        ("task_concurrency", {"t": "k"}, r"task_concurrency\['t'\]: Concurrency"),
        ("task_concurrency", {"t": {"key": "k", "limit": 0}}, r"task_concurrency\['t'\].*limit"),
        ("task_concurrency", {"t": {"key": "{x"}}, r"task_concurrency\['t'\].*never closed"),
        ("task_concurrency", {"t": {"key": "k", "lim": 0}}, r"task_concurrency\['t'\].*lim"),
        ("task_concurrency", {"t": {"key": "{order.x}"}}, "task_concurrency: .*are not known here"),
        ("task_rate_limits", {"a.*": "fast"}, r"task_rate_limits\['a.\*'\]"),
        ("task_unique", {"t": {"until": "x"}}, r"task_unique\['t'\]"),
        ("task_placement", {"t": {"require": {"": 1}}}, r"task_placement\['t'\]"),
        ("task_rate_limit_scope", "x", "task_rate_limit_scope"),
    ],
)
def test_a_bad_entry_of_the_configuration_is_named(app: Offline, setting, value, why) -> None:
    app.conf[setting] = value
    with pytest.raises(ImproperlyConfigured, match=why):
        app.send_task("t")
    app.conf[setting] = app.conf.defaults[-1][setting]
    app.send_task("t")
    assert len(app.engine.jobs) == 1


def test_a_configuration_with_an_unknown_parameter_names_those_there_are(app: Offline) -> None:
    app.conf.task_concurrency = {"t": {"key": "{ordr}"}}
    with pytest.raises(ImproperlyConfigured, match=r"task_concurrency: .*it has order"):
        app.task(lambda order: None, name="t").delay(1)


def test_settings_that_are_read_later_count(app: Offline) -> None:
    app.send_task("t")
    app.config_from_object({"task_concurrency": {"t": {"key": "k"}}}, force=True)
    app.send_task("t")
    assert gates(app) == (Gate("k", "", 1),)
    app.conf = app.conf.copy()
    app.conf.task_concurrency = {"t": {"key": "other"}}
    app.send_task("t")
    assert gates(app) == (Gate("other", "", 1),)


def test_a_task_that_is_registered_anew_brings_its_own_rules(app: Offline) -> None:
    app.send_task("t")
    app.task(lambda: None, name="t", concurrency=Concurrency("k"))
    app.finalize()
    app.send_task("t")
    assert gates(app) == (Gate("k", "", 1),)


# -- where they apply


def test_every_member_of_a_canvas_has_its_gates(app: Offline) -> None:
    @app.task(name="t", concurrency=Concurrency("{kwargs.tenant}"))
    def task(*args, **kwargs): ...

    app.finalize()
    canvas = task.s(tenant=1) | group(task.s(tenant=2), task.s(tenant=3)) | task.s(tenant=4)
    canvas.apply_async()
    assert sorted(job.gates[0].key for job in app.engine.jobs) == ["1", "2", "3", "4"]
    group(task.s(), task.s()).apply_async(concurrency_key="shared")
    assert [job.gates[0].key for job in app.engine.jobs[-2:]] == ["shared", "shared"]


@pytest.mark.parametrize("key", ["{order.tenant}", tenant_of], ids=str)
def test_a_step_whose_argument_is_not_known_yet_wants_a_key(app: Offline, key: Any) -> None:
    @app.task(name="t", concurrency=Concurrency(key))
    def task(order): ...

    app.finalize()
    with pytest.raises(ValueError, match="is None when it is sent: pass the key with the call"):
        (task.s({"tenant": 1}) | task.s()).apply_async()
    assert app.engine.jobs == []
    (task.s({"tenant": 1}) | task.s().set(concurrency_key="k")).apply_async()
    assert [job.gates[0].key for job in app.engine.jobs] == ["1", "k"]
    with pytest.raises(ValueError, match="cannot be found") as caught:
        (task.s({"tenant": 1}) | task.si({})).apply_async()
    assert "when it is sent" not in str(caught.value)


def test_a_task_may_be_a_proxy(app: Offline) -> None:
    proxy = app.task(lambda a: None, name="t", concurrency=Concurrency("{a}"))
    assert sending.build_job(app, "t", (7,), task_type=proxy).gates == (Gate("t", "7", 1),)


def test_a_call_by_name_takes_the_rules_of_the_task_registered_here(app: Offline) -> None:
    app.task(lambda order: None, name="t", concurrency=Concurrency("{order}"))
    app.finalize()
    app.send_task("t", (5,))
    assert gates(app) == (Gate("t", "5", 1),)


def test_a_retry_is_the_same_job(app: Offline) -> None:
    calls: list[Any] = []

    def key(n: int) -> str:
        calls.append(n)
        if len(calls) > 1:
            raise OSError("only once")
        return "k"

    @app.task(name="t", bind=True, unique=True, concurrency=Concurrency(key))
    def task(self, n):
        raise self.retry(countdown=5)

    task.delay(1)
    outcome = app.work()
    assert (outcome.state.name, outcome.follow_ups, calls) == ("RETRYABLE", (), [1])


def test_the_call_that_takes_the_place_of_another_has_its_own_gates(app: Offline) -> None:
    other = app.task(lambda n: n, name="other", unique=True, concurrency=Concurrency("{n}"))

    @app.task(name="t", bind=True)
    def task(self, n):
        raise self.replace(chain(other.s(n), other.s().set(concurrency_key="k"), app=app))

    app.finalize()
    task.delay(1)
    jobs = app.work().follow_ups
    assert [(job.gates[0].key, job.unique) for job in jobs] == [("1", None), ("k", None)]


def test_eager_mode_ignores_all_of_it(app: Offline) -> None:
    @app.task(
        name="t",
        concurrency=Concurrency(lambda n: 1 / 0),
        rate_limits=RateLimit(lambda n: 1 / 0),
        unique=Unique(lambda n: 1 / 0),
        placement=Placement({"gpu": 1}),
    )
    def task(n):
        return n

    app.conf.task_always_eager = True
    options = {"concurrency_key": "k", "unique_key": "k", "rate_units": 1, "placement": None}
    assert task.apply_async((5,), **options).get() == 5
    assert task.apply((5,), **options).get() == 5


def test_the_options_are_no_properties_of_the_message(app: Offline) -> None:
    task = app.task(lambda: None, name="t", concurrency=Concurrency("k"), rate_limits="9/s")
    options = {
        "concurrency_key": "a", "concurrency_limit": 2, "rate_key": "b", "rate_units": 1,
        "unique": True, "unique_key": "c", "placement": {"require": {"gpu": 1}},
    }  # fmt: skip
    task.apply_async(app_id="mine", **options)
    properties = sending.build(
        app, "t", task_type=task, app_id="mine", **options
    ).envelope.properties
    assert properties["app_id"] == "mine"
    assert not properties.keys() & options.keys()


def test_rules_can_be_pickled_copied_and_compared() -> None:
    for rule in (
        Concurrency("{args[0]}", 2, "replace", 3.0, "n"),
        Concurrency(tenant_of),
        RateLimit("k", "5/s", 3, 2, name="n"),
        Unique("k", "started", 5),
        Unique(until=timedelta(1)),
        Placement({"a": 1}, {"b=2": 3}, "hard"),
        Placement(prefer=[("b", "2", 3)]),
    ):
        for other in (pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)):
            assert other == rule
            assert hash(other) == hash(rule)


def test_a_custom_key_error_is_the_cause(app: Offline) -> None:
    task = app.task(lambda order: None, name="t", concurrency=Concurrency(tenant_of))
    with pytest.raises(ValueError, match="for task t") as caught:
        task.delay({})
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_failed_send_within_a_task_is_the_tasks_own(app: Offline) -> None:
    inner = app.task(lambda order: None, name="inner", concurrency=Concurrency(tenant_of))

    @app.task(name="outer")
    def outer():
        inner.delay({})

    outer.delay()
    assert app.work().state.name == "FAILED"
    assert not isinstance(ValueError(), (Retry, Reject))


def test_what_knows_rules_is_not_loaded_for_an_application_without_any():
    loaded = (
        "import sys; from pgcelery import Celery; app = Celery('plain')\n"
        "@app.task\n"
        "def plain(): ...\n"
        "app.finalize(); app._rulebook.prepare()\n"
        "app._rulebook.fields(plain.name, plain, ((), {}, {}), {}, {}, 'id')\n"
        "print('pgcelery.compat.app.rules' in sys.modules)\n"
        "app.conf.task_unique = {plain.name: True}\n"
        "print(list(app._rulebook.fields(plain.name, plain, ((), {}, {}), {}, {}, 'id')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["False", "['unique']"]
