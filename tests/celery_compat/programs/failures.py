"""Celery's reference, `celery.exceptions`: what user code catches, prints and pickles."""

from __future__ import annotations

import datetime
import pickle

from celery import exceptions, states
from observed import attempt, run

MADE = {
    "Retry": lambda: exceptions.Retry("why", ValueError("x"), 3),
    "Retry at": lambda: exceptions.Retry(when=datetime.datetime(2030, 1, 2), exc=KeyError("k")),
    "Retry plain": lambda: exceptions.Retry(),
    "Ignore": lambda: exceptions.Ignore("i"),
    "Reject": lambda: exceptions.Reject("r", requeue=True),
    "MaxRetriesExceededError": lambda: exceptions.MaxRetriesExceededError("m", task_args=(1,)),
    "TaskRevokedError": lambda: exceptions.TaskRevokedError("revoked"),
    "TimeoutError": lambda: exceptions.TimeoutError("late"),
    "NotRegistered": lambda: exceptions.NotRegistered("some.task"),
    "AlreadyRegistered": lambda: exceptions.AlreadyRegistered("some.task"),
    "ChordError": lambda: exceptions.ChordError("dependency"),
    "ImproperlyConfigured": lambda: exceptions.ImproperlyConfigured("conf"),
    "QueueNotFound": lambda: exceptions.QueueNotFound("queue"),
    "InvalidTaskError": lambda: exceptions.InvalidTaskError("bad"),
    "SoftTimeLimitExceeded": lambda: exceptions.SoftTimeLimitExceeded(3),
    "TimeLimitExceeded": lambda: exceptions.TimeLimitExceeded(3),
    "WorkerLostError": lambda: exceptions.WorkerLostError("gone", 9),
    "WorkerTerminate": lambda: exceptions.WorkerTerminate(1),
    "WorkerShutdown": lambda: exceptions.WorkerShutdown(0),
    "BackendGetMetaError": lambda: exceptions.BackendGetMetaError("b", task_id="t"),
    "BackendStoreError": lambda: exceptions.BackendStoreError("b", state="S", task_id="t"),
}


def case_text():
    return {name: [str(make()), repr(make()), repr(make().args)] for name, make in MADE.items()}


def case_families():
    known = ("celery", "pgcelery", "billiard", "kombu")

    def family(cls):
        return [b.__name__ for b in cls.__mro__ if b is not cls]

    return {
        name: [f for f in family(type(make())) if f not in known] for name, make in MADE.items()
    }


def case_pickled():
    def copied(make):
        copy = pickle.loads(pickle.dumps(make()))
        return [type(copy).__name__, str(copy), repr(copy.args)]

    return {name: attempt(copied, make) for name, make in MADE.items()}


def case_retry():
    retry = MADE["Retry"]()
    return [retry.message, repr(retry.exc), retry.excs, retry.when, retry.humanize()]


def case_names():
    return sorted(exceptions.__all__)


def case_states():
    return {
        "sets": {
            name: sorted(getattr(states, name))
            for name in ("READY_STATES", "UNREADY_STATES", "EXCEPTION_STATES", "PROPAGATE_STATES")
        },
        "all": sorted(states.ALL_STATES),
        "order": [
            states.state("PENDING") < states.state("SUCCESS"),
            states.state("STARTED") > states.state("RETRY"),
            states.state("PROGRESS") > states.state("STARTED"),
            states.precedence("FAILURE") < states.precedence("RETRY"),
        ],
    }


run(globals())
