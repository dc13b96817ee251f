"""Jobs as columns: what the SQL functions take, one array an attribute. Bad jobs stop here."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from pgcelery.engine import placement
from pgcelery.engine.arrays import (
    Array,
    BigintArray,
    ByteaArray,
    DoubleArray,
    IntegerArray,
    SmallintArray,
    TextArray,
    TimestampArray,
    timestamp,
)
from pgcelery.engine.errors import InvalidJob
from pgcelery.engine.job import Gate, NewJob, Strategy, Unique

QueueKey = tuple[str, str]  #: a queue's name, and what it asks of a worker (`NewJob.placement`)

MAX_NAME = 255
_INT, _SMALLINT = 2_147_483_647, 32767
HAS_CHILDREN = 1  #: bit of a job's flags: others wait for it
GATED = 2  #: bit of a job's flags: it must pass gates
RUNS_AGAIN = 64  #: bit of what is enqueued, not kept: `NewJob.again`
LEADS = 128  #: bit of a job's flags: `NewJob.leads`
PLACED = 1024  #: bit of a job's flags: `NewJob.placement`
STICKY = (0, 256, 512)  #: bits of a job's flags, by `NewJob.sticky`
MAX_GATES = 8
_pack_smallint, _pack_int, _pack_bigint, _pack_double = (
    struct.Struct(code).pack for code in (">h", ">i", ">q", ">d")
)
_MODES = {"done": 0, "started": 1, "time": 2}


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
            f" at most {max_payload_bytes} are allowed (max_payload_bytes)"
        )
    if not 0 <= job.priority <= 32767:
        raise InvalidJob(f"priority {job.priority} is not within 0 to 32767")
    if job.max_deliveries < 1:
        raise InvalidJob("max_deliveries must be at least 1")
    if job.workflow is not None:
        check_name("workflow", job.workflow)
    if job.gates:
        _check_gates(job.gates)
    if job.unique is not None:
        _check_unique(job.unique)
    if job.placement:
        _check_placement(job.placement)
    if job.sticky not in (0, 1, 2):
        raise InvalidJob(f"sticky is 0, 1 or 2, not {job.sticky!r}")
    _check_times(job)


def _check_times(job: NewJob) -> None:
    for time in (job.due_at, job.expires_at):
        if isinstance(time, datetime) and time.tzinfo is None:
            raise InvalidJob(f"{time!r} has no time zone")


def _check_placement(text: str) -> None:
    try:
        placement.score(text, {})
    except ValueError as exc:
        raise InvalidJob(str(exc)) from None


def _check_gates(gates: Sequence[Gate]) -> None:
    if len(gates) > MAX_GATES:
        raise InvalidJob(f"{len(gates)} gates; at most {MAX_GATES} are possible")
    if len({(gate.name, gate.key) for gate in gates}) < len(gates):
        raise InvalidJob("two gates of one name and key")
    for gate in gates:
        check_name("the name of a limit", gate.name)
        if gate.key:
            check_name("the key of a limit", gate.key)
        check_limit(gate.name, gate.slots, gate.weight, gate.rate, gate.period_s, gate.burst)
        if gate.units < 1 or gate.units > _INT:
            raise InvalidJob(f"limit {gate.name!r}: units must be at least 1, not {gate.units!r}")
        if gate.strategy not in tuple(Strategy):
            raise InvalidJob(f"limit {gate.name!r}: no strategy {gate.strategy!r}")


def check_limit(
    name: str,
    slots: int | None,
    weight: float | None,
    rate: int | None,
    period_s: float | None,
    burst: int | None,
) -> None:
    """Refuse what no limit can be.

    Raises:
        InvalidJob: Naming the limit and the part that is wrong.
    """
    for what, number in (("slots", slots), ("rate", rate), ("burst", burst)):
        if number is not None and not (_is_whole(number) and 1 <= number <= _INT):
            raise InvalidJob(
                f"limit {name!r}: {what} must be a whole number, at least 1, not {number!r:.80}"
            )
    for what, amount in (("weight", weight), ("period_s", period_s)):
        if amount is not None and not (_is_real(amount) and 1e-6 <= amount <= 1e9):
            raise InvalidJob(f"limit {name!r}: {what} must be a number above 0, not {amount!r:.80}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_unique(unique: Unique) -> None:
    check_name("the key of a unique job", unique.key)
    if unique.until not in _MODES:
        raise InvalidJob(f"unique until {unique.until!r}: it is one of {', '.join(_MODES)}")
    if unique.for_s is None:
        if unique.until == "time":
            raise InvalidJob("a job that is unique for a time needs for_s")
    elif not 0 < unique.for_s <= 1e9:
        raise InvalidJob(f"a job is unique for more than 0 seconds, not {unique.for_s!r}")


def _rules(job: NewJob) -> str | None:
    """Say in JSON what few jobs have: gates, in the order of the type's fields, and uniqueness."""
    if not job.gates and job.unique is None:
        return None
    rules: dict[str, Any] = {}
    if job.gates:
        rules["g"] = [
            [
                g.name,
                g.key,
                g.slots,
                g.weight,
                int(g.strategy),
                g.rate,
                g.period_s,
                g.burst,
                g.fixed,
                g.units,
            ]
            for g in job.gates
        ]
    if job.unique is not None:
        rules["u"] = [job.unique.key, _MODES[job.unique.until], job.unique.for_s]
    return json.dumps(rules, separators=(",", ":"))


