"""``pgcelery runs``, ``graph``, ``cancel`` and ``replay``."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from pgcelery.cli.main import celery
from pgcelery.compat.app.base import Celery
from pgcelery.compat.canvas import chord, group
from pgcelery.compat.contrib.testing.worker import start_worker
from tests.support.process import PGCELERY, ROOT

T = 20


@pytest.fixture
def broken() -> set[str]:
    return set()


@pytest.fixture
def app(dsn: str, broken: set[str]) -> Iterator[Any]:
    with Celery("graphs", broker=dsn, backend=dsn, set_as_current=False) as app:

        @app.task(shared=False, name="g.add")
        def add(x, y=0):
            if "add" in broken:
                raise ValueError("broken")
            return x + y

        @app.task(shared=False, name="g.tsum")
        def tsum(numbers):
            return sum(numbers)

        yield app


@pytest.fixture
def run(app: Any) -> Callable[..., Result]:
    def run(*args: str, **options: Any) -> Result:
        return CliRunner().invoke(celery, args, obj=app, **options)

    return run


def working(app: Any) -> Any:
    return start_worker(app, pool="solo", perform_ping_check=False)


def test_runs_lists_workflows_the_newest_first(app, run):
    assert run("runs").output == "No workflows.\n"
    add = app.tasks["g.add"]
    first = (add.s(1) | add.s(2)).apply_async()
    second = chord([add.s(1), add.s(2)], app.tasks["g.tsum"].s()).apply_async()
    add.delay(1)
    lines = run("runs").output.splitlines()
    assert lines[0].split() == ["ID", "AGE", "STATE", "TASKS", "FIRST", "TASK"]
    assert [line.split()[0] for line in lines[1:]] == [second.id, first.id]
    assert re.fullmatch(rf"{first.id}  \d+s +PENDING  1 pending, 1 waiting  g\.add", lines[2])
    assert len(run("runs", "--limit", "1").output.splitlines()) == 2
    with working(app):
        assert second.get(timeout=T) == 3
        app.workflow(first).wait(T)
    (again,) = json.loads(run("runs", "--json", "--limit", "1").output)
    assert (again["id"], again["state"], again["counts"]) == (second.id, "SUCCESS", {"SUCCESS": 3})
    assert again["finished_at"] > again["created_at"]
    assert len(run("runs", "--state", "success").output.splitlines()) == 3
    assert run("runs", "--state", "FAILURE").output == "No workflows.\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["runs", "--state", "LOST"], "Invalid value for '--state'"),
        (["runs", "--limit", "0"], "Invalid value for '--limit'"),
        (["graph"], "Missing argument 'ID'"),
        (["graph", "x", "--format", "png"], "Invalid value for '-f' / '--format'"),
        (["cancel", "x", "--signal", "SIGNOTHING"], "there is no signal 'SIGNOTHING'"),
        (["replay", "x", "--all", "--from", "y"], "--from and --all exclude each other"),
    ],
)
def test_wrong_arguments_are_told_with_exit_code_2(run, args, said):
    result = run(*args)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("command", ["graph", "cancel", "replay"])
def test_an_id_that_is_not_known_is_told_with_exit_code_1(run, command):
    result = run(command, "nobody")
    assert result.exit_code == 1
    assert result.output.startswith("Error: No workflow or task 'nobody' is known. It was never")
    assert "Traceback" not in result.output


def test_graph_draws_a_tree_with_large_groups_as_one(app, run):
    add = app.tasks["g.add"]
    result = (add.s(1, 1) | group(add.s(i) for i in range(8)) | app.tasks["g.tsum"].s()).delay()
    output = run("graph", result.id).output
    assert output.splitlines() == [
        f"Workflow {result.id}  PENDING  10 tasks: 1 pending, 9 waiting",
        f"○ g.add(1, 1)  PENDING  {result.parent.parent.id}",
        "└─ … g.add x 8 (8 waiting)",
        f"… g.tsum(...)  WAITING  {result.id}",
    ]
    assert "\x1b[" not in output
    coloured = run("graph", result.parent[3].id, color=True).output
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == output
    assert "\x1b[" not in run("--no-color", "graph", result.id, color=True).output


def test_graph_writes_other_formats(app, run):
    add = app.tasks["g.add"]
    result = (add.s("<ü>", "&") | add.s(1)).apply_async()
    assert run("graph", result.id, "-f", "mermaid").output.startswith("graph TD\n    n0[")
    picture = ElementTree.fromstring(run("graph", result.id, "--format", "svg").output)
    assert picture.tag.endswith("svg")
    assert "g.add('<ü>', '&')" in "".join(picture.itertext())
    given = json.loads(run("graph", result.id, "--format", "json").output)
    assert given == app.workflow(result).to_dict()


def test_cancel_and_replay(app, run, broken):
    add = app.tasks["g.add"]
    result = (add.s(1, 1) | add.s(2)).apply_async()
    cancelled = run("cancel", result.id)
    assert cancelled.output == f"Workflow {result.id} is cancelled: 2 revoked.\n"
    assert run("cancel", result.id).output == (
        f"Workflow {result.id} has ended already: 2 revoked.\n"
    )
    again = run("replay", result.parent.id)
    assert again.output == f"Workflow {result.id} runs again: 1 pending, 1 waiting.\n"
    refused = run("replay", "--all", result.id)
    assert refused.exit_code == 1
    assert re.fullmatch(r"Error: Task \S+ has not ended: PENDING\.\n", refused.output)
    with working(app):
        assert app.AsyncResult(result.id).get(timeout=T) == 4
        refused = run("replay", result.id)
        assert (refused.exit_code, "nothing failed" in refused.output.lower()) == (1, True)
        assert run("replay", result.id, "--from", result.id).exit_code == 0
        assert app.workflow(result).wait(T).state == "SUCCESS"
        broken.add("add")
        assert run("replay", result.id, "--all").exit_code == 0
        assert app.workflow(result).wait(T).counts == {"FAILURE": 2}


def test_the_program_writes_ascii_where_nothing_else_can_be_written(app, dsn):
    add = app.tasks["g.add"]
    result = group([add.s(1), add.s(2)]).apply_async()
    out = subprocess.run(
        [*PGCELERY, "graph", result.id],
        capture_output=True, text=True, check=True, cwd=Path(ROOT),
        env={"PGCELERY_DATABASE_URL": dsn, "PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
    ).stdout  # fmt: skip
    assert out.splitlines()[1:] == [
        f"+- o g.add(1)  PENDING  {result[0].id}",
        f"`- o g.add(2)  PENDING  {result[1].id}",
    ]
