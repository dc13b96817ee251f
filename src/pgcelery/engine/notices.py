"""What a node logs of its conversation with the database."""

from __future__ import annotations

import logging

from pgcelery.engine.job import Outcome
from pgcelery.engine.statements import Row

logger = logging.getLogger("pgcelery.engine.node")


def connected() -> None:
    """Say that the connection is back."""
    logger.info("database connection is back", extra={"action": "node.reconnected"})


def expired() -> None:
    """Say that the worker is unknown to the database by now."""
    logger.warning(
        "this worker's lease ran out; registering anew", extra={"action": "node.expired"}
    )


def late(outcome: Outcome, reason: str) -> None:
    """Say that an outcome was not recorded."""
    logger.warning(
        "outcome of job %r refused: %s",
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


def unfit() -> None:
    """Say that an outcome could not be made ready for the database; within its ``except``."""
    logger.exception("an outcome cannot be stored", extra={"action": "node.unfit"})
