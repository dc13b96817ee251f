"""Workflows run by a worker, down to their values."""

from __future__ import annotations

import pytest

from pgcelery.compat.canvas import chain, chord, group
from pgcelery.compat.exceptions import ChordError
from pgcelery.engine import State
from tests.support.wait import wait_for

T = 20

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def workflows(add, tsum, same, quiet):
    two = [add.s(1, 1), add.s(2, 2)]
    then_two = group(add.s(1), add.s(2))
    return {
        "a chain": (add.s(1, 2) | add.s(3) | add.s(4), 10),
        "a group": (group(add.s(i, i) for i in range(5)), [0, 2, 4, 6, 8]),
        "a nested group": (group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3))), [2, 4, 6]),
        "a chord": (chord((add.s(i, i) for i in range(5)), tsum.s()), 20),
        "a chord without header": (chord([], same.s()), []),
        "an immutable body": (chord(two, add.si(5, 5)), 10),
        "chains in the header": (
            chord([add.s(1, 1) | add.s(2), add.s(3, 3) | add.s(2) | add.s(1)], same.s()),
            [4, 9],
        ),
        "a group at the end of a chain in the header": (
            chord([add.s(1, 1) | then_two, add.s(1, 0)], same.s()),
            [[3, 4], 1],
        ),
        "a chord in the header": (chord([chord(two, tsum.s()), add.s(1, 0)], same.s()), [6, 1]),
        "a chord at the end of a chain in the header": (
            chord([add.s(0, 1) | chord([add.s(1), add.s(2)], tsum.s()), add.s(1, 0)], same.s()),
            [5, 1],
        ),
        "a chord at the head of a chain in the header": (
            chord([chord(two, tsum.s()) | add.s(1) | then_two, add.s(1, 0)], same.s()),
            [[8, 9], 1],
        ),
        "a chain as body": (chord(two, tsum.s() | add.s(4) | add.s(1)), 11),
        "a group as body": (chord(two, group(tsum.s(), tsum.s() | add.s(1))), [6, 7]),
        "a chord as body": (chord(two, chord([tsum.s(), tsum.s()], tsum.s())), 12),
        "a chain that widens twice": (
            add.s(1, 1) | then_two | tsum.s() | then_two | tsum.s() | add.s(5),
            22,
        ),
        "a chain that ends wide": (add.s(1, 1) | add.s(0) | then_two, [3, 4]),
        "a chord after a task": (add.s(1, 1) | chord([add.s(1), add.s(2)], tsum.s()), 7),
        "chords in a group": (group(chord(two, tsum.s()), chord(two, tsum.s()) | add.s(1)), [6, 7]),
        "a header of tasks that ignore their result": (
            chord([quiet.s(1), quiet.s(2) | add.s(1), add.s(2, 0) | quiet.s()], same.s()),
            [1, 3, 2],
        ),
        "a map": (add.starmap([(1, 2), (3, 4)]) | tsum.s(), 10),
        "chunks": (add.chunks([(i, i) for i in range(5)], 2).group(), [[0, 2], [4, 6], [8]]),
    }


@pytest.fixture
def add(app):
    return app.tasks["t.add"]


@pytest.fixture
def tsum(app):
    return app.tasks["t.tsum"]


@pytest.fixture
def same(app):
    return app.tasks["t.same"]


@pytest.fixture
def quiet(app):
    return app.tasks["t.quiet"]


@pytest.fixture
def fail(app):
    return app.tasks["t.fail"]


def test_each_workflow_comes_to_its_value(workflows):
    sent = {name: sig.apply_async() for name, (sig, _) in workflows.items()}
    got = {name: result.get(timeout=T) for name, result in sent.items()}
    assert got == {name: value for name, (_, value) in workflows.items()}


def test_a_workflow_runs_the_same_after_travelling_as_json(app, workflows):
    sig, value = workflows["chains in the header"]
    copy = app.signature(app.backend.decode(app.backend.encode(sig)))
    assert copy.apply_async().get(timeout=T) == value


def test_arguments_of_the_call_come_first(add, tsum):
    header = chord([add.s(1), add.s(2) | add.s(3)], tsum.s())
    assert header.apply_async((10,)).get(timeout=T) == 26


def test_ids_given_by_freeze_are_those_that_run(add, tsum):
    sig = add.s(1, 1) | group(add.s(1), add.s(2)) | tsum.s()
    frozen = sig.freeze()
    sent = sig.apply_async()
    assert sent.id == frozen.id
    assert sent.get(timeout=T) == 7
    assert [one.get(timeout=T) for one in frozen.parent] == [3, 4]
    assert frozen.parent.parent.get(timeout=T) == 2


def test_everyone_in_a_chord_has_the_root_and_a_parent(app):
    ids = app.tasks["t.ids"]
    first = ids.s()
    result = (first | group(ids.s(), ids.s()) | ids.s()).apply_async()
    root, parent, own = result.get(timeout=T)
    header = [one.get(timeout=T) for one in result.parent]
    assert own == result.id
    assert parent in [one[2] for one in header]
    assert {root, *(one[0] for one in header)} == {result.parent.parent.id}
    assert {one[1] for one in header} == {result.parent.parent.id}


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_failed_chain_in_a_header_fails_the_body_and_what_follows(place, add, tsum, fail):
    broken = fail.si() | add.s(1) | add.s(2) if place == "first" else add.si(1, 1) | fail.s()
    sig = chain(add.si(0, 0), chord([add.si(1, 1), broken], tsum.s()), add.s(1))
    result = sig.apply_async()
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=T)
    body = result.parent
    error = body.get(timeout=T, propagate=False)
    assert isinstance(error, ChordError)
    assert str(error) == f"Dependency {body.parent[1].id} raised ValueError('boom')"
    assert isinstance(result.get(timeout=T, propagate=False), ChordError)


def test_the_members_of_a_body_that_is_a_group_fail_with_the_headers_own_error(tsum, fail):
    result = chord([fail.si()], group(tsum.s(), tsum.s())).apply_async()
    errors = result.get(timeout=T, propagate=False)
    assert [str(error) for error in errors] == ["boom", "boom"]
    assert {type(error) for error in errors} == {ValueError}


def test_the_error_link_of_a_body_is_called_once_with_its_id(app, tsum, fail):
    called = []

    @app.task(shared=False, name="t.note")
    def note(task_id):
        called.append(task_id)

    result = chord([fail.si(), fail.si()], tsum.s().on_error(note.s())).apply_async()
    assert isinstance(result.get(timeout=T, propagate=False), ChordError)
    wait_for(lambda: called)
    assert called == [result.id]


def test_the_steps_after_a_failure_fail_alike(add, tsum, fail):
    sig = add.s(1, 1) | fail.s() | group(add.s(1), add.s(2)) | tsum.s() | add.s(1)
    result = sig.apply_async()
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=T)
    assert isinstance(result.get(timeout=T, propagate=False, follow_parents=False), ValueError)
    assert isinstance(result.parent.get(timeout=T, propagate=False), ValueError)


def test_a_wide_chord_waits_for_all(app, add, tsum):
    result = chord([add.s(i, 0) for i in range(300)], tsum.s()).apply_async()
    assert result.get(timeout=T) == sum(range(300))
    assert app.engine.job(result.id).state is State.COMPLETED


def test_links_of_a_chain_run_after_its_last_step(app, add):
    seen = []

    @app.task(shared=False, name="t.seen")
    def note(value):
        seen.append(value)

    chain(add.s(1, 1), add.s(2)).apply_async(link=note.s())
    wait_for(lambda: seen)
    assert seen == [4]
