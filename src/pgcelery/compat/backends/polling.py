"""Backends that keep results elsewhere: what their classes inherit from.

Source: Celery 5.7, `celery.backends.base`. They are asked again and again, for they cannot tell.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from typing import Any

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from pgcelery.compat import states
from pgcelery.compat.backends.engine import Backend, Meta
from pgcelery.compat.result import result_from_tuple

E_NO_BACKEND = (
    "No result backend is configured.\nPlease see the documentation for more information."
)
E_CHORD_NO_BACKEND = (
    "Starting chords requires a result backend to be configured.\n\n"
    "Note that a group chained with a task is also upgraded to be a chord,\n"
    "as this pattern requires synchronization."
)

_LOOK_EVERY_S = 0.5


class BaseBackend(Backend):
    """Base of a backend that overrides `_store_result`, `_get_task_meta_for`, `_forget`..."""

    supports_autoexpire = False
    is_async = False

    def _metas(self, ids: Iterable[str]) -> dict[str, Meta]:
        return {task_id: self._get_task_meta_for(task_id) for task_id in ids}

    def failed_among(self, ids: Collection[str], *, hidden: bool = False) -> dict[str, Meta]:
        """Give what is stored of those calls that failed or were revoked."""
        metas = self._metas(ids)
        return {one: m for one, m in metas.items() if m["status"] in states.PROPAGATE_STATES}

    def _ended(self, ids: Collection[str], timeout_s: float | None) -> dict[str, Meta]:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            metas = self._metas(ids)
            ended = {one: m for one, m in metas.items() if m["status"] in states.READY_STATES}
            left = _LOOK_EVERY_S if deadline is None else deadline - time.monotonic()
            if ended or left <= 0:
                return ended
            threading.Event().wait(min(left, _LOOK_EVERY_S))


BaseDictBackend = BaseBackend


class KeyValueStoreBackend(BaseBackend):
    """Base of a backend that overrides `get`, `set`, `delete` and perhaps `mget`."""

    key_t: Any = staticmethod(ensure_bytes)
    task_keyprefix: Any = "celery-task-meta-"
    group_keyprefix: Any = "celery-taskset-meta-"
    chord_keyprefix: Any = "chord-unlock-"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.app.conf.get("result_backend_transport_options") or {}
        prefix = options.get("global_keyprefix") or ""
        if prefix and prefix[-1] not in ":_-.":
            prefix += "_"
        for name in ("task_keyprefix", "group_keyprefix", "chord_keyprefix"):
            setattr(self, name, self.key_t(prefix + getattr(self, name)))

    def get(self, key: Any) -> Any:
        """Read a value; None if there is none."""
        raise NotImplementedError("Must implement the get method.")

    def set(self, key: Any, value: Any) -> Any:
        """Write a value."""
        raise NotImplementedError("Must implement the set method.")

    def delete(self, key: Any) -> Any:
        """Delete a value."""
        raise NotImplementedError("Must implement the delete method")

    def mget(self, keys: Iterable[Any]) -> list[Any]:
        """Read several values."""
        return [self.get(key) for key in keys]

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        return self.set(key, value)

    def get_key_for_task(self, task_id: str, key: str = "") -> Any:
        """Give the key of a result."""
        return self._key(self.task_keyprefix, "task_id", task_id, key)

    def get_key_for_group(self, group_id: str, key: str = "") -> Any:
        """Give the key of a group."""
        return self._key(self.group_keyprefix, "group_id", group_id, key)

    def get_key_for_chord(self, group_id: str, key: str = "") -> Any:
        """Give the key of a chord's counter."""
        return self._key(self.chord_keyprefix, "group_id", group_id, key)

    def _key(self, prefix: Any, what: str, own: Any, key: str) -> Any:
        if not own:
            raise ValueError(f"{what} must not be empty. Got {own} instead.")
        return prefix + self.key_t(str(own)) + self.key_t(key)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        meta = self._get_result_meta(result, state, traceback, request)
        meta["task_id"] = bytes_to_str(task_id)
        if self._get_task_meta_for(task_id)["status"] != states.SUCCESS:
            self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        return result

    def _get_task_meta_for(self, task_id: str) -> Meta:
        data = self.get(self.get_key_for_task(task_id))
        return self.decode_result(data) if data else {"status": states.PENDING, "result": None}

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    def _save_group(self, group_id: str, result: Any) -> Any:
        data = self.encode({"result": result.as_tuple()})
        self._set_with_state(self.get_key_for_group(group_id), data, states.SUCCESS)
        return result

    def _restore_group(self, group_id: str) -> Meta | None:
        data = self.get(self.get_key_for_group(group_id))
        if not data:
            return None
        meta: Meta = self.decode(data)
        meta["result"] = result_from_tuple(meta["result"], self.app)
        return meta

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))


class DisabledBackend(BaseBackend):
    """Stores nothing, and refuses to be asked."""

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def ensure_chords_allowed(self) -> None:
        """Refuse chords."""
        raise NotImplementedError(E_CHORD_NO_BACKEND)

    def _is_disabled(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(E_NO_BACKEND)

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Give ``disabled://``."""
        return "disabled://"

    get_state = get_status = get_result = get_traceback = _is_disabled
    get_task_meta_for = wait_for = get_many = _is_disabled
