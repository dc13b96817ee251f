"""`Manager`: wait for what a worker does.

Source: Celery 5.7, ``celery.contrib.testing.manager``.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, TextIO

from kombu.exceptions import OperationalError
from kombu.utils import functional

from pgcelery.compat import states
from pgcelery.compat.exceptions import TimeoutError
from pgcelery.compat.result import ResultSet
from pgcelery.compat.utils.text import truncate

# Kombu does not say its types.
retry_over_time: Any = functional.retry_over_time

__all__ = ("Manager", "ManagerMixin", "Sentinel")


class Sentinel(Exception):
    """What is waited for has not happened yet."""


class ManagerMixin:
    """Waiting and looking, on `app`.

    Attributes:
        block_timeout: Kept for subclasses, in seconds.
        no_join: `join` does nothing.
    """

    app: Any

    def _init_manager(
        self,
        block_timeout: float = 30 * 60.0,
        no_join: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.connerrors: tuple[type[BaseException], ...] = (OperationalError, OSError)
        self.block_timeout = block_timeout
        self.no_join = no_join

    def remark(self, s: str, sep: str = "-") -> None:
        """Write a line to stdout."""
        self.stdout.write(f"{sep}{s}\n")

    def warn(self, s: str) -> None:
        """Write a line to stderr."""
        self.stderr.write(f"{s}\n")

    def missing_results(self, r: Iterable[Any]) -> list[str]:
        """Ids among results that are not ready."""
        return [result.id for result in r if not result.ready()]

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        errback: Callable[..., Any] | None = None,
        max_retries: int = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> Any:
        """Call until it no longer raises `catch`; what it gave.

        Raises:
            BaseException: One of `catch`, when the attempts are used up.
        """

        def again(exc: BaseException, intervals: Iterator[float], retries: int) -> float:
            interval = next(intervals)
            if emit_warning:
                self.warn(f"Still waiting for {desc}.  Trying again in {interval:g}s: {exc!r}")
            if errback:
                errback(exc, interval, retries)
            return interval

        return self.retry_over_time(
            fun,
            catch,
            args=args,
            kwargs=kwargs or {},
            errback=again,
            max_retries=max_retries,
            interval_start=interval_start,
            interval_step=interval_step,
            interval_max=interval_max,
            **{name: value for name, value in options.items() if name != "interval"},
        )

    def ensure_not_for_a_while(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        max_retries: int = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> None:
        """Call again and again while it raises `catch`, as it should.

        Raises:
            AssertionError: It did not raise once.
        """
        try:
            self.wait_for(
                fun,
                catch,
                desc=desc,
                max_retries=max_retries,
                interval_start=interval_start,
                interval_step=interval_step,
                interval_max=interval_max,
                emit_warning=emit_warning,
            )
        except catch:
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """Kombu's function of that name."""
        return retry_over_time(*args, **kwargs)

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for a result or a set of them, over lost connections.

        Raises:
            AssertionError: Results were missing to the end.
        """
        if self.no_join:
            return None
        results = r if isinstance(r, ResultSet) else self.app.ResultSet([r])
        received: list[str] = []

        def note(task_id: str, value: Any) -> None:
            received.append(task_id)

        for _ in range(max_retries) if max_retries else count(0):
            received[:] = []
            try:
                return results.get(callback=note, propagate=propagate, **kwargs)
            except TimeoutError as exc:
                missing = truncate(", ".join(self.missing_results(results)))
                left = len(results) - len(received)
                self.remark(f"Still waiting for {left}/{len(results)}: [{missing}]: {exc!r}", "!")
            except self.connerrors as exc:
                self.remark(f"join: connection lost: {exc!r}", "!")
        raise AssertionError("Test failed: Missing task results")

    def inspect(self, timeout: float = 3.0) -> Any:
        """`Inspect` of the app."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Sequence[str], timeout: float = 0.5) -> Iterator[Any]:
        """Give ``(node, {id: [state, info]})``."""
        yield from (self.inspect(timeout).query_task(*ids) or {}).items()

    def query_task_states(self, ids: Sequence[str], timeout: float = 0.5) -> dict[str, set[str]]:
        """Ids by the state in which workers have them."""
        found: dict[str, set[str]] = defaultdict(set)
        for _, reply in self.query_tasks(ids, timeout=timeout):
            for task_id, (state, _) in reply.items():
                found[state].add(task_id)
        return found

    def assert_accepted(
        self,
        ids: Sequence[str],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be accepted",
        **policy: Any,
    ) -> Any:
        """Wait until every task runs or has run."""
        return self.assert_task_worker_state(
            self.is_accepted, ids, interval=interval, desc=desc, **policy
        )

    def assert_received(
        self,
        ids: Sequence[str],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be received",
        **policy: Any,
    ) -> Any:
        """Wait until a worker has every task."""
        return self.assert_task_worker_state(
            self.is_received, ids, interval=interval, desc=desc, **policy
        )

    def assert_result_tasks_in_progress_or_completed(
        self,
        async_results: Sequence[Any],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:
        """Wait until every result says STARTED or SUCCESS."""
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, async_results, interval=interval, desc=desc, **policy
        )

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Sequence[Any], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until `fun` of the results is true."""
        check = partial(self.true_or_raise, fun, results, timeout=interval)
        return self.wait_for(check, (Sentinel,), **policy)

    def assert_task_worker_state(
        self, fun: Callable[..., Any], ids: Sequence[str], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until `fun` of the ids is true."""
        check = partial(self.true_or_raise, fun, ids, timeout=interval)
        return self.wait_for(check, (Sentinel,), **policy)

    @staticmethod
    def is_result_task_in_progress(results: Sequence[Any], **kwargs: Any) -> bool:
        """Whether every result says STARTED or SUCCESS."""
        return all(result.state in (states.STARTED, states.SUCCESS) for result in results)

    def is_received(self, ids: Sequence[str], **kwargs: Any) -> bool:
        """Whether a worker has every task."""
        return self._ids_matches_state(["reserved", "active", "ready"], ids, **kwargs)

    def is_accepted(self, ids: Sequence[str], **kwargs: Any) -> bool:
        """Whether every task runs or has run."""
        return self._ids_matches_state(["active", "ready"], ids, **kwargs)

    def _ids_matches_state(
        self, expected_states: Sequence[str], ids: Sequence[str], timeout: float = 0.5
    ) -> bool:
        found = self.query_task_states(ids, timeout=timeout)
        return all(any(id in found[state] for state in expected_states) for id in ids)

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call; a false answer is raised as `Sentinel`."""
        answer = fun(*args, **kwargs)
        if not answer:
            raise Sentinel
        return answer

    def wait_until_idle(self) -> None:
        """Delete what waits, and wait until no worker runs anything."""
        control = self.app.control
        while control.purge():
            continue
        inspect = control.inspect()
        while any((inspect.active(safe=True) or {}).values()):
            continue


class Manager(ManagerMixin):
    """The helpers, for one app."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
