"""Groups: members that run side by side.

Source: Celery 5.7, `celery.canvas.group`. A group of groups is one flat group.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from kombu.utils.functional import fxrange
from kombu.utils.uuid import uuid

from pgcelery.compat._state import current_app
from pgcelery.compat.app.running import collecting
from pgcelery.compat.canvas import kinds, outbox
from pgcelery.compat.canvas.signature import Signature, maybe_signature
from pgcelery.compat.result import GroupResult
from pgcelery.compat.utils.functional import _regen, regen
from pgcelery.compat.utils.objects import getitem_property
from pgcelery.compat.utils.text import remove_repeating_from_task
from pgcelery.engine import NewJob

_ALIKE = 3  # calls of a task in a group, from which on a form pays


@kinds.define("group")
@Signature.register_type()
class group(Signature):
    """Members that run side by side.

    Args:
        *tasks: The members, or one iterable of them; a generator is started when it is needed.
        **options: Options of every member.
    """

    tasks: Any = getitem_property("kwargs.tasks", "Members of the group.")

    #: ``group_index`` of the first member; not 0 in a later part of a group that is sent in parts
    first_index = 0

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Any = None) -> Any:
        """Make the group that `d` says; its members are made signatures in `d` itself."""
        given = d["kwargs"]["tasks"]
        tasks = d["kwargs"]["tasks"] = type(given)(maybe_signature(task, app=app) for task in given)
        return cls(tasks, app=app, **d["options"])

    def __init__(self, *tasks: Any, **options: Any) -> None:
        members: Any = tasks
        if len(tasks) == 1:
            members = tasks[0]
            if isinstance(members, group):
                members = members.tasks
            if isinstance(members, Signature):
                members = [members.clone()]
            members = regen(members)
        super().__init__("celery.group", (), {"tasks": members}, **options)
        self.subtask_type = "group"

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send the members; the arguments come before their own."""
        return self.apply_async(partial_args, **options)

    def __or__(self, other: Any) -> Any:
        if kinds.is_empty_group(other) and not isinstance(other.tasks, _regen):
            return self
        return kinds.make_chord(self, body=other, app=self._app)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Any:
        """Give the members growing countdowns."""
        delays = fxrange(start, stop, step, repeatlast=True)
        for task in self.tasks:
            task.set(countdown=next(delays))
        return self

    @outbox.inside
    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        """Send all members in one transaction; gives the `GroupResult`.

        Args:
            args: Come before each member's own.
            kwargs: Win over each member's own.
            add_to_parent: Whether the result becomes a child of the task that runs here.
            producer: Not used.
            link: Refused.
            link_error: Refused.
            **options: For every member.

        Raises:
            TypeError: A link was given.
        """
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        if not self.tasks:
            return self.freeze()
        options, group_id, root_id = self._freeze_gid(options)
        results: list[Any] = []
        if args or kwargs or len(options) > 1:
            with outbox.together(app, group_id):
                members = self._prepared(self.tasks, [], group_id, root_id, app)
                results += self._apply_tasks(members, args=args or (), kwargs=kwargs, **options)
        else:
            outbox.in_parts(app, group_id, self._apply_plain(results, group_id, app))
        result = app.GroupResult(group_id, results)
        if len(result) == 1 and isinstance(result[0], GroupResult):
            # A chain that ends in a group, alone in a group: its result is the inner group's.
            result = result[0]
        parent_task = app.current_worker_task
        if add_to_parent and parent_task:
            parent_task.add_trail(result)
        return result

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the members here and now; gives a `GroupResult` of `EagerResult`."""
        if not self.tasks:
            return self.freeze()
        app = self.app
        options, group_id, root_id = self._freeze_gid(options)
        members = self._prepared(self.tasks, [], group_id, root_id, app, freeze=False)
        results = [
            sig.apply(args=args or (), kwargs=kwargs or {}, **options) for sig, _, _ in members
        ]
        return app.GroupResult(group_id, results)

    def set_immutable(self, immutable: bool) -> None:
        """Say of every member whether arguments given later are ignored."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp the group's links and every member."""
        visited = None if visitor is None else visitor.on_group_start(self, **headers) or {}
        headers = self._stamp_headers(visited, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        self._set_tasks([maybe_signature(task, app=self.app) for task in self.tasks])
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_group_end(self, **headers)

    def _set_tasks(self, tasks: list[Any]) -> None:
        """Exchange the members, in place where others may hold the list."""
        if type(self.tasks) is list:
            self.tasks[:] = tasks
        else:
            self.tasks = tasks

    def link(self, sig: Any) -> Any:
        """Link `sig`, as an immutable copy, to the first member only."""
        return self.tasks[0].link(sig.clone().set(immutable=True))

    def link_error(self, sig: Any) -> Any:
        """Link a copy of `sig` to every member; gives the copies."""
        sig = maybe_signature(sig)
        return tuple(task.link_error(sig.clone()) for task in self.tasks)

    def _prepared(
        self,
        tasks: Iterable[Any],
        partial_args: Any,
        group_id: str,
        root_id: str | None,
        app: Any,
        *,
        freeze: bool = True,
        start: int | None = None,
    ) -> Iterator[tuple[Any, Any, str]]:
        """Iterate over copies of the members, flat, with their results (None unless `freeze`)."""
        for index, member in enumerate(tasks, self.first_index if start is None else start):
            if isinstance(member, Signature):
                task = member.clone()
            else:
                task = Signature.from_dict(member, app=app)
            if isinstance(task, group):
                yield from task._prepared(
                    task.tasks, partial_args, group_id, root_id, app, freeze=freeze
                )
            elif not _is_empty_chain(task):
                if partial_args and not task.immutable:
                    task.args = (*partial_args, *task.args)
                result = None
                if freeze:
                    result = task.freeze(group_id=group_id, root_id=root_id, group_index=index)
                yield task, result, group_id

    def _apply_tasks(
        self,
        tasks: Iterable[tuple[Any, Any, str]],
        producer: Any = None,
        app: Any = None,
        p: Any = None,
        add_to_parent: Any = None,
        chord: Any = None,
        args: Any = None,
        kwargs: Any = None,
        group_index: int | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        """Send members that `_prepared` made; iterate over their results."""
        for sig, result, _ in tasks:
            body = chord if chord is not None else sig.options.get("chord")
            sig.apply_async(add_to_parent=False, chord=body, args=args, kwargs=kwargs, **options)
            yield result

    def _apply_plain(self, results: list[Any], group_id: str, app: Any) -> Iterator[list[NewJob]]:
        """Make the jobs of members as they are, those that are much alike by one form.

        Args:
            results: Gets those of the members.
            group_id: The group's id.
            app: The application.
        """
        seen: Counter[Any] = Counter()
        forms: dict[Any, Any] = {}
        plain = True
        jobs: list[NewJob] = []
        for index, member in enumerate(self.tasks, self.first_index):
            job = None
            task = _known_task(member)
            if task is not None:
                seen[task] += 1
                if seen[task] == _ALIKE:
                    forms[task] = app._part("pgcelery.compat.app.forms").of_members(
                        task, app, group_id
                    )
                fill = forms.get(task)
                job = fill and fill(member.args, member.kwargs, index)
            if job is not None:
                jobs.append(job)
                results.append(task.AsyncResult(job.id))
            else:
                whole = self._prepared([member], [], group_id, None, app, start=index)
                with collecting() as made:
                    results += self._apply_tasks(whole, args=(), group_id=group_id)
                jobs += made
                plain = plain and not any(one.parents or one.gates for one in made)
            if plain and len(jobs) >= outbox.PART:
                yield jobs
                jobs = []
        yield jobs

    def _freeze_gid(self, options: dict[str, Any]) -> tuple[dict[str, Any], str, str | None]:
        """Give the members' options, the group's id (from ``task_id``) and the root's."""
        _, _, options = self._merge(options=options)
        options["group_id"] = group_id = options.pop("task_id", None) or uuid()
        return options, group_id, options.get("root_id")

    def _freeze_group_tasks(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> tuple[str, list[Any]]:
        """Freeze every member; gives the group's id and the members' results."""
        opts = self.options
        gid: str = opts.setdefault("task_id", uuid())
        if group_id:
            opts["group_id"] = group_id
        if chord:
            opts["chord"] = chord
        if group_index is not None:
            opts["group_index"] = group_index
        root_id = opts.setdefault("root_id", root_id)
        parent_id = opts.setdefault("parent_id", parent_id)
        members = list(self._flat_members())
        results = [
            task.freeze(
                group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id,
                group_index=index,
            )
            for index, task in enumerate(members, self.first_index)
        ]  # fmt: skip
        self._set_tasks(members)
        return gid, results

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give every member its id; the group is flat afterwards. Gives the `GroupResult`."""
        return self.app.GroupResult(
            *self._freeze_group_tasks(
                _id=_id, group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id,
                group_index=group_index,
            )
        )  # fmt: skip

    _freeze = freeze

    def _flat_members(self) -> Iterator[Any]:
        """Iterate over copies of the members, with groups opened and empty chains dropped."""
        stack = deque(self.tasks)
        while stack:
            task = maybe_signature(stack.popleft(), app=self._app).clone()
            if isinstance(task, group):
                stack.extendleft(task.tasks)
            elif not _is_empty_chain(task):
                yield task

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return remove_repeating_from_task(self.tasks[0]["task"], f"group({self.tasks!r})")

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def app(self) -> Any:
        """The application: its own, else the first member's, else the current one."""
        app = self._app
        if app is None:
            with suppress(LookupError):
                app = self.tasks[0].app
        return app if app is not None else current_app


def _is_empty_chain(task: Any) -> bool:
    return kinds.is_chain(task) and not task.tasks


def _known_task(member: Any) -> Any:
    """Give the task of a plain call without options; None of any other, and if it is elsewhere."""
    if type(member) is not Signature or member.options:
        return None
    try:
        return member.type
    except KeyError:
        return None
