from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

from pgcelery.compat import states
from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.request import Context
from pgcelery.compat.exceptions import (
    ImproperlyConfigured,
    IncompleteStream,
    TaskRevokedError,
    TimeoutError,
)
from pgcelery.compat.result import (
    AsyncResult,
    EagerResult,
    GroupResult,
    ResultSet,
    allow_join_result,
    denied_join_result,
    result_from_tuple,
)


@pytest.fixture
def app(dsn: str) -> Any:
    with Celery("results", broker=dsn, backend=dsn, set_as_current=True) as app:
        yield app


def done(app: Any, task_id: str, value: Any = 1, children: Any = (), parent: Any = None) -> Any:
    request = Context(id=task_id)
    request.children.extend(children)
    app.backend.mark_as_done(task_id, value, request=request)
    return app.AsyncResult(task_id, parent=parent)


def failed(app: Any, task_id: str, exc: Exception, parent: Any = None) -> Any:
    app.backend.mark_as_failure(task_id, exc, "Traceback of it")
    return app.AsyncResult(task_id, parent=parent)


def test_an_id_is_needed(app):
    with pytest.raises(ValueError, match="requires valid id"):
        app.AsyncResult(None)


def test_an_unknown_id_is_pending_and_times_out(app):
    result = app.AsyncResult("nobody")
    assert (result.state, result.result, result.ready()) == (states.PENDING, None, False)
    assert not result.exists()
    with pytest.raises(TimeoutError):
        result.get(timeout=0)
    with pytest.raises(TimeoutError, match="The operation timed out"):
        result.get(timeout=0.05)


def test_what_a_call_returned(app):
    result = done(app, "one", {"a": [1]})
    assert result.exists()
    assert result.get() == {"a": [1]}
    assert result.successful()
    assert not result.failed()
    assert result.children == []
    assert result.date_done.tzinfo is not None


def test_what_a_call_raised(app):
    result = failed(app, "bad", KeyError("k"))
    with pytest.raises(KeyError):
        result.get()
    error = result.get(propagate=False)
    assert (type(error), error.args) == (KeyError, ("k",))
    assert result.traceback == "Traceback of it"
    assert result.failed()


def test_a_waiting_get_wakes_when_the_result_comes(app):
    got = []
    waiting = threading.Thread(target=lambda: got.append(app.AsyncResult("later").get(timeout=10)))
    waiting.start()
    done(app, "later", 5)
    waiting.join(10)
    assert got == [5]


def test_the_callback_gets_id_and_value(app):
    seen = []
    done(app, "one", 3).get(callback=lambda *args: seen.append(args))
    assert seen == [("one", 3)]


def test_on_message_hears_of_progress_and_of_the_end(app):
    app.backend.store_result("slow", {"done": 1}, "PROGRESS")
    seen = []

    def tick() -> None:
        if seen:
            app.backend.mark_as_done("slow", "end")

    result = app.AsyncResult("slow")
    assert result.get(interval=0.01, on_message=seen.append, on_interval=tick) == "end"
    assert [meta["status"] for meta in seen] == ["PROGRESS", "SUCCESS"]


def test_a_failed_parent_is_raised_from_the_childs_get(app):
    child = app.AsyncResult("child", parent=failed(app, "parent", ValueError("first")))
    with pytest.raises(ValueError, match="first"):
        child.get(timeout=5)
    with pytest.raises(TimeoutError):
        child.get(timeout=0, follow_parents=False)


def test_a_parent_that_fails_meanwhile_ends_the_wait(app):
    child = app.AsyncResult("child", parent=app.AsyncResult("parent"))
    threading.Timer(0.05, failed, (app, "parent", ValueError("late"))).start()
    with pytest.raises(ValueError, match="late"):
        child.get(timeout=10, interval=0.02)


def test_an_ignored_result_gives_none_at_once(app):
    result = app.AsyncResult("quiet")
    result.ignored = True
    assert result.get() is None


def test_waiting_in_a_task_is_refused_unless_allowed(app):
    result = done(app, "one")
    with denied_join_result():
        for refused in (result, ResultSet([result], app=app), EagerResult("e", 1, "SUCCESS")):
            with pytest.raises(RuntimeError, match=r"Never call result\.get\(\) within a task!"):
                refused.get()
        assert result.get(disable_sync_subtasks=False) == 1
        with allow_join_result():
            assert result.get() == 1
        with pytest.raises(RuntimeError):
            result.get()


def test_a_ready_result_is_not_asked_for_again(app):
    result = done(app, "one", 1)
    assert result.get() == 1
    app.backend.forget("one")
    assert result.state == states.SUCCESS
    assert app.AsyncResult("one").state == states.PENDING


def test_forget_deletes_the_parents_too(app):
    result = done(app, "child", parent=done(app, "parent"))
    result.forget()
    assert not app.AsyncResult("child").exists()
    assert not app.AsyncResult("parent").exists()


def test_collect_walks_over_everything_that_was_sent(app):
    leaves = [done(app, f"leaf{i}", i) for i in range(2)]
    root = done(app, "root", "r", [GroupResult("g", leaves, app=app), done(app, "single", "s")])
    assert [(one.id, value) for one, value in root.collect()] == [
        ("root", "r"),
        ("g", [0, 1]),
        ("single", "s"),
        ("leaf0", 0),
        ("leaf1", 1),
    ]
    assert root.get_leaf() == 1
    order = [str(node) for node in root.graph.topsort()]
    assert order[-1] == "root"
    assert order.index("g") > order.index("leaf1")


