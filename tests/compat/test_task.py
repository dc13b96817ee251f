from __future__ import annotations

import pickle
from typing import Any

import pytest

from pgcelery.compat import signals
from pgcelery.compat.app.options import FROM_CONFIG
from pgcelery.compat.app.request import Context
from pgcelery.compat.app.task import Task
from pgcelery.compat.exceptions import CDeprecationWarning, MaxRetriesExceededError
from tests.support.tasks import Offline, body, headers, meta


@pytest.fixture
def app() -> Offline:
    return Offline("tasks")


@pytest.mark.parametrize(("option", "setting"), FROM_CONFIG)
def test_an_option_follows_its_setting_until_the_task_sets_it(
    app: Offline, option: str, setting: str
) -> None:
    @app.task(**{option: None})
    def task() -> None: ...

    value = 5 if "limit" in option or option == "priority" else True
    app.conf[setting] = value
    assert getattr(task, option) == value
    setattr(task, option, 3)
    assert getattr(task, option) == 3


def test_acknowledging_failures_falls_back_on_the_older_option(app: Offline) -> None:
    @app.task(acks_on_failure_or_timeout=False)
    def task() -> None: ...

    assert (task.acks_on_failure, task.acks_on_timeout) == (False, False)


def test_defaults_are_celerys(app: Offline) -> None:
    @app.task
    def task() -> None: ...

    assert (task.max_retries, task.default_retry_delay, task.resultrepr_maxsize) == (3, 180, 1024)
    assert task.acks_on_failure is True
    assert task.serializer == "json"
    assert task.rate_limit is None
    assert task.ignore_result is False
    assert Task.MaxRetriesExceededError is MaxRetriesExceededError


def test_unknown_options_become_attributes(app: Offline) -> None:
    @app.task(colour="red")
    def task() -> None: ...

    assert task.colour == "red"


def test_routing_on_the_task_warns_but_works(app: Offline) -> None:
    @app.task(queue="slow")
    def task() -> None: ...

    with pytest.warns(CDeprecationWarning, match="'queue' task attribute"):
        app.finalize()
    task.delay()
    assert app.sent().queue == "slow"


def test_arguments_are_checked_when_called(app: Offline) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(typing=False)
    def loose(x: int) -> None: ...

    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        add.delay(1)
    loose.delay(1, 2)
    assert len(app.engine.jobs) == 1


def test_a_soft_limit_above_the_hard_one_is_refused(app: Offline) -> None:
    @app.task(soft_time_limit=2, time_limit=1)
    def task() -> None: ...

    with pytest.raises(
        ValueError, match="soft_time_limit must be less than or equal to time_limit"
    ):
        task.delay()


def test_called_as_a_function_it_is_one(app: Offline) -> None:
    @app.task(bind=True)
    def who(self: Task[..., Any], *args: int) -> tuple[Any, ...]:
        return self.request.called_directly, self.request.id, self.request.args, args

    assert who(1, 2) == (True, None, (1, 2), (1, 2))
    assert who.request.retries == 0


