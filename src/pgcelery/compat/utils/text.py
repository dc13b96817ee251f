"""Text for people.

Source: Celery 5.7, ``celery.utils.text``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pprint import pformat
from textwrap import fill
from typing import Any

__all__ = (
    "abbr",
    "abbrtask",
    "dedent",
    "dedent_initial",
    "ensure_newlines",
    "ensure_sep",
    "fill_paragraphs",
    "indent",
    "join",
    "match_case",
    "pluralize",
    "pretty",
    "remove_repeating_from_task",
    "simple_format",
    "str_to_list",
    "truncate",
)

RE_FORMAT = re.compile(r"%([%\w])")


def one_line(text: Any) -> str:
    """Write control characters as escapes, so that a name or id cannot forge lines of a log."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line
    )


def str_to_list(s: Any) -> Any:
    """Split at commas; what is not text stays as it is."""
    return s.split(",") if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Remove `n` spaces before the text."""
    return s[n:] if s[:n] == " " * n else s


def dedent(s: str, sep: str = "\n") -> str:
    """Remove four spaces before each line."""
    return sep.join(dedent_initial(line) for line in s.splitlines())


def fill_paragraphs(s: str, width: int, sep: str = "\n") -> str:
    """Wrap each paragraph."""
    return sep.join(fill(paragraph, width) for paragraph in s.split(sep))


def join(parts: list[str], sep: str = "\n") -> str:
    """Join the parts that are not empty."""
    return sep.join(part for part in parts if part)


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """Add separators until the text has `n`."""
    return s + sep * (n - s.count(sep))


def ensure_newlines(s: str, n: int = 2) -> str:
    """Add newlines until the text has `n`."""
    return ensure_sep("\n", s, n)


def abbr(s: str | None, max: int, ellipsis: str | bool = "...") -> str:
    """Cut a word to `max` characters."""
    if s is None:
        return "???"
    if len(s) <= max:
        return s
    return s[: max - len(ellipsis)] + ellipsis if isinstance(ellipsis, str) else s[:max]


def abbrtask(s: str | None, max: int) -> str:
    """Cut the module of a task's name so that the whole has `max` characters."""
    if s is None:
        return "???"
    if len(s) <= max:
        return s
    module, _, name = s.rpartition(".")
    return f"{abbr(module, max - len(name) - 3, False)}[.]{name}"


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Put spaces before each line."""
    return sep.join(" " * indent + line for line in t.split(sep))


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Cut text at a word, at most `maxlen` characters and the suffix."""
    if maxlen and len(s) >= maxlen:
        return s[:maxlen].rsplit(" ", 1)[0] + suffix
    return s


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """Add the suffix unless `n` is one."""
    return text if n == 1 else text + suffix


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """Format a value over as many lines as it needs."""
    if isinstance(value, dict):
        return f"{sep} {pformat(value, 4, nl_width)[1:]}"
    if isinstance(value, tuple):
        return f"{sep}    {pformat(value, width=nl_width, **kw)}"
    return pformat(value, width=width, **kw)


def match_case(s: str, other: str) -> str:
    """Make `s` upper case if `other` is, else lower case."""
    return s.upper() if other.isupper() else s.lower()


def simple_format(
    s: str,
    keys: Mapping[str, Any],
    pattern: re.Pattern[str] = RE_FORMAT,
    expand: str = r"\1",
) -> str:
    """Replace ``%x`` by ``keys["x"]``, or by what that returns if it can be called.

    Raises:
        ValueError: A key is not known.
    """
    known = {"%": "%", **keys}

    def resolve(match: re.Match[str]) -> str:
        key = match.expand(expand)
        if key not in known:
            raise ValueError(
                f"Unknown format %{key} in string {s!r}: a literal percent sign is written %%, "
                "and a value may be expanded only once"
            )
        value = known[key]
        return str(value() if callable(value) else value)

    return pattern.sub(resolve, s) if s else s


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """Shorten a task's module in all but its first appearance."""
    module = str(task_name).rpartition(".")[0]
    return remove_repeating(f"{module}.", s) if module else s


def remove_repeating(substr: str, s: str) -> str:
    """Remove all but the first appearance of a prefix of names."""
    head, found, rest = s.partition(substr)
    pattern = rf"(?<![\w.-]){re.escape(substr)}"
    return head + found + re.sub(pattern, "", rest)


class WhateverIO(StringIO):
    """A text buffer that takes bytes too."""

    def __init__(self, v: bytes | str | None = None, *a: Any, **kw: Any) -> None:
        super().__init__(v.decode() if isinstance(v, bytes) else v, *a, **kw)

    def write(self, data: bytes | str) -> int:
        """Append text, or UTF-8 bytes."""
        return super().write(data.decode() if isinstance(data, bytes) else data)
