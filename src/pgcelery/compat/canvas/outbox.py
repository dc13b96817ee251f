"""Sends everything that a workflow begins with in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgcelery.compat.app import sending


@contextmanager
def together(app: Any) -> Iterator[None]:
    """Insert all calls sent in this block at its end, at once; none if it raises.

    Inside another such block, or where calls are collected for a task's end, they join those. Ids
    that were frozen and have been used run again: another workflow is another use.
    """
    with sending.collecting() as jobs:
        yield
    jobs[:] = [job._replace(again=True) for job in jobs]
    sending.insert(app, jobs)
