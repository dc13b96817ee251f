"""A signature: one call, written down. It is a plain dict, so it can travel and be stored as one.

Source: Celery 5.7, `celery.canvas.Signature`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence
from copy import deepcopy
from functools import cached_property, partial
from typing import Any, TypeVar

from kombu.utils.functional import maybe_list, reprcall
from kombu.utils.uuid import uuid

from pgcelery.compat._state import current_app
from pgcelery.compat.canvas import kinds, stamping
from pgcelery.compat.utils.abstract import CallableSignature
from pgcelery.compat.utils.objects import getitem_property

S = TypeVar("S", bound="type[Signature]")


@CallableSignature.register
class Signature(dict):  # type: ignore[type-arg]  # keys are str, values anything JSON can say
    """A call of a task with arguments and options, not made yet.

    Args:
        task: The task, its name, or a dict that is a signature already (the rest is then ignored).
        args: Positional arguments.
        kwargs: Keyword arguments.
        options: Options of `apply_async`.
        type: Not used.
        subtask_type: Key in `TYPES` of the class that reads this dict.
        immutable: Whether arguments given later are ignored.
        app: The application; default the current one when it is needed.
        **ex: More options.
    """

    #: Classes by ``subtask_type``.
    TYPES: dict[str, type[Signature]] = {}  # noqa: RUF012 - shared on purpose

    _app: Any = None
    _type: Any = None
    #: What a call may not change once the signature has it: others count on it.
    _IMMUTABLE_OPTIONS = frozenset({"group_id", stamping.NAMES})

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[S], S]:
        """Decorate a class that reads dicts of ``subtask_type`` `name` (default its own name)."""

        def decorator(subclass: S) -> S:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return decorator

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Any = None) -> Any:
        """Make the signature that `d` says, of the class it says."""
        subtask_type = d.get("subtask_type")
        if subtask_type:
            target = cls.TYPES[subtask_type]
            if target is not cls:
                return target.from_dict(d, app=app)
        return Signature(d, app=app)

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = getattr(task, "name", None)
        if name is not None:
            self._type = task
        super().__init__(
            task=task if name is None else name,
            args=tuple(args or ()),
            kwargs=kwargs or {},
            options=dict(options or {}, **ex),
            subtask_type=subtask_type,
            immutable=immutable,
        )

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Run the task here and now."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Call `apply_async` with star arguments."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the task here and now as a worker would; gives an `EagerResult`."""
        options = {k: v for k, v in options.items() if v is not None}
        args, kwargs, options = self._merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send the call; gives its `AsyncResult`.

        Args:
            args: Come before the signature's own.
            kwargs: Win over the signature's own.
            **options: Win over the signature's own; those that are None do not count.
        """
        options.pop("route_name", None)
        options = {k: v for k, v in options.items() if v is not None}
        if self.immutable and "chord_parents" in options:
            options["chord_immutable"] = True
        args, kwargs, options = self._merge(args, kwargs, options)
        return self._apply_async(args, kwargs, **options)

    def _merge(
        self,
        args: Any = None,
        kwargs: Any = None,
        options: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Give the arguments and options of a call with these partial ones.

        Args:
            args: Come before the signature's own.
            kwargs: Win over the signature's own.
            options: Win over the signature's own, except stamps and the group.
            force: Merge arguments although the signature is immutable.
        """
        merged = self.options
        if options:
            kept = self._IMMUTABLE_OPTIONS.union(merged.get(stamping.NAMES) or ())
            merged = {
                **merged,
                **{k: v for k, v in options.items() if k not in kept or k not in merged},
            }
        elif options is not None:
            merged = dict(merged)
        if self.immutable and not force:
            return self.args, self.kwargs, merged
        return (
            (*args, *self.args) if args else self.args,
            dict(self.kwargs, **kwargs) if kwargs else self.kwargs,
            merged,
        )

    def clone(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:
        """Copy the signature with partial arguments and options merged in.

        Options are copied deeply, arguments are shared: they may be lazy, or objects.
        """
        args, kwargs, options = self._merge(args, kwargs, opts)
        copy = Signature.from_dict(
            {
                "task": self.task,
                "args": tuple(args),
                "kwargs": dict(kwargs),
                "options": deepcopy(options) if options else {},
                "subtask_type": self.subtask_type,
                "immutable": self.immutable,
            },
            app=self._app,
        )
        copy._type = self._type
        return copy

    partial = clone

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give the call its id, and the place in a workflow that the arguments say.

        An id it has stays. Returns the `AsyncResult` of the call to come.
        """
        opts = self.options
        tid = opts.get("task_id")
        if "task_id" not in opts:
            tid = opts["task_id"] = _id or uuid()
        if root_id:
            opts["root_id"] = root_id
        if parent_id:
            opts["parent_id"] = parent_id
        if "reply_to" not in opts:
            opts["reply_to"] = self.app.thread_oid
        if group_id:
            opts.setdefault("group_id", group_id)
        if chord:
            opts["chord"] = chord
        if group_index is not None:
            opts["group_index"] = group_index
        return self.AsyncResult(tid)

    _freeze = freeze

    def replace(self, args: Any = None, kwargs: Any = None, options: Any = None) -> Any:
        """Copy the signature with whole arguments or options exchanged."""
        copy = self.clone()
        if args is not None:
            copy.args = args
        if kwargs is not None:
            copy.kwargs = kwargs
        if options is not None:
            copy.options = options
        return copy

    def set(self, immutable: bool | None = None, **options: Any) -> Any:
        """Set options on this signature, and return it."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether arguments given later are ignored."""
        self.immutable = immutable

    def _stamp_headers(
        self,
        visitor_headers: Mapping[str, Any] | None = None,
        append_stamps: bool = False,
        self_headers: bool = True,
        **headers: Any,
    ) -> dict[str, Any]:
        own = self.options if self_headers else None
        return stamping.collect(own, visitor_headers, append_stamps, headers)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp this signature and its links.

        Args:
            visitor: A `StampingVisitor` to ask for stamps.
            append_stamps: Whether stamps of one name add up to a list; else the outermost stays.
            **headers: Stamps.
        """
        self.stamp_links(visitor, append_stamps, **headers)
        visited = None if visitor is None else visitor.on_signature(self, **headers) or {}
        return self.set(**self._stamp_headers(visited, append_stamps, **headers))

    def stamp_links(self, visitor: Any, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp the links and error links of this signature, not with its own stamps."""
        for option, method in (("link", "on_callback"), ("link_error", "on_errback")):
            stamps = deepcopy(headers)
            for link in maybe_list(self.options.get(option)) or ():
                sig = maybe_signature(link, app=self.app)
                visited = None if visitor is None else getattr(visitor, method)(sig, **stamps) or {}
                stamps = self._stamp_headers(visited, append_stamps, self_headers=False, **stamps)
                sig.stamp(visitor, append_stamps, **stamps)

    def _with_list_option(self, key: str) -> Any:
        items = self.options.setdefault(key, [])
        if not isinstance(items, MutableSequence):
            items = self.options[key] = [items]
        return items

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add `value` to the list that option `key` is, unless it is there; returns `value`."""
        items = self._with_list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add one value or several to the list that option `key` is."""
        self._with_list_option(key).extend(maybe_list(value))

    def link(self, callback: Any) -> Any:
        """Have `callback` called with the result of this task; returns `callback`."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Have `errback` called if this task fails; returns `errback`."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Any:
        """Do as `link_error`, but return this signature."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Any]:
        """List this signature and everything linked to it, and so on."""
        found = [self]
        for link in maybe_list(self.options.get("link")) or ():
            found.extend(link.flatten_links())
        return found

    def __or__(self, other: Any) -> Any:
        """Chain: what comes right gets the result of what is left."""
        if kinds.is_chain(other):
            steps = other.unchain_tasks()
            return kinds.make_chain(
                (self, *steps) if len(steps) < 2 else [self, *steps], app=self._app
            )
        if kinds.is_group(other):
            return kinds.make_chain(self, kinds.unroll(other), app=self.app)
        if isinstance(other, Signature):
            return kinds.make_chain(self, other, app=self._app)
        return NotImplemented

    def __ior__(self, other: Any) -> Any:
        return self.__or__(other)

    def election(self) -> Any:
        """Have the workers elect one of them to run this."""
        app = self.type.app
        tid = self.options.get("task_id") or uuid()
        app.control.election(tid, "task", self.clone(task_id=tid))
        return self.type.AsyncResult(tid)

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Write the call as Python would, these partial arguments included."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        return str(reprcall(self["task"], args, kwargs))

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        copy = dict(self)
        memo[id(self)] = copy
        copy["options"] = deepcopy(self.options, memo)
        return copy

    def __invert__(self) -> Any:
        return self.apply_async().get()

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    def __repr__(self) -> str:
        return self.reprcall()

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Iterate over keys and values; keys that are bytes come as text."""
        for key, value in super().items():
            yield key.decode() if isinstance(key, bytes) else key, value

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task  # type: ignore[no-any-return]

    @cached_property
    def type(self) -> Any:
        """The task itself.

        Raises:
            celery.exceptions.NotRegistered: The application has no such task.
        """
        return self._type or self.app.tasks[self["task"]]

    @cached_property
    def app(self) -> Any:
        """The application."""
        return self._app or current_app

    @cached_property
    def AsyncResult(self) -> Any:
        """Class of the task's results."""
        try:
            return self.type.AsyncResult
        except KeyError:
            return self.app.AsyncResult

    @cached_property
    def _apply_async(self) -> Any:
        try:
            return self.type.apply_async
        except KeyError:
            return partial(self.app.send_task, self["task"])

    id: Any = getitem_property("options.task_id", "Id of the task, when frozen.")
    parent_id: Any = getitem_property("options.parent_id", "Id of the parent task.")
    root_id: Any = getitem_property("options.root_id", "Id of the first task of the workflow.")
    task: Any = getitem_property("task", "Name of the task.")
    args: Any = getitem_property("args", "Positional arguments.")
    kwargs: Any = getitem_property("kwargs", "Keyword arguments.")
    options: Any = getitem_property("options", "Options of `apply_async`.")
    subtask_type: Any = getitem_property("subtask_type", "Key of the class in `TYPES`.")
    immutable: Any = getitem_property("immutable", "Whether arguments given later are ignored.")


def signature(varies: Any, *args: Any, **kwargs: Any) -> Any:
    """Make a signature of a task, a name or a dict; of a signature, a copy."""
    if isinstance(varies, dict):
        if isinstance(varies, Signature):
            return varies.clone()
        return Signature.from_dict(varies, app=kwargs.get("app"))
    return Signature(varies, *args, **kwargs)


def maybe_signature(d: Any, app: Any = None, clone: bool = False) -> Any:
    """Give `d` as a signature of `app`; None stays None.

    Args:
        d: A signature, or the dict of one.
        app: Set as the signature's application, if given.
        clone: Whether a signature is copied.
    """
    if d is None:
        return None
    if isinstance(d, Signature):
        d = d.clone() if clone else d
    elif isinstance(d, dict):
        d = Signature.from_dict(d)
    if app is not None:
        d._app = app
    return d


def clone_deep(sig: Any) -> Any:
    """Copy a signature together with those in it that `link` would change."""
    sig = maybe_signature(sig, clone=True)
    if kinds.is_group(sig):
        sig.tasks = [clone_deep(task) for task in sig.tasks]
    elif kinds.is_chord(sig):
        sig.body = clone_deep(sig.body)
    return sig
