from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.compat import beat, message, signals
from pgcelery.compat.app.base import Celery
from pgcelery.compat.schedules import crontab, schedule
from pgcelery.engine import Client, EngineConfig, NewJob
from pgcelery.engine.database import connect
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

Make = Callable[..., Any]

PROJECT = """\
import os
from pgcelery import Celery, signals

app = Celery("proj", broker=os.environ["TEST_DSN"])
app.conf.beat_schedule = {"often": {"task": "proj.tick", "schedule": 0.2}}

@app.task
def tick():
    print("ticked")

@signals.beat_embedded_init.connect
def embedded(**kwargs):
    print(f"embedded in {os.getppid()}")
"""


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


@pytest.fixture
def make(app: Celery) -> Iterator[Make]:
    """Make schedulers: ``make(app=app, cls=PersistentScheduler, **options)``."""
    with ExitStack() as stack:

        def make(app: Celery = app, cls: Any = beat.PersistentScheduler, **options: Any) -> Any:
            scheduler = cls(app, **options)
            stack.callback(scheduler.close)
            return scheduler

        yield make


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, **parts: float) -> None:
        self.now += timedelta(**parts)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sent(dsn: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Name, positional arguments and headers of all that has been sent, in order."""
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select payload from pgcelery.jobs order by seq").fetchall()
    messages = [message.decode(bytes(row[0])) for row in rows]
    return [(one.headers["task"], json.loads(one.body)[0], one.headers) for one in messages]


def standing(dsn: str) -> dict[str, tuple[datetime, int]]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select name, last_run_at, total_run_count from pgcelery.schedules")
        return {name: (last.astimezone(UTC), count) for name, last, count in rows}


def ticked(scheduler: beat.Scheduler) -> int:
    """Let it send whatever is due; how many that was."""
    count = 0
    while scheduler.tick() == 0:
        count += 1
    return count


def every(seconds: float, clock: Clock) -> dict[str, Any]:
    return {"task": "some.task", "schedule": schedule(seconds, nowfun=clock)}


# One scheduler.


def test_a_new_entry_waits_for_its_first_time_and_then_runs(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    app.conf.beat_schedule = {"one": {**every(60, clock), "args": (1, 2)}}
    scheduler = make()
    assert 0 < scheduler.tick() <= 60
    clock.move(seconds=60)
    assert ticked(scheduler) == 1
    ((name, args, headers),) = sent(dsn)
    assert (name, args) == ("some.task", [1, 2])
    assert headers["celery_beat_task"] is True
    assert standing(dsn) == {"one": (clock.now, 1)}
    assert scheduler.schedule["one"].total_run_count == 1


def test_the_time_is_the_databases(
    make: Make, app: Celery, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "now", lambda: datetime(2040, 1, 1, tzinfo=UTC))
    app.conf.beat_schedule = {"daily": {"task": "some.task", "schedule": crontab(0, 0)}}
    scheduler = make()
    assert ticked(scheduler) == 0
    last = standing(dsn)["daily"][0]
    assert abs(last - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_schedule_of_the_application_is_not_changed_by_beat(make: Make, app: Celery) -> None:
    mine = crontab()
    app.conf.beat_schedule = {"one": {"task": "some.task", "schedule": mine}}
    make()
    assert mine.nowfun is None


def test_what_was_missed_runs_once_after_a_restart(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    app.conf.beat_schedule = {
        "minutely": {"task": "some.task", "schedule": crontab(nowfun=clock)},
        "often": every(10, clock),
    }
    make()
    clock.move(hours=2, seconds=5)
    again = make()
    assert ticked(again) == 2
    clock.move(seconds=55)
    assert ticked(again) == 2
    assert [count for _, count in standing(dsn).values()] == [2, 2]


def test_a_starting_deadline_forgets_what_was_missed(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    app.conf.beat_cron_starting_deadline = 600
    hourly = {"task": "some.task", "schedule": crontab(minute=0, nowfun=clock)}
    app.conf.beat_schedule = {"hourly": hourly}
    make()
    clock.move(hours=2, minutes=11)
    again = make()
    assert ticked(again) == 0
    clock.move(minutes=49)
    assert ticked(again) == 1


def test_an_entry_that_was_taken_out_and_comes_back_is_new(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    both = {"one": every(60, clock), "two": every(60, clock)}
    app.conf.beat_schedule = both
    make()
    app.conf.beat_schedule = {"two": both["two"]}
    make()
    clock.move(hours=1)
    app.conf.beat_schedule = both
    scheduler = make()
    assert ticked(scheduler) == 1
    assert {name: count for name, (_, count) in standing(dsn).items()} == {"one": 0, "two": 1}


def test_apps_of_other_names_do_not_share_entries(make: Make, dsn: str, clock: Clock) -> None:
    with (
        Celery("first", broker=dsn, set_as_current=False) as first,
        Celery("second", broker=dsn, set_as_current=False) as second,
    ):
        for app in (first, second):
            app.conf.beat_schedule = {"same": every(60, clock)}
        schedulers = [make(app) for app in (first, second)]
        clock.move(seconds=60)
        assert [ticked(scheduler) for scheduler in schedulers] == [1, 1]
    assert len(sent(dsn)) == 2


def test_arguments_can_be_found_out_when_the_task_is_sent(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    lazy = beat.BeatLazyFunc(lambda word: f"{word} {clock.now.hour}", "hour")
    app.conf.beat_schedule = {"one": {**every(3600, clock), "args": (lazy,)}}
    scheduler = make()
    clock.move(hours=5)
    ticked(scheduler)
    assert [args for _, args, _ in sent(dsn)] == [["hour 5"]]


@pytest.mark.parametrize("scheduler_cls", [beat.Scheduler, beat.PersistentScheduler])
def test_an_entry_that_cannot_be_sent_loses_that_run_and_no_other(
    make: Make,
    app: Celery,
    dsn: str,
    clock: Clock,
    scheduler_cls: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = {**every(60, clock), "kwargs": {"what": beat.BeatLazyFunc(lambda: 1 / 0)}}
    app.conf.beat_schedule = {"broken": broken, "sound": every(60, clock)}
    scheduler = make(cls=scheduler_cls)
    clock.move(seconds=60)
    assert ticked(scheduler) == 2
    assert len(sent(dsn)) == 1
    assert "Message Error: Couldn't apply scheduled task broken: division by zero" in caplog.text
    assert ticked(scheduler) == 0


def test_an_entry_that_the_database_cannot_hold_loses_that_run(
    make: Make, app: Celery, dsn: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.beat_schedule = {"one": {**every(60, clock), "options": {"queue": "q" * 300}}}
    scheduler = make()
    clock.move(seconds=60)
    assert ticked(scheduler) == 1
    assert "Message Error" in caplog.text
    assert standing(dsn)["one"][1] == 1


def test_an_entry_that_cannot_tell_when_it_is_due_does_not_stop_the_others(
    make: Make, app: Celery, dsn: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(schedule):
        def is_due(self, last_run_at: datetime) -> Any:
            raise TypeError("no idea")

    app.conf.beat_schedule = {
        "broken": {"task": "some.task", "schedule": Broken(60, nowfun=clock)},
        "sound": every(60, clock),
    }
    scheduler = make()
    clock.move(seconds=60)
    assert ticked(scheduler) == 1
    assert "beat: Cannot calculate the next run of 'broken'" in caplog.text


def test_results_that_expire_by_themselves_need_no_cleaning(make: Make, app: Celery) -> None:
    assert "celery.backend_cleanup" not in make().schedule
    app.backend.supports_autoexpire = False
    assert "celery.backend_cleanup" in make().schedule


def test_an_entry_can_be_pickled_and_compared(app: Celery) -> None:
    entry = beat.ScheduleEntry("one", "some.task", schedule=60, args=(1,), app=app)
    again = pickle.loads(pickle.dumps(entry))
    assert again == entry
    assert again.last_run_at == entry.last_run_at
    following = next(entry)
    assert following.total_run_count == 1
    assert following == entry, "how far it has come does not count"


def test_how_long_sending_takes_does_not_put_off_the_next_run(
    make: Make, app: Celery, clock: Clock
) -> None:
    slow = beat.BeatLazyFunc(lambda: clock.move(seconds=20))
    app.conf.beat_schedule = {"one": {**every(60, clock), "args": (slow,)}}
    scheduler = make()
    clock.move(seconds=60)
    assert scheduler.tick() == 0
    assert scheduler.tick() == pytest.approx(40, abs=0.1)


def test_an_idle_worker_is_woken(make: Make, app: Celery, dsn: str, clock: Clock) -> None:
    app.conf.beat_schedule = {"one": every(60, clock)}
    scheduler = make()
    clock.move(seconds=60)
    with psycopg.connect(dsn, autocommit=True) as worker:
        worker.execute("listen pgcelery")
        assert ticked(scheduler) == 1
        heard = [one.payload for one in worker.notifies(timeout=5, stop_after=1)]
    assert heard == [f"q{app.engine.intern(['celery'])['celery']}"]


# Several schedulers.


def test_two_schedulers_send_each_run_once(make: Make, app: Celery, dsn: str, clock: Clock) -> None:
    app.conf.beat_schedule = {f"entry{n}": every(60, clock) for n in range(20)}
    schedulers = [make() for _ in range(2)]
    counts: list[int] = []
    for _ in range(10):
        clock.move(seconds=60)
        threads = [
            threading.Thread(target=lambda one=one: counts.append(ticked(one)))
            for one in schedulers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(sent(dsn)) == 200
    assert {count for _, count in standing(dsn).values()} == {10}


def test_a_run_whose_transaction_fails_is_not_lost(
    make: Make, app: Celery, dsn: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.beat_schedule = {"one": every(60, clock)}
    scheduler = make()
    clock.move(seconds=60)

    def cut(**kwargs: Any) -> None:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and state = 'idle in transaction'"
            )

    signals.before_task_publish.connect(cut)
    try:
        assert scheduler.tick() == 2.0, "seconds until it tries again"
    finally:
        signals.before_task_publish.disconnect(cut)
    assert "beat: Connection error" in caplog.text
    assert sent(dsn) == []
    assert ticked(scheduler) == 1
    assert len(sent(dsn)) == 1


def test_a_run_that_a_deadlock_undoes_is_sent_at_once(
    make: Make, app: Celery, dsn: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.beat_schedule = {"one": every(60, clock) | {"options": {"task_id": "contended"}}}
    job = NewJob("contended", "q", "some.task", b"")
    with closing(connect(app.engine_config)) as other:
        name = other.info.dbname
        other.execute(f'alter database "{name}" set deadlock_timeout = 50')  # beat gives way
        other.execute("set deadlock_timeout = '1min'")
        scheduler = make()
        clock.move(seconds=60)
        threads: list[threading.Thread] = []

        def meet(**kwargs: Any) -> None:
            if threads:
                return
            other.execute("begin")
            app.engine.enqueue([job], conn=other)
            lock = "select from pgcelery.schedules for update"
            threads.append(threading.Thread(target=lambda: other.execute(lock)))
            threads[0].start()
            blocked = f"select cardinality(pg_blocking_pids({other.info.backend_pid})) > 0"
            with psycopg.connect(dsn) as look:
                wait_for(lambda: look.execute(blocked).fetchone() == (True,))

        def give_way() -> None:
            wait_for(lambda: threads)
            threads[0].join()
            other.execute("rollback")

        signals.before_task_publish.connect(meet)
        giving_way = threading.Thread(target=give_way)
        giving_way.start()
        try:
            assert ticked(scheduler) == 1
        finally:
            signals.before_task_publish.disconnect(meet)
            giving_way.join()
    assert len(sent(dsn)) == 1
    assert "beat: Connection error" not in caplog.text


def test_an_entry_that_another_beat_has_in_hand_does_not_hold_up_the_others(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    app.conf.beat_schedule = {"held": every(59, clock), "free": every(60, clock)}
    scheduler = make()
    clock.move(seconds=60)
    with psycopg.connect(dsn) as other:
        other.execute("select from pgcelery.schedules where name = 'held' for update")
        assert ticked(scheduler) == 2
        assert {name: count for name, (_, count) in standing(dsn).items()}["free"] == 1
    clock.move(seconds=1)
    assert ticked(scheduler) == 1
    assert len(sent(dsn)) == 2


# Schedulers of libraries.


class Ledger(beat.Scheduler):
    """Keeps its entries in a storage of its own, as libraries do."""

    Entry = beat.ScheduleEntry

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.calls: list[str] = []
        self.storage: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        self.calls.append("setup_schedule")
        self.install_default_entries(self.schedule)
        self.update_from_dict(self.app.conf.beat_schedule)

    def get_schedule(self) -> Any:
        return self.storage

    schedule = property(get_schedule)

    def is_due(self, entry: Any) -> Any:
        self.calls.append("is_due")
        return super().is_due(entry)

    def reserve(self, entry: Any) -> Any:
        self.calls.append("reserve")
        return super().reserve(entry)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        self.calls.append("apply_entry")
        super().apply_entry(entry, producer=producer)

    def apply_async(self, entry: Any, producer: Any = None, **kwargs: Any) -> Any:
        self.calls.append("apply_async")
        return super().apply_async(entry, producer=producer, **kwargs)

    def sync(self) -> None:
        self.calls.append("sync")


def test_a_subclass_is_called_as_celery_calls_it(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    app.conf.beat_schedule = {"one": every(60, clock)}
    scheduler = make(cls=Ledger, sync_every_tasks=1)
    clock.move(seconds=60)
    assert ticked(scheduler) == 1
    scheduler.close()
    assert scheduler.calls == [
        "setup_schedule", "is_due", "reserve", "apply_entry", "apply_async", "sync", "sync",
    ]  # fmt: skip
    assert len(sent(dsn)) == 1
    assert standing(dsn) == {}


def test_a_changed_schedule_is_noticed_at_the_next_tick(
    make: Make, app: Celery, dsn: str, clock: Clock
) -> None:
    scheduler = make(cls=beat.Scheduler)
    assert scheduler.tick() == scheduler.max_interval
    scheduler.add(name="one", task="some.task", schedule=schedule(60, nowfun=clock))
    assert 0 < scheduler.tick() < 60.1
    clock.move(seconds=60)
    assert ticked(scheduler) == 1
    del scheduler.schedule["one"]
    assert scheduler.tick() == scheduler.max_interval


def test_a_scheduler_is_found_by_the_name_its_library_registered(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgcelery.compat.beat import service  # noqa: PLC0415

    names = (("ledger", f"{__name__}:Ledger"),)
    monkeypatch.setattr(service, "load_extension_class_names", lambda namespace: names)
    found = beat.Service(app, scheduler_cls="ledger").get_scheduler(lazy=True)
    assert type(found).__name__ == "Ledger"
    by_path = beat.Service(app, scheduler_cls="celery.beat:PersistentScheduler")
    assert type(by_path.get_scheduler(lazy=True)) is beat.PersistentScheduler


# The service.


def test_the_service_ticks_until_it_is_stopped(app: Celery, dsn: str) -> None:
    begun: list[Any] = []

    def begin(sender: Any, **kwargs: Any) -> None:
        begun.append(sender)

    signals.beat_init.connect(begin)
    app.conf.beat_schedule = {"often": {"task": "some.task", "schedule": 0.05}}
    service = beat.EmbeddedService(app, thread=True)
    service.start()
    wait_for(lambda: len(sent(dsn)) >= 3)
    service.stop()
    service.join(5)
    assert not service.is_alive()
    assert begun == [service.service]


@pytest.fixture
def answering(app: Celery) -> Iterator[tuple[beat.Service, str]]:
    app.conf.beat_remote_control_max_tick_age = 1.0
    service = beat.Service(app, max_interval=0.1, remote_control=True, hostname="me@here")
    thread = threading.Thread(target=service.start)
    thread.start()
    yield service, "me@here"
    service.stop()
    thread.join(10)


def test_a_beat_answers_pings_while_it_ticks(
    app: Celery, answering: tuple[beat.Service, str]
) -> None:
    service, node = answering

    def ping() -> Any:
        return app.control.ping(destination=[node], timeout=0.5)

    wait_for(lambda: ping() == [{node: {"ok": "pong"}}])
    assert app.control.inspect([node], timeout=0.5).active() is None, "it is no worker"
    held = threading.Event()
    service.scheduler.tick = lambda: held.wait() and 0.1
    wait_for(lambda: ping() == [])
    held.set()
    wait_for(lambda: ping() == [{node: {"ok": "pong"}}])


# Programs.


@pytest.fixture
def start(spawn: Callable[..., Process], tmp_path: Any, dsn: str) -> Callable[..., Process]:
    (tmp_path / "proj.py").write_text(PROJECT)

    def start(*args: str) -> Process:
        command = [*PGCELERY, "-A", "proj", *args]
        return spawn(command, env={"TEST_DSN": dsn}, cwd=tmp_path)

    return start


def test_the_program_says_hello_sends_and_ends_on_sigterm(
    start: Callable[..., Process], dsn: str
) -> None:
    process = start("beat", "-l", "info", "--max-interval", "5")
    process.wait_for_output(r"INFO/MainProcess\] beat: Starting\.\.\.$", 20)
    said = process.output()
    assert "celery beat v5.7.0" in said
    assert "    . broker -> postgresql://" in said
    assert "    . scheduler -> pgcelery.compat.beat.persistent.PersistentScheduler" in said
    assert "    . maxinterval -> 5.00 seconds (5s)" in said
    process.wait_for_output(r"Scheduler: Sending due task often \(proj\.tick\)$")
    wait_for(lambda: sent(dsn))
    process.send(15)
    assert process.wait() == 0
    with closing(Client(EngineConfig(dsn=dsn))) as client:
        assert client.counts()["celery"].ready == len(sent(dsn))


def test_a_worker_with_beat_sends_and_runs(start: Callable[..., Process], dsn: str) -> None:
    worker = start("worker", "-B", "-c", "1", "-l", "info", "-n", "w@here")
    worker.wait_for_output(r"INFO/Beat\] beat: Starting\.\.\.$", 20)
    worker.wait_for_output(f"embedded in {worker.pid}$")
    worker.wait_for_output(r"ForkPoolWorker-1\] ticked$")
    worker.send(15)
    assert worker.wait() == 0
    count = len(sent(dsn))
    threading.Event().wait(0.5)  # nothing must happen, which cannot be waited for
    assert len(sent(dsn)) == count


def test_an_embedded_beat_dies_with_its_worker(start: Callable[..., Process], dsn: str) -> None:
    worker = start("worker", "-B", "-c", "1", "-l", "info", "-n", "w@here")
    worker.wait_for_output(r"Sending due task", 20)
    worker.send(9)
    worker.wait()

    def quiet() -> bool:
        with psycopg.connect(dsn) as conn:
            (count,) = conn.execute(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
                " and query like '%%schedules%%'"
            ).fetchone() or (1,)
            return not count

    wait_for(quiet)


def test_the_example_in_the_documentation_runs(
    spawn: Callable[..., Process], tmp_path: Path, dsn: str
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "periodic-tasks.md").read_text()
    example = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "shop.py").write_text(example.replace("postgresql://localhost/shop", dsn))
    worker = spawn([*PGCELERY, "-A", "shop", "worker", "-B", "-l", "info"], cwd=tmp_path)
    worker.wait_for_output("nothing is on fire", 20)
    assert standing(dsn).keys() == {"remind-customers", "look-around"}
