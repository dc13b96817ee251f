"""What a chain becomes when it is sent: a flat list of frozen steps, last one first.

Source: Celery 5.7, `celery.canvas._chain.prepare_steps`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from kombu.utils.functional import maybe_list

from pgcelery.compat.canvas import kinds
from pgcelery.compat.canvas.signature import Signature


class Steps:
    """Prepares the steps of one chain; afterwards `tasks` and `results` hold them, last one first.

    Args:
        tasks: The steps as written.
        args: Partial arguments of the first one.
        kwargs: Partial keyword arguments of the first one.
        app: The application.
        root_id: Id of the workflow's first task.
        link_error: Error links that each step gets.
        clone: Whether to work on copies. Without it (`freeze`) the chain keeps its shape.
        **last: What the last step is frozen with: ``_id``, ``group_id``, ``chord`` and
            ``group_index``.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        args: Any,
        kwargs: Any,
        *,
        app: Any,
        root_id: str | None = None,
        link_error: Any = None,
        clone: bool = True,
        **last: Any,
    ) -> None:
        self.pending = deque(tasks)
        self.args = args
        self.kwargs = kwargs
        self.app = app
        self.root_id = root_id
        self.errbacks = maybe_list(link_error) or ()
        self.clone = clone
        self.last = last
        self.tasks: list[Any] = []
        self.results: list[Any] = []
        #: the step that was frozen before, which comes after in time, and the first result it has
        self.next_task: Any = None
        self.next_result: Any = None

    def prepare(self) -> tuple[list[Any], list[Any]]:
        """Do it; gives `tasks` and `results`."""
        self._settle_head()
        while self.pending:
            task = self._take()
            if task is not None:
                self._freeze(task)
        if self.clone:
            for task in self.tasks:
                strip_header_links(task)
        return self.tasks, self.results

    def _settle_head(self) -> None:
        """Make the first step one that takes the partial arguments: no chain, no empty group."""
        steps, stripped = self.pending, None
        while steps:
            head = steps[0] = self._signature(steps[0])
            if kinds.is_chain(head):
                steps.popleft()
                steps.extendleft(reversed((head.clone() if self.clone else head).tasks))
                continue
            if kinds.is_group(head):
                head = steps[0] = kinds.unroll(head)
                if len(steps) > 1 and kinds.is_empty_group(head):
                    stripped = steps.popleft()
                    continue
            break
        if stripped is not None and not steps:
            steps.append(stripped)

    def _signature(self, task: Any) -> Any:
        if isinstance(task, Signature):
            return task
        return Signature.from_dict(task, app=self.app)

    def _take(self) -> Any:
        """Take the last pending step; None if it was put back as other steps, or is nothing."""
        task = self._signature(self.pending.pop())
        first = not self.pending
        if kinds.is_group(task):
            task = kinds.unroll(task)
            if kinds.is_empty_group(task) and (self.pending or self.next_task):
                return None
        if self.clone and kinds.is_chord(task) and kinds.starts_with_task(task.body):
            self.pending.extend(task._unroll_body())
            return None
        if self.clone:
            task = task.clone(self.args, self.kwargs) if first else task.clone()
        elif first:
            task.args = (*self.args, *task.args)
        if kinds.is_chain(task):
            self.pending.extend(task.tasks)
            return None
        if kinds.is_group(task) and self.next_task:
            task = self._upgrade(task)
        return task

    def _upgrade(self, group: Any) -> Any:
        """Make a group that something follows the header of a chord with that as its body."""
        body, body_result = self.tasks.pop(), self.results.pop()
        options = {"root_id": self.root_id, "app": self.app}
        if hasattr(self.next_result, "task_id"):
            options["task_id"] = self.next_result.task_id
        chord = kinds.make_chord(group, body=body, **options)
        # What follows hangs on the body's result; it shall hang on the one that freezing the chord
        # makes.
        self.next_task = self.tasks[-1] if self.tasks else None
        node = self.results[-1] if self.results else None
        while node is not None and node.parent is not body_result:
            node = node.parent
        if node is not None:
            node.parent = None
            self.next_result = node
        return chord

    def _freeze(self, task: Any) -> None:
        is_last = self.next_result is None
        result = task.freeze(root_id=self.root_id, **(self.last if is_last else {}))
        if self.next_task and self.next_result and not self.next_result.parent:
            self.next_result.parent = result
        for errback in self.errbacks:
            task.link_error(errback)
            if kinds.is_chord(task) and task.body:
                task.body.link_error(errback)
        self.tasks.append(task)
        self.results.append(result)
        self.next_task, self.next_result = task, result
        if kinds.is_chord(task):
            self.app.backend.ensure_chords_allowed()
            while self.next_result.parent:
                self.next_result = self.next_result.parent


def strip_header_links(sig: Any) -> None:
    """Take the body out of the header members of chords that are to be sent later.

    Freezing put it there; the chord has it once already, and running the chord puts it back.
    """
    if kinds.is_chord(sig):
        _clear_chord(sig.tasks)
        strip_header_links(sig.tasks)
        if sig.body is not None:
            strip_header_links(sig.body)
    elif kinds.is_group(sig) or kinds.is_chain(sig):
        for task in sig.tasks:
            strip_header_links(task)


def _clear_chord(sig: Any) -> None:
    sig.options.pop("chord", None)
    if kinds.is_group(sig):
        for task in sig.tasks:
            _clear_chord(task)
    elif kinds.is_chain(sig):
        if sig.tasks:
            _clear_chord(sig.tasks[-1])
    elif kinds.is_chord(sig) and sig.body is not None:
        _clear_chord(sig.body)
