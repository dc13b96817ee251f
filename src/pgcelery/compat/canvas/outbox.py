"""Sends everything that a workflow begins with in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

from pgcelery.compat.app import running, sending
from pgcelery.compat.app.connections import driver_connection
from pgcelery.engine import DatabaseUnavailable, NewJob

PART = 250  # jobs that are worth a statement of their own


@contextmanager
def together(app: Any, workflow: str) -> Iterator[list[NewJob]]:
    """Insert all calls sent in this block at its end, at once; none if it raises.

    Inside another such block, or where calls are collected for a task's end, they join those.
    Otherwise they are a workflow with that id. Ids that were frozen and have been used run again:
    another workflow is another use.
    """
    outermost = not running.is_collecting()
    with sending.collecting() as jobs:
        yield jobs
    if outermost:
        jobs[:] = _members(jobs, workflow)
    else:
        jobs[:] = [job._replace(again=True) for job in jobs]
    sending.insert(app, jobs)


def _members(jobs: list[NewJob], workflow: str, *, before: int = 0) -> list[NewJob]:
    return [
        job._replace(workflow=workflow, leads=not place, again=True)
        for place, job in enumerate(jobs, before)
    ]


def in_parts(app: Any, workflow: str, parts: Iterator[list[NewJob]]) -> None:
    """Insert what comes in parts as `together` does, each while the next is made.

    Parts of less than `PART`, and those of a call that does not insert now, are put together.
    """
    first = next(parts, [])
    if len(first) < PART or not _streams(app):
        with together(app, workflow) as jobs:
            for part in chain([first], parts):
                jobs += part
        return
    made: list[NewJob] = []
    ways = chain([first], parts)
    try:
        with app.engine.in_parts() as insert:
            for part in ways:
                made += (members := _members(part, workflow, before=len(made)))
                insert.add(members)
    except DatabaseUnavailable:  # the settings say whether and how often to try again
        for part in ways:
            made += _members(part, workflow, before=len(made))
        sending.insert(app, made)
    else:
        sending.tell_existing(insert.existing)


def _streams(app: Any) -> bool:
    busy = running.is_collecting() or running.is_running() or running.lent() is not None
    return not busy and bool(app.engine.config.listen)


def inside(apply_async: Callable[..., Any]) -> Callable[..., Any]:
    """Let a canvas be sent in the transaction of ``conn`` or ``using``; no part keeps that."""

    @wraps(apply_async)
    def send(canvas: Any, *args: Any, conn: Any = None, using: Any = None, **options: Any) -> Any:
        transaction = driver_connection(conn if conn is not None else using)
        if transaction is None:
            return apply_async(canvas, *args, **options)
        with running.lending(transaction):
            return apply_async(canvas, *args, **options)

    return send


def mark(jobs: list[NewJob], workflow: str, *, leads: bool) -> None:
    """Make `jobs` part of a workflow, which is listed by the first of them if that `leads`."""
    jobs[:] = [
        job._replace(workflow=workflow, leads=leads and not place) for place, job in enumerate(jobs)
    ]
