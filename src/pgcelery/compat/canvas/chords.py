"""Chords: a header of members that run side by side, and a body that gets their results as a list.

Source: Celery 5.7, `celery.canvas._chord`. There the last header member to end sends the body; here
the body is sent with the header, in one transaction, and the engine holds it back until then.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cached_property
from types import GeneratorType
from typing import Any

from kombu.utils.functional import maybe_list
from kombu.utils.uuid import uuid

from pgcelery.compat._state import current_app
from pgcelery.compat.canvas import drawing, kinds, outbox
from pgcelery.compat.canvas.callbacks import RUN_OPTIONS, add_callbacks
from pgcelery.compat.canvas.chains import chain, current_root_id
from pgcelery.compat.canvas.groups import group
from pgcelery.compat.canvas.plan import root_of
from pgcelery.compat.canvas.signature import Signature, maybe_signature, signature
from pgcelery.compat.canvas.steps import strip_header_links
from pgcelery.compat.exceptions import CPendingDeprecationWarning
from pgcelery.compat.result import allow_join_result, inputs
from pgcelery.compat.utils.functional import regen
from pgcelery.compat.utils.objects import getitem_property
from pgcelery.compat.utils.text import remove_repeating_from_task

_HEADER_LINKS_WARNING = (
    "task_allow_error_cb_on_chord_header=False is pending deprecation in "
    "a future release of Celery.\n"
    "Please test the new behavior by setting task_allow_error_cb_on_chord_header to True "
    "and report any concerns you might have in our issue tracker before we make a final decision "
    "regarding how errbacks should behave when used with chords."
)


def _header_tasks(header: Any, app: Any) -> Any:
    """Give the members of what was given as a header."""
    if isinstance(header, dict):
        header = signature(header, app=app)
    if kinds.is_group(header) or kinds.is_chain(header):
        return header.tasks
    if isinstance(header, Signature):
        return [header]
    if isinstance(header, GeneratorType):
        return regen(signature(task, app=app) for task in header)
    return [signature(task, app=app) for task in header]


@kinds.define("chord")
@Signature.register_type(name="chord")
class _chord(Signature):
    """A header, and a body that gets the list of the header's results, in the header's order.

    Args:
        header: A group, or an iterable of signatures.
        body: A signature of any kind; may also be given when the chord is called.
        task: Not to be changed.
        args: Come before each header member's own.
        kwargs: Not to be changed.
        app: The application.
        **options: Options; ``link`` and ``link_error`` are the body's.
    """

    tasks: Any = getitem_property("kwargs.header", "Members of the header, or the header.")
    body: Any = getitem_property("kwargs.body", "The body.")

    #: whether its calls have ids, and whether those were used: each sending is a run of its own
    _frozen = _sent = False

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Any = None) -> Any:
        """Make the chord that `d` says."""
        options = dict(d)
        kwargs = dict(options["kwargs"])
        header, body = kwargs.pop("header", None), kwargs.pop("body", None)
        return cls(header, body, app=app, **{**options, "kwargs": kwargs})

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Any = None,
        kwargs: dict[str, Any] | None = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        parts = {"header": _header_tasks(header, app), "body": maybe_signature(body, app=app)}
        super().__init__(
            task, args or (), {**(kwargs or {"kwargs": {}}), **parts}, app=app, **options
        )
        self.subtask_type = "chord"

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send the chord, with another body if one is given."""
        return self.apply_async((), {"body": body} if body else {}, **options)

    def __or__(self, other: Any) -> Any:
        if kinds.is_group(other) and len(other.tasks) == 1:
            other = kinds.unroll(other)
        elif kinds.is_group(other) or kinds.is_chain(other) or not isinstance(other, Signature):
            return super().__or__(other)
        sig = self.clone()
        sig.body = sig.body | other
        return sig

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give the header's members and the body their ids; the body gets what the arguments say.

        Gives the body's result, whose first ancestor's `parent` is the header's `GroupResult`.
        """
        if not isinstance(self.tasks, group):
            self.tasks = group(self.tasks, app=self.app)
        header_result = self.tasks.freeze(parent_id=parent_id, root_id=root_id, chord=self.body)
        self.id = self.tasks.id
        self._frozen = True
        if self.body is None:
            return None
        body_result = self.body.freeze(
            _id, root_id=root_id, chord=chord, group_id=group_id, group_index=group_index
        )
        _hang(body_result, header_result)
        return body_result

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp the chord's links, the header and the body."""
        tasks = self.tasks.tasks if isinstance(self.tasks, group) else self.tasks
        visited = None if visitor is None else visitor.on_chord_header_start(self, **headers) or {}
        headers = self._stamp_headers(visited, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        for task in tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is None:
            return
        visitor.on_chord_header_end(self, **headers)
        if self.body is not None:
            visited = visitor.on_chord_body(self, **headers) or {}
            headers = self._stamp_headers(visited, append_stamps, **headers)
            self.body.stamp(visitor, append_stamps, **headers)

    @outbox.inside
    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        publisher: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        **options: Any,
    ) -> Any:
        """Send header and body in one transaction; gives the body's result.

        Args:
            args: Come before each header member's own.
            kwargs: Win over each header member's own; ``body`` is the body to use.
            task_id: The body's id.
            producer: Not used.
            publisher: Not used.
            connection: Not used.
            router: Not used.
            result_cls: Not used.
            **options: For header and body; ``countdown`` and ``eta`` are the header's, ``link`` and
                ``link_error`` the body's.
        """
        args = (*args, *self.args) if args and not self.immutable else self.args
        kwargs = dict(kwargs or {})
        body = kwargs.pop("body", None) or self.kwargs["body"]
        kwargs = {**self.kwargs["kwargs"], **kwargs}
        if self.immutable and "chord_parents" in options:
            options["chord_immutable"] = True
        waits = inputs.take(options)
        delay = {key: options.pop(key, None) for key in ("countdown", "eta")}
        callbacks: dict[str, Any] = {
            key: options.pop(key) for key in ("link", "link_error") if key in options
        }
        body = body.clone(**_body_options(options))
        app = self._get_app(body)
        tasks = self._header_copy(app)
        if self._sent:
            tasks, body = _anew(tasks), _anew(body)
        if app.conf.task_always_eager:
            body = add_callbacks(body, {**self.options, **callbacks})
            with allow_join_result():
                return self.apply(args, kwargs, body=body, task_id=task_id, **options)
        merged = {**self.options, **options, **callbacks}
        for key in delay:
            merged.pop(key, None)
        own_id = merged.pop("task_id", None)
        header_delay = {key: value for key, value in delay.items() if value is not None}
        result = self.run(
            tasks, body, args, task_id=task_id or own_id, kwargs=kwargs,
            header_delay=header_delay, **waits, **merged,
        )  # fmt: skip
        self._sent = self._frozen
        return result

    def _header_copy(self, app: Any) -> Any:
        """Give the header as a group that freezing may change."""
        tasks = self.tasks
        if isinstance(tasks, group):
            return tasks.clone()
        if type(tasks) is list:
            tasks = tasks[:]
        return group(tasks, app=app, task_id=self.options.get("task_id") or uuid())

    def apply(
        self,
        args: Any = None,
        kwargs: Any = None,
        propagate: bool = True,
        body: Any = None,
        **options: Any,
    ) -> Any:
        """Run header and body here and now."""
        body = self.body if body is None else body
        tasks = self.tasks
        header = tasks.clone() if isinstance(tasks, group) else group(tasks, app=self.app)
        values = header.apply(args or (), kwargs or {}).get(propagate=propagate)
        return body.apply(args=(values,))

    @classmethod
    def _descend(cls, sig_obj: Any) -> int:
        """Count the results that a chord gets from one member of its header."""
        if isinstance(sig_obj, dict) and not isinstance(sig_obj, Signature):
            sig_obj = Signature.from_dict(sig_obj)
        if kinds.is_group(sig_obj):
            return sum(cls._descend(task) for task in sig_obj.tasks)
        if kinds.is_chain(sig_obj):
            sizes = (cls._descend(task) for task in reversed(sig_obj.tasks))
            return next((size for size in sizes if size > 0), 0)
        if kinds.is_chord(sig_obj):
            return cls._descend(sig_obj.body)
        return 1 if isinstance(sig_obj, Signature) else len(sig_obj)

    def __length_hint__(self) -> int:
        tasks = getattr(self.tasks, "tasks", self.tasks)
        return sum(self._descend(task) for task in tasks)

    def run(
        self,
        header: Any,
        body: Any,
        partial_args: Any,
        app: Any = None,
        interval: float | None = None,
        countdown: float = 1,
        max_retries: int | None = None,
        eager: bool = False,
        task_id: str | None = None,
        kwargs: Any = None,
        header_delay: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Do what `apply_async` says, with this header (a group) and body, whatever the settings.

        `interval`, `countdown`, `max_retries` and `eager` are about Celery's polling for the
        header's end and have no effect.
        """
        app = app or self._get_app(body)
        waits = inputs.take(options)
        group_id = header.options.get("task_id") or uuid()
        root_id = body.options.get("root_id")
        options = {**self.options, **options}
        delay = dict(header_delay or {})
        for key in ("countdown", "eta"):
            value = options.pop(key, None)
            if value is not None:
                delay.setdefault(key, value)
        if options:
            options.pop("task_id", None)
            body = add_callbacks(body, options)
            body.options.update(_body_options(options))
        if kinds.is_chain(body):
            body._unroll_chords(app)
        body_result = body.freeze(task_id or uuid(), group_id=group_id, root_id=root_id)
        waits.update(inputs.end(waits, body_result))
        strip_header_links(body)
        for key in ("chain", "chain_link", "chord", "task_id"):
            options.pop(key, None)
        header.options["task_id"] = group_id
        ends = {key: waits.pop(key) for key in ("chord_errbacks",) if key in waits}
        # The body needs the results, whatever the tasks say.
        given = {**options, **delay, **waits, "task_id": group_id, "ignore_result": False}
        place = {"group_id": group_id, "chord": body, "root_id": root_id}
        if drawing.is_slow(header):
            body_result.parent = self._send_drawn(app, header, place, partial_args, kwargs, given)
            return body_result
        frozen = header._freeze_group_tasks(**place)
        if header.tasks:
            app.backend.apply_chord(frozen, body)
        with outbox.together(app, body_result.id):
            if header.tasks:
                body_result.parent = header.apply_async(partial_args, kwargs, **given)
                self._send_body(body, frozen[1], **_after(waits), **ends)
            else:
                body_result.parent = app.GroupResult(*frozen)
                if waits:
                    waits["chord_immutable"] = True
                body.apply_async(([],), **waits, **ends)
        return body_result

    def _send_drawn(
        self,
        app: Any,
        header: Any,
        place: dict[str, Any],
        partial_args: Any,
        kwargs: Any,
        given: dict[str, Any],
    ) -> Any:
        """Send the header as it is drawn, then the body; gives the header's result."""
        body = place["chord"]
        add_to_parent = given.pop("add_to_parent", True)

        def send_members(part: Any) -> Any:
            frozen = part._freeze_group_tasks(**place)
            part.apply_async(partial_args, kwargs, add_to_parent=False, **given)
            return frozen[1]

        def send_body(results: list[Any], latch: str) -> None:
            app.backend.apply_chord((place["group_id"], results), body)
            self._send_body(body, results, chord_latch=latch)

        results = drawing.send(app, header, body.id, send_members, send_body)
        result = app.GroupResult(place["group_id"], results)
        parent_task = app.current_worker_task
        if add_to_parent and parent_task:
            parent_task.add_trail(result)
        return result

    def _send_body(self, body: Any, header_results: list[Any], **waits: Any) -> None:
        header_ids = [inputs.of(result) for result in header_results]
        ids = inputs.flat(header_ids)
        waits.update(chord_parents=header_ids, parent_id=ids[-1])
        if kinds.is_group(body):
            waits["chord_member"] = True
        if not body.options.get("root_id"):
            waits["root_id"] = current_root_id() or root_of(header_results[-1])
        body.apply_async((inputs.SLOT,), add_to_parent=False, **waits)

    def _unroll_body(self) -> list[Any]:
        """Give this chord with only the first step of its body, and the other steps."""
        chord = self.clone()
        steps = chord.body.unchain_tasks()
        own = {key: val for key, val in chord.body.options.items() if key not in RUN_OPTIONS}
        chord.body = steps[0].clone(**own)
        return [chord, *steps[1:]]

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """Copy the chord and its body."""
        copy = super().clone(*args, **kwargs)
        if "body" in copy.kwargs:
            copy.kwargs["body"] = maybe_signature(copy.kwargs["body"], clone=True)
        return copy

    def link(self, callback: Any) -> Any:
        """Link `callback` to the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link `errback` to the body, and to chords in the header.

        With ``task_allow_error_cb_on_chord_header`` also to every header member, as an immutable
        copy.
        """
        errback = maybe_signature(errback)
        header: Iterable[Any] = maybe_list(self.tasks) or ()
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in header:
                task.link_error(errback.clone(immutable=True))
        else:
            warnings.warn(_HEADER_LINKS_WARNING, CPendingDeprecationWarning, stacklevel=2)
        for task in header:
            if isinstance(task, _chord):
                task.link_error(errback)
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Say of every header member whether arguments given later are ignored."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def __repr__(self) -> str:
        body = self.body
        if not body:
            return f"<chord without body: {self.tasks!r}>"
        if kinds.is_chain(body):
            first, rest = body.tasks[0], chain(body.tasks[1:], app=self._app)
            text = f"%({first.reprcall(self.tasks)} | {rest!r})"
            return remove_repeating_from_task(first["task"], text)
        return "%" + remove_repeating_from_task(body["task"], body.reprcall(self.tasks))

    @cached_property
    def app(self) -> Any:
        """The application: its own, else the header's, else the body's, else the current one."""
        return self._get_app(self.body)

    def _get_app(self, body: Any = None) -> Any:
        app = self._app
        if app is None:
            tasks = getattr(self.tasks, "tasks", self.tasks)
            if tasks:
                app = self._app_of(tasks[0])
            if app is None and body is not None:
                app = self._app_of(body)
        return app if app is not None else current_app

    @staticmethod
    def _app_of(task: Any) -> Any:
        """Give the application that a member knows; None if it only knows the current one."""
        app = task._app
        if app is None:
            try:
                app = task.app
            except AttributeError:
                return None
        return None if app is current_app else app


#: The public name.
chord = _chord


def _hang(result: Any, parent: Any) -> None:
    """Make `parent` the first ancestor of `result`."""
    seen = set()
    node = result
    while node:
        if node.id in seen:
            raise RuntimeError("Recursive result parents")
        seen.add(node.id)
        if node.parent is None:
            node.parent = parent
            return
        node = node.parent


def _anew(sig: Any) -> Any:
    """Copy a signature without the ids that freezing gave to it and to what it is made of."""
    copy = sig.clone()
    for key in RUN_OPTIONS - {"link", "link_error"}:
        copy.options.pop(key, None)
    if kinds.is_chord(copy):
        tasks = copy.tasks
        copy.tasks = _anew(tasks) if kinds.is_group(tasks) else [_anew(task) for task in tasks]
        copy.body = copy.body and _anew(copy.body)
    elif kinds.is_group(copy) or kinds.is_chain(copy):
        copy.tasks = [_anew(task) for task in copy.tasks]
    return copy


def _after(waits: dict[str, Any]) -> dict[str, Any]:
    """Say to the body which step of a chain its header waited for."""
    before = waits.get("chord_parents")
    return {"chord_after": [before]} if isinstance(before, str) else {}


def _body_options(options: dict[str, Any]) -> dict[str, Any]:
    """Give the options of a chord that are its body's too; its parent is in the header."""
    return {key: value for key, value in options.items() if key != "parent_id"}
