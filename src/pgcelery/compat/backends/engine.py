"""The result backend on the engine.

Source: Celery 5.7, `celery.backends.base`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from kombu.utils.functional import LRUCache
from kombu.utils.url import maybe_sanitize_url

from pgcelery.compat import states
from pgcelery.compat._state import current_app, get_current_worker_task
from pgcelery.compat.backends.codec import Codec
from pgcelery.compat.backends.retrying import retried
from pgcelery.compat.backends.storing import Storing
from pgcelery.compat.backends.waiting import Waiting
from pgcelery.compat.exceptions import (
    BackendGetMetaError,
    TaskRevokedError,
    TimeoutError,
    WorkerLostError,
)
from pgcelery.compat.result import inputs, result_from_tuple
from pgcelery.engine import State, StoredResult

Meta = dict[str, Any]

#: Before the id of a group that was saved.
GROUP_PREFIX = "celery-taskset-meta-"

_LOST = "Worker exited prematurely: no outcome of this task was recorded."


def unpickle_backend(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a backend of the current application; what pickles of backends say."""
    return cls(*args, app=current_app._get_current_object(), **kwargs)


class _NoCache(dict[str, Any]):
    """Keeps nothing."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass

    def update(self, *args: Any, **kwargs: Any) -> None:
        pass


class Backend(Storing, Waiting):
    """Results, read from and written to the engine.

    Subclasses may keep them elsewhere: see `BaseBackend`.

    Args:
        app: The application.
        serializer: Default ``result_serializer``.
        max_cached_results: Default ``result_cache_max``.
        accept: What may be read back; default ``result_accept_content``, then ``accept_content``.
        expires: Seconds to keep results; default ``result_expires``.
        expires_type: Type of that number.
        url: For `as_uri`.
        **kwargs: Not used.
    """

    TimeoutError = TimeoutError

    subpolling_interval: float | None = None
    supports_native_join = True
    supports_autoexpire = True
    supports_result_compression = True
    supports_failure_expires = True
    persistent = True
    is_async = True

    def __init__(
        self,
        app: Any,
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Collection[str] | None = None,
        expires: Any = None,
        expires_type: Callable[[Any], Any] | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        conf = app.conf
        self.serializer: str = serializer or conf.result_serializer
        if accept is None:
            accept = conf.result_accept_content
        if accept is None:
            accept = conf.accept_content
        self._codec = Codec(self.serializer, accept, conf.result_compression)
        self.content_type = self._codec.content_type
        self.content_encoding = self._codec.content_encoding
        self.encoder = self._codec.encoder
        self.accept = self._codec.accept
        self.compression = self._codec.compression
        limit = max_cached_results or conf.result_cache_max
        self._cache: Any = _NoCache() if limit == -1 else LRUCache(limit=limit)
        self.expires = self.prepare_expires(expires, expires_type)
        self.failure_expires = conf.get("result_failure_expires")
        self.url = url

    def as_uri(self, include_password: bool = False) -> str:
        """Give the URL of the backend, without its password unless asked."""
        if include_password:
            return self.url or ""
        url = str(maybe_sanitize_url(self.url or ""))
        return url[:-1] if url.endswith(":///") else url

    # -- reading --------------------------------------------------------------------------------

    def is_cached(self, task_id: str) -> bool:
        """Whether the result is remembered here."""
        return task_id in self._cache

    def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:
        """Give what is stored of a call; of an unknown one, that it is PENDING."""
        self._ensure_not_eager()
        if cache and task_id in self._cache:
            return self._cache[task_id]  # type: ignore[no-any-return]
        meta: Meta = retried(
            self.app,
            self._get_task_meta_for,
            task_id,
            lost=partial(BackendGetMetaError, "failed to get meta", task_id=task_id),
        )
        if cache and meta.get("status") == states.SUCCESS:
            self._cache[task_id] = meta
        return meta

    def _get_task_meta_for(self, task_id: str) -> Meta:
        """Read what is stored."""
        return self._metas([task_id])[task_id]

    def get_task_metas(self, ids: Iterable[str]) -> dict[str, Meta]:
        """Give what is stored of several calls, asking once."""
        self._ensure_not_eager()
        metas: dict[str, Meta] = retried(self.app, self._metas, ids)
        return metas

    def failed_among(self, ids: Collection[str], *, hidden: bool = False) -> dict[str, Meta]:
        """Give what is stored of those calls that failed or were revoked, asking once."""
        rows = retried(self.app, self.app.engine.failures, ids) if ids else {}
        metas = {task_id: self._meta_of(row, hidden=hidden) for task_id, row in rows.items()}
        return {one: meta for one, meta in metas.items() if meta["status"] != states.PENDING}

    def _metas(self, ids: Iterable[str]) -> dict[str, Meta]:
        """Read what is stored of several calls."""
        ids = list(ids)
        rows = self.app.engine.results(ids)
        return {task_id: self._meta_of(rows.get(task_id)) for task_id in ids}

    def _ended(self, ids: Collection[str], timeout_s: float | None) -> dict[str, Meta]:
        """Wait until one of `ids` has ended; read those that have, none when the time is over."""
        rows = retried(self.app, self.app.engine.wait, ids, timeout_s)
        return {task_id: self._meta_of(row) for task_id, row in rows.items()}

    def _meta_of(self, row: StoredResult | None, *, hidden: bool = False) -> Meta:
        """Give the dict for a row of the engine, which may lack one, or be `hidden` from users."""
        if row is not None and row.result:
            meta = self.decode_result(row.result)
            if hidden or not meta.get("hidden"):
                return meta
            return {"status": states.PENDING, "result": None}
        if row is None or row.state not in (State.CANCELLED, State.FAILED):
            return {"status": states.PENDING, "result": None}
        lost = row.state is State.FAILED
        return {
            "status": states.FAILURE if lost else states.REVOKED,
            "result": WorkerLostError(_LOST) if lost else TaskRevokedError("revoked"),
            "traceback": None,
            "children": [],
            "date_done": row.finished_at.isoformat() if row.finished_at else None,
            "task_id": row.id,
        }

    def reload_task_result(self, task_id: str) -> None:
        """Read a result anew into the cache."""
        self._cache[task_id] = self.get_task_meta(task_id, cache=False)

    def task_result_exists(self, task_id: str) -> bool:
        """Whether anything is stored of a call."""
        return bool(self._get_task_meta_for(task_id)["status"] != states.PENDING)

    def get_state(self, task_id: str) -> str:
        """Give the state of a call."""
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_traceback(self, task_id: str) -> str | None:
        """Give the traceback of a call that failed."""
        return self.get_task_meta(task_id).get("traceback")

    def get_result(self, task_id: str) -> Any:
        """Give what a call returned or raised."""
        return self.get_task_meta(task_id).get("result")

    def get_children(self, task_id: str) -> Any:
        """Give what a call sent, as tuples."""
        return self.get_task_meta(task_id).get("children")

    def forget(self, task_id: str) -> None:
        """Delete what is stored of a call."""
        self._cache.pop(task_id, None)
        retried(self.app, self._forget, task_id)

    def _forget(self, task_id: str) -> None:
        self.app.engine.forget([task_id])

    # -- groups ---------------------------------------------------------------------------------

    def save_group(self, group_id: str, result: Any) -> Any:
        """Store the members of a group; gives `result`."""
        return retried(self.app, self._save_group, group_id, result)

    def _save_group(self, group_id: str, result: Any) -> Any:
        data = self.encode({"result": result.as_tuple()})
        ttl = self.ttl_s(states.SUCCESS)
        self.app.engine.keep(GROUP_PREFIX + group_id, data, ttl_s=ttl)
        return result

    def get_group_meta(self, group_id: str, cache: bool = True) -> Meta | None:
        """Give what is stored of a group, its result rebuilt; None if nothing is."""
        self._ensure_not_eager()
        if cache and group_id in self._cache:
            return self._cache[group_id]  # type: ignore[no-any-return]
        meta: Meta | None = retried(self.app, self._restore_group, group_id)
        if cache and meta is not None:
            self._cache[group_id] = meta
        return meta

    def _restore_group(self, group_id: str) -> Meta | None:
        row = self.app.engine.results([GROUP_PREFIX + group_id]).get(GROUP_PREFIX + group_id)
        if row is None or not row.result:
            return None
        meta: Meta = self.decode(row.result)
        meta["result"] = result_from_tuple(meta["result"], self.app)
        return meta

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """Give the `GroupResult` that was saved; None if none was."""
        meta = self.get_group_meta(group_id, cache=cache)
        return meta["result"] if meta else None

    def reload_group_result(self, group_id: str) -> None:
        """Read a group anew into the cache."""
        self._cache[group_id] = self.get_group_meta(group_id, cache=False)

    def delete_group(self, group_id: str) -> None:
        """Delete what is stored of a group."""
        self._cache.pop(group_id, None)
        retried(self.app, self._delete_group, group_id)

    def _delete_group(self, group_id: str) -> None:
        self.app.engine.forget([GROUP_PREFIX + group_id])

    # -- for the callers of Celery's backends ---------------------------------------------------

    def cleanup(self) -> None:
        """Do nothing: workers delete what has expired."""

    def process_cleanup(self) -> None:
        """Do nothing: connections are the engine's."""

    def on_task_call(self, producer: Any, task_id: str) -> dict[str, Any]:
        """Give nothing to add to a message."""
        return {}

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Do nothing: the engine counts the header of a chord down."""

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Do nothing: the engine knows it."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Hear of a chord before its header is sent."""
        self.ensure_chords_allowed()

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError in a backend that has no chords; this one has."""

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Have the chord of the task that runs here wait for `result` too, yet to be sent."""
        task = get_current_worker_task()
        if task is None:
            raise RuntimeError("A chord can only be added to by a task in its header")
        ids = inputs.flat(inputs.of(result))
        retried(self.app, self.app.engine.join, ids, task.request.id)

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Give `result`: waiting needs no preparation."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Give `result`."""
        return result

    def __reduce__(self) -> Any:
        return unpickle_backend, (self.__class__, (), {})
