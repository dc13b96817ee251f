"""Chains: each step gets the result of the one before as its first argument.

Source: Celery 5.7, `celery.canvas._chain` and `chain`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from contextlib import suppress
from functools import reduce
from typing import Any

from kombu.utils.functional import is_list, maybe_list

from pgcelery.compat import states
from pgcelery.compat._state import current_app, get_current_worker_task
from pgcelery.compat.canvas import kinds, outbox, plan
from pgcelery.compat.canvas.fold import fold
from pgcelery.compat.canvas.signature import Signature, maybe_signature
from pgcelery.compat.canvas.steps import Steps
from pgcelery.compat.result import EagerResult, allow_join_result
from pgcelery.compat.utils.functional import regen
from pgcelery.compat.utils.objects import getitem_property
from pgcelery.compat.utils.text import remove_repeating_from_task


@kinds.define("chain")
@Signature.register_type(name="chain")
class _chain(Signature):
    """Steps, one after the other. What ``|`` gives; the public constructor is `chain`."""

    tasks: Any = getitem_property("kwargs.tasks", "Steps of the chain.")

    @classmethod
    def from_dict(cls, d: dict[str, Any], app: Any = None) -> Any:
        """Make the chain that `d` says."""
        tasks = d["kwargs"]["tasks"]
        if tasks:
            if isinstance(tasks, tuple):
                tasks = d["kwargs"]["tasks"] = list(tasks)
            tasks = [maybe_signature(task, app=app) for task in tasks]
        return cls(tasks, app=app, **d["options"])

    def __init__(self, *tasks: Any, **options: Any) -> None:
        steps = regen(tasks[0]) if len(tasks) == 1 and is_list(tasks[0]) else tasks
        options.pop("use_link", None)
        super().__init__("celery.chain", (), {"tasks": steps}, **options)
        self.subtask_type = "chain"
        self._frozen: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send the chain; gives the last step's result, or None for an empty chain."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def __or__(self, other: Any) -> Any:
        if kinds.is_empty_group(other):
            return self
        if kinds.is_group(other):
            return self._or_group(kinds.unroll(other))
        if kinds.is_chain(other):
            return reduce(operator.or_, other.unchain_tasks(), self)
        if not isinstance(other, Signature):
            return NotImplemented
        last = self.tasks[-1] if self.tasks else None
        if kinds.is_group(last):
            sig = self.clone()
            sig.tasks[-1] = kinds.make_chord(sig.tasks[-1], other, app=self._app)
            if len(sig.tasks) > 1 and kinds.is_chord(sig.tasks[-2]):
                sig.tasks[-2].body = sig.tasks[-2].body | sig.tasks[-1]
                sig.tasks = sig.tasks[:-1]
            return sig
        if kinds.is_chord(last) and not kinds.is_chord(other):
            sig = self.clone()
            sig.tasks[-1].body = sig.tasks[-1].body | other
            return sig
        return type(self)([*self.unchain_tasks(), other], app=self.app)

    def _or_group(self, other: Any) -> Any:
        if not kinds.is_group(other):
            return self | other
        tasks = self.unchain_tasks()
        if not tasks:
            return other
        if kinds.is_chord(tasks[-1]):
            tasks[-1].body = tasks[-1].body | other
        else:
            tasks.append(other)
        return type(self)(tasks, app=self.app)

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """Copy the chain and its steps."""
        copy = super().clone(*args, **kwargs)
        copy.kwargs["tasks"] = [
            maybe_signature(sig, app=self._app, clone=True) for sig in copy.kwargs["tasks"]
        ]
        return copy

    def unchain_tasks(self) -> list[Any]:
        """Copy the steps; the last gets the chain's links, each gets its error links."""
        tasks = [task.clone() for task in self.tasks]
        for sig in maybe_list(self.options.get("link")) or ():
            tasks[-1].link(sig)
        for sig in maybe_list(self.options.get("link_error")) or ():
            for task in tasks:
                task.link_error(sig)
        return tasks

    def _unroll_chords(self, app: Any = None) -> None:
        """Move the tails of chord bodies into this chain, which is changed.

        Every header member carries a copy of the body, which had better be short.
        """
        tasks: list[Any] = []
        pending = list(reversed(self.tasks))
        while pending:
            task = pending.pop()
            if kinds.is_chain(task):
                task = task.clone()
                task._unroll_chords(app)
            if kinds.is_chord(task) and kinds.starts_with_task(task.body):
                pending.extend(reversed(task._unroll_body()))
            else:
                tasks.append(task)
        self.tasks = tasks

    @outbox.inside
    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send the chain: all steps in one transaction, each waiting for the one before.

        Args:
            args: Come before the first step's own.
            kwargs: Win over the first step's own.
            **options: For the first step, except ``task_id`` and ``link`` (the last) and
                ``link_error`` (each).

        Returns:
            The result of the last step, whose `parent` is that of the step before.
        """
        app = self.app
        if app.conf.task_always_eager:
            with allow_join_result():
                return self.apply(args, kwargs, **options)
        if self.immutable and "chord_parents" in options:
            options["chord_immutable"] = True
        return self.run(args, kwargs, app=app, **{**self.options, **options})

    def run(
        self,
        args: Any = None,
        kwargs: Any = None,
        group_id: str | None = None,
        chord: Any = None,
        task_id: str | None = None,
        link: Any = None,
        link_error: Any = None,
        publisher: Any = None,
        producer: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        app: Any = None,
        group_index: int | None = None,
        **options: Any,
    ) -> Any:
        """Do what `apply_async` says, whatever ``task_always_eager``."""
        app = app or self.app
        args = (*args, *self.args) if args and not self.immutable else self.args
        tasks, results = self.prepare_steps(
            args, kwargs or {}, self.tasks, root_id, parent_id, link_error, app, task_id, group_id,
            chord, group_index=group_index,
        )  # fmt: skip
        if not results:
            return None
        if link:
            tasks[0].extend_list_option("link", link)
        if "chord_parents" in options:
            options["parent_id"] = parent_id  # there is no run here that it could be taken from
        if len(tasks) == 1:
            options["chain"] = [*(options.get("chain") or ())]
            return tasks[0].apply_async(**options)
        options.pop("chord_errbacks", None)  # of what this chain ends; its own are among them
        self._send_steps(tasks, results, root_id, app, chord is not None, link_error, options)
        return results[0]

    def _send_steps(
        self,
        tasks: list[Any],
        results: list[Any],
        root_id: str | None,
        app: Any,
        kept: bool,
        errbacks: Any,
        options: dict[str, Any],
    ) -> None:
        """Send all steps in one transaction, each waiting for the one before."""
        with outbox.together(app, results[0].id) as jobs:
            for step in plan.steps(
                tasks, results,
                root_id=root_id or current_root_id(),
                tail=options.pop("chain", None),
                link=options.pop("chain_link", None),
                kept=kept,
                errbacks=errbacks,
                options=options,
            ):  # fmt: skip
                if jobs and app.conf.task_inherit_parent_priority:
                    first = app._rulebook.priorities.from_engine(jobs[0].priority)
                    step.options["priority"] = first
                step.sig.apply_async(step.args, **step.options)

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Any = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Give every step its id; the last gets what the arguments say."""
        _, results = self._frozen = self.prepare_steps(
            self.args, self.kwargs, self.tasks, root_id, parent_id, None, self.app, _id, group_id,
            chord, clone=False, group_index=group_index,
        )  # fmt: skip
        return results[0]

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Stamp the chain's links and every step."""
        visited = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        headers = self._stamp_headers(visited, append_stamps, **headers)
        self.stamp_links(visitor, **headers)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)

    def prepare_steps(
        self,
        args: Any,
        kwargs: Any,
        tasks: Iterable[Any],
        root_id: str | None = None,
        parent_id: str | None = None,
        link_error: Any = None,
        app: Any = None,
        last_task_id: str | None = None,
        group_id: str | None = None,
        chord_body: Any = None,
        clone: bool = True,
        from_dict: Any = None,
        group_index: int | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Give the frozen steps and their results, both last first. See `steps.Steps`."""
        prepared, results = Steps(
            tasks, args, kwargs, app=app or self.app, root_id=root_id, link_error=link_error,
            clone=clone, _id=last_task_id, group_id=group_id, chord=chord_body,
            group_index=group_index,
        ).prepare()  # fmt: skip
        self.id = results[0].id if results else last_task_id
        return prepared, results

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the steps here and now, until one is ignored or rejected."""
        last = None
        given: tuple[Any, Any] = (args or (), kwargs or {})
        options = {**self.options, **options}
        link = options.pop("link", None)
        tasks = [task for task in self.tasks if not kinds.is_empty_group(task)] or self.tasks[-1:]
        for place, task in enumerate(tasks, 1):
            task = task.clone()
            if link and place == len(tasks):
                (task.body if kinds.is_chord(task) else task).extend_list_option("link", link)
            first_args, first_kwargs = given
            result = task.apply((last.get(),) if last else first_args, first_kwargs, **options)
            result.parent, last, given = last, result, (None, None)
            if isinstance(result, EagerResult) and result.state in (
                states.IGNORED,
                states.REJECTED,
            ):
                break
        return last

    @property
    def app(self) -> Any:
        """The application: its own, else the first step's, else the current one."""
        app = self._app
        if app is None:
            with suppress(LookupError, AttributeError):  # empty, or the first step is still a dict
                app = self.tasks[0].app
        return app or current_app

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return remove_repeating_from_task(
            self.tasks[0]["task"], " | ".join(repr(task) for task in self.tasks)
        )


class chain(_chain):
    """Steps, one after the other: ``chain(a, b, c)`` is ``a | b | c``.

    Args:
        *tasks: The steps, or one iterable of them.

    Note:
        What comes out is a `_chain`, or whatever ``|`` gives: a chord for ``chain(group, task)``.
    """

    def __new__(cls, *tasks: Any, **kwargs: Any) -> Any:  # noqa: D102 - see the class
        if not kwargs and tasks and (len(tasks) != 1 or is_list(tasks[0])):
            folded = fold(tasks[0] if len(tasks) == 1 else tasks)
            if cls is chain or not kinds.is_chain(folded) or isinstance(folded, cls):
                return folded
            return super().__new__(cls, folded.tasks, **kwargs)
        return super().__new__(cls, *tasks, **kwargs)


def current_root_id() -> str | None:
    """Id of the first task of the workflow whose task runs in this thread."""
    task = get_current_worker_task()
    return None if task is None else task.request.root_id or task.request.id
