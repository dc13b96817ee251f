from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from pgcelery.compat import _state, signals
from pgcelery.compat.app.base import Celery
from pgcelery.compat.contrib.abortable import AbortableTask
from pgcelery.compat.contrib.testing.app import TestApp, setup_default_app
from pgcelery.compat.contrib.testing.manager import Manager
from pgcelery.compat.contrib.testing.mocks import ContextMock, TaskMessage
from pgcelery.compat.contrib.testing.worker import start_worker, test_worker_started
from pgcelery.compat.worker.request import Request
from tests.support.wait import wait_for

pytest_plugins = ("pytester",)


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    app = TestApp("contrib", broker=dsn, enable_logging=True)
    with setup_default_app(app):

        @app.task(name="pid", shared=False)
        def pid() -> int:
            logging.getLogger("celery.task.pid").warning("in the child")
            return os.getpid()

        yield app


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork"])
def test_a_worker_runs_in_a_thread_of_this_process(app: Celery, pool: str) -> None:
    started = []

    def note(worker: Any, **kwargs: Any) -> None:
        started.append(worker)

    received = []

    def take(request: Request, **kwargs: Any) -> None:
        received.append(request.name)

    test_worker_started.connect(note)
    signals.task_received.connect(take)
    try:
        with start_worker(app, pool=pool) as worker:
            assert started == [worker]
            inside = app.tasks["pid"].delay().get(timeout=10)
    finally:
        test_worker_started.disconnect(note)
        signals.task_received.disconnect(take)
    assert (inside == os.getpid()) == (pool != "prefork")
    assert received == ["celery.ping", "pid"]


def test_log_records_of_pool_processes_arrive(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    app.conf.worker_hijack_root_logger = False
    with start_worker(app, pool="prefork", loglevel="INFO"):
        logging.getLogger("celery.task").propagate = True
        app.tasks["pid"].delay().get(timeout=10)
        wait_for(lambda: any("Task pid" in r.getMessage() for r in caplog.records))
        wait_for(lambda: any("succeeded in" in r.getMessage() for r in caplog.records))


def test_a_worker_that_cannot_start_raises_in_the_test() -> None:
    app = TestApp("dead", broker="postgresql://me@127.0.0.1:1/x", backend="rpc://")
    with setup_default_app(app), pytest.raises(Exception, match=r"127\.0\.0\.1"), start_worker(app):
        pytest.fail("it started")


def test_the_manager_waits_for_results(app: Celery) -> None:
    manager = Manager(app)
    with start_worker(app):
        results = [app.tasks["pid"].delay() for _ in range(3)]
        manager.join(app.ResultSet(results), timeout=10)
        assert [result.result for result in results] == [os.getpid()] * 3
        manager.wait_until_idle()
    with pytest.raises(AssertionError, match="Should not have happened"):
        manager.ensure_not_for_a_while(lambda: 1, (ValueError,))


def test_the_current_app_is_put_back() -> None:
    before = _state.get_current_app()
    app = TestApp("other")
    with setup_default_app(app):
        app.set_current()
        app.set_default()
    assert _state.get_current_app() is before


def test_the_trap_catches_uses_of_the_current_app() -> None:
    trapped = setup_default_app(TestApp("trapped"), use_trap=True)
    with trapped, pytest.raises(RuntimeError, match="Test depends on current_app"):
        _ = _state.current_app.conf
    assert _state.current_app.conf is not None


def test_abort_is_seen_by_the_task(app: Celery) -> None:
    @app.task(bind=True, base=AbortableTask, name="work", shared=False)
    def work(self: Any) -> str:
        wait_for(self.is_aborted)
        return "stopped"

    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        result = work.delay()
        assert not result.is_aborted()
        result.abort()
        assert result.is_aborted()
        wait_for(lambda: result.state == "SUCCESS")
        assert result.get(timeout=5) == "stopped"


def test_a_mock_message_reads_as_a_request(app: Celery) -> None:
    request = Request(TaskMessage("pid", id="x", args=(1,), kwargs={"a": 2}), app=app)
    assert (request.id, request.name, request.args, request.kwargs) == ("x", "pid", [1], {"a": 2})
    assert request.task is app.tasks["pid"]
    assert str(request) == "pid[x]"


def test_a_context_mock_is_a_context() -> None:
    mock = ContextMock()
    with mock as inside:
        assert inside is mock


def test_the_fixtures_work_in_a_project(pytester: pytest.Pytester, dsn: str) -> None:
    pytester.makeconftest(
        f"""
        import pytest
        pytest_plugins = ("pgcelery.contrib.pytest",)

        @pytest.fixture(scope="session")
        def celery_config():
            return {{"broker_url": {dsn!r}, "result_backend": "rpc://"}}

        @pytest.fixture(scope="session")
        def celery_includes():
            return ["mine"]
        """
    )
    pytester.makepyfile(
        mine="""
        from pgcelery import shared_task

        @shared_task
        def mul(x, y):
            return x * y
        """,
        test_it="""
        import pytest

        def test_session_worker(celery_session_app, celery_session_worker):
            from mine import mul
            assert mul.delay(4, 4).get(timeout=10) == 16

        # The session's worker lives on, and would take what it finds in its own queue.
        @pytest.mark.celery(task_default_queue="functions")
        def test_function_worker(celery_app, celery_worker):
            @celery_app.task
            def own():
                return 7
            celery_worker.reload()
            assert own.delay().get(timeout=10) == 7

        @pytest.mark.celery(task_default_queue="other")
        def test_mark(celery_app):
            assert celery_app.conf.task_default_queue == "other"
        """,
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
