"""What a node logs of its conversation with the database."""

from __future__ import annotations

import logging

from pgcelery.engine.job import Outcome
from pgcelery.engine.statements import Row

logger = logging.getLogger("pgcelery.engine.node")


def disconnected(why: str, pause_s: float) -> None:
    """Say that the connection broke, and when the next attempt is made."""
    logger.warning(
        "database connection lost (%s); trying again in %.1f s",
        why.splitlines()[0] if why else "no reason given",
        pause_s,
        extra={"action": "node.disconnected"},
    )


def refused(key: str, text: str, state: str) -> None:
    """Say that the server refused a statement."""
    logger.error(
        "the database refused to %s: %s (%s)",
        key,
        text,
        state,
        extra={"action": "node.refused", "sqlstate": state},
    )


def late(outcome: Outcome, reason: str) -> None:
    """Say that an outcome was not recorded."""
    logger.warning(
        "outcome of job %s refused: %s",
        outcome.id,
        reason,
        extra={"action": "job.late", "job_id": outcome.id, "token": outcome.token},
    )


def reaped(row: Row) -> None:
    """Say what a round of upkeep took from workers that fell silent."""
    logger.warning(
        "%d silent workers buried, %d runs taken from them",
        row.priority,
        row.delivery,
        extra={"action": "upkeep.reaped"},
    )
