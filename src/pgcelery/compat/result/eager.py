"""The result of a call that was run in place.

Source: Celery 5.7, `celery.result.EagerResult`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from vine import Thenable, promise

from pgcelery.compat import states
from pgcelery.compat.exceptions import TaskRevokedError
from pgcelery.compat.result.joining import assert_will_not_block
from pgcelery.compat.result.single import AsyncResult, Meta, R


@Thenable.register
class EagerResult(AsyncResult[R]):
    """Result of a call that was run in place.

    Args:
        id: The call's id.
        ret_value: What it returned or raised.
        state: Its state.
        traceback: Of the failure.
        name: Name of the task.
    """

    def __init__(
        self,
        id: str,
        ret_value: Any,
        state: str,
        traceback: str | None = None,
        name: str | None = None,
    ) -> None:
        self.id = id
        self._result = ret_value
        self._state = state
        self._traceback = traceback
        self._name = name

    @cached_property
    def on_ready(self) -> Any:
        """Promise that is kept already."""
        kept = promise()
        kept(self)
        return kept

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Call `callback(result)` now."""
        return self.on_ready.then(callback, on_error)

    def _get_task_meta(self) -> Meta:
        return self._meta()

    def _meta(self) -> Meta:
        return {
            "task_id": self.id,
            "result": self._result,
            "status": self._state,
            "traceback": self._traceback,
            "name": self._name,
        }

    _cache = property(_meta)

    def __reduce_args__(self) -> tuple[Any, ...]:
        return self.id, self._result, self._state, self._traceback, self._name

    def __copy__(self) -> Any:
        return self.__class__(*self.__reduce_args__())

    def ready(self) -> bool:
        """True."""
        return True

    def get(  # type: ignore[override]  # nothing to wait for
        self,
        timeout: float | None = None,
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Give what the call returned, or raise what it raised."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if self.successful():
            return self.result
        if self.state not in states.PROPAGATE_STATES:
            return None
        if propagate:
            raise self.result if isinstance(self.result, Exception) else Exception(self.result)
        return self.result

    wait = get  # type: ignore[assignment]

    def forget(self) -> None:
        """Do nothing: nothing is stored."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:
        """Say that it was revoked."""
        self._state = states.REVOKED
        self._result = TaskRevokedError("revoked")
        self._traceback = None

    def __repr__(self) -> str:
        return f"<EagerResult: {self.id}>"

    @property
    def result(self) -> Any:
        """What the call returned or raised."""
        return self._result

    @property
    def state(self) -> str:
        """State of the call."""
        return self._state

    status = state

    @property
    def traceback(self) -> str | None:
        """Traceback of the failure."""
        return self._traceback

    @property
    def supports_native_join(self) -> bool:
        """False."""
        return False