def test_an_overridden_call_is_used_once_with_the_request_in_place(app: Offline) -> None:
    calls: list[Any] = []

    class Base(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(self.request.id)
            return super().__call__(*args, **kwargs)

    @app.task(base=Base, bind=True)
    def task(self: Task[..., Any]) -> int:
        calls.append(self.request.id)
        return len(self.request_stack.stack)

    task.delay()
    outcome = app.work()
    assert calls == [outcome.id, outcome.id]
    assert meta(outcome)["result"] == 1


def test_pickles_by_name(app: Offline) -> None:
    app.set_current()

    @app.task(name="by.name")
    def task() -> None: ...

    app.finalize()
    assert pickle.loads(pickle.dumps(app.tasks["by.name"])) is app.tasks["by.name"]


def test_annotations_change_and_wrap(app: Offline) -> None:
    app.conf.task_annotations = {
        "*": {"rate_limit": "10/s"},
        "annotated": {"@__call__": lambda call: lambda self, *a: ("around", call(self, *a))},
    }

    @app.task(name="annotated")
    def task(x: int) -> int:
        return x

    assert task.rate_limit == "10/s"
    assert task(3) == ("around", 3)


def test_any_subscript_will_do_at_run_time() -> None:
    class Mine(Task[int, str]):  # type: ignore[type-arg]
        pass

    assert Mine.__mro__[1] is Task


def test_shadow_name_names_the_call(app: Offline) -> None:
    @app.task(shadow_name=lambda task, args, kwargs, options: f"shadow-{args[0]}")
    def task(x: int) -> None: ...

    task.delay(4)
    assert headers(app.sent())["shadow"] == "shadow-4"


def test_signatures_of_every_kind(app: Offline) -> None:
    @app.task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    assert add.s(1, y=2) == add.subtask((1,), {"y": 2})
    assert add.si(1).immutable
    assert [add.map([1]).task, add.starmap([(1, 2)]).task] == ["celery.map", "celery.starmap"]
    assert len(add.chunks(iter(range(10)), 4).group().tasks) == 3


def test_a_request_tells_the_applications_headers_from_celerys() -> None:
    request = Context(id="i", task="t", lang="py", tenant=3, timelimit=[5, 2])
    assert request.headers == {"tenant": 3}
    assert (request.tenant, request.time_limit, request.soft_time_limit) == (3, 5, 2)
    assert Context(id="i", task="t").headers is None
    assert request.get("nothing", "default") == "default"
    request.update(timelimit=None)
    assert request.time_limit is None


def test_a_request_repeats_its_call() -> None:
    stamped = Context(
        id="i", retries=2, timelimit=[9, 8], headers={"x-death": [], "mine": 1},
        stamped_headers=["s"], stamps={"s": 1, "t": 2},
    )  # fmt: skip
    options = stamped.as_execution_options()
    assert (options["task_id"], options["retries"], options["time_limit"]) == ("i", 2, 9)
    assert options["headers"] == {"mine": 1}
    assert (options["s"], "t" in options) == (1, False)


def test_pydantic_models_go_out_as_json_and_come_in_as_models(app: Offline) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Point(pydantic.BaseModel):
        x: int

    def double(point: Point, label: str = "") -> Point:
        assert isinstance(point, Point)
        return Point(x=point.x * 2)

    double.__annotations__ = {"point": Point, "label": str, "return": Point}
    task = app.task(pydantic=True)(double)
    task.delay(Point(x=3))
    assert body(app.sent())[0] == [{"x": 3}]
    assert meta(app.work())["result"] == {"x": 6}
    task.delay({"x": "no"})
    assert meta(app.work())["status"] == "FAILURE"


def test_update_state_stores_at_once(app: Offline) -> None:
    @app.task(bind=True)
    def task(self: Task[..., Any]) -> None:
        self.update_state(state="PROGRESS", meta={"done": 5})
        self.update_state("other", "LATER", 1)

    task.delay()
    app.work()
    (mine, _, first), (other, _, second) = app.engine.put
    assert (mine, first["status"], first["result"]) == (app.sent().id, "PROGRESS", {"done": 5})
    assert (other, second["status"]) == ("other", "LATER")


def test_what_a_task_sends_is_sent_at_once_and_is_its_child(app: Offline) -> None:
    @app.task(name="child")
    def child() -> None: ...

    sent_before_end: list[int] = []

    @app.task(name="parent")
    def parent() -> None:
        child.delay()
        child.apply_async(add_to_parent=False)
        sent_before_end.append(len(app.engine.jobs))

    parent.delay()
    parent_job = app.sent()
    outcome = app.work()
    assert sent_before_end == [3]
    assert headers(app.sent())["parent_id"] == parent_job.id
    assert headers(app.sent())["root_id"] == parent_job.id
    (only,) = meta(outcome)["children"]
    assert only == [[app.engine.jobs[1].id, None], None]


def test_an_overridden_apply_async_is_called_for_links(app: Offline) -> None:
    seen: list[Any] = []

    class Base(Task[..., Any]):
        def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            seen.append(args)
            return super().apply_async(args, kwargs, **options)

    @app.task(base=Base)
    def log(x: int) -> None: ...

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    add.apply_async((1, 2), link=log.s())
    outcome = app.work()
    assert seen == [(3,)]
    assert [job.name for job in outcome.follow_ups] == [log.name]
    assert len(app.engine.jobs) == 1


def test_requests_are_told_apart_by_thread_and_depth(app: Offline) -> None:
    @app.task(bind=True)
    def outer(self: Task[..., Any], depth: int) -> list[Any]:
        if depth == 0:
            return [self.request.id]
        inner = outer.apply((depth - 1,)).get(disable_sync_subtasks=False)
        return [self.request.id, *inner]

    ids = outer.apply((2,), task_id="top").get()
    assert ids[0] == "top"
    assert len(set(ids)) == 3
    assert outer.request.id is None


def test_signals_of_a_run_come_in_celerys_order(app: Offline) -> None:
    order: list[str] = []

    class Base(Task[..., Any]):
        def before_start(self, *args: Any) -> None:
            order.append("before_start")

        def on_success(self, *args: Any) -> None:
            order.append("on_success")

        def after_return(self, *args: Any) -> None:
            order.append("after_return")

    @app.task(base=Base)
    def task() -> None:
        order.append("run")

    names = ("task_prerun", "task_postrun", "task_success")
    receivers = {name: (lambda name=name, **kw: order.append(name)) for name in names}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, sender=app.tasks[task.name])
    task.delay()
    app.work()
    assert order == [
        "task_prerun", "before_start", "run", "on_success", "task_success", "after_return",
        "task_postrun",
    ]  # fmt: skip
