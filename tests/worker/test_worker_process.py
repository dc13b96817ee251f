from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.compat.exceptions import WorkerLostError
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

PROJECT = """\
import os, pathlib, time, threading
from pgcelery import Celery, signals, bootsteps

app = Celery("proj", broker=os.environ["TEST_DSN"])

@app.task
def add(x, y):
    return x + y

@app.task
def hold(name):
    pathlib.Path(name + ".begun").touch()
    while not pathlib.Path(name + ".go").exists():
        threading.Event().wait(0.01)
    return "held"

@app.task(acks_late=True)
def hold_late(name):
    return hold(name)

@app.task
def whine():
    print("printed by the task")
    raise ValueError("no")

class Step(bootsteps.StartStopStep):
    requires = {"celery.worker.components:Timer"}
    def start(self, worker):
        pathlib.Path("step.started").touch()
    def stop(self, worker):
        pathlib.Path("step.stopped").touch()

app.steps["worker"].add(Step)

@signals.worker_shutting_down.connect
def going(sig, how, exitcode, **kwargs):
    pathlib.Path("how").write_text(f"{sig} {how} {exitcode}")
"""


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


@pytest.fixture
def start(spawn: Callable[..., Process], tmp_path: Path, dsn: str) -> Callable[..., Process]:
    def start(*args: str, ready: bool = True, **env: str) -> Process:
        if not (tmp_path / "proj.py").exists():
            (tmp_path / "proj.py").write_text(PROJECT)
        process = spawn(
            [*PGCELERY, "-A", "proj", "worker", "-l", "info", "-n", "w1@here", "-c", "1", *args],
            env={"TEST_DSN": dsn, **env},
            cwd=tmp_path,
        )
        if ready:
            process.wait_for_output(r"w1@here ready\.$", 20)
        return process

    return start


def test_a_worker_says_hello_runs_tasks_and_ends_warm(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start("-Q", "celery,more")
    said = worker.output()
    assert " -------------- w1@here v" in said
    assert ".> app:         proj:0x" in said
    assert ".> database:    postgresql://" in said
    assert ".> concurrency: 1 (prefork)" in said
    assert ".> more             0 ready, 0 scheduled" in said
    assert "  . proj.add" in said
    result = app.send_task("proj.add", (2, 3), queue="more")
    assert result.get(timeout=10) == 5
    worker.wait_for_output(rf"INFO/MainProcess\] Task proj\.add\[{result.id}\] received$")
    worker.wait_for_output(rf"Task proj\.add\[{result.id}\] succeeded in [\d.e-]+s: 5$")
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert "worker: Warm shutdown (MainProcess)" in worker.output()
    assert (tmp_path / "how").read_text() == "SIGTERM Warm 0"
    assert (tmp_path / "step.started").exists()
    assert (tmp_path / "step.stopped").exists()


def test_a_failure_is_logged_as_celery_does(app: Celery, start: Callable[..., Process]) -> None:
    worker = start()
    result = app.send_task("proj.whine")
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=10)
    worker.wait_for_output(rf"Task proj\.whine\[{result.id}\] raised unexpected: ValueError\('no'")
    worker.wait_for_output(r"WARNING/\w+-?\d*\] printed by the task$")


