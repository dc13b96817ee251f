"""Functions about functions and iterables.

Source: Celery 5.7, ``celery.utils.functional``; what kombu has is kombu's.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections import UserList
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, tee, zip_longest
from typing import Any

from kombu.utils.functional import (
    LRUCache,
    dictfilter,
    is_list,
    lazy,
    maybe_evaluate,
    maybe_list,
    memoize,
)
from vine import promise

if sys.version_info >= (3, 14):
    from annotationlib import Format

    # Since 3.14 annotations are evaluated when read, and may name what only type checkers see.
    _AS_TEXT: dict[str, Any] = {"annotation_format": Format.STRING}
else:
    _AS_TEXT: dict[str, Any] = {}

__all__ = (
    "LRUCache",
    "arity_greater",
    "chunks",
    "dictfilter",
    "first",
    "firstmethod",
    "fun_accepts_kwargs",
    "fun_takes_argument",
    "head_from_fun",
    "is_list",
    "lazy",
    "lookahead",
    "mattrgetter",
    "maybe",
    "maybe_evaluate",
    "maybe_list",
    "memoize",
    "mlazy",
    "noop",
    "padlist",
    "regen",
    "uniq",
)


class mlazy(lazy):
    """A call that is made once, when its value is first needed."""

    evaluated = False
    _value: Any = None

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        lazy.__init__(self, fun, *args, **kwargs)

    def evaluate(self) -> Any:
        """Give the value."""
        if not self.evaluated:
            self._value = lazy.evaluate(self)
            self.evaluated = True
        return self._value


class DummyContext:
    """A context that does nothing."""

    def __enter__(self) -> DummyContext:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def pass1(arg: Any, *args: Any, **kwargs: Any) -> Any:
    """Give the first argument."""
    return arg


def first(predicate: Callable[[Any], Any] | None, it: Iterable[Any]) -> Any:
    """Give the first item that `predicate` accepts, by default the first that is not None.

    Items may be promises; these are called when their turn comes.
    """
    for item in it:
        value = item() if isinstance(item, promise) else item
        if predicate(value) if predicate is not None else value is not None:
            return value
    return None


def firstmethod(method: str, on_call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Give a function that calls `method` on each of its objects until one's answer is not None."""

    def matcher(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for obj in map(maybe_evaluate, it):
            bound = getattr(obj, method, None)
            if bound is not None:
                call = partial(on_call, bound) if on_call else bound
                reply = call(*args, **kwargs)
                if reply is not None:
                    return reply
        return None

    return matcher


def chunks(it: Iterator[Any], n: int) -> Iterator[list[Any]]:
    """Cut an iterator into lists of `n`; it must be an iterator, not a sequence."""
    for item in it:
        yield [item, *islice(it, n - 1)]


def padlist(container: Iterable[Any], size: int, default: Any = None) -> list[Any]:
    """Make a list exactly `size` long."""
    items = list(container)[:size]
    return items + [default] * (size - len(items))


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """Give a function that reads attributes into a dict, None for those that are missing."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def uniq(it: Iterable[Any]) -> Iterator[Any]:
    """Give each item once, in the order of first appearance."""
    seen = set()
    for item in it:
        if item not in seen:
            seen.add(item)
            yield item


def lookahead(it: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Give pairs (item, next item); the last has None."""
    these, following = tee(it)
    next(following, None)
    return zip_longest(these, following)


def regen(it: Any) -> Any:
    """Make an iterator that can be gone through several times; lists and tuples are themselves."""
    return it if isinstance(it, (list, tuple)) else _regen(it)


class _regen(UserList, list):  # type: ignore[misc, type-arg]
    """A list (so that JSON can encode it) that draws its items when they are asked for."""

    def __init__(self, it: Iterable[Any]) -> None:
        self._source = iter(it)
        self._drawn: list[Any] = []
        self._done = False
        self._spent_s = 0.0

    def __reduce__(self) -> Any:
        return list, (self.data,)

    def __length_hint__(self) -> int:
        hint: int = self._source.__length_hint__()  # type: ignore[attr-defined]
        return hint

    def _draw(self, count: int) -> bool:
        """Have `count` items drawn; False if there are not so many."""
        while len(self._drawn) < count and not self._done:
            begun = time.monotonic()
            try:
                self._drawn.append(next(self._source))
            except StopIteration:
                self._done = True
            self._spent_s += time.monotonic() - begun
        return len(self._drawn) >= count

    def draw_for(self, seconds: float) -> bool:
        """Have items drawn until that has taken so long in all; whether there are no more."""
        while not self._done and self._spent_s < seconds:
            self._draw(len(self._drawn) + 1)
        return self._done

    def map(self, func: Callable[[Any], Any]) -> None:
        """Apply `func` to the items, to those not drawn yet when they are."""
        self._drawn = [func(item) for item in self._drawn]
        self._source = map(func, self._source)

    def __iter__(self) -> Iterator[Any]:
        index = 0
        while self._draw(index + 1):
            # One item ahead, so that whoever holds the last item finds the source exhausted.
            self._draw(index + 2)
            yield self._drawn[index]
            index += 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) or index < 0:
            return self.data[index]
        self._draw(index + 2)
        return self._drawn[index]

    def __bool__(self) -> bool:
        return self._draw(1)

    @property
    def data(self) -> list[Any]:  # type: ignore[override]
        """All the items, as a list."""
        if not self._done:
            self._drawn.extend(self._source)
            self._done = True
        return self._drawn

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._drawn))
        return f"<{type(self).__name__}: [{shown}{'' if self._done else '...'}]>"


