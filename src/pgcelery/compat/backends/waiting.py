"""Waiting for results: the engine tells of an end, nothing is polled.

Source: Celery 5.7, `celery.backends.base.SyncBackendMixin` and `celery.backends.asynchronous`.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pgcelery.compat import states
from pgcelery.compat.exceptions import TimeoutError
from pgcelery.compat.result import ResultSet

Meta = dict[str, Any]
Tick = Callable[[], Any] | None
OnMessage = Callable[[Meta], Any] | None

_INTERVAL_S = 0.5


class Waiting:
    """The part of a backend that waits."""

    app: Any
    _cache: Any

    if TYPE_CHECKING:

        def _ended(self, ids: Collection[str], timeout_s: float | None) -> dict[str, Meta]:
            """See `Backend`."""

        def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:
            """See `Backend`."""

    def _ensure_not_eager(self) -> None:
        conf = self.app.conf
        if conf.task_always_eager and not conf.task_store_eager_result:
            warnings.warn(
                "Results are not stored in backend and should not be retrieved when "
                "task_always_eager is enabled, unless task_store_eager_result is enabled.",
                RuntimeWarning,
                stacklevel=2,
            )

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = _INTERVAL_S,
        no_ack: bool = True,
        on_message: OnMessage = None,
        on_interval: Tick = None,
        max_iterations: int | None = None,
        READY_STATES: Collection[str] = states.READY_STATES,
    ) -> Iterator[tuple[str, Meta]]:
        """Iterate over ``(id, stored dict)`` of calls as they end.

        Args:
            task_ids: The calls.
            timeout: Seconds for all of them; None for ever, 0 looks once.
            interval: Seconds between calls of `on_interval`.
            no_ack: Not used.
            on_message: Called with each stored dict.
            on_interval: Called at every interval while waiting.
            max_iterations: How many times to look at most.
            READY_STATES: Not used.

        Raises:
            celery.exceptions.TimeoutError: The time is over.
        """
        pending = dict.fromkeys(task_ids)
        for task_id in [one for one in pending if one in self._cache]:
            del pending[task_id]
            yield task_id, self._cache[task_id]
        deadline = None if timeout is None else time.monotonic() + timeout
        step = _INTERVAL_S if interval is None else interval
        silent: set[str] = set()  # ended without a result: there will be none
        looks = 0
        while pending:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            nap = _shortest(left, 0.0 if max_iterations else step if on_interval else None)
            found = self._look([one for one in pending if one not in silent], nap)
            for task_id, meta in found.items():
                if meta["status"] not in states.READY_STATES:
                    silent.add(task_id)
                    continue
                del pending[task_id]
                self._remember(task_id, meta)
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            looks += 1
            if looks == max_iterations:
                return
            if pending and not found:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"Operation timed out ({timeout})")
                if on_interval is not None:
                    on_interval()

    def _look(self, ids: list[str], nap: float | None) -> dict[str, Meta]:
        if ids:
            return self._ended(ids, nap)
        threading.Event().wait(_INTERVAL_S if nap is None else nap)
        return {}

    def _remember(self, task_id: str, meta: Meta) -> None:
        if meta["status"] == states.SUCCESS:
            self._cache[task_id] = meta

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = _INTERVAL_S,
        no_ack: bool = True,
        on_interval: Tick = None,
    ) -> Meta:
        """Wait for the end of a call and give the stored dict; see `get_many`."""
        self._ensure_not_eager()
        try:
            found = self.get_many([task_id], timeout, interval, on_interval=on_interval)
            for _, meta in found:
                return meta
        except TimeoutError:
            raise TimeoutError("The operation timed out.") from None
        return {}

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float = _INTERVAL_S,
        no_ack: bool = True,
        on_message: OnMessage = None,
        on_interval: Tick = None,
        callback: Callable[[str, Any], Any] | None = None,
        propagate: bool = True,
    ) -> Any:
        """Wait for the end of `result` and give its value; see `AsyncResult.get`."""
        tick = on_interval
        seen = None
        if on_message is not None:

            def tick() -> None:
                nonlocal seen
                meta = self.get_task_meta(result.id, cache=False)
                if meta != seen and meta["status"] != states.PENDING:
                    seen = meta
                    on_message(meta)
                if on_interval is not None:
                    on_interval()

        meta = self.wait_for(result.id, timeout=timeout, interval=interval, on_interval=tick)
        if not meta:
            return None
        if on_message is not None:
            on_message(meta)
        if on_interval is not None and meta["status"] in states.PROPAGATE_STATES:
            on_interval()  # the step that failed first speaks first
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def iter_native(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float | None = _INTERVAL_S,
        no_ack: bool = True,
        on_message: OnMessage = None,
        on_interval: Tick = None,
    ) -> Iterator[tuple[str, Any]]:
        """Iterate over a `ResultSet` as its members end; see `ResultSet.iter_native`."""
        self._ensure_not_eager()
        ids: dict[str, None] = {}
        for member in result.results:
            if isinstance(member, ResultSet):
                yield member.id, member.results  # type: ignore[attr-defined]  # a group has one
            else:
                ids[member.id] = None
        yield from self.get_many(
            ids, timeout=timeout, interval=interval, on_message=on_message, on_interval=on_interval
        )


def _shortest(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)
