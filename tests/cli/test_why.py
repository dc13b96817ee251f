"""``pgcelery why`` and ``AsyncResult.why()``."""

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
from pgcelery.compat.canvas import chord
from pgcelery.engine import Gate, State
from tests.support.limited import send
from tests.support.process import PGCELERY, ROOT
from tests.support.wait import wait_for


@pytest.fixture
def app(dsn: str, go_on: threading.Event) -> Iterator[Any]:
    with Celery("why", broker=dsn, backend=dsn, set_as_current=False) as app:

        @app.task(shared=False, name="w.hold")
        def hold():
            assert go_on.wait(20)

        @app.task(shared=False, name="w.add")
        def add(x, y=0):
            return x + y

        @app.task(shared=False, name="w.again", bind=True, max_retries=5)
        def again(self):
            raise self.retry(countdown=0 if self.request.retries == 0 else 90)

        yield app


def await_reason(result: Any, reason: str) -> Any:
    return wait_for(
        lambda: (found := result.why()) is not None and found.reason == reason and found,
        message=lambda: f"{reason} was to come, not {result.why()}",
    )


def test_what_waits_for_a_worker_is_told(app, run):
    result = app.tasks["w.add"].delay(1)
    out = run("why", result.id)
    assert out.exit_code == 0
    assert out.output == (
        f"{result.id} w.add  no_worker\n"
        "No live worker serves its queue 'celery': no worker lives at all.\n"
    )
    assert "\x1b[" in run("why", result.id, color=True).output
    assert str(result.why()) in out.output


def test_an_id_that_is_not_known_is_told_with_exit_code_1(app, run):
    out = run("why", "nobody")
    assert out.exit_code == 1
    assert out.output == (
        "Error: Nothing is known of a task 'nobody'. It was never sent to this database, or its"
        " result has expired.\n"
    )
    assert app.AsyncResult("nobody").why() is None
    assert run("why").exit_code == 2


def test_who_holds_the_slots_is_told(app, run, worker):
    gates = (Gate("mail", "tenant:7", slots=1),)
    holder = send(app, "w.hold", gates=gates)
    await_reason(holder, "running")
    waits = send(app, "w.add", 1, gates=gates)
    await_reason(waits, "limit")
    out = run("why", waits.id).output
    assert re.fullmatch(
        rf"{waits.id} w\.add  limit\n"
        r"It waits at limit 'mail', key 'tenant:7': 1 of 1 in use, held by w\.hold "
        rf"{holder.id} \(on w@here since [-\d]+ [:\d]+ UTC\); place 1 in its line\.\n",
        out,
    )
    said = json.loads(run("why", waits.id, "--json").output)
    assert (said["reason"], said["line"]["in_use"], said["line"]["ahead"]) == ("limit", 1, 0)
    assert [one["id"] for one in said["holders"]] == [holder.id]
    running = json.loads(run("why", holder.id, "-j").output)
    assert (running["reason"], running["worker"], running["state"]) == (
        "running", "w@here", "running",
    )  # fmt: skip


def test_the_retry_it_waits_for_is_told(app, run, worker):
    result = app.tasks["w.again"].delay()
    wait_for(lambda: (x := result.why()).reason == "retry" and x.retries == 2)
    out = run("why", result.id).output
    assert re.search(r"retry\nIt waits for retry 2: due at [-\d]+ [:\d]+ UTC, in [\d.]+ s\.", out)
    assert result.why().state is State.RETRYABLE


@pytest.mark.parametrize(
    ("strategy", "reason", "said"),
    [(1, "no_slot", "no slot of its limit was free"), (3, "replaced", "replaced by a newer one")],
)
def test_what_its_limit_revoked_is_told(app, run, worker, strategy, reason, said):
    gates = (Gate("mail", "k", slots=1, strategy=strategy),)
    await_reason(send(app, "w.hold", gates=gates), "running")
    first, second = (send(app, "w.add", 1, gates=gates) for _ in range(2))
    found = await_reason(first, reason)
    wait_for(lambda: first.why().state is State.CANCELLED)
    found = first.why()
    assert (found.reason, first.state) == (reason, "REVOKED")
    assert re.fullmatch(rf"It was revoked [\d.]+ s ago: {said}\.", found.text)
    assert said in run("why", first.id).output
    del second


def test_what_expired_is_told_before_and_after(app, run, worker):
    result = app.tasks["w.add"].apply_async((1,), expires=0.01, queue="later")
    found = await_reason(result, "expired")
    assert found.state is State.AVAILABLE
    app.control.add_consumer("later", destination=["w@here"])
    wait_for(lambda: result.why().state is State.CANCELLED)
    assert "expired" in run("why", result.id).output
    assert result.why().reason == "expired"


def test_what_it_waits_for_is_told(app, run):
    result = chord([app.tasks["w.add"].s(1, 1)] * 2, app.tasks["w.add"].s()).delay()
    out = run("why", result.id).output
    first, second = (one.id for one in result.parent)
    assert out.endswith(
        "It waits for 2 of 2 that come before it: "
        f"w.add {first} (available), w.add {second} (available).\n"
    )


def test_the_program_says_it_in_a_process_of_its_own(app, dsn):
    result = app.tasks["w.add"].delay(1)
    out = subprocess.run(
        [*PGCELERY, "-b", dsn, "why", result.id, "--json"],
        capture_output=True, text=True, check=True, cwd=Path(ROOT),
    ).stdout  # fmt: skip
    assert json.loads(out)["reason"] == "no_worker"
