"""Groups of calls that are much alike: made by a form, inserted in parts, and the same as ever.

Source: what is compared with is how the same members are sent one by one, in full. Promise P4 of
docs/guarantees.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.exceptions import EncodeError, OperationalError

from pgcelery import Concurrency, Task, chain, group
from pgcelery.compat import signals
from pgcelery.compat.app import forms
from pgcelery.compat.canvas import groups, outbox
from pgcelery.engine import NewJob
from tests.support.relays import rows
from tests.support.tasks import Offline, headers

MANY = outbox.PART * 2 + 50

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_VALUE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT
_MEMBER = st.tuples(
    st.sampled_from(["t%s", "quiet", "limited", "piped", "own", "gated"]),
    st.lists(_VALUE | st.lists(_VALUE), max_size=3),
    st.dictionaries(_TEXT.filter(bool), _VALUE, max_size=2),
    st.sampled_from([{}, {}, {}, {"priority": 3}, {"queue": "other"}, {"task_id": "its own"}]),
)


class Own(Task):
    """A task that has its say when it is called."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Say more."""
        return super().apply_async(args, kwargs, shadow="own", **options)


def an_app() -> Any:
    app = Offline("alike")
    takes = {"typing": False}
    app.task(lambda *a, **k: None, name="t%s", **takes)
    app.task(lambda *a, **k: None, name="quiet", ignore_result=True, **takes)
    app.task(lambda *a, **k: None, name="limited", time_limit=9.0, **takes)
    app.task(lambda *a, **k: None, name="piped", serializer="yaml", acks_late=True, **takes)
    app.task(lambda *a, **k: None, name="own", base=Own, **takes)
    app.task(lambda *a, **k: None, name="gated", concurrency=Concurrency("k", 1), **takes)
    return app


def sent(app: Any, members: Any, alike: int, **options: Any) -> tuple[list[NewJob], list[str]]:
    """What a group comes to, with ids that count."""
    ids = map(str, itertools.count())
    app.engine.jobs.clear()
    with (
        mock.patch.object(groups, "_ALIKE", alike),
        mock.patch.object(forms, "uuid", ids.__next__),
        mock.patch("pgcelery.compat.canvas.signature.uuid", ids.__next__),
    ):
        result = group(members).apply_async(task_id="the group", **options)
    return app.engine.jobs.copy(), [one.id for one in result.results]


@settings(max_examples=200, deadline=None)
@given(members=st.lists(_MEMBER, min_size=1, max_size=9), nested=st.integers(0, 20))
def test_members_come_to_the_same_jobs_to_the_byte(members: list[Any], nested: int):
    app = an_app()

    def made() -> Iterator[Any]:
        for place, (name, args, kwargs, options) in enumerate(members):
            one = app.signature(name, args=args, kwargs=kwargs, options=dict(options))
            if place == nested:
                plain = app.signature("t%s", kwargs=kwargs)
                yield chain(plain, app.signature("quiet"))
                yield group([plain, one])
            yield one

    sent(app, made(), 10**9)  # what is known after the first calls, as of priorities, is known
    whole = sent(app, made(), 10**9)
    assert sent(app, made(), 1) == whole
    assert sent(app, made(), 3) == whole


def test_forms_are_used(monkeypatch: pytest.MonkeyPatch):
    """Or what is compared above is compared with itself."""
    app = an_app()
    made = []
    fill = forms.Form.fill
    monkeypatch.setattr(forms.Form, "fill", lambda *args: made.append(job := fill(*args)) or job)
    jobs, ids = sent(app, (app.tasks["t%s"].s(i) for i in range(20)), 3)
    assert len(made) == 18
    assert [job.id for job in jobs] == ids
    assert [headers(job)["group_index"] for job in jobs] == list(range(20))
    assert [job.leads for job in jobs] == [True] + [False] * 19


def test_tasks_that_only_workers_know_are_sent_by_name():
    app = an_app()
    jobs, ids = sent(app, (app.signature("elsewhere", args=(i,)) for i in range(9)), 3)
    assert [(job.id, job.name) for job in jobs] == [(one, "elsewhere") for one in ids]


def test_tasks_of_another_app_are_sent_as_that_says():
    app, other = an_app(), Offline("other", set_as_current=False)
    other.conf.task_default_queue = "theirs"
    task = other.task(lambda i: i, name="foreign")
    with mock.patch.object(other, "engine", app.engine):
        jobs, _ = sent(app, [app.tasks["t%s"].s(1), *(task.s(i) for i in range(9))], 3)
    assert [job.queue for job in jobs] == ["celery"] + ["theirs"] * 9


