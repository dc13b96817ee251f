"""Chains whose steps wait in the database: what their tasks see of them, and can do to them."""

from __future__ import annotations

import psycopg
import pytest
from kombu.exceptions import EncodeError

from pgcelery.compat.canvas import chain, chord, group
from pgcelery.compat.exceptions import ChordError, Ignore, TaskRevokedError
from tests.support.wait import wait_for

T = 20

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def seen():
    return []


@pytest.fixture
def tasks(app, seen):
    @app.task(shared=False, name="p.look", bind=True)
    def look(self, *args):
        rest = [app.signature(step) for step in self.request.chain or ()]
        seen.append((self.request.id, [str(step.options.get("task_id")) for step in rest]))
        return len(rest)

    @app.task(shared=False, name="p.stop", bind=True)
    def stop(self, *args):
        self.request.chain = None
        return "stopped"

    @app.task(shared=False, name="p.skip", bind=True)
    def skip(self, *args):
        self.request.chain.pop()
        return 5

    @app.task(shared=False, name="p.add_one_more", bind=True)
    def add_one_more(self, x):
        self.request.chain.append(dict(app.tasks["t.add"].s(100)))
        return x

    @app.task(shared=False, name="p.again", bind=True, default_retry_delay=0)
    def again(self, x):
        if not self.request.retries:
            raise self.retry(countdown=0)
        return x + 1

    @app.task(shared=False, name="p.become", bind=True)
    def become(self, x, what):
        raise self.replace(app.signature(what))

    @app.task(shared=False, name="p.ignore")
    def ignore(*args):
        raise Ignore

    @app.task(shared=False, name="p.note")
    def note(*args):
        seen.append(args)
        return args

    return app.tasks


def rows(dsn, table):
    with psycopg.connect(dsn) as conn:
        return conn.execute(f"select count(*) from pgcelery.{table}").fetchone()[0]  # noqa: S608


def parents_of(result):
    while result is not None:
        yield result
        result = result.parent


def test_all_steps_are_there_before_the_first_one_runs(app, tasks, dsn, worker):
    app.control.cancel_consumer("celery", reply=True)
    result = (tasks["t.add"].s(1, 2) | tasks["t.add"].s(3) | tasks["t.add"].s(4)).apply_async()
    assert rows(dsn, "jobs") == 3
    assert rows(dsn, "nodes") == 2
    app.control.add_consumer("celery", reply=True)
    assert result.get(timeout=T) == 10
    assert rows(dsn, "nodes") == rows(dsn, "edges") == 0


def test_of_a_canvas_with_a_part_that_cannot_be_sent_nothing_is(tasks, dsn):
    add, tsum = tasks["t.add"], tasks["t.tsum"]
    for canvas in (
        add.s(1, 1) | add.s(object()) | add.s(1),
        add.s(1, 1) | add.s(1).set(countdown="soon"),
        group(add.s(1, 1), add.s(1, object())),
        chord([add.s(1, 1), add.s(1, 1)], tsum.s(object())),
    ):
        with pytest.raises((EncodeError, TypeError)):
            canvas.apply_async()
    assert rows(dsn, "jobs") == rows(dsn, "edges") == rows(dsn, "nodes") == 0


def test_a_task_sees_the_rest_of_its_chain(tasks, seen):
    look = tasks["p.look"]
    result = chain(look.s() for _ in range(4)).apply_async()
    assert result.get(timeout=T) == 0
    ids = [one.id for one in parents_of(result)][::-1]
    assert seen == [(ids[k], [*reversed(ids[k + 1 :])]) for k in range(4)]


