"""Jobs that a child opens a few in a row, before it runs the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgcelery.engine.job import Job
from pgcelery.engine.pool import PreforkPool
from pgcelery.engine.pool import child as wire
from tests.support.pools import Bodies, BodyRun, Drive, jobs_of


class Noting(Bodies):
    """Notes in a file what it opens (o) and runs (r); what is called ``broken`` does not open."""

    def __init__(self, path: Path) -> None:
        super().__init__({"note": self.run, "broken": bytes})
        self.path = path

    def run(self, payload: bytes) -> bytes:
        self.note(b"r" + payload)
        return payload

    def open(self, job: Job) -> BodyRun:
        if job.name == "broken":
            raise ValueError("it cannot be opened")
        self.note(b"o" + job.payload)
        return super().open(job)

    def note(self, what: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(what + b" ")

    def noted(self) -> list[bytes]:
        found = self.path.read_bytes().split()
        self.path.unlink()
        return found


@pytest.fixture
def noting(tmp_path: Path) -> Noting:
    return Noting(tmp_path / "noted")


@pytest.fixture
def quick_ns() -> int:
    return 10**9  # whatever else this machine does


@pytest.fixture
def drive(noting: Noting, quick_ns: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    monkeypatch.setattr(wire, "_QUICK_NS", quick_ns)
    pool = PreforkPool(1, chunk_window_s=2.0)
    drive = Drive(pool, noting)
    drive.until_room()
    for _ in range(3):  # the pool, and the child, learn that it is quick
        drive.run(jobs_of("note", b""))
    noting.noted()
    yield drive
    pool.stop(kill=True)


def test_after_a_quick_run_jobs_are_opened_in_a_row_and_once(drive: Drive, noting: Noting):
    payloads = [str(n).encode() for n in range(wire._AHEAD + 2)]
    assert drive.run(jobs_of("note", *payloads)) == payloads
    row, rest = payloads[: wire._AHEAD], payloads[wire._AHEAD :]
    expected = [[b"o" + one for one in part] + [b"r" + one for one in part] for part in (row, rest)]
    assert noting.noted() == expected[0] + expected[1]


@pytest.mark.parametrize("quick_ns", [1])
def test_after_a_longer_run_none_is(drive: Drive, noting: Noting):
    drive.run(jobs_of("note", b"1", b"2"))
    assert noting.noted() == [b"o1", b"r1", b"o2", b"r2"]


def test_large_ones_are_not_opened_ahead(drive: Drive, noting: Noting):
    large = bytes(wire._AHEAD_BYTES)
    drive.run(jobs_of("note", b"1", large, b"2"))
    assert [one[:2] for one in noting.noted()] == [b"o1", b"r1", b"o\0", b"r\0", b"o2", b"r2"]


def test_one_that_cannot_be_opened_is_lost_alone(drive: Drive, noting: Noting):
    assert isinstance(drive.pool, PreforkPool)
    drive.run(jobs_of("broken", b"x"))  # its name is known to be quick
    (child,) = drive.pool.children()
    before, broken, after = jobs_of("note", b"1"), jobs_of("broken", b"x"), jobs_of("note", b"2")
    assert drive.run([*before, *broken, *after]) == [b"1", b"lost", b"2"]
    assert "it cannot be opened" in noting.losses[broken[0].id].detail
    assert [one.pid for one in drive.pool.children()] == [child.pid]
