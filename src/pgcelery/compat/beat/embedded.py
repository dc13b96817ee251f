"""Beat beside a worker: ``worker -B``.

Source: Celery 5.7, ``celery.beat.EmbeddedService``. Every worker may have one: each run is sent
once all the same.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing.context import ForkProcess
from typing import Any

from pgcelery.compat import platforms
from pgcelery.compat.beat.service import Service

__all__ = ("EmbeddedService",)

_DEFAULT_SIGNALS = ("SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1")
_JOIN_S = 5.0


class _Threaded(threading.Thread):
    """Beat in a thread."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(name="Beat", daemon=True)
        self.app = app
        self.service = Service(app, **kwargs)

    def run(self) -> None:
        """Tick until stopped."""
        self.app.set_current()
        self.service.start()

    def stop(self) -> None:
        """Stop, and wait for it."""
        self.service.stop(wait=True)


class _Process(ForkProcess):
    """Beat in a child of this process, which ends with it, however that ends."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(name="Beat", daemon=True)
        self.app = app
        self.service = Service(app, **kwargs)

    def run(self) -> None:
        """Tick until stopped, in the child."""
        platforms.signals.reset(*_DEFAULT_SIGNALS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        parent = multiprocessing.parent_process()
        threading.Thread(target=self._end_with, args=(parent,), daemon=True).start()
        self.app.set_default()
        self.app.set_current()
        self.service.start(embedded_process=True)

    def _end_with(self, parent: Any) -> None:
        parent.join()
        self.service.stop()

    def stop(self) -> None:
        """Stop the child, and wait for it. What it was about to send is undone."""
        if self.pid is not None and self.is_alive():
            self.terminate()
            self.join(_JOIN_S)


def EmbeddedService(app: Any, max_interval: float | None = None, **kwargs: Any) -> Any:
    """Give beat to be started and stopped: a process, or with ``thread=True`` a thread."""
    kwargs.setdefault("remote_control", False)  # the worker beside it answers
    if kwargs.pop("thread", False):
        return _Threaded(app, max_interval=1, **kwargs)
    return _Process(app, max_interval=max_interval, **kwargs)
