"""Pools of forked children that grow, shrink and restart while they work."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgcelery.engine.pool import PreforkPool
from tests.support.pools import Bodies, Drive, jobs_of
from tests.support.wait import wait_for


def hold(payload: bytes) -> bytes:
    """Note the pid in ``<payload>.pid`` and wait until ``<payload>`` exists."""
    path = Path(payload.decode())
    Path(f"{path}.pid").write_text(str(os.getpid()))
    wait_for(path.exists, timeout_s=60)
    return str(os.getpid()).encode()


def note(payload: bytes) -> bytes:
    """Add a line to a file, which one write does whole; some take long."""
    path, number = payload.decode().split()
    with open(path, "ab", buffering=0) as file:
        file.write(f"{number}\n".encode())
    if int(number) % 20 == 0:
        threading.Event().wait(0.05)
    return number.encode()


@pytest.fixture
def pool() -> Iterator[PreforkPool]:
    pool = PreforkPool(2)
    yield pool
    pool.stop(kill=True)


def test_restart_replaces_idle_children_at_once_and_a_busy_one_after_its_job(
    pool: PreforkPool, tmp_path: Path
) -> None:
    drive = Drive(pool, Bodies({"hold": hold}))
    drive.until_room(2)
    before = {child.pid for child in pool.children()}
    (job,) = jobs_of("hold", bytes(tmp_path / "job"))
    pool.submit([job])
    pid_file = tmp_path / "job.pid"
    drive.until(lambda: pid_file.exists() and pid_file.read_text())
    busy = int(pid_file.read_text())
    pool.restart()
    drive.until_room(1)
    now = {child.pid for child in pool.children()}
    assert now & before == {busy}
    assert len(now) == 2
    (tmp_path / "job").touch()
    assert drive.finish([job]) == [str(busy).encode()]
    drive.until_room(2)
    assert not {child.pid for child in pool.children()} & before
    assert len(pool.children()) == 2


def test_what_a_resized_pool_runs_is_run_once(pool: PreforkPool, tmp_path: Path) -> None:
    drive = Drive(pool, Bodies({"note": note}))
    drive.until_room(2)
    seen = tmp_path / "seen"
    chance = random.Random(5)
    jobs = jobs_of("note", *[f"{seen} {number}".encode() for number in range(600)])
    waiting = list(jobs)
    turns = 0
    while len(drive.outcomes) < len(jobs):
        taken, waiting = waiting[: pool.capacity()], waiting[pool.capacity() :]
        pool.submit(taken)
        drive.turn(0.005)
        turns += 1
        if turns % 5 == 0:
            how = chance.choice(["grow", "shrink", "restart"])
            if how == "restart":
                pool.restart()
            elif how == "grow" and pool.size < 4:
                pool.grow(chance.randint(1, 2))
            elif how == "shrink" and pool.size > 1:
                pool.shrink(1)
        assert turns < 5000, "it did not end"
    lines = seen.read_text().split()
    assert sorted(lines, key=int) == [str(number) for number in range(600)]
    assert turns > 30, "too quick to have been resized often"
    drive.until(lambda: len(pool.children()) == pool.size)
