"""Workers in a thread of the test's own process.

Source: Celery 5.7, ``celery.contrib.testing.worker``: signals of the worker and ``worker.state``
are visible to the test, and so is what a prefork worker's processes log.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pgcelery.compat import worker
from pgcelery.compat._state import _set_task_join_will_block
from pgcelery.compat.result import allow_join_result
from pgcelery.compat.utils.dispatch import Signal
from pgcelery.compat.utils.nodenames import anon_nodename
from pgcelery.compat.worker import state

__all__ = (
    "TestWorkController",
    "start_worker",
    "test_worker_started",
    "test_worker_starting",
    "test_worker_stopped",
)

#: longest log record that a pool process can send
MAX_RECORD_BYTES = 1 << 20
WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")

test_worker_starting = Signal(name="test_worker_starting", providing_args=set())
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})


class TestWorkController(worker.WorkController):
    """A worker that can be waited for until it takes tasks."""

    # Its name must not make pytest take it for a test.
    __test__ = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._on_started = threading.Event()
        self._records: _Records | None = None
        super().__init__(*args, **kwargs)

    def start(self) -> None:
        """Run; what pool processes log is logged here."""
        if self.pool_cls.__module__.split(".")[-1] == "prefork":
            self._records = _Records()
        try:
            super().start()
        finally:
            # An error before the start must not leave anyone waiting.
            self._on_started.set()
            if self._records is not None:
                self._records.close()

    def on_consumer_ready(self, consumer: Any) -> None:
        """Tell those who wait."""
        self._on_started.set()
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)

    def ensure_started(self) -> None:
        """Wait until tasks are taken; only if the worker runs in another thread."""
        self._on_started.wait()


class _Records:
    """Brings log records of forked processes to the loggers of this one.

    Through datagrams, which are whole or not at all: a process that is killed while it logs must
    not hold a lock that the others need.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._handler = _ToParent(self._writer, os.getpid())
        logging.getLogger().addHandler(self._handler)
        self._thread = threading.Thread(target=self._run, name="child-logs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while data := self._reader.recv(MAX_RECORD_BYTES):
            record = logging.makeLogRecord(pickle.loads(data))
            logging.getLogger(record.name).handle(record)

    def close(self) -> None:
        """Stop."""
        logging.getLogger().removeHandler(self._handler)
        self._writer.send(b"")
        self._thread.join(timeout=5)
        self._reader.close()
        self._writer.close()


class _ToParent(logging.Handler):
    """Sends records of other processes than `pid` through a socket."""

    def __init__(self, writer: socket.socket, pid: int) -> None:
        super().__init__()
        self._writer = writer
        self._pid = pid

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, as text where it cannot be sent as it is."""
        if os.getpid() == self._pid:
            return
        fields = dict(record.__dict__)
        if record.exc_info:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
            fields["exc_info"] = None
        try:
            self._writer.send(pickle.dumps(fields))
        except Exception:
            # It cannot be pickled, or is too long for a datagram.
            fields.update(msg=record.getMessage()[:1000], args=None, data=None, exc_text=None)
            with suppress(Exception):
                self._writer.send(pickle.dumps(fields))


@contextmanager
def start_worker(
    app: Any,
    concurrency: int = 1,
    pool: Any = "solo",
    loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Any]:
    """Run a worker in a thread for the length of a ``with``; the worker.

    Args:
        app: Whose tasks it runs.
        concurrency: Size of its pool.
        pool: Name or class of its pool.
        loglevel: For the app's loggers, if the app has logging on.
        logfile: Of the same.
        perform_ping_check: Run the task ``celery.ping`` before going on.
        ping_task_timeout: Seconds that may take.
        shutdown_timeout: Seconds the end may take.
        **kwargs: Of `WorkController`.

    Raises:
        RuntimeError: It did not start, or did not end in time.
    """
    test_worker_starting.send(sender=app)
    instance = None
    try:
        with _start_worker_thread(
            app,
            concurrency=concurrency,
            pool=pool,
            loglevel=loglevel,
            logfile=logfile,
            perform_ping_check=perform_ping_check,
            shutdown_timeout=shutdown_timeout,
            **kwargs,
        ) as instance:
            if perform_ping_check:
                with allow_join_result():
                    answer = app.tasks["celery.ping"].delay().get(timeout=ping_task_timeout)
                    assert answer == "pong", answer
            yield instance
    finally:
        test_worker_stopped.send(sender=app, worker=instance)


@contextmanager
def _start_worker_thread(
    app: Any,
    concurrency: int = 1,
    pool: Any = "solo",
    loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None,
    WorkController: Any = TestWorkController,
    perform_ping_check: bool = True,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Iterator[Any]:
    setup_app_for_worker(app, loglevel, logfile)
    if perform_ping_check:
        assert "celery.ping" in app.tasks, "import pgcelery.contrib.testing.tasks first"
    instance = WorkController(
        app=app,
        concurrency=concurrency,
        hostname=kwargs.pop("hostname", None) or anon_nodename(),
        pool=pool,
        loglevel=loglevel,
        logfile=logfile,
        ready_callback=None,
        **kwargs,
    )
    failures: list[BaseException] = []

    def run() -> None:
        try:
            instance.start()
        except BaseException as exc:
            # Told in the test's own thread, where it is seen.
            failures.append(exc)

    thread = threading.Thread(target=run, name="test-worker", daemon=True)
    thread.start()
    instance.ensure_started()
    if failures:
        raise failures[0]
    _set_task_join_will_block(False)
    try:
        yield instance
    finally:
        state.should_terminate = 0
        instance.terminate()
        thread.join(shutdown_timeout)
        state.should_terminate = None
        if thread.is_alive():
            raise RuntimeError(
                "Worker thread failed to exit within the allocated timeout. "
                "Consider raising `shutdown_timeout` if your tasks take longer "
                "to execute."
            )


def setup_app_for_worker(app: Any, loglevel: str | int, logfile: str | None) -> None:
    """Make an app ready to be run by a worker of this process."""
    app.finalize()
    app.set_current()
    app.set_default()
    type(app.log)._setup = False
    app.log.setup(loglevel=loglevel, logfile=logfile)
