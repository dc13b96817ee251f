"""Tasks that belong to every app.

Source: Celery 5.7, ``celery.app.shared_task``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from pgcelery.compat import _state
from pgcelery.compat.app.options import check_rules
from pgcelery.compat.local import Proxy

if TYPE_CHECKING:
    from pgcelery.compat.app.task import Task

__all__ = ("shared_task",)

P = ParamSpec("P")
R = TypeVar("R")


@overload
def shared_task(fun: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(
    *, bind: Literal[True], **options: Any
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...


@overload
def shared_task(
    *, bind: Literal[False] = False, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def shared_task(*args: Any, **kwargs: Any) -> Any:
    """Make a function a task of every app there is or will be; a decorator.

    The options are those of ``app.task``.

    What it gives stands for the current app's own task each time it is used.

    Raises:
        TypeError: It is applied to a shared task, or a rule in the options is of a wrong type.
        ValueError: A rule in the options is out of range, or a key is written wrongly.
    """
    if len(args) == 1 and callable(args[0]):
        return _share(args[0], kwargs)

    def decorate(fun: Callable[..., Any]) -> Any:
        return _share(fun, kwargs)

    return decorate


def _share(fun: Callable[..., Any], options: dict[str, Any]) -> Proxy:
    if type(fun) is Proxy:
        raise TypeError(
            "@shared_task was applied more than once to the same function. "
            "Remove the extra @shared_task decorator."
        )
    check_rules(fun, options)
    options = {key: value for key, value in options.items() if key not in ("shared", "lazy")}
    _state.connect_on_app_finalize(lambda app: app._task_from_fun(fun, **options))
    for app in list(_state._get_active_apps()):
        if app.finalized:
            with app._finalize_mutex:
                app._task_from_fun(fun, **options)

    def current() -> Any:
        app = _state.get_current_app()
        return app.tasks[options.get("name") or app.gen_task_name(fun.__name__, fun.__module__)]

    return Proxy(current)
