"""Sends everything that a workflow begins with in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgcelery.compat.app import running, sending
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


def mark(jobs: list[NewJob], workflow: str, *, leads: bool) -> None:
    """Make `jobs` part of a workflow, which is listed by the first of them if that `leads`."""
    jobs[:] = [
        job._replace(workflow=workflow, leads=leads and not place) for place, job in enumerate(jobs)
    ]
