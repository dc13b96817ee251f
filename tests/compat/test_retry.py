from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from pgcelery.compat import signals
from pgcelery.compat.app.task import Task
from pgcelery.compat.exceptions import Ignore, Reject, Retry
from pgcelery.engine import NewJob, State
from tests.support.tasks import Offline, body, headers, meta


@pytest.fixture
def app() -> Offline:
    return Offline("retries")


def next_run(job: NewJob, outcome: Any) -> NewJob:
    """The job as the engine keeps it after a retry."""
    return job._replace(payload=outcome.payload, queue=outcome.queue)


def test_a_retry_is_the_same_job_with_another_message(app: Offline) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any], x: int) -> None:
        raise self.retry(exc=ValueError("no"), countdown=9)

    task.apply_async(
        (1,),
        headers={"mine": 1},
        priority=7,
        queue="q",
        expires=60,
        time_limit=30,
        soft_time_limit=20,
    )
    job = app.sent()
    outcome = app.work()
    assert (outcome.id, outcome.state, outcome.delay_s) == (job.id, State.RETRYABLE, 9.0)
    assert (outcome.queue, outcome.priority, len(app.engine.jobs)) == ("q", 2, 1)
    before, after = headers(job), headers(next_run(job, outcome))
    assert (after["id"], after["retries"], after["mine"]) == (job.id, 1, 1)
    assert after["expires"] == before["expires"]
    assert after["timelimit"] == before["timelimit"] == [30, 20]
    stored = meta(outcome)
    assert (stored["status"], stored["result"]["exc_type"]) == ("RETRY", "ValueError")
    assert "ValueError" in stored["traceback"]


def test_links_chain_and_stamps_survive_a_retry(app: Offline) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any]) -> None:
        self.retry()

    @app.task
    def other() -> None: ...

    task.s().stamp(mine="stamp").set(link=[other.s()], link_error=[other.s()]).apply_async(
        chain=[other.s().set(task_id="later")]
    )
    job = app.sent()
    outcome = app.work()
    assert body(next_run(job, outcome))[2] == body(job)[2]
    assert headers(next_run(job, outcome))["stamps"] == {"mine": "stamp"}
    assert outcome.follow_ups == ()


@pytest.mark.parametrize(
    ("given", "raised"),
    [
        ({}, "MaxRetriesExceededError"),
        ({"exc": KeyError("mine")}, "KeyError"),
    ],
)
def test_after_max_retries_it_fails(app: Offline, given: dict[str, Any], raised: str) -> None:
    @app.task(bind=True, max_retries=2)
    def task(self: Task[..., Any]) -> None:
        self.retry(countdown=0, **given)

    task.delay()
    job = app.sent()
    for _ in range(2):
        outcome = app.work(job)
        assert outcome.state is State.RETRYABLE
        job = next_run(job, outcome)
    outcome = app.work(job)
    assert outcome.state is State.FAILED
    assert meta(outcome)["result"]["exc_type"] == raised


def test_the_exception_being_handled_is_what_fails(app: Offline) -> None:
    @app.task(bind=True, max_retries=0)
    def task(self: Task[..., Any]) -> None:
        try:
            raise OSError("cause")
        except OSError as exc:
            self.retry(exc=exc)

    task.delay()
    assert meta(app.work())["result"]["exc_type"] == "OSError"


def test_only_none_on_the_task_is_without_end(app: Offline) -> None:
    @app.task(bind=True, max_retries=None)
    def task(self: Task[..., Any]) -> None:
        self.retry(countdown=1)

    task.apply_async(retries=1000)
    assert app.work().state is State.RETRYABLE


def test_countdown_beats_eta_and_the_default_delay_is_the_tasks(app: Offline) -> None:
    @app.task(bind=True, default_retry_delay=44)
    def task(self: Task[..., Any], **how: Any) -> None:
        self.retry(**how)

    task.delay()
    assert app.work().delay_s == 44
    task.delay(countdown=3, eta="2999-01-01T00:00:00+00:00")
    assert app.work().delay_s == 3
    task.delay(eta="2999-01-01T00:00:00+00:00")
    outcome = app.work()
    assert outcome.delay_s is None
    assert outcome.due_at is not None
    assert outcome.due_at.year == 2999


@pytest.mark.parametrize("how", ["throw", "caught"])
def test_a_retry_that_was_asked_for_happens_whatever_the_body_does(app: Offline, how: str) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any]) -> str:
        with suppress(Retry):
            self.retry(exc=ValueError("why"), throw=how == "caught")
        return "returned"

    @app.task
    def link(x: Any) -> None: ...

    task.apply_async(link=link.s())
    outcome = app.work()
    assert outcome.state is State.RETRYABLE
    assert meta(outcome)["result"]["exc_type"] == "ValueError"
    assert outcome.follow_ups == ()


