"""The results of several calls: `ResultSet`, and `GroupResult` with an id of its own.

Source: Celery 5.7, `celery.result`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Any, cast

from vine import Thenable, barrier, promise

from pgcelery.compat import states
from pgcelery.compat._state import current_app
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.result.joining import assert_will_not_block
from pgcelery.compat.result.single import AsyncResult, Meta, ResultBase, leaves

Callback = Callable[[str, Any], Any]


@Thenable.register
class ResultSet(ResultBase):
    """Several results, each once.

    Args:
        results: The results.
        app: The application; default that of the first result.
        ready_barrier: Not used.
        **kwargs: Not used.
    """

    _app: Any = None
    results: Any = None

    def __init__(
        self, results: Any, app: Any = None, ready_barrier: Any = None, **kwargs: Any
    ) -> None:
        self._app = app
        self.results = results

    def add(self, result: Any) -> None:
        """Add a result, unless it is there."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Remove a result, or the one of an id.

        Raises:
            KeyError: It is not there.
        """
        if isinstance(result, str):
            result = self.app.AsyncResult(result)
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Remove a result if it is there."""
        with suppress(KeyError):
            self.remove(result)

    def update(self, results: Any) -> None:
        """Add those results that are not there."""
        self.results.extend(r for r in results if r not in self.results)

    def clear(self) -> None:
        """Remove all."""
        self.results[:] = []

    def successful(self) -> bool:
        """Whether all returned."""
        return all(state == states.SUCCESS for state in self._states())

    def failed(self) -> bool:
        """Whether one raised."""
        return any(state == states.FAILURE for state in self._states())

    def maybe_throw(self, callback: Callback | None = None, propagate: bool = True) -> None:
        """Raise what one of them raised, if one did."""
        known = self._states_by_id()
        for result in leaves(self.results):
            if callback is not None or known[result.id] in states.READY_STATES:
                result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def waiting(self) -> bool:
        """Whether one has not ended."""
        return not self.ready()

    def ready(self) -> bool:
        """Whether all have ended."""
        return all(state in states.READY_STATES for state in self._states())

    def completed_count(self) -> int:
        """How many returned."""
        known = self._states_by_id()
        return sum(
            all(known[leaf.id] == states.SUCCESS for leaf in leaves([result]))
            for result in self.results
        )

    def _states(self) -> Collection[str]:
        """Give the states of all, groups among them opened."""
        return self._states_by_id().values()

    def _states_by_id(self) -> dict[str, str]:
        """Look up the states of all in one go."""
        found: dict[str, str] = {}
        unknown = {}
        for leaf in leaves(self.results):
            if leaf._cache or not isinstance(leaf, AsyncResult):
                found[leaf.id] = leaf.state
            else:
                unknown[leaf.id] = leaf
        if unknown:
            for task_id, meta in self.backend.get_task_metas(unknown).items():
                unknown[task_id]._maybe_set_cache(meta)
                found[task_id] = meta["status"]
        return found

    def forget(self) -> None:
        """Delete what is stored of all."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | int | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Cancel all; see `AsyncResult.revoke`."""
        self.app.control.revoke(
            [result.id for result in self.results], connection=connection, timeout=timeout,
            terminate=terminate, signal=signal, reply=wait,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Any:
        """Wait for all and list their values in order; see `join` and `join_native`."""
        join = self.join_native if self.supports_native_join else self.join
        return join(
            timeout=timeout, propagate=propagate, interval=interval, callback=callback,
            no_ack=no_ack, on_message=on_message, disable_sync_subtasks=disable_sync_subtasks,
            on_interval=on_interval,
        )  # fmt: skip

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[Any]:
        """Wait for one after the other.

        Args:
            timeout: Seconds for all of them.
            propagate: Whether to raise what one raised.
            interval: Seconds between calls of `on_interval`.
            callback: Called with id and value of each; the list is then empty.
            no_ack: Not used.
            on_message: Refused.
            disable_sync_subtasks: Whether to refuse waiting within a task.
            on_interval: Called at every interval while waiting.

        Raises:
            celery.exceptions.TimeoutError: The time is over.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        started = time.monotonic()
        values: list[Any] = []
        for result in self.results:
            left = None if timeout is None else max(timeout - (time.monotonic() - started), 0.0)
            value = result.get(
                timeout=left, propagate=propagate, interval=interval, no_ack=no_ack,
                on_interval=on_interval, disable_sync_subtasks=disable_sync_subtasks,
            )  # fmt: skip
            if callback:
                callback(result.id, value)
            else:
                values.append(value)
        return values

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any] | None:
        """Wait for all at once; what one raised is raised as soon as it is known.

        With `callback`, which is called in the order in which they end, gives None. Otherwise see
        `join`.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        values: dict[str, Any] = {}
        found = self.iter_native(timeout, interval, no_ack, on_message, on_interval)
        for task_id, meta in found:
            if isinstance(meta, list):
                value: Any = [
                    child.get(propagate=propagate, disable_sync_subtasks=disable_sync_subtasks)
                    for child in meta
                ]
            else:
                value = meta["result"]
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    raise value
            if callback:
                callback(task_id, value)
            else:
                values[task_id] = value
        return None if callback else [values.get(result.id) for result in self.results]

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Call `callback(self)` when all have been seen ready."""
        done = promise(args=(self,))
        waiting = barrier(self.results)
        waiting.then(done)
        waiting.finalize()
        return done.then(callback, on_error)

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Iterate over ``(id, stored fields)`` as they end; for a group in here, its results."""
        return cast(
            "Iterator[tuple[str, Any]]",
            self.backend.iter_native(
                self, timeout=timeout, interval=interval, no_ack=no_ack, on_message=on_message,
                on_interval=on_interval,
            ),
        )  # fmt: skip

    def _iter_meta(self, **kwargs: Any) -> Iterator[Meta]:
        ids = {result.id for result in self.results}
        return (meta for _, meta in self.backend.get_many(ids, max_iterations=1, **kwargs))

    def _failed_join_report(self) -> Iterator[Any]:
        return (r for r in self.results if r.state in states.PROPAGATE_STATES)

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ResultSet):
            return bool(other.results == self.results)
        return NotImplemented

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(r.id for r in self.results)}]>"

    @property
    def supports_native_join(self) -> Any:
        """Whether the backend can wait for many at once; None for an empty set."""
        return self.results[0].supports_native_join if self.results else None

    @property
    def app(self) -> Any:
        """The application."""
        if self._app is None:
            self._app = self.results[0].app if self.results else current_app._get_current_object()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def backend(self) -> Any:
        """Where to ask."""
        return self.app.backend if self.app else self.results[0].backend


