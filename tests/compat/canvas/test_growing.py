"""Chords whose header is not complete when it is sent, and chords that are sent again."""

from __future__ import annotations

import threading

import psycopg
import pytest

from pgcelery.compat.canvas import chain, chord, group
from pgcelery.compat.exceptions import ChordError
from tests.support.wait import wait_for

T = 20

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def ran():
    return []


@pytest.fixture
def tasks(app, ran):
    @app.task(shared=False, name="g.note")
    def note(value):
        ran.append(value)
        return value

    @app.task(shared=False, name="g.grow", bind=True, max_retries=3, default_retry_delay=0)
    def grow(self, what, *, retries=0, lazy=False):
        added = self.add_to_chord(self.app.signature(what), lazy=lazy)
        if self.request.retries < retries:
            raise self.retry()
        if lazy:
            added.delay()
        return 0

    return app.tasks


def slowly(sigs, before_last=None):
    """Draw one after the other, with pauses that are longer than what is taken for a moment."""
    for place, sig in enumerate(sigs):
        threading.Event().wait(0.06)
        if before_last and place == len(sigs) - 1:
            before_last()
        yield sig


def latches(dsn):
    with psycopg.connect(dsn) as conn:
        return conn.execute("select count(*) from pgcelery.nodes").fetchone()[0]


def test_members_of_a_slow_generator_run_while_it_goes_on(app, tasks, ran):
    note, tsum = tasks["g.note"], tasks["t.tsum"]
    header = slowly([note.s(i) for i in range(5)], lambda: wait_for(lambda: 0 in ran))
    result = chord(header, tsum.s() | tasks["t.add"].s(1)).apply_async()
    assert result.get(timeout=T) == 11
    assert result.parent.get(timeout=T) == [0, 1, 2, 3, 4]


def test_a_slow_header_keeps_its_order_and_shape(tasks):
    add, tsum = tasks["t.add"], tasks["t.tsum"]
    wide = add.s(1, 1) | group(add.s(1), add.s(2))
    members = [add.s(0, 1), wide, add.s(1, 1) | add.s(1), chord([add.s(4, 0)], tsum.s())]
    body = group(tasks["t.same"].s(), tasks["t.same"].s())
    result = chord(slowly(members), body).apply_async()
    assert result.get(timeout=T) == [[1, [3, 4], 3, 4]] * 2


def test_members_of_a_slow_header_know_their_place(app, tasks):
    @app.task(shared=False, name="g.place", bind=True)
    def place(self):
        return [self.request.group, self.request.group_index]

    result = chord(slowly([place.si()] * 4), tasks["t.same"].s()).apply_async()
    group_id = result.parent.id
    assert result.get(timeout=T) == [[group_id, index] for index in range(4)]


def test_a_failure_in_a_slow_header_fails_the_body(tasks):
    members = [tasks["t.add"].s(1, 1), tasks["t.fail"].si(), tasks["t.add"].s(1, 1)]
    result = chord(slowly(members), tasks["t.tsum"].s()).apply_async()
    assert isinstance(result.get(timeout=T, propagate=False), ChordError)


def test_a_generator_that_fails_leaves_no_body_behind(dsn, tasks, ran):
    def fail():
        raise LookupError("no more")

    note = tasks["g.note"]
    header = slowly([note.s(i) for i in range(4)], fail)
    with pytest.raises(LookupError):
        chord(header, tasks["t.tsum"].s()).apply_async()
    wait_for(lambda: 0 in ran)
    assert latches(dsn) == 0


@pytest.mark.parametrize("lazy", [False, True])
def test_a_member_can_add_to_its_chord(tasks, lazy):
    add, grow = tasks["t.add"], tasks["g.grow"]
    header = [grow.s(add.s(2, 3), lazy=lazy), add.s(1, 1)]
    assert chord(header, tasks["t.same"].s()).apply_async().get(timeout=T) == [0, 2, 5]


@pytest.mark.parametrize("shape", ["chain", "chord", "of an ignored result"])
def test_what_is_added_counts_with_its_last_value(tasks, shape):
    add, tsum = tasks["t.add"], tasks["t.tsum"]
    added = {
        "chain": chain(add.s(1, 1), add.s(2)),
        "chord": chord([add.s(1, 1), add.s(1, 1)], tsum.s()),
        "of an ignored result": tasks["t.quiet"].s(4),
    }[shape]
    result = chord([tasks["g.grow"].s(added)], tasks["t.same"].s()).apply_async()
    assert result.get(timeout=T) == [0, 4]


def test_a_retry_does_not_add_twice(tasks, ran):
    header = [tasks["g.grow"].s(tasks["g.note"].s("added"), retries=2)]
    result = chord(header, tasks["t.same"].s()).apply_async()
    assert result.get(timeout=T) == [0, "added"]
    assert ran == ["added"]


def test_a_member_of_a_slow_header_can_add_to_it(tasks):
    add, grow = tasks["t.add"], tasks["g.grow"]
    header = slowly([grow.s(add.s(2, 3)), add.s(1, 1), add.s(1, 2)])
    assert chord(header, tasks["t.same"].s()).apply_async().get(timeout=T) == [0, 2, 3, 5]


def test_a_frozen_chord_that_is_sent_again_runs_again(tasks, ran):
    note = tasks["g.note"]
    sig = chord(group(note.s(1), note.s(2)), note.si("body"))
    frozen = sig.freeze()
    first = sig.apply_async()
    assert first.id == frozen.id
    assert first.get(timeout=T) == "body"
    second = sig.apply_async()
    assert second.id != first.id
    assert second.get(timeout=T) == "body"
    assert sorted(map(str, ran)) == ["1", "1", "2", "2", "body", "body"]


def test_an_error_link_that_is_called_in_place_finds_the_failure(app, tasks):
    seen = []

    @app.task(shared=False, name="g.look")
    def look(request, exc, traceback):
        result = app.AsyncResult(request.id)
        seen.append((result.failed(), repr(result.result), bool(result.traceback)))

    tasks["t.fail"].s().on_error(look.s()).apply_async()
    wait_for(lambda: seen)
    assert seen == [(True, "ValueError('boom')", True)]


def test_an_id_that_was_frozen_runs_again_in_another_workflow(tasks, ran):
    note, same = tasks["g.note"], tasks["t.same"]
    fixed = note.s()
    fixed.freeze()
    steps = chain(same.si(7), fixed)
    assert chord([steps], same.s()).apply_async().get(timeout=T) == [7]
    chord([same.si(1)], steps).apply_async()
    wait_for(lambda: ran == [7, 7])


def test_chords_in_each_other_call_an_error_link_once_for_one_failure(app, tasks):
    called = []

    @app.task(shared=False, name="g.called")
    def note(task_id, which):
        called.append(which)

    inner = chord([tasks["t.fail"].si()], tasks["t.tsum"].s())
    outer = chord(group([tasks["t.add"].si(1, 1), inner]), tasks["t.same"].s())
    app.conf.task_allow_error_cb_on_chord_header = False
    with pytest.warns(match="pending deprecation"):
        outer.link_error(note.s(which="both"))
    outer.body.link_error(note.s(which="outer"))
    result = outer.apply_async()
    assert isinstance(result.get(timeout=T, propagate=False), ChordError)
    wait_for(lambda: "outer" in called)
    assert sorted(called) == ["both", "outer"]
