"""The runner itself: what it lets pass and what not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.celery_compat.suite import environment, report, source
from tests.celery_compat.suite.demand import Demand
from tests.celery_compat.suite.errors import SuiteError
from tests.celery_compat.suite.outcomes import Outcome, read_outcomes
from tests.celery_compat.suite.verdict import KNOWN_FAILURES, judge, read_known_failures

KEY = "test_a.py::test_b#0"


def verdict_on(state: str | None, known: bool) -> str:
    outcomes = {} if state is None else {KEY: Outcome(state, 1.0, "why")}
    verdict = judge([KEY], outcomes, {KEY: "for a reason"} if known else {})
    assert len(verdict.passed) + len(verdict.known) + len(verdict.problems) == 1
    if verdict.problems:
        return verdict.problems[0].details or verdict.problems[0].what
    return "passed" if verdict.passed else "known"


@pytest.mark.parametrize(
    ("state", "known", "expected"),
    [
        ("passed", False, "passed"),
        ("passed", True, "must leave the list of known failures: for a reason"),
        ("failed", False, "why"),
        ("failed", True, "known"),
        ("skipped", False, "why"),
        ("skipped", True, "known"),
        ("unfinished", False, "why"),
        ("unfinished", True, "why"),
        (None, False, "missing"),
        (None, True, "missing"),
    ],
)
def test_the_list_of_known_failures_is_strict(state, known, expected):
    assert verdict_on(state, known) == expected


def test_what_is_not_demanded_is_not_counted():
    verdict = judge([KEY], {KEY: Outcome("passed", 1.0), "x": Outcome("failed", 1.0)}, {})
    last = report.text(verdict, {}, {}).splitlines()[-1]
    assert last == "1 of 1 passed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (KEY, "without a reason"),
        (f"{KEY} one\n{KEY} two", "twice"),
        ("test_a.py::test_b#1 why", "not demanded"),
    ],
)
def test_a_bad_line_of_known_failures_is_refused(text, message):
    with pytest.raises(SuiteError, match=message):
        read_known_failures(f"# comment\n\n{text}\n", {KEY})


def phases(*outcomes: str, subtests: str = "") -> list[str]:
    names = ["setup", "call", "teardown"]
    rows = [(when, one, False) for when, one in zip(names, outcomes, strict=False)]
    rows[1:1] = [("call", one, True) for one in subtests.split()]
    return [
        json.dumps(
            {
                "key": KEY,
                "when": when,
                "outcome": one,
                "subtest": sub,
                "seconds": 1,
                "details": "",
            }
        )
        for when, one, sub in rows
    ]


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        (phases("passed", "passed", "passed"), "passed"),
        (phases("passed", "passed", "passed", subtests="passed passed"), "passed"),
        (phases("passed", "passed", "passed", subtests="passed failed"), "failed"),
        (phases("passed", "passed", "failed"), "failed"),
        (phases("failed"), "failed"),
        (phases("skipped"), "skipped"),
        (phases("passed", "skipped", "passed"), "skipped"),
        (phases("passed", "passed"), "unfinished"),
        ([*phases("passed", "passed"), '{"key": "tes'], "unfinished"),
        (phases("passed"), "unfinished"),
    ],
)
def test_a_test_passed_if_all_its_parts_did(lines, state):
    assert read_outcomes(lines)[KEY].state == state


def test_a_distribution_with_another_digest_is_refused(tmp_path: Path):
    path = tmp_path / source.SDIST
    path.write_bytes(b"another")
    with pytest.raises(SuiteError, match="sha256"):
        source.sdist(tmp_path, Path(sys.executable))
    assert source.checked(path, hashlib.sha256(b"another").hexdigest()) == path


def test_the_tests_are_changed_where_they_must_be_and_only_there():
    gate = "    if not app.conf.result_backend.startswith('redis'):\n        raise\n"
    opened = "    if False:\n        raise\n"
    late = "    res = task.delay()\n    assertion_result = False\n"
    in_time = "    assertion_result = False\n    res = task.delay()\n"
    change = source.adapted
    assert change("test_group_chains.py", gate, 20) == opened
    assert change("test_tasks.py", (gate * 3) + late * 2, 20) == opened * 3 + in_time * 2
    assert change("test_canvas.py", gate * 75 + "TIMEOUT = 60\n", 20).endswith("\nTIMEOUT = 20\n")
    assert change("test_redis_backend.py", gate, 20) == gate
    with pytest.raises(SuiteError, match="expected 1"):
        change("test_group_chains.py", gate * 2, 20)
    with pytest.raises(SuiteError, match="TIMEOUT"):
        change("test_canvas.py", gate * 75 + "TIMEOUT = 61\n", 20)


def test_every_demanded_test_is_in_one_shard():
    demand = Demand.load()
    keys = demand.keys("all")
    shards = demand.shards(keys)
    dealt = Counter(key for shard in shards for key in shard.keys)
    assert dealt == Counter(keys)
    assert all(key.startswith(f"{shard.file}::") for shard in shards for key in shard.keys)
    assert len(demand.keys("core")) + len(demand.keys("stretch")) == len(keys)
    with pytest.raises(SuiteError, match=r"test_absent\.py"):
        demand.keys("core", ["test_tasks", "test_absent"])


def test_the_list_of_known_failures_can_be_read():
    demanded = Demand.load().known_keys
    assert read_known_failures(KNOWN_FAILURES.read_text(), demanded).keys() <= demanded


TESTS = """
import os, celery, pytest

@pytest.mark.parametrize("n", [celery.Celery, 1, 2])
def test_parameter(n):
    assert n != 1

class test_class:
    def test_other(self):
        raise AssertionError("was not wanted")

    def test_fatal(self):
        os._exit(7)
"""


def test_the_plugin_runs_what_is_wanted_and_records_it(tmp_path: Path):
    folder = tmp_path / "t" / "integration"
    folder.mkdir(parents=True)
    (folder / "test_x.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(source.CONFIGURATION)
    wanted = ["test_parameter#0", "test_parameter#1", "test_class::test_fatal#0"]
    (tmp_path / "keys").write_text(json.dumps([f"test_x.py::{one}" for one in wanted]))
    command = [sys.executable, "-m", "pytest", "-p", "suite_plugin", "t/integration/test_x.py"]
    command += ["--suite-keys=keys", "--suite-records=records"]
    env = {k: v for k, v in os.environ.items() if not k.startswith(environment.FOREIGN)}
    env |= environment.variables(Path(sys.executable), tmp_path, "", 0)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 7
    found = read_outcomes((tmp_path / "records").read_text().splitlines())
    assert {key.removeprefix("test_x.py::"): one.state for key, one in found.items()} == {
        "test_parameter#0": "passed",
        "test_parameter#1": "failed",
        "test_class::test_fatal#0": "unfinished",
    }
