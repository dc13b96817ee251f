from __future__ import annotations

import json
import os
import pickle
import sys
from datetime import datetime
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed, EncodeError

from pgcelery.compat import exceptions, states
from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.request import Context
from pgcelery.compat.backends.base import (
    COMPRESSED_PAYLOAD_MAGIC,
    Backend,
    BaseDictBackend,
    DisabledBackend,
    KeyValueStoreBackend,
)
from pgcelery.compat.exceptions import (
    ChordError,
    Ignore,
    ImproperlyConfigured,
    SecurityError,
    TaskRevokedError,
    TimeoutError,
    WorkerLostError,
)
from pgcelery.engine import NewJob, State


class PickyError(Exception):
    def __init__(self, code: int, *, reason: str):
        super().__init__(code, reason)


class Outer:
    class NestedError(Exception):
        pass


@pytest.fixture
def app(dsn: str) -> Any:
    with Celery("backend", broker=dsn, backend=dsn, set_as_current=False) as app:
        yield app


def stored(app: Any, task_id: str) -> dict[str, Any]:
    return json.loads(app.engine.results([task_id])[task_id].result)


def test_a_result_is_stored_as_celerys_key_value_backends_do(app):
    app.backend.mark_as_done("t", [1, "x"], request=Context(id="t", group="g", parent_id="p"))
    meta = stored(app, "t")
    assert datetime.fromisoformat(meta.pop("date_done")).tzinfo is not None
    assert meta == {
        "status": "SUCCESS",
        "result": [1, "x"],
        "traceback": None,
        "children": [],
        "group_id": "g",
        "parent_id": "p",
        "task_id": "t",
    }
    assert app.engine.results(["t"])["t"].state is State.COMPLETED


def test_what_is_not_final_has_no_date(app):
    app.backend.mark_as_started("t", pid=1, hostname="h")
    assert stored(app, "t")["date_done"] is None
    assert app.backend.get_task_meta("t")["result"] == {"pid": 1, "hostname": "h"}
    assert not app.engine.results(["t"])["t"].state.final


def test_children_are_listed_as_tuples(app):
    request = Context(id="t")
    request.children.append(app.GroupResult("g", [app.AsyncResult("a")]))
    app.backend.mark_as_done("t", 1, request=request)
    assert stored(app, "t")["children"] == [[["g", None], [[["a", None], None]]]]
    assert app.AsyncResult("t").children[0].id == "g"


def test_extended_results_tell_of_the_call(app):
    app.conf.result_extended = True
    request = Context(
        id="t", task="t.add", args=[1], kwargs={"k": 2}, hostname="w@h", retries=1,
        delivery_info={"routing_key": "q"}, stamped_headers=["s"], stamps={"s": 5, "other": 6},
    )  # fmt: skip
    app.backend.mark_as_done("t", 1, request=request)
    meta = stored(app, "t")
    told = {key: meta[key] for key in ("name", "args", "kwargs", "worker", "retries", "queue")}
    assert told == {
        "name": "t.add", "args": [1], "kwargs": {"k": 2}, "worker": "w@h", "retries": 1,
        "queue": "q",
    }  # fmt: skip
    assert (meta["stamped_headers"], meta["s"], "other" in meta) == (["s"], 5, False)
    assert app.AsyncResult("t").queue == "q"


def test_what_has_ended_is_never_overwritten(app):
    app.backend.mark_as_done("t", 1)
    app.backend.mark_as_failure("t", ValueError("late"))
    assert app.backend.get_state("t") == states.SUCCESS


def test_json_keeps_tagged_values(app):
    now = datetime(2026, 1, 2, 3, 4, 5)
    app.backend.mark_as_done("t", {"at": now, "raw": b"\xff"})
    assert app.backend.get_result("t") == {"at": now, "raw": b"\xff"}
    with pytest.raises(EncodeError):
        app.backend.mark_as_done("u", {1, 2})


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_other_serializers(dsn, serializer):
    with Celery("s", broker=dsn, backend=dsn, set_as_current=False) as app:
        app.conf.update(result_serializer=serializer, accept_content=[serializer])
        app.backend.mark_as_done("t", {"a": [1, 2]})
        app.backend.mark_as_failure("u", KeyError("k"))
        assert app.backend.get_result("t") == {"a": [1, 2]}
        assert type(app.backend.get_result("u")) is KeyError


def test_content_that_is_not_accepted_is_not_read(dsn):
    with Celery("s", broker=dsn, backend=dsn, set_as_current=False) as app:
        app.conf.update(result_serializer="pickle", result_accept_content=["json"])
        app.backend.mark_as_done("t", 1)
        with pytest.raises(ContentDisallowed):
            app.backend.get_result("t")


def test_results_are_compressed_if_asked(dsn):
    with Celery("s", broker=dsn, backend=dsn, set_as_current=False) as app:
        app.conf.result_compression = "zlib"
        app.backend.mark_as_done("t", "x" * 10_000)
        raw = app.engine.results(["t"])["t"].result
        assert raw.startswith(COMPRESSED_PAYLOAD_MAGIC)
        assert len(raw) < 1000
        assert app.backend.get_result("t") == "x" * 10_000


