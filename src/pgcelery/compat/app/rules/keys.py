"""Keys of limits: a text or function becomes a function of calls, and what it gives is checked."""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from pgcelery.compat.app.envelope import check_text
from pgcelery.compat.app.rules.expressions import (
    ARGUMENTS,
    Call,
    ExpressionError,
    Missing,
    Template,
    Thunk,
)

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Annotations are evaluated when read, and may name what only type checkers see.
    _UNEVALUATED: dict[str, Any] = {"annotation_format": Format.STRING}
else:
    _UNEVALUATED: dict[str, Any] = {}

__all__ = ("Key", "Parameters", "call_of_user", "check_key")

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameters:
    """The parameters of a task's function, and how to find their values in a call.

    Args:
        function: The function.
        bound: Whether its first parameter is the task.
    """

    def __init__(self, function: Callable[..., Any], *, bound: bool) -> None:
        found = list(inspect.signature(function, **_UNEVALUATED).parameters.values())[bound:]
        self.positional = tuple(each.name for each in found if each.kind in _BY_POSITION)
        self.thunks = {each.name: self._thunk(each) for each in found}

    @classmethod
    def of(cls, task: Any) -> Parameters | None:
        """Read those of a task or of a class of tasks; None if there are none to be read."""
        owner = task if isinstance(task, type) else task.__class__  # it may be a proxy
        run: Any = inspect.getattr_static(owner, "run", None)
        static = isinstance(run, staticmethod)
        try:
            return cls(run.__func__ if static else run, bound=not static)
        except (TypeError, ValueError):
            return None

    def _thunk(self, parameter: inspect.Parameter) -> Thunk:
        name, default = parameter.name, parameter.default
        count = len(self.positional)
        if parameter.kind is parameter.VAR_POSITIONAL:
            return lambda call: call.args[count:]
        if parameter.kind is parameter.VAR_KEYWORD:
            return lambda call: {k: v for k, v in call.kwargs.items() if k not in self.thunks}
        place = self.positional.index(name) if name in self.positional else sys.maxsize

        def read(call: Call) -> Any:
            if place < len(call.args):
                return call.args[place]
            found = call.kwargs.get(name, default)
            if found is inspect.Parameter.empty:
                raise Missing(f"the call has no argument {name!r}")
            return found

        return read

    def normal(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Say the arguments in one way, whether they came by position or by name."""
        named = {**kwargs, **dict(zip(self.positional, args, strict=False))}
        return [list(args[len(self.positional) :]), named]


class Key:
    """What calls have in common: a constant, a text with fields, or a function of the arguments.

    Args:
        what: What it is the key of, for errors: ``Concurrency``.
        source: The text or function.

    Raises:
        TypeError: `source` is neither.
        ValueError: It is empty, or written wrongly.

    Attributes:
        constant: The key of every call; None when it depends on the call.
    """

    def __init__(self, what: str, source: Any) -> None:
        self.what, self.source = what, source
        self.constant: str | None = None
        self._template: Template | None = None
        if isinstance(source, str):
            try:
                self._template = Template(source)
            except ExpressionError as exc:
                raise ValueError(f"the key of {what} {exc}") from None
            self.constant = self._template.constant
            if self.constant is not None:
                check_text(f"the key of {what}", self.constant)
        elif not callable(source):
            raise TypeError(
                f"the key of {what} is a text, perhaps with fields such as "
                f"'tenant:{{kwargs.tenant}}', or a function of the task's arguments, not {source!r}"
            )

    def compile(self, task: str, parameters: Parameters | None) -> Callable[[Call], str]:
        """Make the function that gives the key of a call of one task.

        Args:
            task: The task's name, for errors.
            parameters: Its parameters; None if they are not known.

        Raises:
            ValueError: The text names a parameter that the task does not have.
        """
        what = f"the key of {self.what} for task {task}"
        if self.constant is not None:
            constant = self.constant
            return lambda call: constant
        if self._template is None:
            function = call_of_user(what, self.source)
            return lambda call: check_key(what, function(call))
        thunks = {} if parameters is None else parameters.thunks
        for name, place in self._template.names.items():
            if name not in thunks:
                raise ValueError(
                    f"{what} {self._template.complain(place, _names(name, parameters))}"
                )
        filled = _guarded(what, self._template.compile(thunks, _text_of))
        return lambda call: check_text(what, filled(call))


def _names(name: str, parameters: Parameters | None) -> str:
    known = ", ".join(ARGUMENTS)
    if parameters is None:
        return f"{name!r} is none of {known}; the task's parameters are not known here"
    there = ", ".join(parameters.thunks) or "none"
    return f"the task has no parameter {name!r}; it has {there}; {known} are always there"


def call_of_user(what: str, function: Callable[..., Any]) -> Thunk:
    """Call a user's function with the arguments of a call.

    Raises:
        ValueError: It raised; the exception is the cause.
    """
    return _guarded(what, lambda call: function(*call.args, **call.kwargs))


def _guarded(what: str, thunk: Thunk) -> Thunk:
    def guarded(call: Call) -> Any:
        try:
            return thunk(call)
        except Missing as exc:
            raise ValueError(f"{what} cannot be found: {exc}") from exc
        except Exception as exc:
            raise ValueError(f"{what} cannot be found: {type(exc).__name__}: {exc}") from exc

    return guarded


def check_key(what: str, value: Any) -> str:
    """Check a key that the application made: text, or a whole number.

    Raises:
        TypeError: It is something else.
        ValueError: It is empty, too long, or has NUL or lone surrogates in it.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text or a whole number, not {value!r:.100}")
    return check_text(what, str(value))


def _text_of(value: Any) -> str:
    """Write the value of a field."""
    if isinstance(value, enum.Enum):
        return _text_of(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, UUID)):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r:.100} is no text, number, UUID or date")
