"""Celery's user guide, "Tasks", "Signals", "Testing": a worker in a thread of this process."""

from __future__ import annotations

import threading

from celery import Celery, chain, group, signals
from celery.contrib.testing.worker import start_worker
from celery.exceptions import Ignore
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult, GroupResult, ResultSet, allow_join_result, result_from_tuple
from observed import attempt, run

app = Celery("threaded", broker="memory://", backend="cache+memory://")
app.conf.task_track_started = True
app.conf.broker_transport_options = {"polling_interval": 0.01}
app.conf.broker_connection_retry_on_startup = True
events = []
lock = threading.Lock()
WAIT = 20  # seconds at most; results are looked for often, or Celery takes half a second each


def note(*what):
    with lock:
        events.append(list(what))


@app.task(name="add")
def add(x, y=0):
    note("run", "add")
    return x + y


@app.task(name="fail", bind=True, throws=(KeyError,))
def fail(self, expected=False):
    raise KeyError("expected") if expected else ValueError("unexpected", 3)


@app.task(name="again", bind=True, max_retries=3, default_retry_delay=0.01)
def again(self, times, exc=None):
    note("attempt", self.request.retries)
    if self.request.retries < times:
        raise self.retry(exc=RuntimeError(exc) if exc else None, countdown=0.01)
    return self.request.retries


@app.task(
    name="autoretried", autoretry_for=(OSError,), retry_kwargs={"max_retries": 2, "countdown": 0}
)
def autoretried(text):
    note("attempt", text)
    raise OSError(text)


@app.task(name="waiting", bind=True)
def waiting(self, how):
    if how == "allowed":
        with allow_join_result():
            return "allowed"
    return add.delay(1).get(timeout=1, interval=0.02)


@app.task(name="state", bind=True)
def state(self):
    self.update_state(state="CUSTOM", meta={"k": [1, 2]})
    return AsyncResult(self.request.id, app=app).info


@app.task(name="ignore", bind=True)
def ignore(self):
    self.update_state(state="LEFT", meta="as it was")
    raise Ignore


@app.task(name="many", bind=True)
def many(self):
    with self.app.producer_or_acquire() as producer:
        return producer is not None


def connect():
    def on(signal, name, *fields):
        def receiver(sender=None, **kwargs):
            who = getattr(sender, "name", sender)
            with_fields = [repr(kwargs.get(f)) for f in fields]
            note(name, who if isinstance(who, str) else type(who).__name__, *with_fields)

        signal.connect(receiver, weak=False)

    on(signals.before_task_publish, "before_task_publish", "routing_key")
    on(signals.after_task_publish, "after_task_publish", "routing_key")
    on(signals.task_prerun, "task_prerun", "args", "kwargs")
    on(signals.task_postrun, "task_postrun", "state", "retval")
    on(signals.task_success, "task_success", "result")
    on(signals.task_failure, "task_failure", "exception")
    on(signals.task_retry, "task_retry", "reason")


def noted(call):
    """What a call returned or raised, then what was sent, then what ran."""
    with lock:
        events.clear()
    found = attempt(call)
    # The solo pool runs in order: then the postrun is over.
    add.delay(0).get(timeout=WAIT, interval=0.02)
    with lock:
        # sorted: the worker may publish a retry before the caller hears that its call is published
        sent = sorted(e for e in events if "publish" in e[0] and "add" not in e)
        ran = [e for e in events if "publish" not in e[0] and "add" not in e]
    return [found, sent, ran]


def outcome(result):
    value = attempt(result.get, timeout=WAIT, interval=0.02)
    return [value, result.state, repr(result.result), result.retries]


def case_success():
    return outcome(add.delay(1, y=2))


def case_failures():
    return [noted(lambda: outcome(fail.delay())), noted(lambda: outcome(fail.delay(True)))]


def case_retries():
    return [
        noted(lambda: outcome(again.delay(2))),
        noted(lambda: outcome(again.delay(9))),
        noted(lambda: outcome(again.delay(9, "mine"))),
        noted(lambda: outcome(autoretried.delay("os"))),
    ]


def case_states():
    left = ignore.delay()
    return [
        outcome(state.delay()),
        outcome(add.delay(1)),
        [left.state, left.info],
        attempt(AsyncResult("unknown", app=app).get, timeout=0.1).split(":")[0],
        issubclass(ResultTimeout, Exception),
    ]


def case_get_inside():
    return [outcome(waiting.delay("denied"))[:2], outcome(waiting.delay("allowed"))]


def case_results():
    result = add.delay(1)
    result.get(timeout=WAIT, interval=0.02)
    twin = AsyncResult(result.id, app=app)
    return [
        result == twin,
        hash(result) == hash(twin),
        str(result) == result.id,
        repr(result) == f"<AsyncResult: {result.id}>",
        result.as_tuple() == ((result.id, None), None),
        result_from_tuple(result.as_tuple(), app=app) == result,
        result.get(callback=lambda i, value: note("callback", value)),
        list(result.collect()) == [(result, 1)],
        result.graph is not None,
        result.forget(),
        twin.state,
    ]


def case_sets():
    results = [add.delay(i) for i in range(3)]
    together = ResultSet(results, app=app)
    values = together.join(timeout=WAIT, interval=0.02)
    found = [values, together.successful(), together.completed_count()]
    extra = add.delay(3)
    together.add(extra)
    found += [len(together), together.get(timeout=WAIT, interval=0.02), extra in together]
    together.remove(extra)
    found += [len(together), sorted(meta["result"] for _, meta in together.iter_native())]
    return found


def case_groups():
    result = group(add.s(i) for i in range(3))()
    values = result.get(timeout=WAIT, interval=0.02)
    result.save()
    restored = GroupResult.restore(result.id, app=app)
    found = [values, restored == result, result[0].get(), len(result.children), bool(result)]
    result.delete()
    return [*found, GroupResult.restore(result.id, app=app)]


def case_chain():
    result = chain(add.s(1), add.s(2), add.s(3))()
    value = result.get(timeout=WAIT, interval=0.02)
    return [value, result.parent.get(), result.parent.parent.get(), result.parent.parent.parent]


def case_pool_of_producers():
    return outcome(many.delay())[:2]


def case_inspect():
    ping = app.control.ping(timeout=2)
    return [len(ping), [list(reply.values()) for reply in ping]]


app.finalize()
connect()
with start_worker(app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
    run(globals())
