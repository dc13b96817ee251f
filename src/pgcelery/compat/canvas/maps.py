"""Maps and chunks: one task called for many items, by one worker, in a row.

Source: Celery 5.7, `celery.canvas.xmap`, `xstarmap` and `chunks`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar

from pgcelery.compat.canvas.groups import group
from pgcelery.compat.canvas.signature import Signature
from pgcelery.compat.utils.functional import chunks as _chunks
from pgcelery.compat.utils.functional import regen
from pgcelery.compat.utils.text import truncate


def _name_of(task: Any) -> Any:
    return getattr(task, "name", task)


class _basemap(Signature):
    _task_name: ClassVar[str] = ""
    _unpack_args = itemgetter("task", "it")

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Any = None) -> Any:
        return cls(*cls._unpack_args(d["kwargs"]), app=app, **d["options"])

    def __init__(self, task: Any, it: Any, **options: Any) -> None:
        super().__init__(
            self._task_name, (), {"task": task, "it": regen(it)}, immutable=True, **options
        )

    def apply_async(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:
        """Send the one task that calls the task for every item; arguments are ignored."""
        call = {key: value for key, value in opts.items() if value is not None}
        if "chord_parents" in call:
            call["chord_immutable"] = True
        _, _, options = self._merge(options=call)
        task, it = self._unpack_args(self.kwargs)
        route_name = options.pop("route_name", None) or _name_of(task)
        return self.type.apply_async(
            (), {"task": task, "it": list(it)}, route_name=route_name, **options
        )


@Signature.register_type()
class xmap(_basemap):
    """``[task(item) for item in it]`` in one task."""

    _task_name = "celery.map"

    def __repr__(self) -> str:
        task, it = self._unpack_args(self.kwargs)
        return f"[{task.task}(x) for x in {truncate(repr(it), 100)}]"


@Signature.register_type()
class xstarmap(_basemap):
    """``[task(*item) for item in it]`` in one task."""

    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        task, it = self._unpack_args(self.kwargs)
        return f"[{task.task}(*x) for x in {truncate(repr(it), 100)}]"


@Signature.register_type()
class chunks(Signature):
    """A group of `xstarmap`, each of `n` items.

    Args:
        task: The task.
        it: Tuples of arguments.
        n: How many of them go into one task.
        **options: Options of `apply_async`.
    """

    _unpack_args = itemgetter("task", "it", "n")

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Any = None) -> Any:
        """Make the chunks that `d` says."""
        return cls(*cls._unpack_args(d["kwargs"]), app=app, **d["options"])

    def __init__(self, task: Any, it: Any, n: int, **options: Any) -> None:
        super().__init__(
            "celery.chunks", (), {"task": task, "it": regen(it), "n": n}, immutable=True, **options
        )

    def __call__(self, **options: Any) -> Any:
        """Send the chunks."""
        return self.apply_async(**options)

    def apply_async(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:
        """Send the group; gives its result."""
        return self.group().apply_async(
            args or (), kwargs or {}, route_name=_name_of(self.kwargs.get("task")), **opts
        )

    def group(self) -> group:
        """Give the group; a generator of items is not started."""
        task, it, n = self._unpack_args(self.kwargs)
        parts = (xstarmap(task, part, app=self._app) for part in _chunks(iter(it), n))
        return group(parts, app=self._app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Any, n: int, app: Any = None) -> Any:
        """Send chunks of `task`."""
        return cls(task, it, n, app=app)()
