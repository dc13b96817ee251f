from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from kombu.exceptions import EncodeError

from pgcelery.compat import states
from pgcelery.compat.app.task import Task
from pgcelery.compat.exceptions import AlwaysEagerIgnored, Ignore, Reject, Retry
from pgcelery.compat.result import EagerResult
from tests.support.tasks import Offline


@pytest.fixture
def app() -> Offline:
    return Offline("eager")


@pytest.fixture
def always(app: Offline) -> Offline:
    app.conf.task_always_eager = True
    return app


def test_apply_runs_here(app: Offline) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any], x: int, y: int = 0) -> tuple[Any, ...]:
        request = self.request
        return x + y, request.is_eager, request.called_directly, request.root_id

    result = task.apply((1,), {"y": 2}, task_id="mine")
    assert isinstance(result, EagerResult)
    assert (result.id, result.get()) == ("mine", (3, True, False, "mine"))
    assert app.engine.jobs == app.engine.put == []


def test_a_failure_is_in_the_result(app: Offline) -> None:
    @app.task
    def task() -> None:
        raise ValueError("mine")

    result = task.apply()
    assert result.state == states.FAILURE
    assert isinstance(result.result, ValueError)
    assert 'raise ValueError("mine")' in result.traceback
    with pytest.raises(ValueError, match="mine"):
        result.get()
    with pytest.raises(ValueError, match="mine"):
        task.apply(throw=True)
    app.conf.task_eager_propagates = True
    with pytest.raises(ValueError, match="mine"):
        task.apply()


def test_retries_run_at_once(app: Offline) -> None:
    @app.task(bind=True, max_retries=3)
    def task(self: Task[..., Any], fail_times: int) -> int:
        if self.request.retries < fail_times:
            self.retry(exc=OSError("down"), countdown=1000)
        return self.request.retries

    assert task.apply((3,)).get() == 3
    exhausted = task.apply((4,))
    assert (exhausted.state, type(exhausted.result)) == (states.FAILURE, OSError)
    with pytest.raises(Retry):
        task.apply((1,), throw=True)


@pytest.mark.parametrize(
    ("raised", "state"), [(Ignore(), states.IGNORED), (Reject("r"), states.REJECTED)]
)
def test_ignored_and_rejected_are_states_of_eager_results(
    app: Offline, raised: Exception, state: str
) -> None:
    @app.task
    def task() -> None:
        raise raised

    result = task.apply()
    assert result.state == state
    assert result.get() is None


def test_what_ends_the_interpreter_is_not_caught(app: Offline) -> None:
    @app.task
    def task() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        task.apply()


def test_an_inner_call_has_the_outer_one_as_its_parent(app: Offline) -> None:
    @app.task(bind=True)
    def inner(self: Task[..., Any]) -> tuple[Any, ...]:
        return self.request.parent_id, self.request.root_id

    @app.task
    def outer() -> Any:
        return inner.apply().get(disable_sync_subtasks=False)

    assert outer.apply(task_id="top").get() == ("top", "top")


def test_links_and_error_links_are_followed(always: Offline) -> None:
    seen: list[Any] = []

    @always.task
    def task(fail: bool) -> str:
        if fail:
            raise KeyError("k")
        return "value"

    @always.task
    def link(value: Any) -> None:
        seen.append(value)

    @always.task
    def old_errback(task_id: str) -> None:
        seen.append(task_id)

    @always.task
    def new_errback(request: Any, exc: Any, traceback: str) -> None:
        seen.append((request.id, type(exc), "KeyError" in traceback))

    links = {"link": link.s(), "link_error": [old_errback.s(), new_errback.s()]}
    task.apply_async((False,), task_id="good", **links)
    task.apply_async((True,), task_id="bad", **links)
    assert seen == ["value", ("bad", KeyError, True), "bad"]


def test_always_eager_sends_arguments_through_the_serializer(always: Offline) -> None:
    @always.task
    def task(*args: Any) -> list[Any]:
        return [type(arg) for arg in args]

    when = datetime(2024, 1, 1, tzinfo=UTC)
    assert task.delay((1, 2), when, {3: 4}).get() == [list, datetime, dict]
    with pytest.raises(EncodeError):
        task.delay(object())
    assert always.engine.jobs == []


def test_waiting_inside_an_eager_task_is_refused(always: Offline) -> None:
    @always.task
    def inner() -> int:
        return 1

    @always.task
    def outer() -> Any:
        return inner.delay().get()

    with pytest.raises(RuntimeError, match=r"Never call result\.get"):
        outer.delay().get()


def test_eager_results_are_stored_if_asked(app: Offline) -> None:
    @app.task(store_eager_result=True)
    def task(fail: bool) -> int:
        if fail:
            raise ValueError
        return 5

    task.apply((False,), task_id="good")
    task.apply((True,), task_id="bad")
    stored = {id: meta["status"] for id, _, meta in app.engine.put}
    assert stored == {"good": "SUCCESS", "bad": "FAILURE"}
    task.apply((False,), task_id="ignored", ignore_result=True)
    assert len(app.engine.put) == 2


def test_send_task_does_not_run_here(always: Offline) -> None:
    with pytest.warns(AlwaysEagerIgnored):
        always.send_task("remote")
    assert always.sent().name == "remote"


def test_a_hook_that_raises_is_raised(app: Offline) -> None:
    class Base(Task[..., Any]):
        def on_success(self, *args: Any) -> None:
            raise LookupError("hook")

    @app.task(base=Base)
    def task() -> None: ...

    with pytest.raises(LookupError, match="hook"):
        task.apply()


def test_replace_runs_the_other_in_place(app: Offline) -> None:
    @app.task
    def other(x: int) -> int:
        return x * 2

    @app.task(bind=True)
    def task(self: Task[..., Any]) -> Any:
        return self.replace(other.s(4))

    assert task.apply().get() == 8
