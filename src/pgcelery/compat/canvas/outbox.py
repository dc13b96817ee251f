"""Sends everything that a workflow begins with in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from pgcelery.compat.app import running, sending
from pgcelery.compat.app.connections import driver_connection
from pgcelery.engine import NewJob


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
        jobs[:] = [
            job._replace(workflow=workflow, leads=not place, again=True)
            for place, job in enumerate(jobs)
        ]
    else:
        jobs[:] = [job._replace(again=True) for job in jobs]
    sending.insert(app, jobs)


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
