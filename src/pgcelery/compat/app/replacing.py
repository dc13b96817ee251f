"""Putting another signature in the place of the call that runs now.

Source: Celery 5.7, `Task.replace`, `Task.on_replace` and `Task.add_to_chord`. The calls that the
replacement starts with are enqueued in the transaction that gives up this run, so that the id is
never without someone who will end it.
"""

from __future__ import annotations

from typing import Any

from kombu.utils.functional import maybe_list

from pgcelery.compat.app import running
from pgcelery.compat.canvas import _chain, group, signature
from pgcelery.compat.exceptions import Ignore, ImproperlyConfigured
from pgcelery.compat.result import inputs

__all__ = ("add_to_chord", "on_replace", "replace")


def replace(task: Any, sig: Any) -> Any:
    """Give id, links and rest of the chain of the current call to `sig`, and start it."""
    if "chord" in sig.options:
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if isinstance(sig, _chain) and not getattr(sig, "tasks", True):
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    request = task.request
    sig = _with_one_end(task.app, sig)
    _move_links(request, sig)
    sig.freeze(request.id)
    nesting = request.get("replaced_task_nesting", 0) + 1
    sig.set(
        chord=request.chord,
        group_id=request.group,
        group_index=request.group_index,
        root_id=request.root_id,
        replaced_task_nesting=nesting,
    )
    if request.chord:
        sig.set(ignore_result=False)  # the body needs it, whatever the task says
    if isinstance(sig, _chain):
        for step in maybe_list(sig.tasks) or ():
            step.set(replaced_task_nesting=nesting)
    rest = vars(request).get("chain") or ()
    if request.chain_link:
        # Steps that wait for this id go on waiting for it.
        sig.set(chain_link=request.chain_link, **({"chain": rest} if rest else {}))
        rest = ()
    for step in reversed(rest):
        later = signature(step, app=task.app)
        later.set(replaced_task_nesting=nesting)
        sig |= later
    return task.on_replace(sig)


def _with_one_end(app: Any, sig: Any) -> Any:
    """Make a group, or a chain that ends in one, the header of a chord: links need one end."""
    gather = app.tasks["celery.accumulate"]
    if isinstance(sig, group):
        sig |= gather.s(index=0)
    if isinstance(sig, _chain) and isinstance(sig.tasks[-1], group):
        sig.tasks = [*sig.tasks[:-1], sig.tasks[-1] | gather.s(index=0)]
    return sig


def _move_links(request: Any, sig: Any) -> None:
    for callback in maybe_list(request.callbacks) or ():
        sig.link(callback)
    for errback in maybe_list(request.errbacks) or ():
        sig.link_error(errback)
    if isinstance(sig, _chain) and "link" in sig.options:
        # What is appended to the chain below must come after the links of what ends here.
        last = sig.tasks[-1].options.setdefault("link", [])
        last.extend(maybe_list(sig.options.pop("link")))


def on_replace(task: Any, sig: Any) -> Any:
    """Start the replacement, and end the current run without an outcome of its own."""
    if task.request.is_eager:
        return sig.apply().get()
    run = running.current(task.request.id)
    if run is None:
        sig.delay()
    else:
        run.follow_ups.extend(running.dispatch(sig.delay))
        run.replaced = True
    raise Ignore("Replaced by new task")


def add_to_chord(task: Any, sig: Any, lazy: bool = False) -> Any:
    """Add a call to the header of the chord that the current one is in.

    It is enqueued with the outcome of the current call, so that a retry does not add it twice. With
    `lazy` the chord waits for it from now on, and the caller has to send it.
    """
    request = task.request
    if not request.chord:
        raise ValueError("Current task is not member of any chord")
    sig.set(
        group_id=request.group,
        group_index=request.group_index,
        chord=request.chord,
        root_id=request.root_id,
        ignore_result=False,  # the body needs it, whatever the task says
    )
    result = sig.freeze()
    run = running.current(request.id)
    if lazy or run is None:
        task.backend.add_to_chord(request.group, result)
        return sig if lazy else sig.delay()
    with running.collecting() as jobs:
        sent = sig.delay()
    ends = inputs.flat(inputs.of(result))
    run.follow_ups.extend(
        job._replace(joins=(request.id,)) if job.id in ends else job for job in jobs
    )
    return sent
