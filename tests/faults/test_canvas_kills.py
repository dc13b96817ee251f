"""Random workflows while workers are killed or stopped: each call recorded once, all results right.

`FAULTS_SEED` makes other workflows, `FAULTS_DAGS` more or fewer of them.

Promise P12 of docs/guarantees.md.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import psycopg
import pytest

from pgcelery.compat import message
from pgcelery.compat.app import sending
from tests.faults.dags import LEASE_S, Expected, Generator, expect, signature_of
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SEED = int(os.environ.get("FAULTS_SEED", 5))
CONCURRENCY = 2
EMPTY_AT_THE_END = ("nodes", "edges", "running", "ready", "scheduled", "gated")


class Run(NamedTuple):
    """One run of a body, says the log."""

    group: int  #: process group, which is the worker's pid
    given: Any
    ended: bool


class Fleet:
    """Workers, one of which is now and then struck, with all its children."""

    def __init__(self, spawn: Callable[..., Process], env: dict[str, str], workers: int) -> None:
        self.struck: set[int] = set()  #: pids of those that were killed, or stopped for a while
        self.strikes = 0
        self._spawn = spawn
        self._env = env
        self._random = Random(SEED)
        self._started = 0
        self._workers = [self._start() for _ in range(workers)]
        for worker in self._workers:
            worker.wait_for_output(r" ready\.$")
        self._due = time.monotonic() + 1
        self._stopped: dict[Process, float] = {}  #: until when

    def _start(self) -> Process:
        self._started += 1
        name = f"w{self._started}@%h"
        args = ["-A", "tests.faults.dag_app", "worker", "-l", "INFO", "-c", str(CONCURRENCY)]
        return self._spawn([*PGCELERY, *args, "-n", name], self._env)

    def kill_each_second(self) -> None:
        """To be called often: kill one of those that are up, and start another."""
        victim = self._next_victim()
        if victim is not None:
            os.killpg(victim.pid, signal.SIGKILL)
            victim.wait()
            self._workers[self._workers.index(victim)] = self._start()

    def stop_each_second(self) -> None:
        """To be called often: stop one that runs for longer than its lease, then let it go on."""
        now = time.monotonic()
        self.let_go_on([worker for worker, until in self._stopped.items() if now > until])
        victim = self._next_victim()
        if victim is not None:
            os.killpg(victim.pid, signal.SIGSTOP)
            self._stopped[victim] = now + LEASE_S + 1

    def _next_victim(self) -> Process | None:
        """One of those that are up, if a second has passed and another is up as well."""
        if time.monotonic() < self._due:
            return None
        up = [w for w in self._workers if w not in self._stopped and " ready." in w.output()]
        if len(up) < 2:
            return None
        self._due = max(self._due + 1, time.monotonic() + 0.5)
        self.strikes += 1
        victim = self._random.choice(up)
        self.struck.add(victim.pid)
        return victim

    def let_go_on(self, workers: Iterable[Process]) -> None:
        for worker in list(workers):
            os.killpg(worker.pid, signal.SIGCONT)
            del self._stopped[worker]

    def let_all_go_on(self) -> None:
        self.let_go_on(self._stopped)


class Trial:
    """Workflows, what is expected of them, and what is known of them from outside."""

    def __init__(self, dsn: str, folder: Path, late: bool) -> None:
        self.dsn = dsn
        self.log = folder / "bodies.log"
        self.log.touch()
        late_text = "1" if late else "0"
        self.env = {"FAULTS_DSN": dsn, "FAULTS_LOG": str(self.log), "FAULTS_LATE": late_text}
        os.environ.update(self.env)
        sys.modules.pop("tests.faults.dag_app", None)
        self.app_module: Any = importlib.import_module("tests.faults.dag_app")
        self.expected: list[Expected] = []
        self.results: list[Any] = []
        self.calls: dict[str, Any] = {}

    def send(self, workflows: int) -> None:
        generator = Generator(SEED)
        for _ in range(workflows):
            plan = generator.workflow()
            self.expected.append(expect(plan))
            self.calls.update(self.expected[-1].calls)
            self.results.append(signature_of(plan, self.app_module.mix).apply_async())

    def query(self, statement: str) -> list[Any]:
        with psycopg.connect(self.dsn) as conn:
            return conn.execute(statement).fetchall()

    def rows_left(self) -> dict[str, int]:
        """How many rows each hot table has, if any."""
        one = "(select count(*) from pgcelery.{})"
        row = self.query("select " + ", ".join(map(one.format, EMPTY_AT_THE_END)))[0]
        return {name: n for name, n in zip(EMPTY_AT_THE_END, row, strict=True) if n}

    def recorded(self) -> Counter[tuple[str, int | None]]:
        """How many jobs there are of each tag, and the state recorded for it."""
        rows = self.query(
            "select j.payload, r.state from pgcelery.jobs j left join pgcelery.results r"
            " on r.id = j.id and r.finished_at is not null"
        )
        return Counter(
            (json.loads(message.decode(bytes(payload)).body)[1]["tag"], state)
            for payload, state in rows
        )

    def refused(self) -> int:
        """How many outcomes came too late."""
        return int(self.query("select count(*) from pgcelery.late")[0][0])

    def runs(self) -> dict[str, list[Run]]:
        """Each tag's runs, in order."""
        runs: dict[str, list[Run]] = defaultdict(list)
        for line in self.log.read_text().splitlines():
            event, tag, group, given = json.loads(line)
            if event == "begun":
                runs[tag].append(Run(group, given, False))
            else:
                place = max(i for i, run in enumerate(runs[tag]) if run.group == group)
                runs[tag][place] = runs[tag][place]._replace(ended=True)
        return runs

    def repeated(self, fleet: Fleet) -> list[Run]:
        """All runs but one of each call; that one is of a worker that was not struck, if it can."""
        found = []
        for runs in self.runs().values():
            found += sorted(runs, key=lambda run: run.group not in fleet.struck)[:-1]
        return found

    def close(self) -> None:
        self.app_module.app.close()


