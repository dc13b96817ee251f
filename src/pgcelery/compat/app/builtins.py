"""Tasks that every application has.

Source: Celery 5.7, `celery.app.builtins`. Those that only old messages name, which Celery no longer
sends, do what they did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pgcelery.compat._state import connect_on_app_finalize
from pgcelery.compat.backends.failing import _create_chord_error_with_cause
from pgcelery.compat.canvas import chord as _chord
from pgcelery.compat.canvas import chunks as _chunks
from pgcelery.compat.canvas import group as _group
from pgcelery.compat.canvas import maybe_signature, signature
from pgcelery.compat.exceptions import Retry
from pgcelery.compat.result import allow_join_result, result_from_tuple
from pgcelery.compat.utils.log import get_logger

__all__ = ()

logger = get_logger(__name__)


def _task(app: Any, name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    decorate: Callable[..., Any] = app.task(name=name, shared=False, lazy=False, **options)
    return decorate


@connect_on_app_finalize
def add_backend_cleanup_task(app: Any) -> Any:
    """Add ``celery.backend_cleanup``."""

    @_task(app, "celery.backend_cleanup")
    def backend_cleanup() -> None:
        app.backend.cleanup()

    return backend_cleanup


@connect_on_app_finalize
def add_accumulate_task(app: Any) -> Any:
    """Add ``celery.accumulate``, the body of a group that replaces a task."""

    @_task(app, "celery.accumulate", bind=True)
    def accumulate(self: Any, *args: Any, **kwargs: Any) -> Any:
        index = kwargs.get("index")
        return args if index is None else args[index]

    return accumulate


@connect_on_app_finalize
def add_map_tasks(app: Any) -> Any:
    """Add ``celery.map`` and ``celery.starmap``."""

    @_task(app, "celery.map")
    def xmap(task: Any, it: Iterable[Any]) -> list[Any]:
        call = signature(task, app=app).type
        return [call(item) for item in it]

    @_task(app, "celery.starmap")
    def xstarmap(task: Any, it: Iterable[Any]) -> list[Any]:
        call = signature(task, app=app).type
        return [call(*item) for item in it]

    return xmap, xstarmap


@connect_on_app_finalize
def add_chunk_task(app: Any) -> Any:
    """Add ``celery.chunks``."""

    @_task(app, "celery.chunks")
    def chunks(task: Any, it: Iterable[Any], n: int) -> Any:
        return _chunks.apply_chunks(task, it, n)

    return chunks


@connect_on_app_finalize
def add_group_task(app: Any) -> Any:
    """Add ``celery.group``."""

    @_task(app, "celery.group", bind=True)
    def group(
        self: Any,
        tasks: Iterable[Any],
        result: Any,
        group_id: str,
        partial_args: Any,
        add_to_parent: bool = True,
    ) -> Any:
        result = result_from_tuple(result, app)
        for task in tasks:
            member = maybe_signature(task, app=app).clone(partial_args)
            member.apply_async(group_id=group_id, add_to_parent=False)
        parent = app.current_worker_task
        if add_to_parent and parent:
            parent.add_trail(result)
        return result

    return group


@connect_on_app_finalize
def add_chain_task(app: Any) -> Any:
    """Add ``celery.chain``, a name that is never called."""

    @_task(app, "celery.chain")
    def chain(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("chain is not a real task")

    return chain


@connect_on_app_finalize
def add_chord_task(app: Any) -> Any:
    """Add ``celery.chord``."""

    @_task(app, "celery.chord", bind=True, ignore_result=False)
    def chord(
        self: Any,
        header: Any,
        body: Any,
        partial_args: Sequence[Any] = (),
        interval: float | None = None,
        countdown: float = 1,
        max_retries: int | None = None,
        eager: bool = False,
        **kwargs: Any,
    ) -> Any:
        tasks = header.tasks if isinstance(header, _group) else header
        members = _group([maybe_signature(task, app=app) for task in tasks], app=app)
        body = maybe_signature(body, app=app)
        return _chord(members, body).run(members, body, partial_args, app, **kwargs)

    return chord


@connect_on_app_finalize
def add_unlock_chord_task(app: Any) -> Any:
    """Add ``celery.chord_unlock``, which waits for a header that was sent by Celery itself."""

    @_task(
        app,
        "celery.chord_unlock",
        bind=True,
        max_retries=None,
        ignore_result=True,
        default_retry_delay=app.conf.result_chord_retry_interval,
    )
    def unlock_chord(
        self: Any,
        group_id: str,
        callback: Any,
        interval: float | None = None,
        max_retries: int | None = None,
        result: Iterable[Any] = (),
        **kwargs: Any,
    ) -> None:
        header = app.GroupResult(group_id, [result_from_tuple(one, app=app) for one in result])
        body = maybe_signature(callback, app=app)
        delay = self.default_retry_delay if interval is None else interval
        failed = None
        try:
            try:
                ready = header.ready()
            except Exception as exc:
                failed = exc
                raise self.retry(exc=exc, countdown=delay, max_retries=max_retries) from exc
            if not ready:
                raise self.retry(countdown=delay, max_retries=max_retries)
        except Retry:
            raise
        except Exception as exc:
            cause = getattr(exc, "reason", None) or exc
            reason = f"chord_unlock could not be retried: {cause!r}"
            if failed not in (None, cause):
                reason += f" (after deps.ready() raised {failed!r})"
            _fail(app, body, group_id, reason, cause)
            raise
        try:
            with allow_join_result():
                values = header.get(timeout=app.conf.result_chord_join_timeout, propagate=True)
        except Exception as exc:
            culprit = next(header._failed_join_report(), None)
            reason = repr(exc) if culprit is None else f"Dependency {culprit.id} raised {exc!r}"
            _fail(app, body, group_id, reason, exc)
            return
        try:
            body.delay(values)
        except Exception as exc:
            _fail(app, body, group_id, f"Callback error: {exc!r}", exc)

    return unlock_chord


def _fail(app: Any, body: Any, group_id: str, reason: str, cause: Any) -> None:
    logger.exception("Chord %r raised: %s", group_id, reason)
    error = _create_chord_error_with_cause(message=reason, original_exc=cause)
    app.backend.chord_error_from_stack(body, error)
