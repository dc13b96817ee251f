"""Exceptions and values that are hard to say, by name."""

from __future__ import annotations

import math
from typing import Any


class Picky(Exception):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class MuteForGood(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text at all")

    __repr__ = __str__


class Unreadable(Exception):
    """Its arguments refuse whatever is asked of them."""

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no arguments")


class Root(BaseException):
    pass


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


def endless() -> None:
    endless()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def _local() -> BaseException:
    class Local(Exception):
        pass

    return Local("made in a function")


def _caused() -> BaseException:
    error = ValueError("outer")
    error.__cause__ = Mute()
    error.__context__ = error.__cause__
    return error


RAISED: dict[str, Any] = {
    "picky": lambda: Picky(3, reason="because"),
    "mute": Mute,
    "mute-for-good": MuteForGood,
    "unreadable-args": Unreadable,
    "20-MB-text": lambda: ValueError("x" * 20_000_000),
    "nul": lambda: ValueError("a\0b"),
    "lone-surrogate": lambda: ValueError("\ud800"),
    "control-characters": lambda: ValueError("a\n[2026-01-01 00:00:00,000: forged\x1b[31m"),
    "group": lambda: ExceptionGroup("many", [ValueError("a"), Mute(), KeyError("b")]),
    "base-group": lambda: BaseExceptionGroup("many", [SystemExit(1), KeyError("b")]),
    "memory": lambda: MemoryError("no memory"),
    "recursion": lambda: RecursionError("deep"),
    "system-exit": lambda: SystemExit(3),
    "keyboard-interrupt": KeyboardInterrupt,
    "generator-exit": GeneratorExit,
    "stop-iteration": lambda: StopIteration(1),
    "base": lambda: Root("from the root"),
    "local-class": _local,
    "opaque-argument": lambda: ValueError(Opaque()),
    "circular-argument": lambda: ValueError(_circle()),
    "deep-argument": lambda: ValueError(_nested(20_000)),
    "bytes-argument": lambda: ValueError(b"\xff\x00"),
    "caused-by-mute": _caused,
    "unicode-error": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    "os-error": lambda: FileNotFoundError(2, "no such file", "a\0b"),
}

RETURNED: dict[str, Any] = {
    "nan": lambda: math.nan,
    "10**400": lambda: 10**400,
    "10**5000": lambda: 10**5000,
    "deep-500": lambda: _nested(500),
    "deep-20000": lambda: _nested(20_000),
    "circular": _circle,
    "100-MB": lambda: "x" * 100_000_000,
    "object": object,
    "opaque": Opaque,
    "lambda": lambda: lambda: None,
    "set": lambda: {1, 2},
    "bytes": lambda: b"\xff\x00",
    "nul": lambda: "a\0b",
    "lone-surrogate": lambda: "\ud800",
    "exception": lambda: ValueError("returned"),
    "generator": lambda: iter([1]),
    "class": lambda: Opaque,
    "tagged": lambda: {"__type__": "decimal", "__value__": "1"},
}