@pytest.fixture
def trial_of(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bool], Trial]]:
    monkeypatch.setattr(sending, "MAX_DELIVERIES", 0)  # the application's, and undone at the end
    made: list[Trial] = []

    def make(late: bool) -> Trial:
        made.append(Trial(dsn, tmp_path, late))
        return made[-1]

    yield make
    for trial in made:
        trial.close()


@pytest.fixture
def fleet_of(spawn: Callable[..., Process]) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(trial: Trial, workers: int) -> Fleet:
        made.append(Fleet(spawn, trial.env, workers))
        return made[-1]

    yield make
    for fleet in made:
        fleet.let_all_go_on()


@pytest.mark.timeout(200)
def test_with_late_ack_each_call_is_recorded_once_and_every_result_is_right(
    trial_of: Callable[[bool], Trial], fleet_of: Callable[..., Fleet]
):
    trial = trial_of(True)
    fleet = fleet_of(trial, workers=3)
    begin = time.monotonic()
    trial.send(int(os.environ.get("FAULTS_DAGS", 200)))

    def done() -> bool:
        fleet.kill_each_second()
        return not trial.rows_left()

    wait_for(done, 150, lambda: str(trial.rows_left()))
    seconds = time.monotonic() - begin

    repeated = check_all_went_right(trial, fleet)
    cut = Counter(run.group for run in repeated if not run.ended)
    assert max(cut.values()) <= CONCURRENCY, "one run in each child of a killed worker"
    unrecorded = sum(run.ended for run in repeated)
    assert unrecorded <= fleet.strikes * CONCURRENCY
    say(trial, f"{seconds:.0f} s, {fleet.strikes} kills, {cut.total()} runs cut short, "
        f"{unrecorded} ended and not yet recorded; those were run again")  # fmt: skip
    assert fleet.strikes >= 10


@pytest.mark.longer
def test_what_a_stopped_worker_says_after_its_lease_is_refused(
    trial_of: Callable[[bool], Trial], fleet_of: Callable[..., Fleet]
):
    trial = trial_of(True)
    fleet = fleet_of(trial, workers=3)
    trial.send(40)

    def over() -> bool:
        fleet.stop_each_second()
        return not trial.rows_left()

    def heard() -> bool:
        """Whether those that were stopped have said all that they had to say."""
        fleet.let_all_go_on()
        return trial.refused() == len(trial.repeated(fleet))

    wait_for(over, 60, lambda: str(trial.rows_left()))
    wait_for(heard, 20, lambda: f"{trial.refused()} refused of {len(trial.repeated(fleet))}")
    check_all_went_right(trial, fleet)
    say(trial, f"{fleet.strikes} stops, {trial.refused()} outcomes refused")
    assert trial.refused()


def check_all_went_right(trial: Trial, fleet: Fleet) -> list[Run]:
    """Compare with the model; gives the runs that were not their call's last."""
    assert trial.recorded() == Counter((tag, 10) for tag in trial.calls)
    runs = trial.runs()
    wrong = [tag for tag, of_it in runs.items() for r in of_it if r.given != trial.calls.get(tag)]
    assert not wrong, "called with another argument than the model's"
    assert not [tag for tag in trial.calls if not any(run.ended for run in runs[tag])]
    values = [result.get(timeout=10) for result in trial.results]
    assert values == [expected.value for expected in trial.expected]
    repeated = trial.repeated(fleet)
    assert {run.group for run in repeated} <= fleet.struck, "repeated though nothing had happened"
    return repeated


def say(trial: Trial, text: str) -> None:
    """For a run with -s, or a failure."""
    print(f"{len(trial.results)} workflows, {len(trial.calls)} tasks, {text}")  # noqa: T201


def test_with_early_ack_no_body_runs_twice_and_every_workflow_ends(
    trial_of: Callable[[bool], Trial], fleet_of: Callable[..., Fleet]
):
    trial = trial_of(False)
    fleet = fleet_of(trial, workers=3)
    trial.send(40)
    ends = [end for result in trial.results for end in ends_of(result)]

    def done() -> bool:
        fleet.kill_each_second()
        return not trial.rows_left() and all(end.ready() for end in ends)

    wait_for(done, 60, lambda: f"{trial.rows_left()}, {Counter(end.state for end in ends)}")

    runs = trial.runs()
    assert {len(all_) for all_ in runs.values()} == {1}, "at most once"
    assert not [tag for tag, (run,) in runs.items() if run.given != trial.calls[tag]]
    failed = 0
    for result, expected in zip(trial.results, trial.expected, strict=True):
        if result.successful():
            assert result.get(timeout=10) == expected.value
        else:
            failed += 1
            errors = [end.result for end in ends_of(result) if not end.successful()]
            assert all("WorkerLostError" in repr(error) for error in errors), errors
    states = Counter(state for _, state in trial.recorded())
    assert None not in states, "a job is nowhere"
    say(trial, f"{len(runs)} of them run, {states[10]} succeeded; "
        f"{failed} workflows failed, {fleet.strikes} kills")  # fmt: skip
    assert fleet.strikes >= 3
    assert failed


def ends_of(result: Any) -> Iterator[Any]:
    """The single results that a result is made of."""
    members = getattr(result, "results", None)
    if members is None:
        yield result
    else:
        for member in members:
            yield from ends_of(member)
