"""Tasks declared with ``pydantic=True``: models in, models out, JSON between.

Source: Celery 5.7, `celery.app.base.pydantic_wrapper`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured

__all__ = ("pydantic_wrapper", "wrap")


def _unwrap_optional(annotation: Any) -> Any:
    """The only alternative to None in ``X | None``, else the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        if len(rest) == 1 and len(rest) < len(typing.get_args(annotation)):
            return rest[0]
    return annotation


class _Models:
    """What the annotations of one function say about models."""

    def __init__(
        self, app: Any, fun: Callable[..., Any], name: str, strict: bool, context: Mapping[str, Any]
    ) -> None:
        try:
            self.base = importlib.import_module("pydantic").BaseModel
        except ModuleNotFoundError as exc:
            raise ImproperlyConfigured(
                "You need to install pydantic to use pydantic model serialization."
            ) from exc
        self.strict = strict
        self.context = {**context, "celery_app": app, "celery_task_name": name}
        self.signature = inspect.signature(fun)
        self.hints = {k: p.annotation for k, p in self.signature.parameters.items()}
        self.hints["return"] = self.signature.return_annotation
        # For a name that cannot be resolved here the annotations are taken as they stand.
        with suppress(NameError, AttributeError, TypeError):
            self.hints.update(typing.get_type_hints(fun))

    def of_argument(self, name: str, value: Any) -> Any:
        """The model that argument `name` is checked with, or None."""
        hint = self.hints.get(name)
        model = hint if value is None else _unwrap_optional(hint)
        return model if isinstance(model, type) and issubclass(model, self.base) else None

    def validate(self, model: Any, value: Any) -> Any:
        return model.model_validate(value, strict=self.strict, context=self.context)

    def is_declared_result(self, value: Any) -> bool:
        declared = _unwrap_optional(self.hints["return"])
        return (
            isinstance(value, self.base)
            and isinstance(declared, type)
            and isinstance(value, declared)
        )


def pydantic_wrapper(
    app: Any,
    task_fun: Callable[..., Any],
    task_name: str,
    strict: bool = True,
    context: Mapping[str, Any] | None = None,
    dump_kwargs: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Wrap a body so that it takes models as JSON and returns one as JSON.

    The wrapper's attribute ``dump_arguments(args, kwargs, bound=False)`` turns the models that a
    caller passed into JSON.

    Raises:
        celery.exceptions.ImproperlyConfigured: pydantic is not installed.
    """
    models = _Models(app, task_fun, task_name, strict, context or {})
    dump_options = {"mode": "json", **(dump_kwargs or {})}

    @functools.wraps(task_fun)
    def wrapper(*task_args: Any, **task_kwargs: Any) -> Any:
        bound = models.signature.bind(*task_args, **task_kwargs)
        for name, value in bound.arguments.items():
            model = models.of_argument(name, value)
            if model is not None:
                bound.arguments[name] = models.validate(model, value)
        returned = task_fun(*bound.args, **bound.kwargs)
        return (
            returned.model_dump(**dump_options) if models.is_declared_result(returned) else returned
        )

    wrapper.dump_arguments = functools.partial(  # type: ignore[attr-defined]
        _dump_arguments, models, dump_options
    )
    return wrapper


def wrap(
    app: Any,
    fun: Callable[..., Any],
    name: str,
    *,
    bind: bool = False,
    pydantic_strict: bool = False,
    pydantic_context: Mapping[str, Any] | None = None,
    pydantic_dump_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Callable[..., Any], Callable[..., tuple[Any, Any]]]:
    """Give the wrapped body, and what a caller passes ``(args, kwargs)`` through."""
    wrapper = pydantic_wrapper(
        app, fun, name, pydantic_strict, pydantic_context, pydantic_dump_kwargs
    )
    dump = wrapper.dump_arguments  # type: ignore[attr-defined]
    return wrapper, functools.partial(dump, bound=bind)


def _dump_arguments(
    models: _Models, dump_options: Mapping[str, Any], args: Any, kwargs: Any, bound: bool = False
) -> tuple[Any, Any]:
    """Dump the models that the task will get back as equal ones; the rest stays as it is."""
    given_args = () if args is None else args
    given_kwargs = {} if kwargs is None else kwargs
    if not isinstance(given_args, (list, tuple)) or not isinstance(given_kwargs, Mapping):
        return args, kwargs
    if not any(isinstance(v, models.base) for v in (*given_args, *given_kwargs.values())):
        return args, kwargs
    try:
        models.signature.bind(*([None] if bound else []), *given_args, **given_kwargs)
    except TypeError:
        return args, kwargs
    parameters = models.signature.parameters.values()
    by_position = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ][1 if bound else 0 :]
    by_keyword = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    # What goes to *args or **kwargs is not validated one by one, so it is not dumped either.
    names = [*by_position, *[None] * len(given_args)]
    new_args = [_dump(models, dump_options, n, v) for n, v in zip(names, given_args, strict=False)]
    new_kwargs = {
        k: _dump(models, dump_options, k if k in by_keyword else None, v)
        for k, v in given_kwargs.items()
    }
    return new_args if isinstance(given_args, list) else tuple(new_args), new_kwargs


def _dump(models: _Models, dump_options: Mapping[str, Any], name: str | None, value: Any) -> Any:
    if name is None or not isinstance(value, models.base) or hasattr(type(value), "__json__"):
        return value
    model = models.of_argument(name, value)
    if model is None:
        return value
    try:
        dumped = value.model_dump(**dump_options)
        same = models.validate(model, dumped) == value
    except Exception:  # the model's own code runs here; whatever it raises, leave the model alone
        return value
    return dumped if same else value
