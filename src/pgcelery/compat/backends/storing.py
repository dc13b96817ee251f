"""What is stored of a call, and how values and exceptions in it are said.

Source: Celery 5.7, `celery.backends.base`. The dict is that of Celery's key-value backends, so that
results can be shared with them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property, partial
from typing import Any

from pgcelery.compat import states
from pgcelery.compat._state import get_current_task
from pgcelery.compat.backends import errors
from pgcelery.compat.backends.codec import Codec
from pgcelery.compat.backends.failing import Failing
from pgcelery.compat.backends.retrying import retried
from pgcelery.compat.exceptions import BackendStoreError, TaskRevokedError
from pgcelery.compat.result import ResultBase
from pgcelery.compat.states import to_engine
from pgcelery.compat.utils.serialization import get_pickleable_exception, get_pickled_exception

Meta = dict[str, Any]

#: Serializers that can say an exception itself.
EXCEPTION_ABLE_CODECS = frozenset({"pickle"})


class Storing(Failing):
    """The part of a backend that writes."""

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES

    serializer: str
    expires: Any
    failure_expires: Any
    _codec: Codec

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """Store that a call runs."""
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store what a call returned, unless it ignores its result."""
        if store_result and not (request is not None and request.ignore_result):
            self.store_result(task_id, result, state, request=request)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store that a call was revoked."""
        if store_result:
            self.store_result(task_id, TaskRevokedError(reason), state, request=request)

    def mark_as_retry(
        self,
        task_id: str,
        exc: Any,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        """Store that a call waits to run again because of `exc`."""
        return self.store_result(task_id, exc, state, traceback=traceback, request=request)

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store state and result of a call; one that has ended stays as it is.

        Gives the result as it was stored.
        """
        result = self.encode_result(result, state)
        lost = partial(
            BackendStoreError, "failed to store result on the backend", task_id=task_id, state=state
        )
        retried(
            self.app,
            self._store_result,
            task_id,
            result,
            state,
            traceback,
            lost=lost,
            request=request,
            **kwargs,
        )
        return result

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Write a result that is encoded already."""
        meta = self._get_result_meta(result, state, traceback, request)
        meta["task_id"] = task_id
        data = self.encode(meta)
        self.app.engine.put_result(task_id, to_engine(state), data, ttl_s=self.ttl_s(state))
        return result

    def encode_meta(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        *,
        hidden: bool = False,
        chord_end: Any = None,
    ) -> bytes:
        """Give what is stored of a call as the bytes of an outcome.

        With `hidden` only what waits for the call in its workflow gets to see it; `chord_end` tells
        that which call is to call the error links.

        Raises:
            kombu.exceptions.EncodeError: The serializer cannot say `result`.
        """
        meta = self._get_result_meta(self.encode_result(result, state), state, traceback, request)
        meta["task_id"] = task_id
        if hidden:
            meta["hidden"] = True
        if chord_end is not None:
            meta["chord_end"] = chord_end
        return self.encode(meta)

    def decode_meta(self, data: bytes) -> Meta:
        """Read what `encode_meta` made, exceptions rebuilt."""
        return self.decode_result(data)

    def ttl_s(self, state: str) -> float | None:
        """Seconds for which a result in `state` is kept; None for ever."""
        expires = self.expires
        if state in states.PROPAGATE_STATES and self.failure_expires is not None:
            expires = self.prepare_expires(self.failure_expires)
        return float(expires) if expires else None

    def _get_result_meta(
        self,
        result: Any,
        state: str,
        traceback: str | None,
        request: Any,
        format_date: bool = True,
        encode: bool = False,
    ) -> Meta:
        """Give the dict that is stored, but for the id."""
        done: Any = None
        if state in self.READY_STATES:
            done = self.app.now()
            done = done.isoformat() if format_date else done
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": done,
        }
        if request is None:
            return meta
        if getattr(request, "group", None):
            meta["group_id"] = request.group
        if getattr(request, "parent_id", None):
            meta["parent_id"] = request.parent_id
        if self._extended:
            meta.update(self._extended_meta(request, encode))
        return meta

    @cached_property
    def _extended(self) -> bool:
        return bool(self.app.conf.result_extended)

    def _extended_meta(self, request: Any, encode: bool) -> Meta:
        info = getattr(request, "delivery_info", None) or {}
        meta = {
            "name": getattr(request, "task", None),
            "args": getattr(request, "args", None),
            "kwargs": getattr(request, "kwargs", None),
            "worker": getattr(request, "hostname", None),
            "retries": getattr(request, "retries", None),
            "queue": info.get("routing_key"),
        }
        stamps = getattr(request, "stamps", None)
        if stamps:
            names = request.stamped_headers or ()
            meta["stamped_headers"] = request.stamped_headers
            meta.update({name: value for name, value in stamps.items() if name in names})
        if encode:
            meta.update({key: self.encode(meta[key]) for key in ("args", "kwargs")})
        return meta

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """List, as tuples, the results of what the task has sent; None outside a task."""
        request = request or getattr(get_current_task(), "request", None)
        if not request:
            return None
        return [result.as_tuple() for result in getattr(request, "children", ())]

    def encode_result(self, result: Any, state: str) -> Any:
        """Give `result` as it is stored: exceptions described, results as tuples."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def prepare_value(self, result: Any) -> Any:
        """Give a task's own result (a task may return an `AsyncResult`) as a tuple."""
        if self.serializer != "pickle" and isinstance(result, ResultBase):
            return result.as_tuple()  # type: ignore[attr-defined]  # all of them have it
        return result

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Give `exc` as it is stored."""
        if (serializer or self.serializer) in EXCEPTION_ABLE_CODECS:
            return get_pickleable_exception(exc)
        return errors.describe(exc, self.encode)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """Rebuild an exception that was stored; see `errors.rebuild`."""
        if not exc:
            return None
        if not isinstance(exc, BaseException):
            return errors.rebuild(exc)
        return get_pickled_exception(exc) if self.serializer in EXCEPTION_ABLE_CODECS else exc

    def encode(self, data: Any) -> bytes:
        """Give the bytes of `data`."""
        return self._codec.encode(data)

    def decode(self, payload: Any) -> Any:
        """Read what `encode` made."""
        return self._codec.decode(payload)

    def meta_from_decoded(self, meta: Meta) -> Meta:
        """Rebuild the exception in a stored dict."""
        if meta["status"] in self.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def decode_result(self, payload: Any) -> Meta:
        """Read a stored result, exceptions rebuilt."""
        return self.meta_from_decoded(self.decode(payload))

    def prepare_expires(self, value: Any, type: Callable[[Any], Any] | None = None) -> Any:
        """Give seconds for a number or timedelta; for None, ``result_expires``."""
        if value is None:
            value = self.app.conf.result_expires
        if isinstance(value, timedelta):
            value = value.total_seconds()
        return type(value) if value is not None and type else value
