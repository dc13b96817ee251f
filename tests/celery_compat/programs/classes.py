"""Celery's user guide, "Tasks": names, base classes, options, binding, direct calls."""

from __future__ import annotations

import inspect
import pickle

from celery import Celery, Task, current_app, current_task, shared_task
from celery.exceptions import NotRegistered
from observed import attempt, run

app = Celery("classes", broker="memory://", backend="cache+memory://")


class Base(Task):
    abstract = True
    max_retries = 7
    made = 0

    def __init__(self):
        type(self).made += 1

    def helper(self):
        return "helped"


class Calling(Task):
    def __call__(self, *args, **kwargs):
        return ["called", self.run(*args, **kwargs)]


class Report(Task):
    name = "report"
    ignore_result = True

    def run(self, x):
        return [self.name, x]


@app.task
def plain(x: int, y: int = 2) -> int:
    """Add."""
    return x + y


@app.task(bind=True, base=Base, name="named", queue="q", rate_limit="3/m", time_limit=9)
def bound(self, x):
    return [self.name, self.helper(), self.request.called_directly, self.request.id, x]


@app.task(base=Calling)
def wrapped(x):
    return x


@shared_task(name="shared", max_retries=1)
def shared():
    return current_app.main


def case_names():
    return [plain.name, bound.name, wrapped.name, shared.name, app.gen_task_name("f", "m")]


def case_function():
    return [
        plain.__name__,
        plain.__doc__,
        str(inspect.signature(plain)),
        plain.__wrapped__(1, 2),
        plain(3),
        repr(plain).split(" at ")[0].split(" of ")[0],
    ]


def case_module():
    return plain.__module__


def case_options():
    names = [
        "max_retries",
        "default_retry_delay",
        "rate_limit",
        "time_limit",
        "soft_time_limit",
        "ignore_result",
        "acks_late",
        "queue",
        "serializer",
        "track_started",
        "throws",
        "typing",
        "priority",
        "expires",
        "resultrepr_maxsize",
        "store_errors_even_if_ignored",
        "acks_on_failure_or_timeout",
        "reject_on_worker_lost",
        "abstract",
    ]
    return {task.name: {n: getattr(task, n, "-") for n in names} for task in (plain, bound, shared)}


def case_bound():
    return [bound(5), bound.__class__.made, isinstance(bound, Base), bound.app.main]


def case_call_override():
    return [wrapped(4), wrapped.apply((4,)).get()]


def case_class_based():
    task = app.register_task(Report())
    return [task.name, task(1), app.tasks["report"] is task, task.ignore_result]


def case_registry():
    return [
        "named" in app.tasks,
        attempt(lambda: app.tasks["missing"]),
        issubclass(NotRegistered, KeyError),
        sorted(n for n in app.tasks.regular()),
        sorted(app.tasks.filter_types("regular")) == sorted(app.tasks.regular()),
        app.tasks.unregister("report"),
        "report" in app.tasks,
    ]


def case_shared():
    other = Celery("other", set_as_current=False)
    return ["shared" in app.tasks, "shared" in other.tasks, shared(), shared.app.main]


def case_current_task():
    seen = []

    @app.task(bind=True, name="looks")
    def looks(self):
        seen.append([current_task.name, current_task.request.id == self.request.id])

    before = bool(current_task)
    looks.apply()
    return [before, seen, bool(current_task)]


def case_request_outside():
    request = plain.request
    return [request.id, request.retries, request.called_directly, request.is_eager, request.args]


def case_retry_outside():
    return attempt(bound.retry, exc=ValueError("direct"))


def case_lazy_and_pickled():
    return [pickle.loads(pickle.dumps(plain)).name, plain == app.tasks[plain.name]]


def case_update_state_without_id():
    return type(attempt(plain.update_state, state="X")).__name__


def case_decorator_forms():
    @app.task()
    def called():
        return 1

    again = app.task(name="named")(lambda: 3)
    return [called(), again is app.tasks["named"], attempt(app.task, 1, 2)]


run(globals())