def test_each_step_is_a_child_of_the_one_before(tasks):
    add = tasks["t.add"]
    result = (
        add.s(1, 1) | add.s(2) | group(add.s(3), add.s(4)) | tasks["t.tsum"].s()
    ).apply_async()
    assert result.get(timeout=T) == 15
    *_, second, first = parents_of(result)
    (child,) = first.children
    assert child.id == second.id
    (header,) = second.children
    assert [one.get(timeout=T) for one in header.results] == [7, 8]
    assert [value for _, value in first.collect()][:2] == [2, 4]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_body_that_clears_its_chain_ends_it(app, tasks, seen, dsn, place):
    note = tasks["p.note"]
    steps = [note.si(k) for k in range(4)]
    steps[place] = tasks["p.stop"].si()
    result = chain(steps).apply_async()
    results = [*parents_of(result)][::-1]
    assert results[place].get(timeout=T) == "stopped"
    assert seen == [(k,) for k in range(place)]
    assert [one.state for one in results[place + 1 :]] == ["PENDING"] * (3 - place)
    assert not results[place].children
    assert rows(dsn, "nodes") == rows(dsn, "edges") == rows(dsn, "ready") == 0
    assert rows(dsn, "jobs") == place + 1


def test_a_body_may_leave_out_a_step(tasks):
    add = tasks["t.add"]
    result = (tasks["p.skip"].s() | add.s(1) | add.s(10) | add.s(100)).apply_async()
    assert result.get(timeout=T) == 115
    assert result.parent.parent.state == "PENDING"


def test_a_body_may_put_a_step_in(tasks):
    add = tasks["t.add"]
    result = (add.s(1, 1) | tasks["p.add_one_more"].s() | add.s(10)).apply_async()
    assert result.get(timeout=T) == 112


def test_a_header_whose_chain_is_cleared_fails_its_chord(tasks, dsn):
    add = tasks["t.add"]
    header = [add.s(1, 1), tasks["p.stop"].s() | add.s(1)]
    result = chord(header, tasks["t.tsum"].s()).apply_async()
    with pytest.raises(ChordError, match="no longer exists"):
        result.get(timeout=T)
    assert rows(dsn, "nodes") == rows(dsn, "edges") == 0


def test_a_retried_step_is_still_waited_for(tasks):
    again, add = tasks["p.again"], tasks["t.add"]
    assert (again.s(1) | again.s() | add.s(5) | again.s()).apply_async().get(timeout=T) == 9


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["task", "chain", "chord", "group"])
def test_a_replaced_step_is_still_waited_for_and_has_the_rest_of_the_chain(
    app, tasks, seen, kind, place
):
    add, look = tasks["t.add"], tasks["p.look"]
    what = {
        "task": add.si(1, 1),
        "chain": add.si(1, 1) | add.s(0),
        "chord": chord([add.si(1, 0), add.si(1, 0)], tasks["t.tsum"].s()),
        "group": group(add.si(2, 0)),
    }[kind]
    steps = [look.s() for _ in range(4)]
    steps[place] = tasks["p.become"].s(*([0] if not place else []), what)
    steps.append(add.si(5, 5))
    result = chain(steps).apply_async()
    assert result.get(timeout=T) == 10
    results = [*parents_of(result)][::-1]
    assert results[place].get() == ([2] if kind == "group" else 2)
    assert results[place + 1].id in [child.id for child in results[place].children]
    ids = [one.id for one in results]
    others = [k for k in range(4) if k != place]
    assert seen == [(ids[k], [*reversed(ids[k + 1 :])]) for k in others]


def test_what_an_ignored_step_returns_goes_to_the_next_one_only(tasks, dsn):
    quiet, add = tasks["t.quiet"], tasks["t.add"]
    result = (quiet.s(4) | quiet.s() | add.s(1)).apply_async()
    assert result.get(timeout=T) == 5
    assert result.parent.state == result.parent.parent.state == "PENDING"
    assert result.parent.result is None


def test_after_a_step_that_ignores_itself_nothing_runs(tasks, seen, dsn):
    result = (tasks["p.ignore"].s() | tasks["p.note"].s() | tasks["p.note"].s()).apply_async()
    wait_for(lambda: rows(dsn, "results") == 3)
    assert [one.state for one in parents_of(result)] == ["PENDING"] * 3
    assert seen == []


