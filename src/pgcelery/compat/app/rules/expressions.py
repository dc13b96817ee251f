"""Text with ``{...}`` fields, which are small expressions over the arguments of a call.

The language: the names ``args``, ``kwargs``, ``headers`` and the parameters of the task; ``.name``
and ``[0]``, ``["name"]``, ``[-1]`` into mappings, lists and objects; text, whole numbers, ``True``,
``False`` and ``None``; ``or`` (what is missing counts as None on its left), ``and``, ``not``,
comparisons, ``x if y else z``; ``len()``, ``lower()`` and ``upper()``. Nothing else is understood,
nothing is called but these three, and names that begin with ``_`` are not read. A text is read
once, when it is written down, and made into closures; there is no eval. Pure.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ("ARGUMENTS", "Call", "ExpressionError", "Missing", "Template", "Thunk")

#: Most characters of a text with fields.
LONGEST = 255

#: How deep a field may be nested.
DEEPEST = 20

#: The names that every expression may use.
ARGUMENTS = ("args", "kwargs", "headers")

_MISSING = object()
_SHOWN = 8
_QUOTES = "'\""


class Call(NamedTuple):
    """What an expression is about."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    headers: Mapping[str, Any] = {}


#: A compiled expression.
Thunk = Callable[[Call], Any]


class ExpressionError(ValueError):
    """A text with fields is written wrongly; says where."""


class Missing(LookupError):
    """Something that an expression reads is not there, for this call."""


