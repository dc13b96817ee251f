"""Steps that an application adds to its worker: ``app.steps['worker'].add(MyStep)``.

Source: Celery 5.7, ``celery.bootsteps``. Steps of the worker are created, started in the order of
their ``requires`` and stopped in reverse. Steps of the consumer are refused: they are given a
kombu channel in Celery, and there is none here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.imports import symbol_by_name

__all__ = ("Blueprint", "ConsumerStep", "StartStopStep", "Step")

RUN = 0x1
CLOSE = 0x2
TERMINATE = 0x3

logger = logging.getLogger("celery.bootsteps")


def _qualname(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class Step:
    """Something that is made with the worker.

    `create` is called once, before the pool starts; `include_if` says whether at all.
    """

    name: str | None = None
    label: str | None = None
    conditional = False
    requires: Any = ()
    last = False
    enabled = True

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        pass

    def include_if(self, parent: Any) -> bool:
        """Whether the step takes part."""
        return bool(self.enabled)

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an object of a class or of its dotted name."""
        return symbol_by_name(name)(*args, **kwargs)

    def include(self, parent: Any) -> bool:
        """Create the step if it takes part; whether it does."""
        if not self.include_if(parent):
            return False
        self.create(parent)
        return True

    def create(self, parent: Any) -> Any:
        """Make what the step brings."""

    def info(self, obj: Any) -> dict[str, Any] | None:
        """Add to ``inspect stats``."""
        return None

    @property
    def alias(self) -> str:
        """Short name, for logs."""
        return self.label or type(self).__name__

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"


class StartStopStep(Step):
    """A step that starts with the worker and stops with it.

    If `create` returns an object, its `start`, `stop` and `terminate` are what is called.
    """

    obj: Any = None

    def start(self, parent: Any) -> Any:
        """Start; called when the pool runs, before the worker is ready."""
        if self.obj:
            return self.obj.start()
        return None

    def stop(self, parent: Any) -> Any:
        """Stop; called when no task runs any more."""
        if self.obj:
            return self.obj.stop()
        return None

    def close(self, parent: Any) -> None:
        """Called at the start of a shutdown."""

    def terminate(self, parent: Any) -> None:
        """Called in place of `stop` in a cold shutdown."""
        if self.obj:
            getattr(self.obj, "terminate", self.obj.stop)()
        else:
            self.stop(parent)

    def include(self, parent: Any) -> bool:
        """Create the step if it takes part, keeping what it made; whether it does."""
        if not self.include_if(parent):
            return False
        self.obj = self.create(parent)
        return True


class ConsumerStep(StartStopStep):
    """Refused: consuming messages of one's own needs a broker channel.

    Raises:
        ImproperlyConfigured: When a worker would create it.
    """

    def get_consumers(self, channel: Any) -> Any:
        """Never called here."""
        return ()

    def include_if(self, parent: Any) -> bool:
        """Refuse."""
        raise ImproperlyConfigured(consumer_step_refusal(type(self)))


def consumer_step_refusal(cls: type) -> str:
    """The sentence that says why a consumer step cannot run and what to do."""
    return (
        f"{_qualname(cls)} is a step of the consumer, which needs a message broker's channel; "
        "pgcelery has none. Make it a StartStopStep of the worker (app.steps['worker']), or "
        "read those messages in a process of its own."
    )


class Blueprint:
    """The steps of one worker, in order.

    Args:
        steps: Step classes or their dotted names.
        name: For logs.
    """

    def __init__(self, steps: Iterable[Any] = (), name: str = "Worker", **kwargs: Any) -> None:
        self.name = name
        self.types = _in_order([symbol_by_name(step) for step in steps])
        self.steps: dict[str, Step] = {}
        self.order: list[Step] = []
        self.state: int | None = None

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Create the steps that take part."""
        for cls in self.types:
            step = cls(parent, **kwargs)
            if step.include(parent):
                self.order.append(step)
                self.steps[cls.name or _qualname(cls)] = step
        return self

    def start(self, parent: Any) -> None:
        """Start the steps in order."""
        self.state = RUN
        for step in self.order:
            if isinstance(step, StartStopStep):
                logger.debug("%s: Starting %s", self.name, step.alias)
                step.start(parent)

    def close(self, parent: Any) -> None:
        """Tell the steps that a shutdown has begun."""
        self.state = CLOSE
        self._each(parent, "close")

    def stop(self, parent: Any, terminate: bool = False) -> None:
        """Stop the steps in reverse; an error of one does not keep the others from stopping."""
        self.state = TERMINATE
        self._each(parent, "terminate" if terminate else "stop")

    def _each(self, parent: Any, method: str) -> None:
        for step in reversed(self.order):
            if not isinstance(step, StartStopStep):
                continue
            try:
                getattr(step, method)(parent)
            except Exception:
                # A step is the application's code; the shutdown goes on whatever it raises.
                logger.exception("Error on %s of %s", method, step.alias)

    def info(self, parent: Any) -> dict[str, Any]:
        """What the steps add to ``inspect stats``."""
        info: dict[str, Any] = {}
        for step in self.order:
            info.update(step.info(parent) or {})
        return info

    def human_state(self) -> str:
        """State in words."""
        names = {None: "initializing", RUN: "running", CLOSE: "closing", TERMINATE: "terminating"}
        return names[self.state]


def _in_order(types: list[type[Step]]) -> list[type[Step]]:
    """Sort steps after what they require; those of the worker itself are always there before."""
    ordered: list[type[Step]] = []

    def place(cls: type[Step]) -> None:
        if cls in ordered:
            return
        for required in _as_tuple(cls.requires):
            other = symbol_by_name(required)
            if other in types:
                place(other)
        ordered.append(cls)

    for cls in sorted(types, key=lambda cls: (cls.last, _qualname(cls))):
        place(cls)
    return ordered


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
