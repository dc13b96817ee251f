"""A process may die between any two statements that matter: what it leaves can be gone on with.

Promise P4 of docs/guarantees.md.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, DatabaseUnavailable, NewJob, State, failpoint
from tests.faults import failing
from tests.faults.failing import Forked, job
from tests.support.process import PGCELERY, Process
from tests.support.relays import rows
from tests.support.wait import wait_for

pytestmark = pytest.mark.fault

PRODUCERS = {"enqueue": failing.enqueue, "latch": failing.grow, "schedule": failing.beat}
OF_WORKERS = [name for name in failpoint.POINTS if name.partition(".")[0] not in PRODUCERS]
OF_PRODUCERS = [name for name in failpoint.POINTS if name not in OF_WORKERS]


def chain(name: str = "") -> list[NewJob]:
    ids = [f"{name}{letter}" for letter in "abcde"]
    return [job(ids[0]), *(job(b, parents=(a,)) for a, b in pairwise(ids))]


JOBS = [
    job("once-1", most=1),
    job("once-2", most=1),
    *(job(f"plain-{n}") for n in range(5)),
    job("retried", b"retry"),
    job("rejected", b"reject"),
    *chain(),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture
def place(folder: Path, request: pytest.FixtureRequest) -> Path:
    place = folder / str(abs(hash(request.node.name)))
    place.mkdir()
    (place / "ran").touch()
    return place


@pytest.fixture
def forked(place: Path) -> Iterator[Callable[..., Forked]]:
    processes: list[Forked] = []

    def start(act: Callable[..., None], *args: Any, points: str = "") -> Forked:
        processes.append(Forked(act, *args, points=points, marks=place))
        return processes[-1]

    yield start
    for one in processes:
        one.kill()


def abandon(dsn: str, client: Client) -> None:
    """Leave a run of a worker that is gone, for upkeep to find."""
    client.enqueue([job("abandoned")])
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "with r as (delete from pgcelery.ready returning *) insert into pgcelery.running"
            " (token, job_id, worker_id, queue_id, delivery, flags)"
            " select nextval('pgcelery.tokens'), job_id, -1, queue_id, 1, flags from r"
        )


def bury(dsn: str) -> None:
    """As if the lease of the worker had run out: nobody waits for that here."""
    with psycopg.connect(dsn) as conn:
        conn.execute("update pgcelery.workers set lease_until = now() - interval '1 second'")
        conn.execute("delete from pgcelery.leases")


@pytest.mark.parametrize("point", OF_WORKERS)
def test_a_worker_or_its_process_dies_and_nothing_is_lost(
    dsn: str, client: Client, place: Path, forked: Callable[..., Forked], point: str
):
    abandon(dsn, client)
    client.enqueue(JOBS)
    ids = ["abandoned", *(one.id for one in JOBS)]
    worker = forked(failing.work, dsn, place, points=f"{point}:kill:{_hit(point)}")

    def hit() -> bool:
        if point.startswith("relay") and len(client.results(ids)) == len(ids):
            more = chain(f"{len(ids)}-")  # the process's connection came too late for the others
            ids.extend(one.id for one in more)
            client.enqueue(more)
        return (place / point).exists()

    wait_for(hit, message=f"{point} was not hit")
    if not point.startswith(("child", "relay")):
        wait_for(worker.ended)
        assert worker.code == -signal.SIGKILL
        bury(dsn)
        forked(failing.work, dsn, place)
    wait_for(lambda: len(client.results(ids)) == len(ids), message=lambda: _story(client, ids))
    wait_for(lambda: not _moving(dsn))

    ran = Counter((place / "ran").read_text().split())
    found = client.results(ids)
    for id in ids:
        once = id.startswith("once")
        if not once:
            assert (found[id].state, found[id].result) == (State.COMPLETED, id.encode())
            assert 1 <= ran[id] <= (3 if id in ("retried", "rejected") else 2)
        elif found[id].state is State.COMPLETED:
            assert ran[id] == 1
        else:
            assert found[id].result in (b"worker_lost", b"child_lost")
            assert ran[id] <= 1
    assert sum(ran.values()) <= len(ids) + 2 + 8  # two ask for a second run
    assert rows(dsn, "select from pgcelery.late") == []


def _hit(point: str) -> int:
    """Later than the first time, where that would be before there is anything to lose."""
    return 2 if point in ("step.sent", "step.answered", "beat.sent") else 1


def _moving(dsn: str) -> list[Any]:
    found = []
    for table in ("ready", "running", "scheduled", "nodes", "edges", "gated"):
        found += rows(dsn, f"select '{table}', * from pgcelery.{table}")  # noqa: S608
    return found


def _story(client: Client, ids: list[str]) -> str:
    left = set(ids) - set(client.results(ids))
    return str({id: client.job(id) for id in left})


@pytest.mark.parametrize("point", OF_PRODUCERS)
def test_a_producer_dies_and_can_say_it_again(
    dsn: str, client: Client, place: Path, forked: Callable[..., Forked], point: str
):
    act = PRODUCERS[point.partition(".")[0]]
    first = forked(act, dsn, points=f"{point}:kill")
    wait_for(first.ended)
    assert (place / point).exists(), f"{point} was not hit"
    assert first.code == -signal.SIGKILL
    seen = rows(dsn, "select count(*) from pgcelery.jobs")[0][0]
    if act is failing.enqueue:
        assert seen == (1001 if point == "enqueue.committed" else 0), "all or none"
    if act is failing.beat:
        assert seen == (point == "schedule.committed")

    again = forked(act, dsn)
    wait_for(again.ended)
    if act is failing.grow:
        ids = [*(f"member-{n}" for n in range(3)), "body"]
    elif act is failing.enqueue:
        ids = [f"many-{n}" for n in range(1001)]
    else:
        ids = ["tick-0001-0"]
    forked(failing.work, dsn, place)
    wait_for(lambda: len(client.results(ids)) == len(ids), message=lambda: _story(client, ids))
    wait_for(lambda: not _moving(dsn))
    assert Counter((place / "ran").read_text().split()) == Counter(ids)


def test_every_point_is_somewhere():
    source = Path(failpoint.__file__).parent
    text = "\n".join(path.read_text() for path in source.rglob("*.py") if path.stem != "failpoint")
    assert [name for name in failpoint.POINTS if text.count(f'failpoint("{name}")') != 1] == []


def test_a_point_acts_at_its_hit(tmp_path: Path):
    try:
        failpoint.arm("beat.sent:raise:2, step.sent:sleep=0.0", tmp_path)
        failpoint.failpoint("beat.sent")
        failpoint.failpoint("beat.answered")
        with pytest.raises(DatabaseUnavailable, match=r"beat\.sent"):
            failpoint.failpoint("beat.sent")
        failpoint.failpoint("beat.sent")
        assert [path.name for path in tmp_path.iterdir()] == ["beat.sent"]
    finally:
        failpoint.arm("")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere:kill", "there is no failpoint 'nowhere'"),
        ("beat.sent:explode", "NAME:ACTION:HIT"),
        ("beat.sent", "NAME:ACTION:HIT"),
        ("beat.sent:kill:often", "NAME:ACTION:HIT"),
    ],
)
def test_what_cannot_be_armed_is_told(spec: str, message: str):
    with pytest.raises(ValueError, match=message):
        failpoint.arm_from({"PGCELERY_FAILPOINTS": spec})


def test_a_worker_of_the_command_line_takes_them_from_the_environment(
    spawn: Callable[..., Process], tmp_path: Path
):
    env = {"PGCELERY_FAILPOINTS": "nowhere:kill"}
    process = spawn([*PGCELERY, "db", "status"], env=env)
    assert process.wait() != 0
    assert "there is no failpoint 'nowhere'" in process.output()
