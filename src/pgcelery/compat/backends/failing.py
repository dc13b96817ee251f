"""What else a failure touches: error links, the rest of the chain, the body of a chord.

Source: Celery 5.7, `celery.backends.base.Backend`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import maybe_list
from kombu.utils.uuid import uuid

from pgcelery.compat import states
from pgcelery.compat.app.request import Context
from pgcelery.compat.canvas import group, maybe_signature
from pgcelery.compat.canvas.kinds import is_chain, is_chord, is_group
from pgcelery.compat.canvas.plan import calls_in
from pgcelery.compat.einfo import ExceptionInfo
from pgcelery.compat.exceptions import ChordError, Ignore, NotRegistered
from pgcelery.compat.result import inputs
from pgcelery.compat.utils.functional import arity_greater
from pgcelery.engine import StoredResult

logger = logging.getLogger("celery.backends.base")


def _create_chord_error_with_cause(
    message: str, original_exc: BaseException | None = None
) -> ChordError:
    error = ChordError(message)
    if isinstance(original_exc, Exception):
        error.__cause__ = original_exc
    return error


class Failing:
    """The part of a backend that spreads failures."""

    app: Any

    if TYPE_CHECKING:

        def store_result(
            self,
            task_id: str,
            result: Any,
            state: str,
            traceback: str | None = None,
            request: Any = None,
            **kwargs: Any,
        ) -> Any:
            """See `Backend`."""

        def _meta_of(self, row: StoredResult | None, *, hidden: bool = False) -> dict[str, Any]:
            """See `Backend`."""

    def mark_as_failure(
        self,
        task_id: str,
        exc: Any,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure, give it to the rest of the chain, call the error links."""
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
        if not request:
            return
        if store_result:
            self._fail_chain(getattr(request, "chain", None), exc, traceback, state=state)
        if call_errbacks and request.errbacks:
            self._call_task_errbacks(request, exc, traceback)

    def _fail_chain(
        self,
        chain: Iterable[Any] | None,
        exc: Any,
        traceback: str | None = None,
        store_result: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure for calls that will not be made, so that nobody waits for them."""
        if not store_result or state not in states.PROPAGATE_STATES:
            return
        for step in chain or ():
            for call in calls_in(maybe_signature(step, app=self.app)):
                task_id = call.options["task_id"]
                request = _as_request(call, task_id)
                self.store_result(task_id, exc, state, traceback=traceback, request=request)

    def _errback_arity_greater(self, errback: Any, n: int) -> bool:
        """Whether `errback` takes more than `n` arguments besides those it has."""
        header = errback.type.__header__
        if not errback.immutable and (errback.args or errback.kwargs):
            try:
                return bool(arity_greater(partial(header, *errback.args, **errback.kwargs), n))
            except (TypeError, ValueError):
                pass
        return bool(arity_greater(header, n))

    def _takes_error(self, errback: Any) -> bool:
        """Whether `errback` is to be called as a function of request, exception and traceback."""
        try:
            header = getattr(errback.type, "__header__", None)
        except NotRegistered:
            return False
        if header is None or isinstance(header, partial):
            return False
        return self._errback_arity_greater(errback, 1)

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: str | None) -> None:
        """Call error links here, or send them with the id of what failed, as they are written."""
        to_send = []
        for errback in request.errbacks:
            errback = maybe_signature(errback, app=self.app)
            if not self._takes_error(errback):
                to_send.append(errback)
                continue
            try:
                errback(request, exc, traceback)
            except Exception:
                logger.exception("Errback %r raised an exception", errback.name)
        if not to_send:
            return
        origin = {"parent_id": request.id, "root_id": request.root_id or request.id}
        links = group(to_send, app=self.app)
        eager = (request.delivery_info or {}).get("is_eager", False)
        if self.app.conf.task_always_eager or eager:
            links.apply((request.id,), **origin)
        else:
            links.apply_async((request.id,), **origin)

    def chord_args(
        self, headers: Mapping[str, Any], args: Any, fed: StoredResult | None = None
    ) -> tuple[Any, ...]:
        """Give the arguments of a call that waited for others, which have ended.

        Args:
            headers: Its message headers; see `pgcelery.compat.result.inputs`.
            args: Those it was sent with.
            fed: The result of the one it waited for, when that is known already.

        Raises:
            celery.exceptions.Ignore: One of the others was ignored, so there is nothing to have.
            Exception: What the call must fail with, because one of the others did not succeed: for
                a chord's body a ChordError caused by that one's own exception, else that itself, as
                if it never came to run because of the header before both; then its ``chord_end``
                says who calls the error links.
        """
        waited_for = headers["chord_parents"]
        ids = inputs.flat(waited_for)
        joined: dict[str, StoredResult | None] = {}
        if fed is not None and waited_for == fed.id:
            rows = {fed.id: fed}
        else:
            rows, joined = self.app.engine.inputs(headers.get("id", ""), ids)
            rows.update((task_id, row) for task_id, row in joined.items() if row is not None)
        values = {}
        for task_id in (*ids, *joined):
            meta = self._meta_of(rows.get(task_id), hidden=True)
            values[task_id] = cause = meta["result"]
            if meta["status"] in states.PROPAGATE_STATES:
                if "chord_end" in meta:
                    cause.chord_end = meta["chord_end"]
                    raise cause
                if isinstance(waited_for, str) or headers.get("chord_member"):
                    raise cause
                reason = f"Dependency {task_id} raised {cause!r}"
                error = _create_chord_error_with_cause(reason, cause)
                error.dependency = task_id
                raise error
            if task_id not in rows:
                raise ChordError(f"The result of dependency {task_id} no longer exists")
            if meta["status"] not in states.READY_STATES:
                raise Ignore(f"Dependency {task_id} was ignored")
        return inputs.fill(args, headers, values.__getitem__, joined)

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Fail the body of a chord, with all that follows it, and call its error links.

        Args:
            callback: The body.
            exc: Why; default the exception being handled.
        """
        exc = sys.exc_info()[1] if exc is None else exc
        rest = callback.options.get("chain")
        if is_group(callback):
            original = getattr(exc, "__cause__", None) if isinstance(exc, ChordError) else None
            for member in callback.tasks:
                member = maybe_signature(member, app=self.app)
                member.options.setdefault("link_error", []).extend(
                    maybe_list(callback.options.get("link_error")) or ()
                )
                self.chord_error_from_stack(member, original or exc)
            self._fail_chain(rest, exc)
            return None
        task_id = callback.options.setdefault("task_id", uuid())
        errbacks = maybe_list(callback.options.get("link_error")) or []
        request = Context(
            {"id": task_id, "errbacks": errbacks, "delivery_info": {}, "task": callback.task}
        )
        try:
            self._call_task_errbacks(request, exc, None)
        except Exception as failure:
            exc = failure
        info = self.fail_from_current_stack(task_id, exc=exc)
        if is_chain(callback) or is_chord(callback):
            self._fail_chain([callback], exc)
        self._fail_chain(rest, exc)
        return info

    def fail_from_current_stack(self, task_id: str, exc: Any = None) -> Any:
        """Store `exc`, default the exception being handled, as the failure of a call."""
        kind, real, tb = sys.exc_info()
        exc = real if exc is None else exc
        info = ExceptionInfo((kind or type(exc), exc, tb))
        self.mark_as_failure(task_id, exc, info.traceback)
        return info


def _as_request(sig: Any, task_id: str) -> Context:
    options = sig.options
    return Context(
        id=task_id,
        task=sig.task,
        args=sig.args,
        kwargs=sig.kwargs,
        group=options.get("group_id"),
        parent_id=options.get("parent_id"),
        root_id=options.get("root_id"),
    )