@Thenable.register
class GroupResult(ResultSet):
    """The results of a group, in its order.

    Args:
        id: The group's id.
        results: Results of its members.
        parent: Result of the step before.
        **kwargs: As for `ResultSet`.
    """

    id: Any = None
    results: Any = None

    def __init__(
        self,
        id: str | None = None,
        results: Any = None,
        parent: Any = None,
        **kwargs: Any,
    ) -> None:
        self.id = id
        self.parent = parent
        super().__init__(results, **kwargs)

    def save(self, backend: Any = None) -> Any:
        """Store the ids of the group's members, for `restore`."""
        return (backend or self.app.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Remove what `save` stored."""
        (backend or self.app.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> Any:
        """Give the group that was saved under `id`; None if there is none."""
        app = app or (current_app if isinstance(cls.app, property) else cls.app)
        return (backend or app.backend).restore_group(id)

    def __reduce__(self) -> Any:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self.results

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    __nonzero__ = __bool__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return bool(
                other.id == self.id
                and other.results == self.results
                and other.parent == self.parent
            )
        if isinstance(other, str):
            return bool(other == self.id)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(r.id for r in self.results)}]>"

    def __str__(self) -> str:
        return str(self.id)

    def as_tuple(self) -> Any:
        """Give ``((id, parent as tuple or None), [members as tuples])``."""
        return (
            (self.id, self.parent and self.parent.as_tuple()),
            [result.as_tuple() for result in self.results],
        )

    @property
    def children(self) -> Any:
        """The members' results."""
        return self.results
