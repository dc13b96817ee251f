"""Celery's user guide, "Testing" and "Calling": tasks run in the caller, without a broker."""

from __future__ import annotations

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject, Retry
from observed import attempt, run

app = Celery("eager", broker="memory://", backend="cache+memory://")
app.conf.task_always_eager = True
calls = []


class Hooked(Task):
    def before_start(self, *args):
        calls.append("before_start")

    def on_success(self, *args):
        calls.append("on_success")

    def on_failure(self, *args):
        calls.append("on_failure")

    def on_retry(self, *args):
        calls.append("on_retry")

    def after_return(self, *args):
        calls.append("after_return")


@app.task(name="add")
def add(x, y=0):
    return x + y


@app.task(name="total")
def total(numbers):
    return sum(numbers)


@app.task(name="fail", base=Hooked)
def fail(text="no"):
    raise ValueError(text)


@app.task(name="again", bind=True, base=Hooked, max_retries=2)
def again(self, times):
    calls.append(self.request.retries)
    if self.request.retries < times:
        raise self.retry(exc=KeyError("later"), countdown=60)
    return self.request.retries


@app.task(name="typed", bind=True)
def typed(self, value):
    return [type(value).__name__, self.request.is_eager, self.request.called_directly]


@app.task(name="nested", bind=True)
def nested(self):
    return add.delay(1, 2).get()


@app.task(name="leave")
def leave(how):
    raise {"ignore": Ignore, "reject": Reject}[how]("reason")


@app.task(name="echo")
def echo(request, exc, traceback):
    calls.append([request.task, repr(exc)])


def facts(result):
    return [
        type(result).__name__,
        result.state,
        repr(result.result),
        result.ready(),
        result.successful(),
        result.failed(),
        bool(result.traceback),
        attempt(result.get),
    ]


def noted(call):
    """A call's facts, and what it left in `calls`."""
    calls.clear()
    found = attempt(lambda: facts(call()))
    return [found, list(calls)]


def case_success():
    return facts(add.delay(1, y=2))


def case_failure():
    return noted(fail.delay)


def case_failure_propagates():
    app.conf.task_eager_propagates = True
    try:
        return noted(fail.delay)
    finally:
        app.conf.task_eager_propagates = False


def case_failure_thrown():
    return noted(lambda: fail.apply(throw=True))


def case_failure_without_propagation():
    return repr(fail.delay().get(propagate=False))


def case_retry():
    return [noted(lambda: again.delay(2)), noted(lambda: again.delay(3))]


def case_retry_thrown():
    def escaping():
        try:
            again.apply((1,), throw=True)
        except Retry as exc:
            return ["escaped", str(exc), exc.when, repr(exc.exc)]

    return escaping()


def case_arguments_take_the_serializer():
    return [
        typed.delay((1, 2)).get(),
        typed.apply(((1, 2),)).get(),
        typed(b"bytes"),
        attempt(typed.delay, {1, 2})[:40],
    ]


def case_get_inside():
    return facts(nested.delay())


def case_ignore_and_reject():
    return [facts(leave.delay("ignore")), facts(leave.delay("reject"))]


def case_canvas():
    return [
        chain(add.s(1, 1), add.s(2), add.s(3))().get(),
        (add.s(1, 1) | add.si(5, 5)).apply_async().get(),
        group(add.s(i, i) for i in range(3))().get(),
        chord([add.s(i, 1) for i in range(3)])(total.s()).get(),
        (group(add.s(1), add.s(2)) | total.s() | add.s(10)).apply().get(),
        add.map([1, 2]).apply().get(),
        add.starmap([(1, 2), (3, 4)]).apply().get(),
        add.chunks([(1, 1), (2, 2), (3, 3)], 2).apply().get(),
    ]


def case_link():
    seen = []

    @app.task(name="keep")
    def keep(value):
        seen.append(value)

    add.apply_async((1, 1), link=keep.s())
    return seen


def case_link_error():
    return noted(lambda: fail.apply_async(link_error=echo.s()))


def case_wrong_arguments():
    return [attempt(add.delay), attempt(add.delay, 1, 2, 3), attempt(add.delay, z=1)]


def case_ids():
    result = add.apply_async((1,), task_id="mine")
    return [result.id, str(result), repr(result), result == add.apply_async((2,), task_id="mine")]


run(globals())
