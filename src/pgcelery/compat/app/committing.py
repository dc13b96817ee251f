"""Running a job in a transaction that commits with its completion: ``transactional=True``.

What such a task does on its connection is there exactly once if it ends as SUCCESS, and else not at
all. So nothing but a commit that was confirmed is told to the worker as a success: in any doubt the
job is given back, and the database, which knows, refuses that if it had ended.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from pgcelery.compat.app import lost, sending, transactional
from pgcelery.compat.app.delivery import Delivery
from pgcelery.compat.app.execution import redelivery
from pgcelery.engine import (
    DatabaseUnavailable,
    NotCurrent,
    Outcome,
    Recorded,
    State,
    Transaction,
    Unrecorded,
)

__all__ = ("run",)

logger = logging.getLogger("celery.app.trace")

#: Seconds for which a job is given back, about, while there is no connection.
_PAUSE_S = 1.0


def run(delivery: Delivery, trace: Callable[[], tuple[Outcome, bool]]) -> Outcome | Unrecorded:
    """Run a job in a transaction.

    Args:
        delivery: The job.
        trace: Runs it; gives what it came to, and whether its body succeeded.
    """
    job = delivery.job
    try:
        transaction = delivery.app.transactions.begin(job.token)
    except DatabaseUnavailable as exc:
        logger.warning("Task %s[%s] has to wait for a connection: %s", delivery.name, job.id, exc)
        pause_s = _PAUSE_S * random.uniform(0.7, 1.3)
        return Outcome(job.id, job.token, State.AVAILABLE, delay_s=pause_s)
    kept = False
    try:
        with transactional.entered(transaction, repeatable=_repeatable(delivery)):
            outcome, succeeded = trace()
        kept = succeeded and outcome.state is State.COMPLETED
    finally:
        if not kept:
            broken = transaction.broken
            transaction.close()
    if kept:
        return Unrecorded(lambda: _record(delivery, transaction, outcome))
    if broken and outcome.state is State.AVAILABLE:
        return outcome._replace(counted=True)
    return outcome


def _record(delivery: Delivery, transaction: Transaction, outcome: Outcome) -> Recorded | Outcome:
    job = delivery.job
    with transaction:
        try:
            return transaction.record(job, outcome)
        except NotCurrent:
            # Given back it is refused, kept as late and told of, like any run that lost its job.
            return Outcome(job.id, job.token, State.AVAILABLE)
        except DatabaseUnavailable as exc:
            logger.warning("Task %s[%s] could not be committed: %s", delivery.name, job.id, exc)
            if _repeatable(delivery):
                return redelivery(job, counted=True)
            return lost.failure(delivery, exc.__cause__ or exc)
        except Exception as exc:
            logger.error("Task %s[%s] could not be committed: %r", delivery.name, job.id, exc)
            return lost.failure(delivery, exc)


def _repeatable(delivery: Delivery) -> bool:
    return delivery.job.delivery < sending.MAX_DELIVERIES
