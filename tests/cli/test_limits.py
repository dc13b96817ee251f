"""``pgcelery limits`` and ``app.limits``."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.limiting import rate_text
from pgcelery.engine import Gate, LimitChange
from tests.support.limited import send
from tests.support.process import PGCELERY, ROOT
from tests.support.wait import wait_for


@pytest.fixture
def app(dsn: str, go_on: threading.Event) -> Iterator[Any]:
    with Celery("limits", broker=dsn, backend=dsn, set_as_current=False) as app:

        @app.task(shared=False, name="l.hold")
        def hold():
            assert go_on.wait(20)

        @app.task(shared=False, name="l.add")
        def add(x, y=0):
            return x + y

        yield app


def standing(app: Any, key: str) -> tuple[int, int]:
    found = app.limits.get("mail", key)
    return (found.in_use, found.waiting) if found else (0, 0)


def columns(line: str) -> list[str]:
    return re.split(r"  +", line)


def test_limits_are_set_listed_and_unset(app, run, worker):
    assert run("limits").output == "No limits in use, and none set.\n"
    for key, many in (("few", 2), ("many", 4)):
        for _ in range(many):
            send(app, "l.hold", gates=(Gate("mail", key, slots=1),))
    wait_for(lambda: standing(app, "many") == (1, 3) and standing(app, "few") == (1, 1))
    lines = run("limits").output.splitlines()
    assert [columns(line) for line in lines] == [
        ["NAME", "KEY", "LIMIT", "WAITING", "NEXT START", "SET AT RUN TIME"],
        ["mail", "many", "1 of 1", "3"], ["mail", "few", "1 of 1", "1"],
    ]  # fmt: skip

    out = run("limits", "set", "mail", "--key", "many", "--slots", "3", "--weight", "2")
    assert (out.exit_code, out.output) == (
        0, "Set for limit mail, key 'many'; it holds for 1 in use.\n",
    )  # fmt: skip
    wait_for(lambda: standing(app, "many") == (3, 1))
    out = run("limits", "set", "mail", "--slots", "2")
    assert out.output == "Set for limit mail; it holds for 2 in use.\n"
    wait_for(lambda: standing(app, "few") == (2, 0))
    lines = run("limits", "--name", "mail").output.splitlines()
    assert [re.sub(r"\d+s ago", "N ago", line) for line in columns(lines[1])] == [
        "mail", "(all keys)", "not in use", "slots 2, N ago",
    ]  # fmt: skip
    assert [re.sub(r"\d+s ago", "N ago", line) for line in columns(lines[2])] == [
        "mail", "many", "3 of 3", "1", "slots 3, weight 2, N ago; tasks say slots 1",
    ]  # fmt: skip
    assert columns(lines[3])[-1] == "for all keys; tasks say slots 1"

    assert run("limits", "unset", "mail", "--key", "many").output == (
        "Unset for limit mail, key 'many'.\n"
    )
    assert app.limits.get("mail", "many").slots == 2
    assert run("limits", "unset", "mail").output == "Unset for limit mail.\n"
    assert run("limits", "unset", "mail").output == "Nothing was set for limit mail.\n"
    assert [app.limits.get("mail", key).slots for key in ("few", "many")] == [1, 1]


def test_rates_are_told_with_their_next_start(app, run, worker):
    gates = (Gate("api", rate=1, period_s=3600.0),)
    for _ in range(2):
        send(app, "l.add", 1, gates=gates)
    wait_for(lambda: (found := app.limits.get("api", "")) and found.waiting == 1)
    row = columns(run("limits").output.splitlines()[1])
    assert row == ["api", "-", "1/h, burst 1", "1", "in 60m"]
    assert app.limits.set("api", rate="100/s", burst=5) == LimitChange(0, 1, ())
    found = app.limits.get("api", "")
    assert (found.rate, found.burst, found.declared) == (
        "100/s", 5, {"rate": "1/h", "burst": 1, "weight": 1.0},
    )  # fmt: skip
    wait_for(lambda: app.limits.get("api", "").waiting == 0)


def test_what_does_not_fit_is_told(app, run, worker):
    send(app, "l.hold", gates=(Gate("mail", "k", slots=1),))
    wait_for(lambda: standing(app, "k") == (1, 0))
    out = run("limits", "set", "mail", "--rate", "10/m", "--burst", "2")
    assert out.exit_code == 0
    assert "Not in force: rate and burst, as those limit how many tasks run." in out.output
    out = run("limits", "set", "nobody", "--rate", "10/m")
    assert out.output == "Set for limit nobody; no task has it just now.\n"


def test_json_has_all_of_it(app, run):
    app.limits.set("mail", "k", slots=2)
    app.limits.set("api", rate="5/m", burst=3)
    found = json.loads(run("limits", "--json").output)
    assert [(one["name"], one["key"], one["set"]) for one in found] == [
        ("api", None, {"rate": "5/m", "burst": 3}), ("mail", "k", {"slots": 2}),
    ]  # fmt: skip
    assert found[0]["set_at"] == app.limits.get("api").set_at.isoformat()
    assert json.loads(run("limits", "--json", "--name", "nobody").output) == []


def test_the_object_is_iterated_and_looked_into(app):
    app.limits.set("mail", "k", slots=2)
    app.limits.set("mail", slots=5)
    assert [(one.name, one.key, one.set) for one in app.limits] == [
        ("mail", None, {"slots": 5}), ("mail", "k", {"slots": 2}),
    ]  # fmt: skip
    assert app.limits.list("mail", "k")[0].set == {"slots": 2}
    assert app.limits.get("mail").set == {"slots": 5}
    assert app.limits.get("mail", "other") is None
    assert app.limits.get("other") is None
    assert (app.limits.unset("mail"), app.limits.unset("mail")) == (True, False)


@pytest.mark.parametrize(
    ("values", "error"),
    [({"slots": 0}, ValueError), ({"slots": True}, ValueError), ({"slots": 1.5}, ValueError),
     ({"rate": "0/m"}, ValueError), ({"rate": "often"}, ValueError), ({"rate": 0}, ValueError),
     ({"rate": float("nan")}, ValueError), ({"rate": ["1/m"]}, TypeError),
     ({"weight": -1}, ValueError), ({"burst": 0}, ValueError), ({}, ValueError),
     ({"slots": 1, "key": "x" * 256}, ValueError)],
)  # fmt: skip
def test_what_no_limit_can_be_is_refused(app, values, error):
    with pytest.raises(error, match=r"limit|rate"):
        app.limits.set("mail", **values)
    assert list(app.limits) == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["set"], "Missing argument 'NAME'"),
        (["set", "mail"], "nothing to set: give slots, weight, rate or burst."),
        (["set", "mail", "--slots", "0"], "slots must be a whole number, at least 1, not 0."),
        (["set", "mail", "--slots", "two"], "Invalid value for '--slots'"),
        (["set", "mail", "--rate", "often"], "'100/m'"),
        (["set", "mail", "--rate", "0/m"], "above 0"),
        (["set", "mail", "--weight", "nan"], "weight must be a number above 0, not nan."),
        (["set", "x" * 300, "--slots", "1"], "300 characters long"),
        (["unset", "mail", "--key", "x" * 300], "300 characters long"),
        (["unset"], "Missing argument 'NAME'"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["reset"], "No such command 'reset'"),
    ],
)
def test_wrong_arguments_are_told_in_a_line_with_exit_code_2(app, run, args, said):
    out = run("limits", *args)
    assert out.exit_code == 2
    assert said in out.output
    assert "Traceback" not in out.output
    assert list(app.limits) == []


def test_the_program_sets_and_shows_them(app, dsn):
    def pgcelery(*args: str) -> str:
        return subprocess.run(
            [*PGCELERY, "-b", dsn, "limits", *args],
            capture_output=True, text=True, check=True, cwd=Path(ROOT),
        ).stdout  # fmt: skip

    pgcelery("set", "mail", "--key", "ü\x1b", "--slots", "2")
    assert "ü\\x1b" in pgcelery()
    assert json.loads(pgcelery("--json"))[0]["key"] == "ü\x1b"
    pgcelery("unset", "mail", "--key", "ü\x1b")
    assert list(app.limits) == []


def test_a_rate_is_written_as_it_is_read():
    assert rate_text(100, 60.0) == "100/m"
    assert rate_text(1, 2.0) == "1 in 2 s"
    assert rate_text(None, 60.0) is None