class Template:
    """A text with fields, or a plain one; ``{{`` and ``}}`` are braces.

    Args:
        text: At most 255 characters.

    Raises:
        ExpressionError: It is written wrongly.

    Attributes:
        names: Names in it that are none of `ARGUMENTS`, where each was found first.
        constant: The text that it is for every call; None when it has fields.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise ExpressionError(f"is longer than {LONGEST} characters")
        self._parts: list[str | ast.expr] = []
        self.names: dict[str, int] = {}
        for start, part in _split(text):
            if start is None:
                self._parts.append(part)
                continue
            field = _parse(text, start, part)
            self._parts.append(field)
            for name, place in _check(text, start, part, field):
                self.names.setdefault(name, place)
        fixed = all(isinstance(part, str) for part in self._parts)
        self.constant = "".join(map(str, self._parts)) if fixed else None

    def compile(self, parameters: Mapping[str, Thunk], show: Callable[[Any], str]) -> Thunk:
        """Make the function that fills in the text.

        Args:
            parameters: How each of `names` is read.
            show: Writes the value of a field; what it raises goes to the caller.
        """
        parts: list[Thunk] = []
        for part in self._parts:
            if isinstance(part, str):
                parts.append(_constant(part))
            else:
                parts.append(_shown(_build(part, parameters), show, ast.unparse(part)))
        if len(parts) == 1:
            return parts[0]
        return lambda call: "".join([part(call) for part in parts])

    def complain(self, place: int, why: str) -> ExpressionError:
        """Make the error that points at a place of the text."""
        return _error(self.text, place, why)

    def __reduce__(self) -> tuple[Any, ...]:
        return Template, (self.text,)


def _error(text: str, place: int, why: str) -> ExpressionError:
    return ExpressionError(f"is wrong at character {place + 1}: {why}\n  {text}\n  {' ' * place}^")


# -- reading


def _split(text: str) -> Iterator[tuple[int | None, str]]:
    """Give plain text as (None, text), fields as (place, source)."""
    place, plain = 0, ""
    while place < len(text):
        char = text[place]
        if text[place : place + 2] in ("{{", "}}"):
            plain += char
            place += 2
        elif char == "}":
            raise _error(text, place, "this brace closes nothing; a brace is written twice")
        elif char == "{":
            if plain:
                yield None, plain
            end = _end_of_field(text, place)
            yield place + 1, text[place + 1 : end]
            place, plain = end + 1, ""
        else:
            plain += char
            place += 1
    if plain or not text:
        yield None, plain


def _end_of_field(text: str, start: int) -> int:
    quote = ""
    for place in range(start + 1, len(text)):
        char = text[place]
        if quote:
            quote = "" if char == quote else quote
        elif char in _QUOTES:
            quote = char
        elif char == "}":
            return place
        elif char == "{":
            raise _error(text, place, "a field within a field")
    raise _error(text, start, "this brace is never closed; a brace is written twice")


def _parse(text: str, start: int, source: str) -> ast.expr:
    if not source.strip():
        raise _error(text, start, "an empty field")
    odd = next((i for i, char in enumerate(source) if char in "\\\n\r\0\f"), None)
    if odd is not None:
        raise _error(text, start + odd, "no backslashes and no control characters in a field")
    blank = len(source) - len(source.lstrip())
    try:
        return ast.parse(source.strip(), mode="eval").body
    except SyntaxError as exc:
        place = start + blank + max((exc.offset or 1) - 1, 0)
        raise _error(text, min(place, len(text) - 1), exc.msg) from None
    except (ValueError, MemoryError, RecursionError) as exc:
        raise _error(text, start, str(exc) or "too deep") from None


def _check(text: str, start: int, source: str, field: ast.expr) -> Iterator[tuple[str, int]]:
    """Refuse what is not in the language; gives the names that are not `ARGUMENTS`."""
    start += len(source) - len(source.lstrip())
    encoded = source.strip().encode()
    pending: list[tuple[Any, int]] = [(field, 1)]
    while pending:
        node, depth = pending.pop()
        place = start + len(encoded[: node.col_offset].decode())
        check = _CHECKS.get(type(node), _not_understood)
        why = check(node) if depth <= DEEPEST else f"nested more than {DEEPEST} deep"
        if why:
            raise _error(text, place, why)
        if isinstance(node, ast.Name) and node.id not in ARGUMENTS:
            yield node.id, place
        pending += [(operand, depth + 1) for operand in _operands(node)]


def _not_understood(node: ast.expr) -> str:
    return f"`{ast.unparse(node):.40}` is nothing that an expression may say"


def _operands(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Call):
        return list(node.args)
    if isinstance(node, ast.Subscript):
        return [node.value]
    return [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]


def _index_of(node: ast.Subscript) -> Any:
    """The constant between the brackets; None if it is something else."""
    index: Any = node.slice
    sign = 1
    if isinstance(index, ast.UnaryOp) and isinstance(index.op, ast.USub):
        index, sign = index.operand, -1
    if not isinstance(index, ast.Constant):
        return None
    if type(index.value) is int:
        return sign * index.value
    return index.value if isinstance(index.value, str) and sign == 1 else None


def _bad_name(name: str) -> str | None:
    return "names that begin with an underscore are not read" if name.startswith("_") else None


def _bad_call(node: ast.Call) -> str | None:
    known = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if known and len(node.args) == 1 and not node.keywords:
        return None
    return f"only {', '.join(f'{name}(x)' for name in sorted(_FUNCTIONS))} can be called"


def _bad_constant(node: ast.Constant) -> str | None:
    if node.value is None or isinstance(node.value, (bool, int, str)):
        return None
    return "only text, whole numbers, True, False and None can be written down"


def _bad_compare(node: ast.Compare) -> str | None:
    if len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        return None
    return "one comparison at a time: ==, !=, <, <=, >, >=, in, not in"


def _bad_subscript(node: ast.Subscript) -> str | None:
    return "a whole number or a text between the brackets" if _index_of(node) is None else None


def _bad_unary(node: ast.UnaryOp) -> str | None:
    return None if isinstance(node.op, ast.Not) else "only `not` stands before a value"


#: What is in the language, and what is wrong with it if something is.
_CHECKS: dict[type[ast.AST], Callable[[Any], str | None]] = {
    ast.Name: lambda node: _bad_name(node.id),
    ast.Attribute: lambda node: _bad_name(node.attr),
    ast.Subscript: _bad_subscript,
    ast.Constant: _bad_constant,
    ast.BoolOp: lambda node: None,
    ast.UnaryOp: _bad_unary,
    ast.Compare: _bad_compare,
    ast.IfExp: lambda node: None,
    ast.Call: _bad_call,
}


# -- compiling


def _constant(value: Any) -> Thunk:
    return lambda call: value


def _shown(thunk: Thunk, show: Callable[[Any], str], source: str) -> Thunk:
    def fill(call: Call) -> str:
        value = thunk(call)
        if value is None:
            raise Missing(f"{{{source}}} is None")
        return show(value)

    return fill


def _build(node: Any, parameters: Mapping[str, Thunk]) -> Thunk:
    return _BUILDERS[type(node)](node, parameters)


def _build_name(node: ast.Name, parameters: Mapping[str, Thunk]) -> Thunk:
    if node.id in ARGUMENTS:
        return operator.attrgetter(node.id)
    return parameters[node.id]


def _build_attribute(node: ast.Attribute, parameters: Mapping[str, Thunk]) -> Thunk:
    of, name, source = _build(node.value, parameters), node.attr, ast.unparse(node.value)

    def read(call: Call) -> Any:
        value = of(call)
        if isinstance(value, Mapping):
            found = value.get(name, _MISSING)
        else:
            found = getattr(value, name, _MISSING)
        if found is _MISSING:
            raise Missing(_has_no(source, value, name))
        return found

    return read


def _build_subscript(node: ast.Subscript, parameters: Mapping[str, Thunk]) -> Thunk:
    of, index, source = _build(node.value, parameters), _index_of(node), ast.unparse(node.value)

    def read(call: Call) -> Any:
        value = of(call)
        found: Any = _MISSING
        if isinstance(value, Mapping):
            found = value.get(index, _MISSING)
        elif isinstance(value, Sequence) and isinstance(index, int):
            found = value[index] if -len(value) <= index < len(value) else _MISSING
        if found is _MISSING:
            raise Missing(_has_no(source, value, index))
        return found

    return read


def _has_no(source: str, value: Any, name: Any) -> str:
    what = f"{source} has no {name!r}"
    if isinstance(value, Mapping):
        names = ", ".join(map(repr, list(value)[:_SHOWN]))
        return f"{what}; it has {names or 'nothing'}{', ...' if len(value) > _SHOWN else ''}"
    if value is None:
        return f"{what}: it is None"
    size = f" of length {len(value)}" if isinstance(value, Sequence) else ""
    return f"{what}: it is a {type(value).__name__}{size}"


def _build_bool(node: ast.BoolOp, parameters: Mapping[str, Thunk]) -> Thunk:
    *first, last = [_build(each, parameters) for each in node.values]

    def any_of(call: Call) -> Any:
        for thunk in first:
            try:
                value = thunk(call)
            except Missing:
                continue
            if value:
                return value
        return last(call)

    def all_of(call: Call) -> Any:
        for thunk in first:
            value = thunk(call)
            if not value:
                return value
        return last(call)

    return any_of if isinstance(node.op, ast.Or) else all_of


def _build_not(node: ast.UnaryOp, parameters: Mapping[str, Thunk]) -> Thunk:
    operand = _build(node.operand, parameters)
    return lambda call: not operand(call)


def _build_compare(node: ast.Compare, parameters: Mapping[str, Thunk]) -> Thunk:
    left, right = _build(node.left, parameters), _build(node.comparators[0], parameters)
    compare = _COMPARISONS[type(node.ops[0])]
    return lambda call: compare(left(call), right(call))


def _build_if(node: ast.IfExp, parameters: Mapping[str, Thunk]) -> Thunk:
    test, then, other = (_build(each, parameters) for each in (node.test, node.body, node.orelse))
    return lambda call: then(call) if test(call) else other(call)


def _build_call(node: ast.Call, parameters: Mapping[str, Thunk]) -> Thunk:
    function = _FUNCTIONS[node.func.id]  # type: ignore[attr-defined]  # _bad_call has looked
    argument = _build(node.args[0], parameters)
    return lambda call: function(argument(call))


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"len": len, "lower": str.lower, "upper": str.upper}

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, of: item in of,
    ast.NotIn: lambda item, of: item not in of,
}

_BUILDERS: dict[type[ast.expr], Callable[[Any, Mapping[str, Thunk]], Thunk]] = {
    ast.Name: _build_name,
    ast.Attribute: _build_attribute,
    ast.Subscript: _build_subscript,
    ast.Constant: lambda node, _: _constant(node.value),
    ast.BoolOp: _build_bool,
    ast.UnaryOp: _build_not,
    ast.Compare: _build_compare,
    ast.IfExp: _build_if,
    ast.Call: _build_call,
}
