"""Jobs as columns: what the SQL functions take, one array an attribute. Bad jobs stop here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from pgcelery.engine.arrays import (
    Array,
    BigintArray,
    ByteaArray,
    DoubleArray,
    IntegerArray,
    SmallintArray,
    TextArray,
    TimestampArray,
)
from pgcelery.engine.errors import InvalidJob
from pgcelery.engine.job import NewJob

MAX_NAME = 255
HAS_CHILDREN = 1  #: bit of a job's flags: others wait for it
HAS_KEY = 2  #: bit of a job's flags: it needs a slot of its key
RUNS_AGAIN = 64  #: bit of what is enqueued, not kept: `NewJob.again`
LEADS = 128  #: bit of a job's flags: `NewJob.leads`


def check_name(what: str, value: str) -> str:
    """Return value if the database can hold it as an id or a queue name.

    Raises:
        InvalidJob: It is empty, too long, or holds NUL or a lone surrogate.
    """
    if not isinstance(value, str) or not value:
        raise InvalidJob(f"{what} must be a non-empty string, not {value!r:.80}")
    if len(value) > MAX_NAME:
        raise InvalidJob(f"{what} is {len(value)} characters long; at most {MAX_NAME} are possible")
    if "\0" in value:
        raise InvalidJob(f"{what} {value!r} contains a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidJob(f"{what} {value!r} contains a lone surrogate") from None
    return value


def check(job: NewJob, max_payload_bytes: int) -> None:
    """Refuse what the database could not hold.

    Raises:
        InvalidJob: Naming the part that is wrong.
    """
    check_name("id", job.id)
    check_name("queue", job.queue)
    check_name("name", job.name)
    if len(job.payload) > max_payload_bytes:
        raise InvalidJob(
            f"the payload of {job.name!r} has {len(job.payload)} bytes;"
            f" at most {max_payload_bytes} are allowed"
        )
    if not 0 <= job.priority <= 32767:
        raise InvalidJob(f"priority {job.priority} is not within 0 to 32767")
    if job.max_deliveries < 1:
        raise InvalidJob("max_deliveries must be at least 1")
    if job.workflow is not None:
        check_name("workflow", job.workflow)
    if job.key is not None:
        check_name("key", job.key)
        if job.key_limit < 1:
            raise InvalidJob(f"the limit of key {job.key!r} must be at least 1")
    for time in (job.due_at, job.expires_at):
        if isinstance(time, datetime) and time.tzinfo is None:
            raise InvalidJob(f"{time!r} has no time zone")


def columns(jobs: Sequence[NewJob], queue_id: Mapping[str, int]) -> list[Array]:
    """Turn checked jobs into the eighteen array arguments of ``enqueue_v2``, in its order."""
    edges = [(parent, job.id) for job in jobs for parent in job.parents]
    edges += [(job.id, place) for job in jobs for place in job.joins]
    waited_for = frozenset(parent for parent, _ in edges)
    if len(jobs) == 1 and not edges and _is_plain(jobs[0]):
        rest = _rest_of_one(jobs[0]._replace(id="", payload=b""), queue_id[jobs[0].queue])
    else:
        rest = _rest(jobs, [queue_id[job.queue] for job in jobs], waited_for)
    return [
        TextArray.of([job.id for job in jobs]),
        *rest[:3],
        ByteaArray.of([job.payload for job in jobs]),
        *rest[3:],
        TextArray.of([parent for parent, _ in edges]),
        TextArray.of([child for _, child in edges]),
    ]


def _rest(
    jobs: Sequence[NewJob], queue_ids: Sequence[int], waited_for: frozenset[str]
) -> list[Array]:
    """Build the columns that many jobs have alike: all but ids, payloads and edges."""
    return [
        IntegerArray.of(queue_ids),
        SmallintArray.of([job.priority for job in jobs]),
        TextArray.of([job.name for job in jobs]),
        TimestampArray.of_times([job.due_at for job in jobs]),
        DoubleArray.of([job.delay_s for job in jobs]),
        TimestampArray.of_times([job.expires_at for job in jobs]),
        SmallintArray.of([min(job.max_deliveries, 32767) for job in jobs]),
        DoubleArray.of([job.ttl_s for job in jobs]),
        IntegerArray.of([len(job.parents) for job in jobs]),
        SmallintArray.of(
            [
                (HAS_CHILDREN if job.awaited or job.id in waited_for else 0)
                | (HAS_KEY if job.key else 0)
                | (RUNS_AGAIN if job.again else 0)
                | (LEADS if job.leads else 0)
                for job in jobs
            ]
        ),
        TextArray.of([job.key for job in jobs]),
        IntegerArray.of([job.key_limit if job.key else None for job in jobs]),
        TextArray.of([job.workflow for job in jobs]),
        DoubleArray.of([job.lives_s for job in jobs]),
    ]


def _is_plain(job: NewJob) -> bool:
    """Whether its columns are worth remembering: nothing in them that is its own."""
    return job.due_at is None and job.expires_at is None and job.workflow is None


@lru_cache(maxsize=1024)
def _rest_of_one(job: NewJob, queue_id: int) -> list[Array]:
    """The same for one job by itself; a sender's next call is mostly like its last."""
    return _rest([job], [queue_id], frozenset())


@lru_cache(maxsize=1)
def no_follow_ups() -> list[Array]:
    """Give the empty form of the nineteen follow-up arguments of ``step_v2``."""
    return [BigintArray.of([]), *columns([], {})]


def follow_ups(pairs: Sequence[tuple[int, NewJob]], intern: Callable[[str], int]) -> list[Any]:
    """Turn (token of the parent's run, job) pairs into the follow-up arguments of ``step_v2``."""
    jobs = [job for _, job in pairs]
    queue_id = {job.queue: intern(job.queue) for job in jobs}
    return [BigintArray.of([token for token, _ in pairs]), *columns(jobs, queue_id)]
