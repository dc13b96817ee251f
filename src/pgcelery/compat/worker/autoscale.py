"""Autoscaling: a pool grows while there is more to do than it has slots, and shrinks when it rests.

Source: Celery 5.7, ``celery.worker.autoscale``: names, when it grows and shrinks, what subclasses
override. Different on purpose: a worker here takes no more than it can run, so what waits is
counted in the database, once a second and only when every slot is taken; and the pool itself is
resized in the worker's own thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from pgcelery.compat.bootsteps import StartStopStep
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.imports import instantiate
from pgcelery.compat.worker import state
from pgcelery.compat.worker.components import Pool
from pgcelery.engine import EngineError

__all__ = ("AUTOSCALE_KEEPALIVE", "Autoscaler", "WorkerComponent", "bounds")

#: seconds without a new task, and without growth, after which a pool shrinks
AUTOSCALE_KEEPALIVE = float(os.environ.get("AUTOSCALE_KEEPALIVE", "30"))
#: seconds between two looks
INTERVAL_S = 1.0
_JOIN_S = 2.0

logger = logging.getLogger("celery.worker.autoscale")


def bounds(value: Any) -> tuple[int, int] | None:
    """Read ``--autoscale``: ``"10,3"``, ``"10"`` or two numbers, as (most, least) processes.

    Raises:
        ImproperlyConfigured: It is neither.
    """
    if not value:
        return None
    parts = value.split(",") if isinstance(value, str) else list(value)
    try:
        low, high = sorted([int(parts[0]), int(parts[1]) if len(parts) == 2 else 0])
    except (TypeError, ValueError):
        low = high = -1
    if len(parts) > 2 or low < 0 or high < 1:
        raise ImproperlyConfigured(
            f"autoscale is the most and the least number of processes, as 10,3; not {value!r}."
        )
    return high, low


class Autoscaler(threading.Thread):
    """Resizes one worker's pool; subclasses decide otherwise in `_maybe_scale`, `qty` or `body`.

    Args:
        pool: The engine's pool.
        max_concurrency: Most slots.
        min_concurrency: Fewest; a pool keeps one even for 0.
        worker: The `WorkController`.
        keepalive: Seconds of rest after which it shrinks.
        mutex: Held while deciding.
    """

    def __init__(
        self,
        pool: Any,
        max_concurrency: int,
        min_concurrency: int = 0,
        worker: Any = None,
        keepalive: float = AUTOSCALE_KEEPALIVE,
        mutex: Any = None,
    ) -> None:
        super().__init__(name="Autoscaler", daemon=True)
        assert keepalive, "a pool must be given time to rest"
        self.pool = pool
        self.max_concurrency = max_concurrency
        self.min_concurrency = min_concurrency
        self.worker = worker
        self.keepalive = keepalive
        self.mutex = mutex or threading.Lock()
        self._waiting = 0
        self._last_scale_up: float | None = None
        self._last_task_received: float | None = None
        self._ending = threading.Event()

    def run(self) -> None:
        """Look once a second, until stopped; an error of one look is logged."""
        while not self._ending.wait(INTERVAL_S):
            try:
                self._waiting = self._count_waiting()
                self.body()
            except Exception:
                # A subclass is the application's; the worker goes on with the pool it has.
                logger.exception("The autoscaler failed; it tries again")

    def body(self) -> None:
        """Decide once."""
        with self.mutex:
            self.maybe_scale()

    def stop(self) -> None:
        """Look no more."""
        self._ending.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(_JOIN_S)

    def _count_waiting(self) -> int:
        """Count the tasks that wait in the queues, as far as that matters."""
        room = self.max_concurrency - self.processes
        if room <= 0 or len(state.reserved_requests) < self.processes:
            return 0
        try:
            node = self.worker.node
            if node.draining:
                return 0
            return int(self.worker.app.engine.waiting(node.queues, room, only=node.served_ids))
        except EngineError as exc:
            logger.debug("Cannot count what waits: %s", exc)
            return 0

    def maybe_scale(self, req: Any = None) -> Any:
        """Decide; with a request also note that one was received."""
        if req is not None:
            self.on_task_received(req)
        return self._maybe_scale(req)

    def _maybe_scale(self, req: Any = None) -> bool | None:
        processes = self.processes
        wanted = min(self.qty, self.max_concurrency)
        if wanted > processes:
            self.scale_up(wanted - processes)
            return True
        wanted = max(self.qty, self.min_concurrency)
        if wanted < processes:
            self.scale_down(processes - wanted)
            return True
        return None

    def on_task_received(self, req: Any) -> None:
        """Note that a task was received."""
        self._last_task_received = time.monotonic()

    def update(self, max: int | None = None, min: int | None = None) -> tuple[int, int]:
        """Change the bounds, and the pool if it is beyond them; gives the bounds.

        Raises:
            ValueError: No pool has such bounds.
        """
        with self.mutex:
            most = self.max_concurrency if max is None else int(max)
            least = self.min_concurrency if min is None else int(min)
            if most < 1 or not 0 <= least <= most:
                raise ValueError(f"no pool has at most {most} and at least {least} processes")
            self.max_concurrency, self.min_concurrency = most, least
            if most < self.processes:
                self._shrink(self.processes - most)
            elif least > self.processes:
                self._grow(least - self.processes)
            return most, least

    def scale_up(self, n: int) -> Any:
        """Add `n` slots."""
        self._last_scale_up = time.monotonic()
        return self._grow(n)

    def scale_down(self, n: int) -> Any:
        """Remove `n` slots, if nothing has come or grown for as long as `keepalive`."""
        times = [at for at in (self._last_scale_up, self._last_task_received) if at is not None]
        if times and time.monotonic() - max(times) > self.keepalive:
            return self._shrink(n)
        return None

    def _grow(self, n: int) -> None:
        logger.info("Scaling up %s processes.", n)
        self._resize(self.processes + n)

    def _shrink(self, n: int) -> None:
        logger.info("Scaling down %s processes.", n)
        self._resize(self.processes - n)

    def _resize(self, size: int) -> None:
        """Have the worker's thread bring the pool to a size; asked twice, it does so once."""

        def resize() -> None:
            if self._ending.is_set() or self.worker.closing:
                return
            more = max(1, self.min_concurrency, min(size, self.max_concurrency)) - self.pool.size
            if more > 0:
                self.pool.grow(more)
            elif more < 0:
                self.pool.shrink(-more)

        self.worker.node.call(resize)

    def info(self) -> dict[str, int]:
        """Bounds, size of the pool, and how much there is to do."""
        return {
            "max": self.max_concurrency,
            "min": self.min_concurrency,
            "current": self.processes,
            "qty": self.qty,
        }

    @property
    def qty(self) -> int:
        """Tasks that run here or wait for somebody to take them."""
        return len(state.reserved_requests) + self._waiting

    @property
    def processes(self) -> int:
        """Size of the pool."""
        return int(self.pool.size)


class WorkerComponent(StartStopStep):
    """Starts the autoscaler of a worker that has bounds for one."""

    label = "Autoscaler"
    conditional = True
    requires = (Pool,)

    def include_if(self, parent: Any) -> bool:
        """Only with ``--autoscale``."""
        return bool(parent.autoscale)

    def start(self, parent: Any) -> None:
        """Start it; the pool runs by now."""
        scaler = parent.autoscaler = instantiate(
            parent.autoscaler_cls,
            parent.pool,
            parent.max_concurrency,
            parent.min_concurrency,
            worker=parent,
        )
        parent.consumer.on_task_message.add(scaler.on_task_received)
        scaler.start()

    def stop(self, parent: Any) -> None:
        """Stop it."""
        if parent.autoscaler is not None:
            parent.autoscaler.stop()

    def info(self, parent: Any) -> dict[str, Any]:
        """Add to ``inspect stats``."""
        return {"autoscaler": parent.autoscaler.info()} if parent.autoscaler is not None else {}