def _signature(fun: Any) -> inspect.Signature:
    """Read the parameters of the callable itself, without evaluating its annotations.

    A bound method shows its ``self``.
    """
    target = getattr(fun, "__func__", fun)
    return inspect.signature(target, follow_wrapped=False, **_AS_TEXT)


def _header_parameters(signature: inspect.Signature) -> str:
    parts = []
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    for place, parameter in enumerate(signature.parameters.values()):
        text = parameter.name if parameter.default is parameter.empty else f"{parameter.name}=0"
        if parameter.kind is parameter.VAR_POSITIONAL:
            text = f"*{parameter.name}"
        elif parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{parameter.name}"
        elif parameter.kind is parameter.KEYWORD_ONLY and (
            parameter.KEYWORD_ONLY not in kinds[:place] and parameter.VAR_POSITIONAL not in kinds
        ):
            text = f"*, {text}"
        parts.append(text)
        if parameter.kind is parameter.POSITIONAL_ONLY and (
            kinds[place + 1 : place + 2] != [parameter.POSITIONAL_ONLY]
        ):
            parts.append("/")
    return ", ".join(parts)


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., Any]:
    """Make an empty function with the parameters of `fun`.

    Calling it raises the ``TypeError`` that calling `fun` would, at a tenth of the cost of
    ``inspect.Signature.bind``.

    Args:
        fun: A function, a method or an object that can be called.
        bound: Whether the first parameter is filled in by the caller, as a bound task's is.
    """
    if not hasattr(fun, "__code__") and not inspect.isroutine(fun) and callable(fun):
        name, target = type(fun).__name__, type(fun).__call__
        if not isinstance(fun, partial):
            fun, bound = target, True
    else:
        name = fun.__name__
    name = name if name.isidentifier() else "task"
    source = f"def {name}({_header_parameters(_signature(fun))}): return 1"
    namespace: dict[str, Any] = {"__name__": getattr(fun, "__module__", None) or __name__}
    exec(source, namespace)
    head: Callable[..., Any] = namespace[name]
    return partial(head, object()) if bound else head


def arity_greater(fun: Callable[..., Any], n: int) -> bool:
    """Whether `fun` takes more than `n` positional arguments; a method's ``self`` counts."""
    spec = inspect.getfullargspec(fun)
    return bool(spec.varargs) or len(spec.args) > n


def fun_takes_argument(name: str, fun: Callable[..., Any], position: int | None = None) -> bool:
    """Whether `fun` takes an argument of this name, or at this position."""
    spec = inspect.getfullargspec(fun)
    takes = len(spec.args) >= position if position else name in spec.args
    return bool(spec.varkw or spec.varargs or takes)


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Whether `fun` takes any keyword argument."""
    code = getattr(fun, "__code__", None)
    if code is not None:
        return bool(code.co_flags & inspect.CO_VARKEYWORDS)
    parameters = inspect.signature(fun).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def maybe(typ: Callable[[Any], Any], val: Any) -> Any:
    """Call `typ` on the value unless it is None."""
    return typ(val) if val is not None else val


def seq_concat_item(seq: Any, item: Any) -> Any:
    """Give a copy of a list or tuple with one more item."""
    return (*seq, item) if isinstance(seq, tuple) else [*seq, item]


def seq_concat_seq(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Join two sequences; the result has the type of the longer one."""
    kind: Any = type(max([a, b], key=len))
    return kind(a) + kind(b)


def is_numeric_value(value: Any) -> bool:
    """Whether it is a number and not a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