def test_walking_over_unfinished_work_is_refused(app):
    with pytest.raises(IncompleteStream):
        list(app.AsyncResult("nobody").iterdeps())
    partial = app.AsyncResult("nobody").iterdeps(intermediate=True)
    assert [node.id for _, node in partial] == ["nobody"]


def test_results_survive_tuples_lists_and_pickles(app):
    chain = app.AsyncResult("c", parent=app.AsyncResult("p"))
    group = GroupResult("g", [chain, app.AsyncResult("x")], parent=chain, app=app)
    assert chain.as_tuple() == (("c", (("p", None), None)), None)
    assert chain.as_list() == ["c", "p"]
    again = result_from_tuple([["g", chain.as_tuple()], [r.as_tuple() for r in group]], app)
    assert again == group
    assert again.parent.parent.id == "p"
    assert result_from_tuple(("id", None), app) == "id"
    assert pickle.loads(pickle.dumps(chain)) == chain
    assert copy.copy(chain).parent == "p"


def test_equality_is_by_id(app):
    assert app.AsyncResult("a") == AsyncResult("a", app=app) == "a"
    assert app.AsyncResult("a") != app.AsyncResult("b")
    assert len({app.AsyncResult("a"), app.AsyncResult("a")}) == 1
    assert GroupResult("g", []) == "g"


def test_then_is_called_when_the_result_is_seen(app):
    seen = []
    result = done(app, "one", 1)
    result.then(seen.append)
    assert seen == []
    result.get()
    assert seen == [result]


def test_a_task_that_returns_a_result_stores_it_as_a_tuple(app):
    done(app, "outer", app.AsyncResult("inner"))
    assert app.AsyncResult("outer").get() == [["inner", None], None]


class TestResultSet:
    def test_counts(self, app):
        known = ResultSet([done(app, "a"), failed(app, "b", ValueError())], app=app)
        assert (known.completed_count(), known.ready(), known.failed()) == (1, True, True)
        assert not known.successful()
        known.add(app.AsyncResult("nobody"))
        assert known.waiting()
        assert not known.ready()

    def test_a_group_inside_counts_once(self, app):
        inner = GroupResult("g", [done(app, "a"), done(app, "b")], app=app)
        assert ResultSet([inner, done(app, "c")], app=app).completed_count() == 2

    def test_values_come_in_order_and_nested(self, app):
        inner = GroupResult("g", [done(app, "b", 2), done(app, "c", 3)], app=app)
        everything = ResultSet([done(app, "a", 1), inner], app=app)
        assert everything.get() == [1, [2, 3]]
        assert everything.join() == [1, [2, 3]]

    def test_the_timeout_is_for_all(self, app):
        with pytest.raises(TimeoutError):
            ResultSet([done(app, "a"), app.AsyncResult("nobody")], app=app).get(timeout=0.05)
        assert ResultSet([done(app, "a")], app=app).get(timeout=0) == [1]

    def test_a_failure_is_raised_although_others_wait(self, app):
        waiting = ResultSet([app.AsyncResult("nobody"), failed(app, "b", KeyError("x"))], app=app)
        with pytest.raises(KeyError):
            waiting.get(timeout=10)

    def test_callbacks_replace_the_list(self, app):
        seen = {}
        results = ResultSet([done(app, "a", 1), done(app, "b", 2)], app=app)
        assert results.join_native(callback=seen.__setitem__) is None
        assert results.join(callback=seen.__setitem__) == []
        assert seen == {"a": 1, "b": 2}
        with pytest.raises(ImproperlyConfigured):
            results.join(on_message=print)

    def test_members(self, app):
        results = ResultSet([app.AsyncResult("a")], app=app)
        results.add(app.AsyncResult("a"))
        results.update([app.AsyncResult("b")])
        assert [one.id for one in results] == ["a", "b"]
        results.remove("a")
        results.discard("a")
        with pytest.raises(KeyError):
            results.remove("a")
        assert len(results) == 1
        results.clear()
        assert results.get() == []


class TestGroupResult:
    def test_save_and_restore(self, app):
        group = GroupResult("g", [app.AsyncResult("a")], parent=app.AsyncResult("p"), app=app)
        group.save()
        restored = app.GroupResult.restore("g")
        assert restored == group
        assert restored.parent == "p"
        restored.delete()
        assert app.GroupResult.restore("g") is None

    def test_truth(self, app):
        assert GroupResult("g", [])
        assert not GroupResult(None, [])


class TestEagerResult:
    def test_it_is_ready(self):
        result = EagerResult("e", 3, states.SUCCESS)
        assert (result.get(), result.ready(), result.state) == (3, True, "SUCCESS")
        assert pickle.loads(pickle.dumps(result)).get() == 3

    def test_it_raises_what_the_call_raised(self):
        result = EagerResult("e", KeyError("k"), states.FAILURE, "tb")
        with pytest.raises(KeyError):
            result.get()
        assert isinstance(result.get(propagate=False), KeyError)
        assert EagerResult("e", None, states.IGNORED).get() is None

    def test_revoke(self):
        result = EagerResult("e", 3, states.SUCCESS)
        result.revoke()
        assert result.state == states.REVOKED
        with pytest.raises(TaskRevokedError):
            result.get()