def test_after_a_failure_all_later_steps_fail_with_it_and_error_links_are_called_once(
    app, tasks, seen
):
    add, note = tasks["t.add"], tasks["p.note"]

    @app.task(shared=False, name="p.tell")
    def tell(task_id):
        seen.append(("told", task_id))

    canvas = tasks["t.fail"].s() | group(note.s(), note.s()) | note.s() | add.s(1)
    result = canvas.apply_async(link_error=tell.s())
    *_, header, first = parents_of(result)
    for one in (first, *header.results, *[r for r in parents_of(result) if r not in (header,)]):
        with pytest.raises(ValueError, match="boom"):
            one.get(timeout=T)
    wait_for(lambda: len(seen) == 1)
    assert seen == [("told", first.id)]


def test_after_a_revoked_step_nothing_waits_for_ever(app, tasks, seen):
    result = (tasks["p.note"].si(1).set(countdown=60) | tasks["p.note"].si(2)).apply_async()
    result.parent.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=T)
    assert seen == []


def test_a_step_expires_counted_from_the_end_of_the_one_before(app, tasks, seen):
    @app.task(shared=False, name="p.expiry", bind=True)
    def expiry(self, *args):
        return self.request.expires

    slow = tasks["p.note"].si(1).set(countdown=1.2)
    assert (slow | expiry.si().set(expires=1)).apply_async().get(timeout=T)


def test_a_step_that_waits_too_long_after_the_one_before_is_revoked(app, tasks, worker):
    late = tasks["p.note"].si(2).set(queue="elsewhere", expires=0.2)
    result = (tasks["p.note"].si(1) | late).apply_async()
    assert result.parent.get(timeout=T)
    with psycopg.connect(app.conf.broker_url) as conn:
        wait_for(
            lambda: conn.execute(
                "select expires_at < clock_timestamp() from pgcelery.jobs where id = %s",
                [result.id],
            ).fetchone()[0]
        )
    app.control.add_consumer("elsewhere", reply=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=T)


def test_steps_inherit_the_priority_of_the_first_one_if_asked(app, tasks):
    @app.task(shared=False, name="p.priority", bind=True)
    def priority(self, before=()):
        return [*before, self.request.delivery_info["priority"]]

    canvas = priority.s().set(priority=7) | priority.s() | priority.s().set(priority=2)
    assert canvas.apply_async().get(timeout=T) == [7, 0, 2]
    app.conf.task_inherit_parent_priority = True
    assert canvas.apply_async().get(timeout=T) == [7, 7, 7]


def test_a_chain_of_all_kinds_in_a_header(app, tasks):
    """Its last step waits for a body that is itself a chain: others wait for what comes last."""

    @app.task(shared=False, name="p.one")
    def one(*args):
        return 1

    inner = chord([one.s()], chain(one.s(), one.s()))
    steps = chain(group(one.s(), one.s()), inner, group(one.s(), one.s()))
    assert chord([steps], tasks["t.same"].s()).apply_async().get(timeout=T) == [[1, 1]]


def test_a_long_chain(tasks):
    add = tasks["t.add"]
    assert (
        chain(add.s(0, 0), *(add.s(1) for _ in range(1500))).apply_async().get(timeout=60) == 1500
    )


def test_a_chain_that_is_a_body_can_be_ended_too(tasks, seen, dsn):
    add, note, stop = tasks["t.add"], tasks["p.note"], tasks["p.stop"]
    body = tasks["t.tsum"].s() | stop.s() | note.s()
    result = chord([add.s(1, 1), add.s(2, 2)], body).apply_async()
    wait_for(lambda: rows(dsn, "results") == 4 and not rows(dsn, "running"))
    assert rows(dsn, "nodes") == rows(dsn, "ready") == 0
    assert seen == []
    assert result.state == "PENDING"
