"""The result of one call.

Source: Celery 5.7, `celery.result`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from vine import Thenable, promise

from pgcelery.compat import states
from pgcelery.compat._state import app_or_default
from pgcelery.compat.exceptions import IncompleteStream, TimeoutError
from pgcelery.compat.result.joining import assert_will_not_block
from pgcelery.compat.utils.graph import DependencyGraph, GraphFormatter

if TYPE_CHECKING:
    from pgcelery.engine import Why

try:
    import tblib
except ImportError:
    tblib = None

R = TypeVar("R", covariant=True)

Meta = dict[str, Any]


class ResultBase:
    """Base of all results."""

    #: Result of the step before, if any.
    parent: Any = None


@Thenable.register
class AsyncResult(ResultBase, Generic[R]):
    """What is known of a call.

    Args:
        id: The call's id.
        backend: Where to ask; default the application's.
        task_name: Not used.
        app: The application; default the current one.
        parent: Result of the step before.

    Raises:
        ValueError: `id` is None.
    """

    app: Any = None
    TimeoutError = TimeoutError
    id: str = None  # type: ignore[assignment]  # a class attribute in Celery too
    backend: Any = None

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Any = None,
        parent: Any = None,
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.app = app_or_default(app or self.app)
        self.id = id
        self.backend = backend or self.app.backend
        self.parent = parent
        self._cache: Meta | None = None
        self._ignored = False

    @cached_property
    def on_ready(self) -> Any:
        """Promise that is kept when the result is first seen ready."""
        return promise()

    @property
    def ignored(self) -> bool:
        """Whether the result is known not to be stored; `get` then gives None at once."""
        return getattr(self, "_ignored", False)

    @ignored.setter
    def ignored(self, value: bool) -> None:
        self._ignored = value

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Call `callback(result)` when the result is first seen ready."""
        self.backend.add_pending_result(self, weak=weak)
        return self.on_ready.then(callback, on_error)

    def as_tuple(self) -> Any:
        """Give ``((id, parent as tuple or None), None)``; `result_from_tuple` undoes it."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """List the ids of this and its parents."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    def forget(self) -> None:
        """Delete what is stored of this and its parents."""
        self._cache = None
        if self.parent:
            self.parent.forget()
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Cancel the call; if it runs already, only with `terminate`.

        Args:
            connection: Not used.
            terminate: Whether to signal the process that runs it.
            signal: Default TERM.
            wait: Whether to wait for the workers' replies, at most `timeout` seconds.
            timeout: See `wait`.
        """
        self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout,
        )  # fmt: skip

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Cancel all calls with these stamps; see `revoke`."""
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout,
        )  # fmt: skip

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: Any = states.EXCEPTION_STATES,
        PROPAGATE_STATES: Any = states.PROPAGATE_STATES,
    ) -> R:
        """Wait until the call has ended and give what it returned.

        Args:
            timeout: Seconds; None waits for ever, 0 looks once.
            propagate: Whether to raise what the call raised; else that exception is returned.
            interval: Seconds between calls of `on_interval`.
            no_ack: Not used.
            follow_parents: Whether to raise what an earlier step raised.
            callback: Called with id and value when there is one.
            on_message: Called with the stored fields whenever they are seen changed.
            on_interval: Called at every interval while waiting.
            disable_sync_subtasks: Whether to refuse waiting within a task.
            EXCEPTION_STATES: Not used.
            PROPAGATE_STATES: Not used.

        Raises:
            celery.exceptions.TimeoutError: The time is over.
            RuntimeError: Called within a task.
        """
        if self.ignored:
            return cast("R", None)
        if disable_sync_subtasks:
            assert_will_not_block()
        tick = on_interval
        if follow_parents and propagate and self.parent:
            self._maybe_reraise_parent_error()

            def tick() -> None:
                self._maybe_reraise_parent_error()
                if on_interval is not None:
                    on_interval()

        if self._cache:
            if propagate:
                self.maybe_throw(callback=callback)
            return cast("R", self.result)
        self.backend.add_pending_result(self)
        value = self.backend.wait_for_pending(
            self, timeout=timeout, interval=interval, on_interval=tick, no_ack=no_ack,
            propagate=propagate, callback=callback, on_message=on_message,
        )  # fmt: skip
        return cast("R", value)

    wait = get

    def _maybe_reraise_parent_error(self) -> None:
        calls = list(leaves(reversed(list(self._parents()))))
        unknown = {one.id for one in calls if one._cache is None}
        failed = self.backend.failed_among(unknown)
        for one in calls:
            if one.id in failed or one.id not in unknown:
                one.maybe_throw()

    def _parents(self) -> Iterator[Any]:
        node = self.parent
        while node:
            yield node
            node = node.parent

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Iterate over this and everything it started, with their values. See `iterdeps`."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**kwargs)

    def get_leaf(self) -> Any:
        """Give the value of the last thing this started."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Iterate over ``(parent, result)`` of this and everything it started.

        Raises:
            celery.exceptions.IncompleteStream: One has not ended, and not `intermediate`.
        """
        stack: deque[tuple[Any, Any]] = deque([(None, self)])
        while stack:
            parent, node = stack.popleft()
            yield parent, node
            if node.ready():
                stack.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream

    def why(self) -> Why | None:
        """Say where the call is and what keeps it from running; ours, not Celery's.

        Returns:
            None when nothing is known of it; else the one reason, with a sentence as its `str`.
        """
        return cast("Why | None", self.app.why(self.id))

    def exists(self) -> bool:
        """Whether anything is stored of this call."""
        return bool(self.backend.task_result_exists(self.id))

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self.state in self.backend.READY_STATES

    def successful(self) -> bool:
        """Whether the call returned."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether the call raised."""
        return self.state == states.FAILURE

    def throw(self, exc: BaseException, tb: TracebackType | None = None) -> None:
        """Raise `exc`, telling those that asked by `then`."""
        self.on_ready.throw(exc, tb)

    def maybe_throw(
        self, propagate: bool = True, callback: Callable[[str, Any], Any] | None = None
    ) -> Any:
        """Give the value as far as it is known; raise it if it is what the call raised."""
        meta = self._get_task_meta() if self._cache is None else self._cache
        value = meta["result"]
        if propagate and meta["status"] in states.PROPAGATE_STATES:
            self.throw(value, self._to_remote_traceback(meta.get("traceback")))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def _to_remote_traceback(self, tb: str | None) -> TracebackType | None:
        if tb and tblib is not None and self.app.conf.task_remote_tracebacks:
            return cast("TracebackType", tblib.Traceback.from_string(tb).as_traceback())
        return None

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """Give the graph of this and everything it started."""
        formatter = formatter or GraphFormatter(root=self.id, shape="oval")
        graph = DependencyGraph(formatter=formatter)
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent:
                graph.add_edge(parent, node)
        return graph

    @cached_property
    def graph(self) -> DependencyGraph:
        """The graph of this and everything it started, as when it was first asked for."""
        return self.build_graph()

    def __str__(self) -> str:
        return str(self.id)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        if isinstance(other, str):
            return other == self.id
        return NotImplemented

    def __copy__(self) -> Any:
        return self.__class__(self.id, self.backend, None, self.app, self.parent)

    def __reduce__(self) -> Any:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.backend, None, None, self.parent

    @property
    def supports_native_join(self) -> bool:
        """Whether the backend can wait for many at once."""
        return bool(self.backend.supports_native_join)

    def _maybe_set_cache(self, meta: Meta) -> Meta:
        if meta and meta["status"] in states.READY_STATES:
            meta = self._set_cache(self.backend.meta_from_decoded(meta))
            if "on_ready" in self.__dict__:
                self.on_ready(self)
        return meta

    def _get_task_meta(self) -> Meta:
        if self._cache is None:
            return self._maybe_set_cache(self.backend.get_task_meta(self.id))
        return self._cache

    def _iter_meta(self, **kwargs: Any) -> Iterator[Meta]:
        return iter([self._get_task_meta()])

    def _set_cache(self, d: Meta) -> Meta:
        children = d.get("children")
        if children:
            d["children"] = [result_from_tuple(child, self.app) for child in children]
        self._cache = d
        return d

    @property
    def children(self) -> Any:
        """Results of what the task sent, in order; None while not known."""
        return self._get_task_meta().get("children")

    @property
    def result(self) -> Any:
        """What the call returned or raised, or what it last told of its progress."""
        return self._get_task_meta()["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """Traceback of the failure."""
        return self._get_task_meta().get("traceback")

    @property
    def state(self) -> str:
        """State of the call; PENDING also when nothing is known."""
        return str(self._get_task_meta()["status"])

    status = state

    @property
    def task_id(self) -> str:
        """The id."""
        return self.id

    @task_id.setter
    def task_id(self, id: str) -> None:
        self.id = id

    @property
    def name(self) -> str | None:
        """Name of the task; this and the following with ``result_extended`` only."""
        return self._get_task_meta().get("name")

    @property
    def args(self) -> Any:
        """Positional arguments."""
        return self._get_task_meta().get("args")

    @property
    def kwargs(self) -> Any:
        """Keyword arguments."""
        return self._get_task_meta().get("kwargs")

    @property
    def worker(self) -> str | None:
        """Node that ran it."""
        return self._get_task_meta().get("worker")

    @property
    def date_done(self) -> datetime | None:
        """When it ended."""
        done = self._get_task_meta().get("date_done")
        return datetime.fromisoformat(done) if isinstance(done, str) else done

    @property
    def retries(self) -> int | None:
        """How often it was retried."""
        return self._get_task_meta().get("retries")

    @property
    def queue(self) -> str | None:
        """Queue it came from."""
        return self._get_task_meta().get("queue")


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """Make the result that an ``as_tuple()`` says; lists will do. A result comes back as it is."""
    if isinstance(r, ResultBase):
        return r
    app = app_or_default(app)
    own, nodes = r
    id, parent = own if isinstance(own, (list, tuple)) else (own, None)
    if parent:
        parent = result_from_tuple(parent, app)
    if nodes is None:
        return app.AsyncResult(id, parent=parent)
    members = [result_from_tuple(child, app) for child in nodes]
    return app.GroupResult(id, members, parent=parent)


def leaves(results: Iterable[Any]) -> Iterator[Any]:
    """Iterate over the results of calls in these, groups among them opened."""
    for result in results:
        members = getattr(result, "results", None)
        if members is None:
            yield result
        else:
            yield from leaves(members)
