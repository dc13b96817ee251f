"""How a function becomes a task, and a task an app's.

Source: Celery 5.7, ``Celery.task``, ``register_task`` and the warnings about duplicate names.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any

from pgcelery.compat import _state
from pgcelery.compat.app.autoretry import add_autoretry_behaviour
from pgcelery.compat.app.options import check_rules
from pgcelery.compat.app.pydantic_support import wrap as wrap_pydantic
from pgcelery.compat.exceptions import DuplicateTaskNameWarning
from pgcelery.compat.local import PromiseProxy
from pgcelery.compat.utils.functional import head_from_fun
from pgcelery.compat.utils.imports import qualname

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

__all__ = ("decorate", "register_task", "task_from_function")

_PYDANTIC = ("pydantic_strict", "pydantic_context", "pydantic_dump_kwargs")


def decorate(
    app: Any,
    fun: Callable[..., Any],
    shared: bool = True,
    filter: Callable[[Any], Any] | None = None,
    lazy: bool = True,
    **options: Any,
) -> Any:
    """Make `fun` a task of `app`, and with `shared` of every other app.

    Until the app is finalized the task is made when it is first used, so that the configuration
    and ``app.Task`` may still be set. What is wrong with the rules in `options` is said at once.

    Raises:
        TypeError: A limit, key or placement is of a wrong type.
        ValueError: One is out of range, or a key is written wrongly.
    """
    check_rules(fun, options)
    if shared:
        _state.connect_on_app_finalize(lambda each: each._task_from_fun(fun, **options))
    if not lazy or app.finalized:
        task = app._task_from_fun(fun, **options)
    else:
        task = PromiseProxy(app._task_from_fun, (fun,), options, __doc__=fun.__doc__)
        app._pending.append(task)
    return filter(task) if filter else task


def task_from_function(
    app: Any,
    fun: Callable[..., Any],
    name: str | None = None,
    base: Any = None,
    bind: bool = False,
    pydantic: bool = False,
    **options: Any,
) -> Any:
    """Make a function's class of task, and its instance the app's; a taken name gives that task.

    Args:
        app: The app.
        fun: The function.
        name: By default its module and name.
        base: The class of task; ``app.Task`` by default.
        bind: Whether the function's first argument is the task.
        pydantic: Whether annotated models are validated and dumped.
        **options: Attributes of the class.

    Raises:
        RuntimeError: The app is not finalized and was made with ``autofinalize=False``.
    """
    if not app.finalized and not app.autofinalize:
        raise RuntimeError("Contract breach: app not finalized")
    name = name or app.gen_task_name(fun.__name__, fun.__module__)
    if name in app._tasks:
        _warn_if_other_function(app, app._tasks[name], fun, name)
        return app._tasks[name]
    own = {key: options.pop(key) for key in _PYDANTIC if key in options}
    call, dump = wrap_pydantic(app, fun, name, bind=bind, **own) if pydantic else (fun, None)
    attributes = {
        "app": app,
        "name": name,
        "run": call if bind else staticmethod(call),
        "__wrapped__": call if bind else staticmethod(call),
        "__header__": staticmethod(head_from_fun(call, bound=bind)),
        "__doc__": fun.__doc__,
        "__module__": fun.__module__,
        "__annotations__": _annotations(fun),
        "_decorated": True,
        "_decorated_fun": staticmethod(fun),
        "_dump_pydantic_arguments": staticmethod(dump) if dump else None,
    }
    task = type(fun.__name__, (base or app.Task,), attributes | options)()
    task.__qualname__ = getattr(fun, "__qualname__", fun.__name__)
    app._tasks[name] = task
    task.bind(app)
    add_autoretry_behaviour(task, **options)
    return task


def register_task(app: Any, task: Any, **options: Any) -> Any:
    """Make a task, or an instance of a class of task, the app's; it replaces one of its name."""
    task = task() if inspect.isclass(task) else task
    if not task.name:
        task.name = app.gen_task_name(type(task).__name__, type(task).__module__)
    existing = app.tasks.get(task.name)
    if existing is not None and existing is not task:
        new_name = qualname(getattr(task, "_decorated_fun", None) or type(task))
        outcome = "The new one replaces it."
        _warn_duplicate(app, task.name, _existing_name(existing), new_name, outcome)
    add_autoretry_behaviour(task, **options)
    app.tasks[task.name] = task
    task._app = app
    task.bind(app)
    return task


def _annotations(fun: Callable[..., Any]) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        # Evaluating them could fail on names that only type checkers see.
        return get_annotations(fun, format=Format.FORWARDREF)
    return dict(getattr(fun, "__annotations__", {}))


def _existing_name(task: Any) -> str:
    return qualname(getattr(task, "_decorated_fun", None) or type(task))


def _warn_if_other_function(app: Any, task: Any, fun: Callable[..., Any], name: str) -> None:
    # A module that is imported twice under one name brings the same function again.
    existing = getattr(task, "_decorated_fun", None)
    if existing is not None and existing is not fun:
        outcome = "The new one is not registered: calls by this name reach the first."
        _warn_duplicate(app, name, qualname(existing), qualname(fun), outcome)


def _warn_duplicate(app: Any, name: str, existing: str, new: str, outcome: str) -> None:
    if name in app._duplicate_task_names_warned:
        return
    app._duplicate_task_names_warned.add(name)
    message = (
        f"Task name {name!r} is already registered to a different callable: {existing}, and now "
        f"{new}. {outcome} Give one of them a name= of its own, or rename its function."
    )
    warnings.warn(DuplicateTaskNameWarning(message), stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Count the frames down to the first outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("pgcelery."):
        level, frame = level + 1, frame.f_back
    return level