def columns(jobs: Sequence[NewJob], queue_id: Mapping[QueueKey, int]) -> list[Array]:
    """Turn checked jobs into the seventeen array arguments of ``enqueue_v4``, in its order."""
    edges = [(parent, job.id) for job in jobs for parent in job.parents]
    edges += [(job.id, place) for job in jobs for place in job.joins]
    waited_for = frozenset(parent for parent, _ in edges)
    if len(jobs) == 1 and not edges and _is_usual(jobs[0]):
        rest = _rest_of_one(jobs[0]._replace(id="", payload=b""), queue_id[queue_key(jobs[0])])
    else:
        rest = _rest(jobs, [queue_id[queue_key(job)] for job in jobs], waited_for)
    return [
        TextArray.of([job.id for job in jobs]),
        *rest[:3],
        ByteaArray.of([job.payload for job in jobs]),
        *rest[3:],
        TextArray.of([parent for parent, _ in edges]),
        TextArray.of([child for _, child in edges]),
    ]


def is_plain(job: NewJob) -> bool:
    """Whether ``enqueue_one_v2`` can insert it: it may run now, and nothing else is said of it."""
    return not (
        job.parents
        or job.delay_s is not None
        or job.due_at is not None
        or job.gates
        or job.joins
        or job.again
        or job.leads
        or job.workflow is not None
        or job.unique is not None
    )


def of_plain(job: NewJob, queue_id: int) -> list[bytes | None]:
    """Turn a job that `is_plain` into the arguments of ``enqueue_one_v2``, in its order."""
    expires_at, ttl_s = job.expires_at, job.ttl_s
    return [
        job.id.encode(),
        _pack_int(queue_id),
        _pack_smallint(job.priority),
        job.name.encode(),
        job.payload,
        None if expires_at is None else _pack_bigint(timestamp(expires_at)),
        _pack_smallint(min(job.max_deliveries, _SMALLINT)),
        None if ttl_s is None else _pack_double(ttl_s),
        _pack_smallint(_flags(job, job.awaited)),
    ]


def queue_key(job: NewJob) -> QueueKey:
    """Name the queue that a job waits in."""
    return job.queue, job.placement


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
        SmallintArray.of([min(job.max_deliveries, _SMALLINT) for job in jobs]),
        DoubleArray.of([job.ttl_s for job in jobs]),
        IntegerArray.of([len(job.parents) for job in jobs]),
        SmallintArray.of([_flags(job, job.awaited or job.id in waited_for) for job in jobs]),
        TextArray.of([_rules(job) for job in jobs]),
        TextArray.of([job.workflow for job in jobs]),
        DoubleArray.of([job.lives_s for job in jobs]),
    ]


def _flags(job: NewJob, has_children: bool) -> int:
    return (
        (HAS_CHILDREN if has_children else 0)
        | (GATED if job.gates else 0)
        | STICKY[job.sticky]
        | (PLACED if job.placement else 0)
        | (RUNS_AGAIN if job.again else 0)
        | (LEADS if job.leads else 0)
    )


def _is_usual(job: NewJob) -> bool:
    """Whether its columns are worth remembering: nothing in them that is its own."""
    return not (job.due_at or job.expires_at or job.workflow or job.gates or job.unique is not None)


@lru_cache(maxsize=1024)
def _rest_of_one(job: NewJob, queue_id: int) -> list[Array]:
    """The same for one job by itself; a sender's next call is mostly like its last."""
    return _rest([job], [queue_id], frozenset())


@lru_cache(maxsize=1)
def no_follow_ups() -> list[Array]:
    """Give the empty form of the eighteen follow-up arguments of ``step_v4``."""
    return [BigintArray.of([]), *columns([], {})]


def follow_ups(pairs: Sequence[tuple[int, NewJob]], intern: Callable[[QueueKey], int]) -> list[Any]:
    """Turn (token of the parent's run, job) pairs into the follow-up arguments of ``step_v4``."""
    jobs = [job for _, job in pairs]
    queue_id = {queue_key(job): intern(queue_key(job)) for job in jobs}
    return [BigintArray.of([token for token, _ in pairs]), *columns(jobs, queue_id)]