def test_receivers_hear_of_each_member():
    app, heard = an_app(), []
    signals.before_task_publish.connect(
        receiver := lambda headers, **_: heard.append(headers["group_index"])
    )
    try:
        sent(app, [app.tasks["t%s"].s(i) for i in range(9)], 3)
    finally:
        signals.before_task_publish.disconnect(receiver)
    assert heard == list(range(9))


def test_options_of_the_call_are_those_of_every_member():
    app = an_app()
    jobs, _ = sent(app, [app.tasks["t%s"].s(i) for i in range(9)], 3, queue="there", countdown=9)
    assert {(job.queue, job.delay_s) for job in jobs} == {("there", 9)}


# -- on the database ------------------------------------------------------------------------------


def calls(app: Any, many: int = MANY) -> Iterator[Any]:
    return (app.tasks["t.same"].s(i) for i in range(many))


def test_a_large_group_is_all_there_and_returns_what_it_should(app: Any, worker: Any):
    result = group(calls(app)).apply_async()
    assert result.get(timeout=60) == list(range(MANY))


def test_its_members_are_one_workflow_in_order(app: Any, dsn: str):
    result = group(calls(app)).apply_async()
    found = rows(dsn, "select id, workflow, flags & 128 from pgcelery.jobs order by seq")
    leads = [128] + [0] * (MANY - 1)
    assert found == [
        (one.id, result.id, lead) for one, lead in zip(result.results, leads, strict=True)
    ]


@pytest.mark.parametrize("at", [outbox.PART + 5, MANY - 1])
@pytest.mark.parametrize("wrong", ["argument", "arity", "generator"])
def test_a_member_that_cannot_be_sent_keeps_all_from_being_sent(
    app: Any, dsn: str, at: int, wrong: str
):
    def members() -> Iterator[Any]:
        for i in range(MANY):
            if i == at and wrong == "generator":
                raise LookupError(i)
            args = {"argument": (object(),), "arity": (1, 2, 3)}.get(wrong, (i,))
            yield app.tasks["t.same"].s(*(args if i == at else (i,)))

    with pytest.raises((EncodeError, TypeError, LookupError)):
        group(members()).apply_async()
    assert rows(dsn, "select count(*) from pgcelery.jobs") == [(0,)]
    group(calls(app)).apply_async()  # its connection, too, is well
    assert rows(dsn, "select count(*) from pgcelery.ready") == [(MANY,)]


def members_that_end_connections(app: Any, dsn: str, at: set[int]) -> Iterator[Any]:
    for i, one in enumerate(calls(app)):
        if i in at:
            rows(
                dsn,
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()",
            )
        yield one


@pytest.mark.parametrize("at", [{outbox.PART + 5}, {MANY - 1}, {5, MANY - 1}], ids=str)
def test_a_connection_that_breaks_meanwhile_is_replaced_and_all_is_sent_once(
    app: Any, dsn: str, at: set[int]
):
    group(calls(app, 3)).apply_async()
    result = group(members_that_end_connections(app, dsn, at)).apply_async()
    found = rows(dsn, "select id from pgcelery.jobs where workflow = %s order by seq", result.id)
    assert [id for (id,) in found] == [one.id for one in result.results]


def test_without_retries_a_connection_that_breaks_is_an_error_or_all_was_sent(app: Any, dsn: str):
    app.conf.task_publish_retry = False
    at = {outbox.PART + 5}
    try:
        group(members_that_end_connections(app, dsn, at)).apply_async()
        expected = MANY
    except OperationalError:
        expected = 0
    assert rows(dsn, "select count(*) from pgcelery.jobs") == [(expected,)]


def test_in_a_transaction_of_the_caller_it_is_sent_with_that(app: Any, dsn: str):
    with psycopg.connect(dsn) as conn:
        group(calls(app)).apply_async(conn=conn)
        assert rows(dsn, "select count(*) from pgcelery.jobs") == [(0,)]
        conn.rollback()
        assert rows(dsn, "select count(*) from pgcelery.jobs") == [(0,)]
        result = group(calls(app)).apply_async(conn=conn)
    assert rows(dsn, "select count(*) from pgcelery.jobs") == [(len(result),)]


def test_by_a_task_it_is_sent_as_its_child(app: Any, worker: Any):
    @app.task(shared=False, name="t.sends", bind=True)
    def sends(self: Any) -> Any:
        return group(calls(app)).apply_async().id

    result = sends.delay()
    group_id = result.get(timeout=60)
    (child,) = result.children
    assert child.id == group_id
    assert child.get(timeout=60) == list(range(MANY))
