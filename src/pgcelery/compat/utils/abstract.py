"""What makes a task, and what makes a signature.

Source: Celery 5.7, ``celery.utils.abstract``.
"""

from __future__ import annotations

from abc import ABCMeta
from typing import Any, ClassVar, TypeVar

__all__ = ("CallableSignature", "CallableTask")

_C = TypeVar("_C", bound=type)


class _ByAttributes(ABCMeta):
    """Counts every class that has the required attributes as a subclass."""

    required: frozenset[str]

    def register(cls, subclass: _C) -> _C:
        super().register(subclass)
        return subclass

    def __subclasscheck__(cls, subclass: type) -> bool:
        if "required" in cls.__dict__ and all(hasattr(subclass, name) for name in cls.required):
            return True
        return super().__subclasscheck__(subclass)

    def __instancecheck__(cls, instance: Any) -> bool:
        # A proxy answers with the class of its object.
        return cls.__subclasscheck__(instance.__class__)


class CallableTask(metaclass=_ByAttributes):
    """Anything that can be called, delayed and applied."""

    required: ClassVar[frozenset[str]] = frozenset({"delay", "apply_async", "apply", "__call__"})


class CallableSignature(CallableTask):
    """A call of a task that can be cloned, frozen and linked."""

    required: ClassVar[frozenset[str]] = CallableTask.required | frozenset(
        {"clone", "freeze", "set", "link", "link_error", "__or__"}
    )