def test_warm_finishes_what_runs_and_gives_the_rest_back(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start()
    running = app.send_task("proj.hold", ("a",))
    waiting = app.send_task("proj.add", (1, 1))
    wait_for((tmp_path / "a.begun").exists)
    worker.send(signal.SIGTERM)
    worker.wait_for_output("Warm shutdown")
    (tmp_path / "a.go").touch()
    assert worker.wait(10) == 0
    assert running.get(timeout=1) == "held"
    assert waiting.state == "PENDING"
    start()
    assert waiting.get(timeout=10) == 2


def test_a_second_interrupt_ends_what_runs(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start()
    result = app.send_task("proj.hold", ("b",))
    wait_for((tmp_path / "b.begun").exists)
    worker.send(signal.SIGINT)
    worker.wait_for_output(r"worker: Hitting Ctrl\+C again will initiate cold shutdown")
    worker.wait_for_output(r"worker: Warm shutdown \(MainProcess\)")
    worker.send(signal.SIGINT)
    assert worker.wait(15) == 1
    assert "worker: Cold shutdown (MainProcess)" in worker.output()
    with pytest.raises(WorkerLostError):
        result.get(timeout=10)


def test_a_late_acking_task_of_a_cold_worker_runs_again(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start()
    result = app.send_task("proj.hold_late", ("c",))
    wait_for((tmp_path / "c.begun").exists)
    worker.send(signal.SIGQUIT)
    assert worker.wait(15) == 0
    (tmp_path / "c.go").touch()
    start()
    assert result.get(timeout=20) == "held"


def test_a_soft_shutdown_gives_running_tasks_a_moment(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start("worker.soft_shutdown_timeout=10")
    result = app.send_task("proj.hold", ("d",))
    wait_for((tmp_path / "d.begun").exists)
    worker.send(signal.SIGQUIT)
    worker.wait_for_output("Initiating Soft Shutdown, terminating in 10.0 seconds")
    (tmp_path / "d.go").touch()
    assert worker.wait(15) == 0
    assert result.get(timeout=5) == "held"


def test_sigterm_can_be_remapped_to_a_cold_shutdown(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start(REMAP_SIGTERM="SIGQUIT")
    app.send_task("proj.hold", ("e",))
    wait_for((tmp_path / "e.begun").exists)
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert "Cold shutdown" in worker.output()


def test_usr1_writes_the_stacks_and_hup_starts_anew(
    app: Celery, start: Callable[..., Process]
) -> None:
    worker = start()
    worker.send(signal.SIGUSR1)
    worker.wait_for_output(r"^MainThread$")
    worker.send(signal.SIGHUP)
    wait_for(lambda: worker.output().count("w1@here ready.") == 2, 20)
    assert app.send_task("proj.add", (1, 2)).get(timeout=10) == 3


def test_the_command_line_talks_to_workers(
    app: Celery,
    start: Callable[..., Process],
    spawn: Callable[..., Process],
    dsn: str,
    tmp_path: Path,
) -> None:
    start()

    def pgcelery(*args: str) -> tuple[int, str]:
        process = spawn([*PGCELERY, "-A", "proj", *args], env={"TEST_DSN": dsn}, cwd=tmp_path)
        return process.wait(20), process.output()

    code, said = pgcelery("status")
    assert (code, said) == (0, "->  w1@here: OK\n\n1 node online.\n")
    code, said = pgcelery("inspect", "ping", "-d", "w1@here")
    assert code == 0
    assert "pong" in said
    code, said = pgcelery("inspect", "ping", "-d", "w2@here")
    assert code == 69
    assert said == (
        "Error: No nodes replied within time constraint (w2@here is not alive; alive: w1@here)\n"
    )
    code, said = pgcelery("inspect", "registered", "-j")
    assert '"w1@here": ["proj.add' in said
    code, said = pgcelery("call", "proj.add", "-a", "[20, 22]")
    assert code == 0
    code, said = pgcelery("result", said.strip())
    assert (code, said) == (0, "42\n")
    code, said = pgcelery("call", "proj.whine")
    code, said = pgcelery("result", said.strip())
    assert (code, said) == (1, "Error: FAILURE ValueError: no\n")
    code, said = pgcelery("purge", "-f")
    assert (code, said) == (0, "No messages purged from 1 queue.\n")
    code, said = pgcelery("control", "shutdown")
    assert code == 0


def test_a_pid_file_is_held_and_let_go(start: Callable[..., Process], tmp_path: Path) -> None:
    path = tmp_path / "w.pid"
    worker = start("--pidfile", str(path))
    assert path.read_text().strip() == str(worker.pid)
    second = start("--pidfile", str(path), ready=False)
    assert second.wait(20) == 73
    assert f"ERROR: Pidfile ({path}) already exists." in second.output()
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert not path.exists()


def test_a_worker_makes_the_schema_unless_it_may_not(
    fresh_dsn: str, spawn: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "proj.py").write_text(PROJECT)
    args = [*PGCELERY, "-A", "proj", "worker", "-l", "info", "-n", "w1@here", "-c", "1"]
    env = {"TEST_DSN": fresh_dsn}
    refused = spawn([*args, "worker.auto_migrate=(bool)0"], env=env, cwd=tmp_path)
    assert refused.wait(20) == 1
    assert "Error: " in refused.output()
    assert "pgcelery db" in refused.output()
    assert "Traceback" not in refused.output()
    worker = spawn(args, env=env, cwd=tmp_path)
    worker.wait_for_output(r"w1@here ready\.$", 20)


def test_consumer_steps_are_refused_with_a_reason(
    spawn: Callable[..., Process], tmp_path: Path, dsn: str
) -> None:
    (tmp_path / "proj.py").write_text(
        PROJECT + "\nclass Bad(bootsteps.ConsumerStep):\n    pass\napp.steps['consumer'].add(Bad)\n"
    )
    worker = spawn([*PGCELERY, "-A", "proj", "worker"], env={"TEST_DSN": dsn}, cwd=tmp_path)
    assert worker.wait(20) == 1
    assert "Error: proj.Bad is a step of the consumer" in worker.output()


def test_pickle_as_root_is_refused(start: Callable[..., Process], tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root is refused")
    (tmp_path / "proj.py").write_text(PROJECT + "\napp.conf.accept_content = ['json', 'pickle']\n")
    worker = start(ready=False)
    assert worker.wait(20) == 1
    assert "Refusing to run a worker as a privileged user" in worker.output()
    forced = start(C_FORCE_ROOT="1")
    assert forced.popen.poll() is None


IMPORTS = """

imported = set()

@signals.worker_process_init.connect
def note(**kwargs):
    imported.update(sys.modules)

@app.task
def new():
    return sorted(set(sys.modules) - imported)
"""


def test_what_tasks_need_is_imported_before_the_fork(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "proj.py").write_text("import sys\n" + PROJECT + IMPORTS)
    start()
    new = app.signature("proj.new")
    new.delay().get(timeout=20)
    assert new.delay().get(timeout=20) == []  # by the first one, and the recording of its result


def test_an_idle_worker_holds_two_connections(start: Callable[..., Process], dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        count = (
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and backend_start > %s"
        )
        began = admin.execute("select clock_timestamp()").fetchone()
        start()
        assert admin.execute(count, began).fetchone() == (2,)
