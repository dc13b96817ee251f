"""A PostgreSQL job queue: enqueue, claim, finish, retry, cancel; leases, fencing, DAG edges.

The engine knows no Celery and no command line. Its face is what this module exports.
"""

from __future__ import annotations

from pgcelery.engine.client import Client, JobInfo, QueueCounts, WorkerInfo
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.errors import (
    DatabaseUnavailable,
    EmbeddedServerError,
    EngineError,
    InvalidJob,
    NotCurrent,
    NotEnded,
    NotPermitted,
    PoolTimeout,
    SchemaMismatch,
    UnknownQueue,
    WrongDatabase,
)
from pgcelery.engine.inside import is_driver_connection
from pgcelery.engine.job import (
    Gate,
    Handler,
    Job,
    Lost,
    NewJob,
    Outcome,
    Recorded,
    Run,
    State,
    StoredResult,
    Strategy,
    Unique,
    Unrecorded,
)
from pgcelery.engine.limits import LimitChange, LimitInfo, LimitValues
from pgcelery.engine.stream import EventReader, EventWriter
from pgcelery.engine.transaction import Transaction, Transactions
from pgcelery.engine.why import Holder, LineState, Parent, ServingWorker, Why
from pgcelery.engine.worker import Worker
from pgcelery.engine.workflows import Member, Rerun, WorkflowInfo, WorkflowJobs

__all__ = [
    "Client",
    "DatabaseUnavailable",
    "EmbeddedServerError",
    "EngineConfig",
    "EngineError",
    "EventReader",
    "EventWriter",
    "Gate",
    "Handler",
    "Holder",
    "InvalidJob",
    "Job",
    "JobInfo",
    "LimitChange",
    "LimitInfo",
    "LimitValues",
    "LineState",
    "Lost",
    "Member",
    "NewJob",
    "NotCurrent",
    "NotEnded",
    "NotPermitted",
    "Outcome",
    "Parent",
    "PoolTimeout",
    "QueueCounts",
    "Recorded",
    "Rerun",
    "Run",
    "SchemaMismatch",
    "ServingWorker",
    "State",
    "StoredResult",
    "Strategy",
    "Transaction",
    "Transactions",
    "Unique",
    "UnknownQueue",
    "Unrecorded",
    "Why",
    "Worker",
    "WorkerInfo",
    "WorkflowInfo",
    "WorkflowJobs",
    "WrongDatabase",
    "is_driver_connection",
]
