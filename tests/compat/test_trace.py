from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pgcelery.compat import signals
from pgcelery.compat.app import trace
from pgcelery.compat.app.task import Task
from pgcelery.compat.canvas import chain, group
from pgcelery.compat.exceptions import Ignore, Reject
from pgcelery.compat.message import Message, decode, encode
from pgcelery.engine import NewJob, State
from tests.support.tasks import Offline, body, celery_log, headers, meta


@pytest.fixture
def app() -> Offline:
    return Offline("tracing")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with celery_log(caplog):
        yield caplog


def test_a_result_is_stored_as_celery_does(app: Offline) -> None:
    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    result = add.delay(1, 2)
    outcome = app.work()
    assert (outcome.state, outcome.token, outcome.ttl_s) == (State.COMPLETED, 7, 86400.0)
    stored = meta(outcome)
    assert stored.pop("date_done").endswith("+00:00")
    assert stored == {
        "status": "SUCCESS", "result": 3, "traceback": None, "children": [], "task_id": result.id,
    }  # fmt: skip


def test_a_returned_result_is_stored_as_a_tuple(app: Offline) -> None:
    @app.task
    def task() -> Any:
        return app.AsyncResult("other")

    task.delay()
    assert meta(app.work())["result"] == [["other", None], None]


def test_ignored_results_are_not_stored_unless_they_are_errors(app: Offline) -> None:
    @app.task(ignore_result=True)
    def task(fail: bool) -> None:
        if fail:
            raise ValueError

    task.delay(False)
    assert app.work().result is None
    task.apply_async((False,), ignore_result=False)
    assert meta(app.work())["status"] == "SUCCESS"
    task.delay(True)
    assert (app.work().state, app.work().result) == (State.FAILED, None)
    task.store_errors_even_if_ignored = True
    assert meta(app.work())["status"] == "FAILURE"


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("v"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        MemoryError(),
        RecursionError("deep"),
        ExceptionGroup("g", [ValueError()]),
        StopIteration(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_whatever_a_body_raises_is_its_failure(app: Offline, raised: BaseException) -> None:
    @app.task
    def task() -> None:
        raise raised

    task.delay()
    outcome = app.work()
    assert outcome.state is State.FAILED
    assert meta(outcome)["result"]["exc_type"] in (type(raised).__name__, "Exception")


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    "raised",
    [
        Nasty(object()),
        ValueError("x" * 1_000_000),
        ValueError("nul \0 \ud800"),
        ValueError(object()),
    ],
    ids=["no-text", "huge", "unstorable-text", "object"],
)
def test_nasty_exceptions_are_failures_too(app: Offline, raised: Exception) -> None:
    @app.task
    def task() -> None:
        raise raised

    task.delay()
    outcome = app.work()
    assert (outcome.state, meta(outcome)["status"]) == (State.FAILED, "FAILURE")


def test_a_result_that_cannot_be_encoded_fails_the_task_and_drops_its_links(app: Offline) -> None:
    @app.task
    def task() -> object:
        return object()

    @app.task
    def link(x: Any) -> None: ...

    task.apply_async(link=link.si(1))
    outcome = app.work()
    assert meta(outcome)["result"]["exc_type"] == "EncodeError"
    assert outcome.follow_ups == ()


def test_links_are_part_of_the_outcome(app: Offline) -> None:
    @app.task(name="t")
    def t(*args: Any) -> str:
        return "r"

    t.apply_async(link=[t.s(1), t.si(2), group(t.s(3), t.s(4))])
    outcome = app.work()
    sent = sorted((body(job)[0] for job in outcome.follow_ups), key=str)
    assert sent == [["r", 1], ["r", 3], ["r", 4], [2]]
    assert len(meta(outcome)["children"]) == 2


def test_the_steps_of_a_chain_wait_for_one_another(app: Offline) -> None:
    seen: list[Any] = []

    @app.task(name="t", bind=True)
    def t(self: Task[..., Any], *args: Any) -> str:
        seen.append((args, self.request.argsrepr))
        return "r"

    chain(t.s(1), t.s(2).set(task_id="second"), t.s(3).set(task_id="third")).apply_async()
    first, second, third = app.engine.jobs
    outcome = app.work(first)
    assert outcome.follow_ups == ()
    assert meta(outcome)["children"] == [[["second", None], None]]
    assert (first.parents, second.parents, third.parents) == ((), (first.id,), ("second",))
    assert headers(second)["parent_id"] == headers(second)["root_id"] == first.id
    assert headers(third)["root_id"] == first.id
    outcome = app.go_on(second, outcome)
    assert meta(outcome)["children"] == [[["third", None], None]]
    assert meta(app.go_on(third, outcome))["children"] == []
    assert seen == [((1,), "(1,)"), (("r", 2), "('r', 2)"), (("r", 3), "('r', 3)")]


def test_a_failure_takes_the_rest_of_the_chain_with_it(app: Offline) -> None:
    ran: list[Any] = []

    @app.task(name="t")
    def t(*args: Any) -> None:
        ran.append(args)
        raise KeyError("k")

    @app.task(name="e")
    def e(task_id: str) -> None: ...

    chain(t.s(), t.s(), t.s()).apply_async(link_error=e.s())
    first, second, third = app.engine.jobs
    outcome = app.work(first)
    assert [job.name for job in outcome.follow_ups] == ["e"]
    for job in (second, third):
        outcome = app.go_on(job, outcome)
        assert (outcome.state, outcome.follow_ups) == (State.FAILED, ())
        assert meta(outcome)["result"]["exc_type"] == "KeyError"
    assert ran == [()]


def test_error_links_are_called_or_sent_by_what_they_take(app: Offline) -> None:
    called: list[Any] = []

    @app.task
    def old(task_id: str) -> None: ...

    @app.task(bind=True)
    def bound(self: Task[..., Any], *args: Any) -> None: ...

    @app.task
    def new(request: Any, exc: Any, traceback: str) -> None:
        called.append((request.id, exc.args, "ValueError" in traceback))

    @app.task
    def broken(request: Any, exc: Any, traceback: str) -> None:
        raise OSError

    @app.task
    def fails() -> None:
        raise ValueError("v")

    links = [old.s(), bound.s(), new.s(), broken.s(), app.signature("unregistered")]
    fails.apply_async(link_error=links)
    outcome = app.work()
    assert called == [(outcome.id, ("v",), True)]
    sent = {job.name: body(job)[0] for job in outcome.follow_ups}
    assert sent == {old.name: [outcome.id], bound.name: [outcome.id], "unregistered": [outcome.id]}
    assert outcome.state is State.FAILED


def test_an_ignored_run_leaves_nothing(app: Offline) -> None:
    @app.task
    def task() -> None:
        raise Ignore

    @app.task
    def link(x: Any) -> None: ...

    task.apply_async(link=link.s(), link_error=link.s())
    outcome = app.work()
    assert (outcome.state, outcome.result, outcome.follow_ups) == (State.COMPLETED, None, ())


@pytest.mark.parametrize("acks_late", [True, False])
def test_a_rejected_run(app: Offline, acks_late: bool) -> None:
    @app.task(acks_late=acks_late, bind=True)
    def task(self: Task[..., Any], requeue: bool) -> str:
        if self.request.delivery_info["redelivered"]:
            return "second"
        raise Reject("why", requeue=requeue)

    heard: list[Any] = []

    def on_failure(exception: Any, **kwargs: Any) -> None:
        heard.append(exception)

    signals.task_failure.connect(on_failure, sender=app.tasks[task.name])
    task.delay(True)
    outcome = app.work()
    if acks_late:
        assert (outcome.state, outcome.counted) == (State.AVAILABLE, False)
        assert meta(app.work(payload=outcome.payload))["result"] == "second"
    else:
        assert (outcome.state, outcome.result) == (State.COMPLETED, None)
    task.delay(False)
    outcome = app.work()
    assert outcome.state is State.FAILED
    assert meta(outcome)["result"]["exc_type"] == "Reject"
    assert meta(outcome)["traceback"] is None
    assert len(heard) == 1


def test_replacing_by_one_signature_runs_it_under_the_same_id(app: Offline) -> None:
    @app.task(name="other")
    def other(x: int) -> int:
        return x

    @app.task(name="t", bind=True)
    def t(self: Task[..., Any]) -> Any:
        return self.replace(other.s(5))

    @app.task(name="link")
    def link(x: Any) -> None: ...

    t.apply_async(link=link.s(), headers={"h": 1})
    job = app.sent()
    outcome = app.work()
    assert (outcome.state, outcome.id, outcome.result) == (State.AVAILABLE, job.id, None)
    replaced = job._replace(payload=outcome.payload)
    assert headers(replaced)["task"] == "other"
    assert headers(replaced)["replaced_task_nesting"] == 1
    done = app.work(replaced)
    assert meta(done)["result"] == 5
    assert [follow.name for follow in done.follow_ups] == ["link"]


def test_replacing_by_more_parks_the_job_until_its_id_comes_again(app: Offline) -> None:
    @app.task(name="a")
    def a(x: int = 0) -> int:
        return x + 1

    @app.task(name="t", bind=True)
    def t(self: Task[..., Any]) -> Any:
        return self.replace(chain(a.s(1), a.s()))

    t.delay()
    job = app.sent()
    outcome = app.work()
    assert (outcome.state, outcome.id) == (State.WAITING, job.id)
    first, second = outcome.follow_ups
    assert first.id != job.id
    assert (second.id, second.parents) == (job.id, (first.id,))
    assert meta(app.go_on(second, app.work(first)))["result"] == 3


def test_started_is_stored_if_asked(app: Offline) -> None:
    @app.task(track_started=True)
    def task() -> None: ...

    task.delay()
    app.work()
    ((_, state, stored),) = app.engine.put
    assert (state, stored["status"]) == (State.RUNNING, "STARTED")
    assert stored["result"]["hostname"] == "celery@here"
    task.apply_async(ignore_result=True)
    app.work()
    assert len(app.engine.put) == 1


def test_hooks_that_raise_do_not_change_the_end(app: Offline, log: Any) -> None:
    class Base(Task[..., Any]):
        def on_success(self, *args: Any) -> None:
            raise ValueError("hook")

        after_return = on_success

    @app.task(base=Base)
    def task() -> int:
        return 1

    task.delay()
    assert meta(app.work())["status"] == "SUCCESS"
    assert log.text.count("handler raised: ValueError('hook')") == 2


def test_before_start_that_raises_is_a_failure(app: Offline) -> None:
    class Base(Task[..., Any]):
        def before_start(self, *args: Any) -> None:
            raise ValueError("hook")

    @app.task(base=Base)
    def task() -> None: ...

    task.delay()
    assert meta(app.work())["result"]["exc_message"] == ["hook"]


def last(log: Any) -> logging.LogRecord:
    return [r for r in log.records if r.name.startswith("celery.")][-1]


def test_log_lines_and_their_data_are_celerys(app: Offline, log: Any) -> None:
    @app.task(name="t", throws=(KeyError,), bind=True)
    def t(self: Task[..., Any], what: str) -> int:
        if what == "expected":
            raise KeyError("e")
        if what == "unexpected":
            raise ValueError("u")
        if what == "retry":
            self.retry(countdown=5)
        if what == "ignore":
            raise Ignore
        return 3

    def run(what: str) -> logging.LogRecord:
        t.apply_async((what,), task_id="i")
        app.work()
        return last(log)

    record: Any = run("ok")
    assert record.msg is trace.LOG_SUCCESS
    assert record.name == "celery.app.trace"
    assert set(record.data) == {"id", "name", "return_value", "runtime", "args", "kwargs"}
    assert record.getMessage().startswith("Task t[i] succeeded in ")
    assert record.getMessage().endswith("s: 3")

    record = run("expected")
    assert (record.levelname, record.exc_info) == ("INFO", None)
    assert record.getMessage() == "Task t[i] raised expected: KeyError('e')"
    record = run("unexpected")
    assert (record.levelname, record.msg) == ("ERROR", trace.LOG_FAILURE)
    assert record.getMessage() == "Task t[i] raised unexpected: ValueError('u')"
    assert record.exc_info
    assert set(record.data) == {
        "hostname", "id", "name", "exc", "traceback", "args", "kwargs", "description", "internal",
    }  # fmt: skip
    assert record.data["args"] == "('unexpected',)"
    assert run("retry").getMessage() == "Task t[i] retry: Retry in 5s"
    assert run("ignore").getMessage() == "Task t[i] ignored"


def test_a_task_that_is_not_here_fails(app: Offline, log: Any) -> None:
    heard: list[Any] = []

    def on_unknown(name: str, id: str, exc: Any, **kwargs: Any) -> None:
        heard.append((name, id, type(exc).__name__))

    @app.task
    def old(task_id: str) -> None: ...

    signals.task_unknown.connect(on_unknown)
    app.send_task("no\nsuch", task_id="i", link_error=old.s())
    app.handler.received([app.claim()])
    outcome = app.work()
    assert heard == [("no\nsuch", "i", "NotRegistered")]
    assert meta(outcome)["result"]["exc_type"] == "NotRegistered"
    assert meta(outcome)["result"]["exc_module"] == "celery.exceptions"
    assert [job.name for job in outcome.follow_ups] == [old.name]
    assert "no\\nsuch" in log.text
    assert "no\nsuch" not in log.text


BAD_PAYLOADS = {
    "garbage": b"garbage",
    "empty": b"",
    "no arguments": encode(Message({"id": "i", "task": "t"}, {}, b"{}")),
    "not json": encode(Message({"id": "i", "task": "t"}, {}, b"{")),
    "arguments of a wrong kind": encode(Message({"id": "i", "task": "t"}, {}, b'["a", [], {}]')),
    "pickle": encode(Message({"id": "i", "task": "t"}, {}, b"", "application/x-python-serialize")),
}


@pytest.mark.parametrize("payload", BAD_PAYLOADS.values(), ids=BAD_PAYLOADS)
def test_a_bad_message_is_a_recorded_failure(app: Offline, payload: bytes) -> None:
    ran: list[int] = []
    rejected: list[Any] = []

    def on_rejected(exc: Any, **kwargs: Any) -> None:
        rejected.append(exc)

    @app.task(name="t")
    def t(*args: Any) -> None:
        ran.append(1)

    signals.task_rejected.connect(on_rejected)
    outcome = app.work(NewJob("i", "q", "t", payload))
    assert (outcome.state, meta(outcome)["status"], ran) == (State.FAILED, "FAILURE", [])
    assert len(rejected) == 1


def test_arguments_that_do_not_fit_are_the_tasks_failure(app: Offline) -> None:
    @app.task(typing=False)
    def task(x: int) -> None: ...

    task.delay(1, 2)
    assert meta(app.work())["result"]["exc_type"] == "TypeError"


def test_limits_come_from_the_call_then_from_the_task(app: Offline) -> None:
    @app.task(name="t", time_limit=30, soft_time_limit=20)
    def t() -> None: ...

    t.apply_async(soft_time_limit=5)
    run = app.handler.open(app.claim())
    assert (run.time_limit_s, run.soft_time_limit_s) == (30.0, 5.0)
    app.conf.task_time_limit = 99
    app.send_task("elsewhere")
    assert app.handler.open(app.claim()).time_limit_s is None


# -- runs that could not say their own outcome


@pytest.fixture
def told() -> Iterator[list[Any]]:
    heard: list[Any] = []

    def failure(sender: Any, exception: Any, **kwargs: Any) -> None:
        heard.append(("failure", type(exception).__name__))

    def revoked(request: Any, terminated: bool, signum: Any, expired: bool, **kw: Any) -> None:
        heard.append(("revoked", request.id, terminated, signum, expired))

    def retry(reason: Any, **kwargs: Any) -> None:
        heard.append(("retry", str(reason)))

    signals.task_failure.connect(failure)
    signals.task_revoked.connect(revoked)
    signals.task_retry.connect(retry)
    yield heard
    for signal, receiver in (
        (signals.task_failure, failure),
        (signals.task_revoked, revoked),
        (signals.task_retry, retry),
    ):
        signal.disconnect(receiver)


class Hooked(Task[..., Any]):
    heard: list[str]

    def on_failure(self, *args: Any) -> None:
        self.heard.append("on_failure")

    def on_retry(self, *args: Any) -> None:
        self.heard.append("on_retry")


def make(app: Offline, **options: Any) -> Any:
    @app.task(name="t", base=Hooked, heard=[], **options)
    def t() -> None: ...

    @app.task(name="errback")
    def errback(task_id: str) -> None: ...

    t.apply_async(link_error=errback.s(), task_id="i")
    return t


def test_a_lost_child_is_a_failure(app: Offline, told: list[Any]) -> None:
    task = make(app, acks_late=True)
    outcome = app.lose("child_lost", detail="signal 9 (SIGKILL)")
    stored = meta(outcome)
    assert stored["result"]["exc_type"] == "WorkerLostError"
    assert stored["result"]["exc_message"] == ["Worker exited prematurely: signal 9 (SIGKILL)."]
    assert [job.name for job in outcome.follow_ups] == ["errback"]
    assert told == [("failure", "WorkerLostError")]
    assert task.heard == []


def test_a_lost_child_may_be_tried_again_a_bounded_number_of_times(app: Offline) -> None:
    make(app, acks_late=True, reject_on_worker_lost=True)
    outcome = app.lose("child_lost")
    assert (outcome.state, outcome.counted) == (State.AVAILABLE, True)
    assert decode(outcome.payload or b"").properties["delivery_info"]["redelivered"] is True
    assert app.lose("child_lost", delivery=5).state is State.FAILED


def test_early_acknowledgement_does_not_try_again(app: Offline) -> None:
    make(app, reject_on_worker_lost=True)
    assert app.lose("child_lost").state is State.FAILED


def test_a_lost_child_may_be_a_retry(app: Offline, told: list[Any]) -> None:
    task = make(app, retry_on_worker_lost=True, max_retries=1, default_retry_delay=4)
    job = app.sent()
    outcome = app.lose("child_lost", detail="exitcode 1")
    assert (outcome.state, outcome.delay_s) == (State.RETRYABLE, 4.0)
    assert meta(outcome)["status"] == "RETRY"
    assert told[0][0] == "retry"
    assert task.heard == ["on_retry"]
    app.engine.jobs.append(job._replace(payload=outcome.payload))
    assert headers(app.sent())["retries"] == 1
    assert app.lose("child_lost").state is State.FAILED


def test_a_hard_time_limit(app: Offline, told: list[Any], log: Any) -> None:
    task = make(app)
    outcome = app.lose("time_limit", limit_s=3.0)
    assert meta(outcome)["result"] == {
        "exc_type": "TimeLimitExceeded", "exc_message": [3], "exc_module": "billiard.exceptions",
    }  # fmt: skip
    assert task.heard == ["on_failure"]
    assert told == [("failure", "TimeLimitExceeded")]
    assert "Hard time limit (3s) exceeded for t[i]" in log.text
    assert [job.name for job in outcome.follow_ups] == ["errback"]


def test_a_timed_out_task_may_go_back(app: Offline) -> None:
    make(app, acks_late=True, acks_on_timeout=False)
    assert app.lose("time_limit", limit_s=3).state is State.AVAILABLE


@pytest.mark.parametrize(
    ("kind", "reason", "signal"),
    [
        ("expired", "expired", ("revoked", "i", False, None, True)),
        ("cancelled", "revoked", ("revoked", "i", False, None, False)),
        ("terminated", "terminated", ("revoked", "i", True, 15, False)),
    ],
)
def test_revoked_runs(
    app: Offline, told: list[Any], kind: str, reason: str, signal: tuple[Any, ...]
) -> None:
    make(app)
    outcome = app.lose(kind, signum=15 if kind == "terminated" else None)
    assert outcome.state is State.CANCELLED
    stored = meta(outcome)
    assert (stored["status"], stored["result"]["exc_message"]) == ("REVOKED", [reason])
    assert told == [signal]
    assert outcome.follow_ups == ()


def test_used_up_deliveries_and_shutdowns(app: Offline) -> None:
    make(app, acks_late=True)
    assert app.lose("shutdown").state is State.AVAILABLE
    assert app.lose("worker_lost").state is State.FAILED


def test_an_unreadable_job_can_be_lost(app: Offline) -> None:
    app.engine.jobs.append(NewJob("i", "q", "t", b"garbage"))
    assert app.lose("child_lost").state is State.FAILED


# -- the tracer as others see it


def test_the_tracer_is_looked_up_on_the_module(
    app: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    @app.task(name="t")
    def t(x: int) -> int:
        return x

    t.delay(1)
    app.work()
    original = trace.build_tracer

    def build(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        tracer = original(name, task, *args, **kwargs)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, args[3]["id"], args[3].get("mine")))
            return tracer(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(trace, "build_tracer", build)
    t.apply_async((2,), headers={"mine": "header"})
    assert meta(app.work())["result"] == 2
    t.apply((3,), task_id="eager")
    assert calls == [("t", app.sent().id, "header"), ("t", "eager", None)]


def test_a_tracer_that_breaks_is_the_tasks_failure(
    app: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    def task() -> None: ...

    def build(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")

    task.delay()
    monkeypatch.setattr(trace, "build_tracer", build)
    assert meta(app.work())["result"]["exc_message"] == ["broken"]


def test_a_tracer_made_by_hand_stores_through_the_backend(app: Offline) -> None:
    @app.task(name="t")
    def t(x: int) -> int:
        if not x:
            raise ValueError
        return x

    tracer = trace.build_tracer("t", app.tasks["t"], app=app)
    retval, info, runtime, retstr = tracer("by-hand", (4,), {}, {"id": "by-hand"})
    assert (retval, info, retstr) == (4, None, "4")
    assert runtime >= 0
    retval, info, _, _ = tracer("fails", (0,), {}, {"id": "fails"})
    assert (info.state, "ValueError" in retval.traceback) == ("FAILURE", True)
    assert {id: meta["status"] for id, _, meta in app.engine.put} == {
        "by-hand": "SUCCESS", "fails": "FAILURE",
    }  # fmt: skip


def test_an_overridden_hook_is_seen_also_when_it_is_patched(
    app: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    def task() -> None: ...

    real = app.tasks[task.name]
    assert not trace.task_has_custom(real, "__call__")
    monkeypatch.setattr(Task, "__call__", lambda self, *a: None)
    assert trace.task_has_custom(real, "__call__")
