"""examples/shop under real Celery and under pgcelery: what can be observed is equal.

The lists of known differences are strict both ways: a difference that is not listed fails, and so
does a listed one that is gone.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.celery_compat.worlds import (
    EXAMPLES,
    Run,
    World,
    changed,
    copy_program,
    differences,
    log_by_task,
    normal,
    pgcelery_world,
    run_program,
)

pytestmark = [pytest.mark.real_celery, pytest.mark.slow, pytest.mark.timeout(240)]

#: path in the trace -> why it differs
TRACE_DIFFERS: dict[str, str] = {
    **dict.fromkeys(
        [
            f"failures.<unregistered>.{field}"
            for field in ("retries", "name", "queue", "args", "kwargs", "worker_is_set")
        ],
        "the result of a task that the worker does not have says what was called",
    ),
    "chords published": "a chord's body is written with its header, so its sender publishes it",
    "chains published": "the steps of a chain are written together, so its sender publishes them",
    **dict.fromkeys(
        ["chains[5].queue", "chains[5].worker_is_set"],
        "a step that never ran is ended by a worker of its queue",
    ),
}
#: line of the worker's log, "-" if only Celery logs it and "+" if only pgcelery -> why it differs
LOG_DIFFERS: dict[str, str] = {
    **dict.fromkeys(
        [
            "-INFO|MainProcess|celery.worker.strategy|Task shop.orders.price[<expired>] received",
            "-INFO|MainProcess|shop.audit|signal task_received[<expired>] shop.orders.price",
        ],
        "a task waits for its time in the database; a worker first sees it when it is due",
    ),
    "-INFO|MainProcess|shop.audit|signal task_failure[<hard limit>] TimeLimitExceeded(1)": (
        "Celery sends the signal twice"
    ),
    **dict.fromkeys(
        [
            f"{who}|shop.audit|signal task_failure[<rejected>] reject requeue=False: not for us"
            for who in ("-INFO|MainProcess", "+INFO|child")
        ],
        "a rejected run is ended by the process that it ran in",
    ),
    "-INFO|child|shop.audit|signal task_postrun[<hard limit>] shop.reports.slowest None None": (
        "Celery's child still sends the signal while it is being killed"
    ),
}

#: Tasks that go on in another process while the first one still logs: their lines have no order.
UNORDERED = {"replaced"}

WORKER = ["-Q", "shop,mail", "-c", "2"]
_runs: dict[str, Run] = {}


def _steps() -> list[str]:
    """The names in the driver's STEPS, read without importing it."""
    for node in ast.parse((EXAMPLES / "shop" / "driver.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEPS":
            return [ast.unparse(step) for step in node.value.elts]  # type: ignore[attr-defined]
    raise AssertionError("the driver has no STEPS")


@pytest.fixture
def runs(
    real_celery: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Run]:
    """(pgcelery's run, Celery's run), made once for the module."""
    if not _runs:
        ours = pgcelery_world(request.getfixturevalue("fresh_dsn"))
        for world in (real_celery, ours):
            target: Path = tmp_path_factory.mktemp(world.module) / "shop"
            folder = copy_program(world, EXAMPLES / "shop", target)
            _runs[world.module] = run_program(world, folder, "shop", WORKER)
    return _runs["pgcelery"], _runs["celery"]


@pytest.mark.parametrize("step", _steps())
def test_the_driver_sees_the_same(step: str, runs: tuple[Run, Run]) -> None:
    ours, theirs = map(normal, runs)
    keys = (step, f"{step} published")
    found = dict(differences({k: ours[k] for k in keys}, {k: theirs[k] for k in keys}))
    known = {path for path in TRACE_DIFFERS if path.startswith(step)}
    assert {k: v for k, v in found.items() if k not in known} == {}
    assert known <= set(found), "a known difference is gone: strike it from the list"


def test_the_real_driver_ran_every_step(runs: tuple[Run, Run]) -> None:
    failed = {k: v for k, v in runs[1].trace.items() if isinstance(v, str)}
    assert failed == {}


def test_the_worker_logs_the_same_lines_for_every_task(runs: tuple[Run, Run]) -> None:
    ours, theirs = map(log_by_task, runs)
    for lines in (ours, theirs):
        lines.update({name: sorted(lines[name]) for name in UNORDERED})
    names = {**theirs, **ours}
    found = {x: None for name in names for x in changed(ours.get(name, []), theirs.get(name, []))}
    assert [line for line in found if line not in LOG_DIFFERS] == []
    assert set(LOG_DIFFERS) <= set(found), "a known difference is gone: strike it from the list"


def test_the_worker_stops_warm_with_the_same_exit_code(runs: tuple[Run, Run]) -> None:
    assert [run.exit_code for run in runs] == [0, 0]
