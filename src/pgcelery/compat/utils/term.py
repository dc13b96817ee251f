"""Colours of the terminal.

Source: Celery 5.7, ``celery.utils.term``.
"""

from __future__ import annotations

from typing import Any

__all__ = ("colored",)

RESET_SEQ = "\033[0m"
NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


class colored:
    """Text with colour, which can be nested and becomes coloured text by ``str``.

    ``colored().red("a ", colored().bold("b"))``; with ``enabled=False`` nothing is coloured.
    """

    def __init__(self, *s: object, enabled: bool = True, op: str = "", **_: Any) -> None:
        self.s = s
        self.enabled = enabled
        self.op = op
        self.names = {name: getattr(self, name) for name in NAMES}

    def no_color(self) -> str:
        """Give the bare text."""
        return "".join(
            part.no_color() if isinstance(part, colored) else str(part) for part in self.s
        )

    def embed(self) -> str:
        """Give the text with its colour on, and not off again."""
        return (self.op if self.enabled else "") + "".join(map(str, self.s))

    def __str__(self) -> str:
        return self.embed() + (RESET_SEQ if self.enabled else "")

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __add__(self, other: object) -> str:
        return f"{self}{other}"

    def node(self, s: tuple[object, ...], op: str) -> colored:
        """Give text with an escape sequence before it."""
        return type(self)(*s, enabled=self.enabled, op=op)

    def reset(self, *s: object) -> colored:
        """Give text without colour."""
        return self.node(s or ("",), RESET_SEQ)


def _painter(code: str) -> Any:
    def paint(self: colored, *s: object) -> colored:
        return self.node(s, code)

    return paint


for _number, _name in enumerate(NAMES):
    setattr(colored, _name, _painter(f"\033[1;{30 + _number}m"))
    setattr(colored, f"i{_name}", _painter(f"\033[1;{40 + _number}m"))
for _number, _name in ((1, "bold"), (4, "underline"), (5, "blink"), (7, "reverse"), (8, "bright")):
    setattr(colored, _name, _painter(f"\033[{_number}m"))
