"""Asking for another run of the call that runs now.

Source: Celery 5.7, `Task.retry` and `Task.signature_from_request`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pgcelery.compat.app import running
from pgcelery.compat.app.request import Context, get_actual_ignore_result
from pgcelery.compat.exceptions import Reject, Retry
from pgcelery.compat.utils.serialization import raise_with_context

__all__ = ("retry", "signature_from_request")

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def signature_from_request(
    task: Any,
    request: Context | None = None,
    args: Any = None,
    kwargs: Any = None,
    queue: Any = None,
    **extra_options: Any,
) -> Any:
    """Give the signature that repeats a call, with changes."""
    request = task.request if request is None else request
    info = request.delivery_info or {}
    options = {
        **request.as_execution_options(),
        "ignore_result": get_actual_ignore_result(task, request),
        **extra_options,
    }
    if info.get("priority") is not None:
        options["priority"] = info["priority"]
    if queue:
        options["queue"] = queue
    elif info.get("exchange") == "" and info.get("routing_key"):
        options["queue"] = info["routing_key"]
    else:
        known = ("exchange", "routing_key", "priority")
        options.update({k: info[k] for k in known if info.get(k) is not None})
    return task.signature(
        request.args if args is None else args,
        request.kwargs if kwargs is None else kwargs,
        options,
        type=task,
        **extra_options,
    )


def retry(
    task: Any,
    args: Any = None,
    kwargs: Any = None,
    exc: BaseException | None = None,
    throw: bool = True,
    eta: Any = None,
    countdown: float | None = None,
    max_retries: int | None = None,
    **options: Any,
) -> Retry:
    """Send the current call again; see `Task.retry`."""
    request = task.request
    retries = request.retries + 1
    if max_retries is None:
        max_retries = task.max_retries
    else:
        task.override_max_retries = max_retries
    if request.called_directly:
        raise_with_context(exc or Retry("Task can be retried", None))
    if not eta and countdown is None:
        countdown = task.default_retry_delay
    args, kwargs = _new_arguments(task, request, args, kwargs)
    again = signature_from_request(
        task, request, args, kwargs, countdown=countdown, eta=eta, retries=retries, **options
    )
    if max_retries is not None and retries > max_retries:
        if exc:
            raise_with_context(exc)
        raise task.MaxRetriesExceededError(
            f"Can't retry {task.name}[{request.id}] args:{again.args} kwargs:{again.kwargs}",
            task_args=again.args,
            task_kwargs=again.kwargs,
        )
    asked = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=again)
    if not request.is_eager:
        try:
            again.apply_async()
        except Exception as failure:
            raise Reject(failure, requeue=False) from failure
        run = running.current(request.id)
        if run is not None:
            run.retry = asked
    if throw:
        raise asked
    return asked


def _new_arguments(task: Any, request: Context, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Fit the arguments given to those that stay, so that none comes twice."""
    only_args = args is not None and kwargs is None and request.kwargs
    only_kwargs = kwargs is not None and args is None and request.args
    if not only_args and not only_kwargs:
        return args, kwargs
    try:
        signature = inspect.signature(task.run)
    except (TypeError, ValueError):
        return args, kwargs
    if only_args:
        return args, _without_positional(signature, len(args), request.kwargs)
    return _over_positional(signature, request.args, kwargs)


def _without_positional(
    signature: inspect.Signature, count: int, old: Mapping[str, Any]
) -> dict[str, Any]:
    """The old keywords without those that the first `count` new positional arguments set."""
    by_position = [p for p in signature.parameters.values() if p.kind in _BY_POSITION]
    taken = {p.name for p in by_position[:count] if p.kind is p.POSITIONAL_OR_KEYWORD}
    return {name: value for name, value in old.items() if name not in taken}


def _over_positional(
    signature: inspect.Signature, old: Any, given: Mapping[str, Any]
) -> tuple[Any, Any]:
    """The old positional arguments with those replaced that a new keyword names."""
    try:
        bound = signature.bind_partial(*old)
    except TypeError:
        return None, given
    rest = dict(given)
    for name in given:
        parameter = signature.parameters.get(name)
        if (
            name in bound.arguments
            and parameter is not None
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ):
            bound.arguments[name] = rest.pop(name)
    return bound.args, {**bound.kwargs, **rest}
