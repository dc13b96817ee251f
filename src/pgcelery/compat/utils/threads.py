"""Thread-local storage.

Source: Celery 5.7, ``celery.utils.threads``.
"""

from __future__ import annotations

import threading
from threading import get_ident
from types import GenericAlias
from typing import Any, ClassVar

__all__ = ("Local", "LocalStack", "get_ident")


class Local(threading.local):
    """Attributes that each thread sees its own values of."""

    def __release_local__(self) -> None:
        self.__dict__.clear()


class LocalStack(threading.local):
    """A stack of objects for each thread."""

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.push = self.stack.append

    def pop(self) -> Any:
        """Remove the topmost item and give it; None when the stack is empty."""
        return self.stack.pop() if self.stack else None

    @property
    def top(self) -> Any:
        """The topmost item; None when the stack is empty."""
        return self.stack[-1] if self.stack else None

    def __len__(self) -> int:
        return len(self.stack)

    def __release_local__(self) -> None:
        self.stack.clear()
