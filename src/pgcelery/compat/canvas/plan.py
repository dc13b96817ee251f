"""What the steps of a chain are sent with, so that all of them can be sent at once. Pure.

Each step after the first waits for the one before and gets its result (`result.inputs`). The
option ``chain_link`` says where a step stands: ``head`` is the id of the call whose message has the
chain written out, as Celery's first step has, ``left`` how many steps come after this one, ``next``
the id of the one that does, and ``trail`` the results that sending it would have left among the
children of this one. The last step has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from kombu.utils.functional import maybe_list

from pgcelery.compat.canvas import kinds
from pgcelery.compat.canvas.signature import maybe_signature
from pgcelery.compat.result import inputs

#: A chain that makes more calls than this is not written out a second time.
WRITTEN_OUT = 1000


class Step(NamedTuple):
    """One step: what to call `apply_async` of, and with what."""

    sig: Any
    args: tuple[Any, ...]
    options: dict[str, Any]


def steps(
    tasks: list[Any],
    results: list[Any],
    *,
    root_id: str | None,
    tail: Any,
    link: dict[str, Any] | None,
    kept: bool,
    errbacks: Any,
    options: dict[str, Any],
) -> Iterator[Step]:
    """Say how to send the steps of a chain, the first one first.

    Args:
        tasks: The frozen steps, last one first, as `chains.prepare_steps` gives them.
        results: Their results.
        root_id: Id of the workflow's first task; None makes it the first step's.
        tail: What comes after the chain, as Celery's ``chain`` option.
        link: ``chain_link`` of the chain itself, which is its last step's.
        kept: Whether the last step's result is, whatever its task says.
        errbacks: The chain's own error links, which each step has among others.
        options: The first step's own.
    """
    count, after = len(tasks), len(tail or ())
    end = inputs.end(options, results[0])
    written = None
    calls = (call for task in tasks for call in calls_in(task))
    if next(islice(calls, WRITTEN_OUT, None), None) is None:
        written = [*(tail or ()), *tasks[:-1]]
    head = inputs.flat(inputs.of(results[-1]))[-1]
    yield Step(
        tasks[-1],
        (),
        {
            **options,
            **end,
            "chain": written,
            "chain_link": _link(tasks, results, count - 1, head, after),
        },
    )
    root_id = root_id or root_of(results[-1])
    for place in range(count - 2, -1, -1):
        before = inputs.of(results[place + 1])
        own: dict[str, Any] = {
            "chord_parents": before,
            "parent_id": inputs.flat(before)[-1],
            "root_id": root_id,
            "add_to_parent": False,
        }
        if place:
            own["chain_link"] = _link(tasks, results, place, head, after)
        else:
            own.update(chain=tail, chain_link=link)
            if end:
                own["chord_errbacks"] = _places(errbacks, tasks[0])
            if kept:
                own["ignore_result"] = False
        yield Step(tasks[place], (inputs.SLOT,), own)


def _link(
    tasks: list[Any], results: list[Any], place: int, head: str, after: int
) -> dict[str, Any]:
    following = tasks[place - 1]
    return {
        "head": head,
        "left": place + after,
        "next": following.options.get("task_id"),
        "trail": [_alone(following, results[place - 1], results[place]).as_tuple()],
    }


def _alone(task: Any, result: Any, before: Any) -> Any:
    """Give the result that sending `task` leaves with its sender: a chord's is its header's."""
    if kinds.is_chord(task):
        while result.parent is not None and result.parent is not before:
            result = result.parent
    if hasattr(result, "results"):
        return result.app.GroupResult(result.id, result.results)
    return result.app.AsyncResult(result.id)


def _places(errbacks: Any, task: Any) -> list[int]:
    """Say which of the error links of a step are those of its chain."""
    while kinds.is_chord(task):
        task = task.body
    wanted = maybe_list(errbacks) or ()
    links = maybe_list(task.options.get("link_error")) or ()
    return [place for place, link in enumerate(links) if link in wanted]


def root_of(result: Any) -> str:
    """Give the id of the task that began what led to `result`; of several, in the last member."""
    while result.parent is not None or getattr(result, "results", None):
        result = result.results[-1] if result.parent is None else result.parent
    return str(result.id)


def calls_in(sig: Any) -> Iterator[Any]:
    """Iterate over the calls that a frozen signature makes, as their own signatures."""
    if kinds.is_chord(sig):
        header = getattr(sig.tasks, "tasks", sig.tasks)
        parts = [*header, *([] if sig.body is None else [sig.body])]
    elif kinds.is_group(sig) or kinds.is_chain(sig):
        parts = sig.tasks
    else:
        if sig.options.get("task_id") is not None:
            yield sig
        return
    for part in parts:
        yield from calls_in(maybe_signature(part))
