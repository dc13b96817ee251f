"""What a body of several calls does when the header before it fails: who says so, and what."""

from __future__ import annotations

import pytest

from pgcelery.compat.canvas import chain, chord, group
from pgcelery.compat.exceptions import ChordError
from tests.support.wait import wait_for

T = 20

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def told():
    """(error link, id that it got, state in which it found that id), as they are called."""
    return []


@pytest.fixture
def tell(app, told):
    app.conf.task_allow_error_cb_on_chord_header = True

    @app.task(shared=False, name="h.tell")
    def tell(task_id, which):
        told.append((which, task_id, app.AsyncResult(task_id).state))

    return tell


def fails(app):
    return app.tasks["t.fail"].si()


def test_the_error_links_of_a_body_chain_get_the_id_of_its_last_step(app, tell, told):
    same = app.tasks["t.same"]
    first, last = same.s().on_error(tell.s("first")), same.s().on_error(tell.s("last"))
    steps = chain(first, same.s(), last).on_error(tell.s("chain"))
    result = chord([fails(app)], steps).apply_async()
    assert isinstance(result.get(timeout=T, propagate=False), ChordError)
    wait_for(lambda: told)
    assert told == [("chain", result.id, "FAILURE")]


def test_one_that_is_called_in_place_gets_the_header_s_error_as_cause(app):
    seen = []

    @app.task(shared=False, name="h.look")
    def look(request, exc, traceback):
        seen.append((request.id, type(exc), repr(exc.__cause__)))

    steps = chain(app.tasks["t.same"].s(), app.tasks["t.same"].s()).on_error(look.s())
    result = chord([fails(app)], steps).apply_async()
    wait_for(lambda: seen)
    assert seen == [(result.id, ChordError, "ValueError('boom')")]


def test_a_step_that_fails_by_itself_calls_them_as_in_any_chain(app, tell, told):
    failing = fails(app).set(task_id="it-failed")
    steps = chain(failing, app.tasks["t.same"].s()).on_error(tell.s("chain"))
    result = chord([app.tasks["t.same"].si(1)], steps).apply_async()
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=T)
    wait_for(lambda: told)
    assert told == [("chain", "it-failed", "FAILURE")]


@pytest.mark.parametrize("deep", [False, True])
def test_a_chord_in_a_body_group_fails_with_the_header_s_own_error(app, tell, told, deep):
    same, tsum = app.tasks["t.same"], app.tasks["t.tsum"]
    header = [same.s(), same.s()]
    if deep:
        header[0] = chord(header, tsum.s())
    members = group(chord(header, tsum.s()), same.s(), chain(same.s(), same.s()))
    sig = chord([fails(app)], members)
    sig.body.link_error(tell.s("member"))
    result = sig.apply_async()
    errors = [member.get(timeout=T, propagate=False) for member in result.results]
    assert list(map(repr, errors)) == ["ValueError('boom')"] * 3
    ids = [member.id for member in result.results]
    wait_for(lambda: len(told) == 3)
    assert sorted(told) == sorted(("member", id, "FAILURE") for id in ids)


def test_a_chord_in_a_body_group_that_fails_later_says_so(app):
    same = app.tasks["t.same"]
    inner = chord([same.s(), fails(app)], app.tasks["t.tsum"].s())
    result = chord([same.si(1)], group(inner, same.s())).apply_async()
    assert isinstance(result[0].get(timeout=T, propagate=False), ChordError)
    assert result[1].get(timeout=T) == [1]
