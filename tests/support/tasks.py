"""Tasks without a database: calls become jobs, and jobs outcomes, in this process."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.handler import TaskHandler
from pgcelery.compat.message import decode
from pgcelery.engine import Job, Lost, NewJob, Outcome


class NoDatabase:
    """Stands where the engine's client would: keeps what is enqueued or put, answers nothing."""

    def __init__(self) -> None:
        self.jobs: list[NewJob] = []
        self.put: list[tuple[str, Any, dict[str, Any]]] = []
        self.conns: list[Any] = []
        #: ids that are answered, by unique key: as if a job like it were there
        self.alike: dict[str, str] = {}

    def enqueue(self, jobs: Sequence[NewJob], *, conn: Any = None) -> dict[str, str]:
        alike = {
            job.id: self.alike[job.unique.key]
            for job in jobs
            if job.unique is not None and job.unique.key in self.alike
        }
        self.jobs.extend(job for job in jobs if job.id not in alike)
        self.conns.append(conn)
        return alike

    def put_result(self, id: str, state: Any, result: bytes, *, ttl_s: float | None = None) -> bool:
        self.put.append((id, state, json.loads(result)))
        return True

    def results(self, ids: Sequence[str]) -> dict[str, Any]:
        return {}


class Offline(Celery):
    """An app whose calls stay here."""

    engine: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("broker", "postgresql://nowhere.invalid/db")
        super().__init__(*args, **kwargs)
        self.engine = NoDatabase()
        self.handler = TaskHandler(self, hostname="celery@here")

    def task(self, *args: Any, **options: Any) -> Any:
        """Make a task of this app only: other tests' apps shall not have it."""
        options.setdefault("shared", False)
        return super().task(*args, **options)

    def sent(self) -> NewJob:
        """The job of the latest call."""
        return self.engine.jobs[-1]

    def claim(self, job: NewJob | None = None, **fields: Any) -> Job:
        """Claim a job, by default the latest."""
        job = job or self.sent()
        fields = {"token": 7, "delivery": 1, **fields}
        return Job(
            id=job.id,
            queue=job.queue,
            name=job.name,
            payload=fields.pop("payload", job.payload),
            priority=job.priority,
            **fields,
        )

    def work(self, job: NewJob | None = None, **fields: Any) -> Outcome:
        """Run a job, by default the latest."""
        return self.handler.open(self.claim(job, **fields))()

    def go_on(self, job: NewJob, before: Outcome) -> Outcome:
        """Run a job that waited for one that has come to `before`."""
        return self.work(job, fed=(before.id, int(before.state), before.result))

    def lose(self, kind: str, **why: Any) -> Outcome:
        """End the latest job without running it."""
        fields = {key: why.pop(key) for key in ("delivery",) if key in why}
        return self.handler.lost(self.claim(**fields), Lost(kind, **why))


@contextmanager
def celery_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Let `caplog` see Celery's loggers, whatever tests before have set up."""
    logger = logging.getLogger("celery")
    propagate, logger.propagate = logger.propagate, True
    try:
        with caplog.at_level(logging.INFO, "celery"):
            yield caplog
    finally:
        logger.propagate = propagate


def meta(outcome: Outcome) -> dict[str, Any]:
    """What an outcome stores."""
    assert outcome.result is not None
    return json.loads(outcome.result)


def headers(job: NewJob) -> dict[str, Any]:
    """Headers of a job's message."""
    return decode(job.payload).headers


def body(job: NewJob) -> list[Any]:
    """``[args, kwargs, embed]`` of a job's message."""
    return json.loads(decode(job.payload).body)