def test_an_unknown_compression_is_refused(dsn):
    with Celery("s", broker=dsn, backend=dsn, set_as_current=False) as app:
        app.conf.result_compression = "magic"
        with pytest.raises(ImproperlyConfigured, match="Unknown compression method 'magic'"):
            Backend(app)


def test_failures_can_be_kept_for_another_time(dsn):
    with Celery("s", broker=dsn, backend=dsn, set_as_current=False) as app:
        app.conf.update(result_expires=100, result_failure_expires=10)
        assert app.backend.ttl_s(states.SUCCESS) == 100
        assert app.backend.ttl_s(states.FAILURE) == 10
        app.conf.update(result_expires=0)
        assert Backend(app).ttl_s(states.SUCCESS) is None


class TestExceptions:
    def back(self, app: Any, exc: BaseException) -> Any:
        return app.backend.exception_to_python(app.backend.prepare_exception(exc))

    def test_known_classes_come_back(self, app):
        assert type(self.back(app, Outer.NestedError("x"))) is Outer.NestedError
        assert self.back(app, KeyError("a", 1)).args == ("a", 1)

    def test_ours_are_stored_under_celerys_names(self, app):
        described = app.backend.prepare_exception(ChordError("x"))
        assert described["exc_module"] == "celery.exceptions"
        assert type(app.backend.exception_to_python(described)) is ChordError

    def test_arguments_that_cannot_be_stored_become_their_repr(self, app):
        assert app.backend.prepare_exception(ValueError({1}))["exc_message"] == ("{1}",)

    def test_a_class_that_refuses_its_arguments(self, app):
        error = self.back(app, PickyError(1, reason="r"))
        assert type(error) is Exception
        assert "PickyError" in str(error)
        assert "(1, 'r')" in str(error)

    def test_unknown_classes_are_made_up(self, app):
        described = {"exc_type": "Gone", "exc_message": ["m"], "exc_module": "no.such.module"}
        error = app.backend.exception_to_python(described)
        assert (type(error).__name__, error.args) == ("Gone", ("m",))
        assert isinstance(error, Exception)
        assert "no.such.module" not in sys.modules

    @pytest.mark.parametrize(
        ("module", "name"), [("os", "system"), ("builtins", "eval"), ("json", "JSONEncoder")]
    )
    def test_what_is_no_exception_is_refused(self, app, module, name, tmp_path):
        trap = tmp_path / "pwned"
        described = {"exc_type": name, "exc_message": [f"touch {trap}"], "exc_module": module}
        with pytest.raises(SecurityError, match="Expected an exception class"):
            app.backend.exception_to_python(described)
        assert not trap.exists()

    def test_nothing_is_imported(self, app):
        assert "antigravity" not in sys.modules
        described = {"exc_type": "Fly", "exc_message": "x", "exc_module": "antigravity"}
        assert type(app.backend.exception_to_python(described)).__name__ == "Fly"
        assert "antigravity" not in sys.modules

    def test_lazy_attributes_are_not_triggered(self, app, monkeypatch):
        module = type(os)("lazy_trap")
        module.__getattr__ = lambda name: pytest.fail("imported something")
        monkeypatch.setitem(sys.modules, "lazy_trap", module)
        described = {"exc_type": "Trap", "exc_message": "x", "exc_module": "lazy_trap"}
        assert type(app.backend.exception_to_python(described)).__name__ == "Trap"

    def test_a_failure_without_a_class_is_refused(self, app):
        app.backend.store_result("t", {"custom": 1}, states.FAILURE)
        with pytest.raises(ValueError, match="must include the exception type"):
            app.backend.get_task_meta("t")


class TestRowsWithoutResult:
    def test_an_ignored_one_is_pending(self, app, client):
        assert app.backend._meta_of(None) == {"status": "PENDING", "result": None}

    def test_a_cancelled_one_is_revoked(self, app):
        app.engine.enqueue([NewJob("c", "q", "n", b"")])
        app.engine.cancel(["c"])
        assert app.backend.get_state("c") == states.REVOKED
        with pytest.raises(TaskRevokedError, match="revoked"):
            app.AsyncResult("c").get(timeout=5)

    def test_one_that_ended_without_a_word_failed(self, app):
        app.engine.put_result("lost", State.FAILED, b"", ttl_s=60)
        with pytest.raises(WorkerLostError):
            app.AsyncResult("lost").get(timeout=5)