def test_new_arguments_replace_old_ones_without_doubling(app: Offline) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any], x: int, y: int = 0, z: int = 0) -> None:
        self.retry(**self.request.headers["how"])

    def retried(args: Any, kwargs: Any, how: Any) -> list[Any]:
        task.apply_async(args, kwargs, headers={"how": how})
        return body(next_run(app.sent(), app.work()))[:2]

    assert retried((1,), {"y": 2}, {"args": (8, 9)}) == [[8, 9], {}]
    assert retried((1, 2), {"z": 3}, {"kwargs": {"y": 9}}) == [[1, 9], {}]
    assert retried((1,), {}, {"kwargs": {"x": 5}}) == [[5], {}]


def test_called_directly_it_raises_what_was_there(app: Offline) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any], with_error: bool) -> None:
        if with_error:
            try:
                raise KeyError("original")
            except KeyError as exc:
                self.retry(exc=exc)
        self.retry()

    with pytest.raises(KeyError):
        task(True)
    with pytest.raises(Retry, match="Task can be retried"):
        task(False)


def test_a_retry_that_cannot_be_sent_rejects_the_task(app: Offline) -> None:
    @app.task(bind=True, acks_late=True)
    def task(self: Task[..., Any]) -> None:
        self.retry(args=(object(),), kwargs={})

    task.__header__ = lambda *a, **k: None
    task.delay()
    outcome = app.work()
    assert outcome.state is State.FAILED
    assert meta(outcome)["result"]["exc_type"] == "Reject"


def test_a_bare_retry_fails_rather_than_waits_for_ever(app: Offline) -> None:
    @app.task
    def task() -> None:
        raise Retry("by hand")

    task.delay()
    assert app.work().state is State.FAILED


def test_hooks_and_signals_of_a_retry(app: Offline) -> None:
    heard: list[Any] = []

    class Base(Task[..., Any]):
        def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            heard.append(("on_retry", type(exc)))

        def after_return(self, *args: Any) -> None:
            heard.append("after_return")

    @app.task(base=Base, bind=True)
    def task(self: Task[..., Any]) -> None:
        self.retry(exc=ValueError("x"), countdown=1)

    def on_signal(request: Any, reason: Retry, einfo: Any, **kwargs: Any) -> None:
        heard.append((request.id, str(reason), "Traceback" in einfo.traceback))

    def on_postrun(state: str, **kwargs: Any) -> None:
        heard.append(state)

    sender = app.tasks[task.name]
    signals.task_retry.connect(on_signal, sender=sender)
    signals.task_postrun.connect(on_postrun, sender=sender)
    task.delay()
    app.work()
    text = "Retry in 1s: ValueError('x')"
    assert heard == [("on_retry", ValueError), (app.sent().id, text, True), "RETRY"]


def test_autoretry_waits_longer_each_time(app: Offline) -> None:
    @app.task(
        autoretry_for=(OSError,), retry_backoff=0.5, retry_jitter=False, retry_backoff_max=5,
        max_retries=9,
    )  # fmt: skip
    def task() -> None:
        raise ConnectionError("down")

    delays = []
    task.delay()
    job = app.sent()
    for _ in range(5):
        outcome = app.work(job)
        delays.append(outcome.delay_s)
        job = next_run(job, outcome)
    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_autoretry_with_jitter_may_not_wait_at_all(app: Offline) -> None:
    @app.task(autoretry_for=(OSError,), retry_backoff=8)
    def task() -> None:
        raise OSError

    delays = set()
    for _ in range(60):
        task.delay()
        delays.add(app.work().delay_s)
    assert delays <= {None, *map(float, range(9))}
    assert len(delays) > 3


def test_autoretry_leaves_some_exceptions_alone(app: Offline) -> None:
    @app.task(autoretry_for=(Exception,), dont_autoretry_for=(KeyError,))
    def task(which: int) -> None:
        raise (KeyError("k"), Ignore(), ValueError("v"))[which]

    task.delay(0)
    assert meta(app.work())["result"]["exc_type"] == "KeyError"
    task.delay(1)
    assert app.work().result is None
    task.delay(2)
    assert app.work().state is State.RETRYABLE


def test_autoretry_of_a_class_with_attributes(app: Offline) -> None:
    class Mine(Task[..., Any]):
        name = "mine"
        autoretry_for = (ValueError,)
        retry_kwargs = {"max_retries": 1, "countdown": 0}  # noqa: RUF012

        def run(self) -> None:
            raise ValueError("v")

    app.register_task(Mine())
    app.tasks["mine"].delay()
    outcome = app.work()
    assert outcome.state is State.RETRYABLE
    assert app.work(next_run(app.sent(), outcome)).state is State.FAILED


def test_reject_is_not_autoretried_unless_it_matches(app: Offline) -> None:
    @app.task(autoretry_for=(ValueError,), acks_late=True)
    def task() -> None:
        raise Reject("no", requeue=False)

    task.delay()
    assert app.work().state is State.FAILED
