"""Words and numbers that all drawings share. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pgcelery.compat import states
from pgcelery.compat.workflow.node import WAITING

_WORDS = {
    states.SUCCESS: "done",
    states.FAILURE: "failed",
    states.REVOKED: "revoked",
    states.STARTED: "running",
    states.RETRY: "retrying",
    states.PENDING: "pending",
    WAITING: "waiting",
}


def told(counts: Mapping[str, int]) -> str:
    """Write how many are in which state: ``98 done, 2 running``."""
    return ", ".join(f"{many:,} {_WORDS[state]}" for state, many in counts.items())


def tasks(many: int) -> str:
    """Write how many tasks there are."""
    return "1 task" if many == 1 else f"{many:,} tasks"


def missing(of_name: Mapping[str, int]) -> str:
    """Write which tasks a drawing leaves out; nothing for none."""
    return ", ".join(f"{name} x {many:,}" for name, many in of_name.items())