class TestChordArguments:
    HEADERS = {"chord_parents": ["a", ["b"]]}  # noqa: RUF012 - read only

    def test_results_take_the_shape_of_the_ids(self, app):
        app.backend.mark_as_done("a", 1)
        app.backend.mark_as_done("b", 2)
        assert app.backend.chord_args(self.HEADERS, [None, "own"]) == ([1, [2]], "own")
        assert app.backend.chord_args({"chord_parents": "b"}, [None]) == (2,)
        immutable = {**self.HEADERS, "chord_immutable": True}
        assert app.backend.chord_args(immutable, ["own"]) == ("own",)

    def test_a_failed_one_names_itself_as_the_cause(self, app):
        app.backend.mark_as_done("a", 1)
        app.backend.mark_as_failure("b", KeyError("k"))
        with pytest.raises(ChordError, match=r"Dependency b raised KeyError\('k'\)") as caught:
            app.backend.chord_args(self.HEADERS, [None])
        assert type(caught.value.__cause__) is KeyError
        for headers in ({**self.HEADERS, "chord_member": True}, {"chord_parents": "b"}):
            with pytest.raises(KeyError):
                app.backend.chord_args(headers, [None])

    def test_one_that_was_ignored_leaves_nothing_to_run_with(self, app):
        app.backend.store_result("a", 1, "PROGRESS")
        with pytest.raises(Ignore):
            app.backend.chord_args({"chord_parents": ["a"]}, [None])
        with pytest.raises(ChordError, match="no longer exists"):
            app.backend.chord_args({"chord_parents": ["gone"]}, [None])


class TestErrorLinks:
    @pytest.fixture
    def calls(self):
        return []

    @pytest.fixture
    def eager(self, app):
        app.conf.update(task_always_eager=True, task_store_eager_result=True)
        return app

    def test_one_with_more_than_one_argument_is_called_here(self, eager, calls):
        @eager.task(shared=False, name="new")
        def new(request, exc, traceback):
            calls.append((request.id, str(exc), traceback))

        request = Context(id="t", errbacks=[dict(new.s())], delivery_info={})
        eager.backend.mark_as_failure("t", ValueError("boom"), "tb", request=request)
        assert calls == [("t", "boom", "tb")]

    def test_another_is_sent_with_the_id(self, eager, calls):
        @eager.task(shared=False, name="old")
        def old(task_id):
            calls.append(task_id)

        request = Context(id="t", errbacks=[old.s()], delivery_info={})
        eager.backend.mark_as_failure("t", ValueError("boom"), request=request)
        assert calls == ["t"]

    def test_one_that_raises_harms_nobody(self, eager, calls):
        @eager.task(shared=False, name="bad")
        def bad(request, exc, traceback):
            raise RuntimeError("in the link")

        request = Context(id="t", errbacks=[bad.s()], delivery_info={})
        eager.backend.mark_as_failure("t", ValueError("boom"), request=request)
        assert eager.backend.get_state("t") == states.FAILURE

    def test_the_rest_of_the_chain_fails_too(self, app):
        @app.task(shared=False, name="add")
        def add(x, y):
            return x + y

        rest = add.s(1) | app.signature("add", args=(2,)) | add.s(3)
        result = rest.freeze()
        request = Context(id="t", chain=list(rest.tasks), delivery_info={})
        app.backend.mark_as_failure("t", ValueError("boom"), request=request)
        assert str(result.get(propagate=False, timeout=5)) == "boom"
        assert result.parent.parent.state == states.FAILURE


class Remembering(KeyValueStoreBackend):
    """Results in a dict."""

    kept: dict[bytes, bytes] = {}  # noqa: RUF012 - cleared by its test

    def get(self, key):
        return self.kept.get(key)

    def set(self, key, value):
        self.kept[key] = value

    def delete(self, key):
        self.kept.pop(key, None)


def test_a_backend_of_the_applications_own(dsn):
    Remembering.kept.clear()
    with Celery("own", broker=dsn, backend=Remembering, set_as_current=False) as app:
        assert isinstance(app.backend, BaseDictBackend)
        app.backend.mark_as_done("t", 5)
        assert list(Remembering.kept) == [b"celery-task-meta-t"]
        assert app.AsyncResult("t").get(timeout=5) == 5
        with pytest.raises(TimeoutError):
            app.AsyncResult("nobody").get(timeout=0.01)
        app.GroupResult("g", [app.AsyncResult("t")]).save()
        assert app.GroupResult.restore("g").get(timeout=5) == [5]
        app.AsyncResult("t").forget()
        assert list(Remembering.kept) == [b"celery-taskset-meta-g"]


def test_the_disabled_backend_refuses(dsn):
    with Celery("off", broker=dsn, backend="disabled://", set_as_current=False) as app:
        assert isinstance(app.backend, DisabledBackend)
        app.backend.mark_as_done("t", 1)
        for asked in (app.backend.get_state, app.backend.ensure_chords_allowed):
            with pytest.raises(NotImplementedError):
                asked(*(["t"] if asked is app.backend.get_state else []))


def test_a_backend_survives_pickling(app):
    app.set_current()
    assert isinstance(pickle.loads(pickle.dumps(app.backend)), Backend)


def test_the_password_is_not_shown(app):
    backend = Backend(app, url="postgresql://u:secret@h/db")
    assert backend.as_uri() == "postgresql://u:**@h/db"
    assert backend.as_uri(include_password=True) == "postgresql://u:secret@h/db"


def test_every_exception_of_ours_comes_back_as_itself(app):
    for name in ("Ignore", "Reject", "TaskRevokedError", "NotRegistered", "QueueNotFound"):
        cls = getattr(exceptions, name)
        described = app.backend.prepare_exception(cls("x"))
        assert type(app.backend.exception_to_python(described)) is cls
