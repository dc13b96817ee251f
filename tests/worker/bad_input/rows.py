"""The catalogue of bad input: name, accepted outcomes, what is sent, what comes back.

Outcomes: R* the call raises TypeError, ValueError, OverflowError, RecursionError or EncodeError and
nothing is enqueued; S it succeeds with the value that Celery's JSON would have carried; F it is a
recorded failure; P it stays queued, visible and revocable. docs/bad-input.md shows the table.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

from kombu.utils import json as kombu_json

from tests.worker.bad_input.world import FORGED, World


class Row(NamedTuple):
    name: str
    accepted: str
    send: Callable[[World], Any]
    expected: Any = ...


class Colour(enum.IntEnum):
    RED = 1


@dataclass
class Point:
    x: int = 1


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def value(name: str, accepted: str, make: Any) -> Row:
    """A value as an argument, back as a result."""
    make = make if callable(make) and not isinstance(make, type) else lambda given=make: given
    try:
        expected = kombu_json.loads(kombu_json.dumps(make()))
    except Exception:
        expected = ...
    return Row(name, accepted, lambda world: world.module.echo.delay(make()), expected)


def options(name: str, accepted: str, **given: Any) -> Row:
    """Odd options of a call."""
    return Row(name, accepted, lambda world: world.module.echo.apply_async((1,), **given), 1)


def task(name: str, accepted: str, task_name: str) -> Row:
    return Row(name, accepted, lambda world: world.app.send_task(task_name))


def _twice(world: World) -> Any:
    world.module.echo.apply_async((1,), task_id="sent-twice").get(timeout=10)
    return world.module.echo.apply_async((2,), task_id="sent-twice")


def _call(name: str, accepted: str, args: Any, kwargs: Any = None, expected: Any = ...) -> Row:
    return Row(name, accepted, lambda world: world.module.echo.apply_async(args, kwargs), expected)


SQL_TEXT = "'; drop table pgcelery.jobs; -- %s %(x)s {} $1 \\"
WEIRD_NAMES = {"": 1, "a b": 2, "ключ": 3, "__class__": 4, "'; --": 5}
OPTION_NAMES = {"countdown": 1, "queue": 2, "task_id": 3, "args": 4, "name": 5, "headers": 6}

TABLE = [
    value("nul-in-string", "S", "a\0b"),
    value("nul-in-dict-key", "S", {"a\0b": 1}),
    value("escaped-nul-text", "S", "\\u0000"),
    value("lone-surrogate", "S R*", "\ud800"),
    value("nan", "S R*", float("nan")),
    value("infinity", "S R*", [float("inf"), float("-inf")]),
    value("negative-zero", "S", -0.0),
    value("float-precision", "S", [0.1, 1e-320, 1.7976931348623157e308]),
    value("int-2**53+1", "S", 2**53 + 1),
    value("int-10**400", "S", 10**400),
    value("int-10**5000", "R* S", lambda: 10**5000),
    value("float-1e400-text", "S", "1e400"),
    value("bytes", "S", b"\x00\xff"),
    value("uuid", "S", uuid.UUID(int=7)),
    value("decimal", "S", Decimal("1.10")),
    value("datetime-aware", "S", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5)))),
    value("datetime-naive", "S", datetime(2026, 1, 1)),
    value("date-year-1", "S", date(1, 1, 1)),
    value("set", "S R*", {1}),
    value("function", "R*", lambda: value),
    value("object", "R*", lambda: object()),
    value("dataclass", "R* S", lambda: Point()),
    value("int-enum", "S", Colour.RED),
    value("tuple-in-list", "S", [(1, 2)]),
    value("circular", "R*", circle),
    value("deep-500", "S", lambda: nested(500)),
    value("deep-20000", "R* S", lambda: nested(20_000)),
    value("emoji-rtl-bom", "S", "👩‍👩‍👧 \u202eabc \ufeff"),
    value("int-keys", "S", {1: "a"}),
    value("colliding-keys", "S R*", {1: "a", "1": "b"}),
    value("tuple-key", "R*", {(1, 2): "a"}),
    value("reserved-json-key", "S R*", {"__type__": "x", "__value__": "y"}),
    value("empty-containers", "S", [[], {}, "", None]),
    value("sql-text", "S", SQL_TEXT),
    value("html-text", "S", "<img src=x onerror=alert(1)>"),
    value("control-chars", "S", "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\u2029"),
    value("10-MB-string", "S R*", lambda: "x" * 10_000_000),
    value("100-MB-string", "S R*", lambda: "x" * 100_000_000),
    value("300k-ints", "S", lambda: list(range(300_000))),
    _call("args-is-a-string", "R*", "abc"),
    _call("args-is-a-dict", "R*", {"a": 1}),
    _call("kwargs-is-a-list", "R*", (), [1]),
    Row("wrong-arity", "R*", lambda world: world.module.two.delay(1)),
    _call("kwargs-named-like-options", "S", (), OPTION_NAMES, OPTION_NAMES),
    _call("kwargs-weird-names", "S", (), WEIRD_NAMES, WEIRD_NAMES),
    task("unknown-task-name", "F P", "nobody.knows.it"),
    task("task-name-sql", "F P R*", SQL_TEXT),
    task("task-name-log-forgery", "F P R*", f"x\n{FORGED}"),
    task("task-name-nul", "R* F P", "a\0b"),
    task("task-name-empty", "R* F P", ""),
    task("task-name-10k", "R* F P", "x" * 10_000),
    Row("task-id-twice", "S R*", _twice, 1),
    options("task-id-sql", "S R*", task_id="'; drop table pgcelery.jobs; --"),
    options("task-id-html", "S R*", task_id="<img src=x onerror=alert(1)>"),
    options("task-id-nul", "R* S", task_id="a\0b"),
    options("task-id-10k", "R* S", task_id="x" * 10_000),
    options("task-id-int", "R* S", task_id=7),
    options("task-id-empty", "R* S", task_id=""),
    options("queue-sql", "P R*", queue="'; drop table pgcelery.jobs; --"),
    options("queue-nul", "R* P", queue="a\0b"),
    options("queue-300-chars", "R* P", queue="x" * 300),
    options("queue-empty", "R* S P", queue=""),
    options("queue-not-a-string", "R*", queue=7),
    options("priority-too-big", "R* S", priority=10**9),
    options("priority-negative", "R* S", priority=-5),
    options("priority-text", "R*", priority="high"),
]

NAN, INF = float("nan"), float("inf")

#: Not in the catalogue: odd headers, times, ids and names.
OPTIONS = [
    options("task-id-log-forgery", "S R*", task_id=f"x\n{FORGED}"),
    options("task-id-unicode", "S", task_id="задача-👩"),
    options("task-id-lone-surrogate", "R*", task_id="\ud800"),
    options("task-id-braces", "S", task_id="%s {} $1 %(x)s \\"),
    options("queue-unicode", "P R*", queue="очередь"),
    options("queue-quotes", "P R*", queue="a'b\"c"),
    options("headers-int-key", "S R*", headers={1: "a"}),
    options("headers-tuple-key", "R*", headers={(1,): "a"}),
    options("headers-10k", "S R*", headers={"a" * 10_000: "b" * 10_000}),
    options("headers-10k-of-them", "S R*", headers={f"h{n}": n for n in range(10_000)}),
    options("headers-nul", "S R*", headers={"a\0": "b\0"}),
    options("headers-object", "R*", headers={"a": object()}),
    options("headers-deep", "R* S", headers={"a": nested(20_000)}),
    options("headers-circular", "R*", headers={"a": circle()}),
    options("headers-not-a-mapping", "R*", headers=[1]),
    options("headers-timelimit-junk", "S F R*", headers={"timelimit": "soon"}),
    options("headers-retries-junk", "S F R*", headers={"retries": "many"}),
    options("headers-id-junk", "S F R*", headers={"id": [1]}),
    options("headers-task-junk", "S F R*", headers={"task": {"a": 1}}),
    options("headers-stamps-junk", "S F R*", headers={"stamped_headers": 7, "stamps": "no"}),
    options("headers-chain-link-junk", "S F R*", headers={"chain_link": "junk"}),
    options("headers-chord-parents-junk", "S F R*", headers={"chord_parents": 7}),
    options(
        "headers-chord-after-junk", "S F R*", headers={"chord_parents": ["x"], "chord_after": 3}
    ),
    options("headers-argsrepr-junk", "S F R*", headers={"argsrepr": {"a": 1}, "shadow": [1]}),
    options("headers-group-junk", "S F R*", headers={"group": [1], "root_id": {}, "parent_id": 3}),
    options("headers-compression-junk", "F R*", headers={"compression": "no-such"}),
    options("headers-expires-junk", "S F V R*", headers={"expires": "whenever", "eta": 7}),
    options("headers-delivery-info-junk", "S F R*", headers={"delivery_info": 7, "properties": 3}),
    options("eta-naive", "S", eta=datetime(2020, 1, 1)),
    options("eta-year-1", "S R*", eta=datetime(1, 1, 1, tzinfo=UTC)),
    options("eta-year-1-west", "S R*", eta=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))),
    options("eta-10**6-s-ago", "S", eta=datetime.now(UTC) - timedelta(seconds=10**6)),
    options("eta-text", "R*", eta="tomorrow"),
    options("eta-number", "R*", eta=7),
    options("countdown-negative", "S R*", countdown=-10),
    options("countdown-inf", "R*", countdown=INF),
    options("countdown-nan", "R*", countdown=NAN),
    options("countdown-text", "R*", countdown="soon"),
    options("countdown-huge", "R*", countdown=1e300),
    options("countdown-10**400", "R*", countdown=10**400),
    options("expires-naive-past", "V", expires=datetime(2020, 1, 1)),
    options("expires-year-1", "V R*", expires=datetime(1, 1, 1, tzinfo=UTC)),
    options("expires-year-9999", "S", expires=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    options(
        "expires-year-9999-west",
        "S R*",
        expires=datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
    ),
    options("expires-negative", "V R*", expires=-1),
    options("expires-inf", "R*", expires=INF),
    options("expires-nan", "R*", expires=NAN),
    options("expires-text", "R*", expires="soon"),
    options("time-limit-negative", "S R*", time_limit=-1),
    options("time-limit-text", "S R*", time_limit="soon"),
    options("time-limit-nan", "S R*", time_limit=NAN),
    options("time-limit-inf", "S R*", time_limit=INF),
    options("soft-time-limit-huge", "S R*", time_limit=1e18, soft_time_limit=10**400),
    options("priority-float", "S R*", priority=3.5),
    options("priority-bool", "S R*", priority=True),
    options("priority-nan", "R*", priority=NAN),
    options("priority-10**400", "S R*", priority=10**400),
    options("retries-text", "S F R*", retries="many"),
    options("retries-negative", "S R*", retries=-1),
    options("serializer-unknown", "R:SerializerNotInstalled", serializer="no-such"),
    options("serializer-int", "R:SerializerNotInstalled", serializer=7),
    options("compression-unknown", "R:KeyError", compression="no-such"),
    options("shadow-junk", "S R*", shadow=[1]),
    options("shadow-log-forgery", "S R*", shadow=f"x\n{FORGED}"),
    options("argsrepr-log-forgery", "S", argsrepr=f"x\n{FORGED}"),
    options("stamps-odd", "S R*", stamped_headers=["a\0", "'; --"], **{"a\0": 1, "'; --": "%s"}),
    options("delivery-mode-junk", "R*", delivery_mode="junk"),
    options("link-junk", "R* F S", link=7),
    options("unknown-option-object", "R*", no_such_option=object()),
]
