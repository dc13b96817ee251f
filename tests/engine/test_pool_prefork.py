from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.engine.job import Handler, Job, Outcome
from pgcelery.engine.pool import PreforkPool
from tests.support.pools import Bodies, Body, BodyRun, Drive, jobs_of
from tests.support.wait import wait_for

Begin = Callable[..., tuple[PreforkPool, Drive]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    pools: list[PreforkPool] = []

    def begin(handler: Handler, size: int = 2, **options: Any) -> tuple[PreforkPool, Drive]:
        pool = PreforkPool(size, **options)
        pools.append(pool)
        drive = Drive(pool, handler)
        drive.until_room(size)
        return pool, drive

    yield begin
    for pool in pools:
        pool.stop(kill=True)


def hold(payload: bytes) -> bytes:
    """Note the pid in ``<payload>.pid`` and wait until ``<payload>`` exists."""
    path = Path(payload.decode())
    Path(f"{path}.pid").write_text(str(os.getpid()))
    wait_for(path.exists, timeout_s=60)
    return str(os.getpid()).encode()


def pid_of(_: bytes) -> bytes:
    return str(os.getpid()).encode()


def die(payload: bytes) -> bytes:
    signum = int(payload)
    if signum < 0:
        os._exit(-signum)
    os.kill(os.getpid(), signum)
    return b"still here"


BODIES: dict[str, Body] = {"hold": hold, "pid": pid_of, "die": die}


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may be there to wait for an orphan."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def held_pid(path: Path) -> int:
    note = Path(f"{path}.pid")
    return int(wait_for(lambda: note.exists() and note.read_text()))


def teach(drive: Drive, name: str, *payloads: bytes) -> None:
    """Let the pool learn that a name is fast."""
    for payload in payloads:
        drive.run(jobs_of(name, payload))


# -- jobs and outcomes -------------------------------------------------------------------------


def test_every_outcome_comes_once(begin: Begin) -> None:
    pool, drive = begin(Bodies({}))
    payloads = [str(n).encode() * 20 for n in range(5000)]
    assert drive.run(jobs_of("echo", *payloads)) == payloads
    assert pool.idle


def test_there_is_room_once_a_child_has_prepared_itself() -> None:
    pool = PreforkPool(2)
    drive = Drive(pool, Bodies({}))
    assert pool.capacity() == 0
    drive.until_room(2)
    assert pool.capacity() == 2
    pool.stop(kill=False)


def test_short_jobs_are_queued_ahead(begin: Begin) -> None:
    pool, drive = begin(Bodies({}))
    drive.run(jobs_of("echo", *[b"x"] * 20))
    assert pool.capacity() > 100


def test_prefetch_one_queues_nothing_ahead(begin: Begin) -> None:
    pool, drive = begin(Bodies({}), prefetch=1)
    drive.run(jobs_of("echo", *[b"x"] * 20))
    assert pool.capacity() == 2


def test_huge_payloads_and_results_pass_and_submit_does_not_wait(begin: Begin) -> None:
    pool, drive = begin(Bodies({}))
    teach(drive, "echo", b"x")
    huge = os.urandom(1024 * 1024) * 50
    jobs = jobs_of("echo", b"a", huge, b"b", huge[::-1], b"c")
    began = time.monotonic()
    pool.submit(jobs)
    assert time.monotonic() - began < 2
    assert drive.finish(jobs) == [job.payload for job in jobs]


def test_sixty_four_children_run_sixty_four_jobs_at_once(begin: Begin, tmp_path: Path) -> None:
    pool, drive = begin(Bodies(BODIES), size=64)
    jobs = jobs_of("hold", *[str(tmp_path / f"{n}").encode() for n in range(64)])
    pool.submit(jobs)
    assert len({held_pid(tmp_path / f"{n}") for n in range(64)}) == 64
    assert len(pool.active()) == 64
    for n in range(64):
        (tmp_path / f"{n}").touch()
    drive.finish(jobs)


class Careless(Bodies):
    """Breaks the promise that a run never raises."""

    def open(self, job: Job) -> BodyRun:
        class Run(BodyRun):
            def __call__(self) -> Outcome:
                raise KeyboardInterrupt(job.payload)

        return Run(job, bytes, (None, None)) if job.name == "careless" else super().open(job)


def test_a_run_that_raises_is_lost_and_its_child_goes_on(begin: Begin) -> None:
    handler = Careless(BODIES)
    _, drive = begin(handler, size=1)
    before = drive.run(jobs_of("pid", b""))
    jobs = jobs_of("careless", b"oh")
    assert drive.run(jobs) == [b"lost"]
    assert handler.losses[jobs[0].id].kind == "child_lost"
    assert "KeyboardInterrupt" in handler.losses[jobs[0].id].detail
    assert drive.run(jobs_of("pid", b"")) == before


def fork_and_return(_: bytes) -> bytes:
    if child := os.fork():
        os.waitpid(child, 0)
    return b"once"


def test_a_job_that_forks_and_returns_twice_ends_once(begin: Begin) -> None:
    _, drive = begin(Bodies({"fork": fork_and_return}), size=1)
    assert drive.run(jobs_of("fork", b"", b"", b"")) == [b"once"] * 3


# -- no job holds back another -----------------------------------------------------------------


def sometimes_long(payload: bytes) -> bytes:
    return hold(payload) if payload else b"short"


def test_jobs_behind_one_that_turns_out_long_are_run_elsewhere(
    begin: Begin, tmp_path: Path
) -> None:
    pool, drive = begin(Bodies({"mixed": sometimes_long}))
    teach(drive, "mixed", b"", b"", b"", b"")
    held = tmp_path / "held"
    long, *short = jobs_of("mixed", bytes(held), *[b""] * 99)
    pool.submit([long, *short])  # one frame for each child: half of the short ones are behind it
    assert drive.finish(short) == [b"short"] * 99
    assert [active.job for active in pool.active()] == [long]
    held.touch()
    drive.finish([long])


def test_jobs_behind_a_long_one_in_the_only_child_run_after_it(
    begin: Begin, tmp_path: Path
) -> None:
    pool, drive = begin(Bodies({"mixed": sometimes_long}), size=1)
    teach(drive, "mixed", b"", b"", b"", b"")
    held = tmp_path / "held"
    jobs = jobs_of("mixed", bytes(held), *[b""] * 50)
    pool.submit(jobs)
    held_pid(held)
    drive.until(lambda: len(pool._feed.backlog) == 50)
    held.touch()
    assert drive.finish(jobs)[1:] == [b"short"] * 50


def test_recalled_jobs_do_not_run(begin: Begin, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    def note(payload: bytes) -> bytes:
        with ran.open("ab") as file:
            file.write(payload)
        return sometimes_long(b"" if payload == b"." else payload)

    pool, drive = begin(Bodies({"note": note}), size=1)
    teach(drive, "note", b".", b".", b".")
    ran.unlink()
    held = tmp_path / "held"
    first, *behind = jobs_of("note", bytes(held), *[b"."] * 20)
    pool.submit([first, *behind])
    held_pid(held)
    assert pool.recall(waiting_s=60) == []
    assert pool.recall() == behind
    assert pool.recall() == []
    held.touch()
    drive.finish([first])
    assert pool.idle
    assert drive.run(jobs_of("note", b".", b".")) == [b"short"] * 2  # the same child goes on
    assert ran.read_bytes() == bytes(held) + b".."


# -- dying children ----------------------------------------------------------------------------


def test_a_killed_child_costs_only_the_job_it_was_at(begin: Begin, tmp_path: Path) -> None:
    handler = Bodies({"mixed": sometimes_long})
    pool, drive = begin(handler, size=1, chunk_window_s=30)  # nothing is taken back in this test
    teach(drive, "mixed", b"", b"")
    long, *behind = jobs_of("mixed", bytes(tmp_path / "held"), *[b""] * 20)
    pool.submit([long, *behind])
    pid = held_pid(tmp_path / "held")
    os.kill(pid, signal.SIGKILL)
    assert drive.finish([long, *behind]) == [b"lost", *[b"short"] * 20]
    lost = handler.losses[long.id]
    assert (lost.kind, lost.pid, lost.signum) == ("child_lost", pid, signal.SIGKILL)
    assert "SIGKILL" in lost.detail
    with pytest.raises(ChildProcessError):  # no zombie
        os.waitpid(pid, os.WNOHANG)


def test_the_exit_code_of_a_child_is_told(begin: Begin) -> None:
    handler = Bodies(BODIES)
    _, drive = begin(handler)
    exits, killed = jobs_of("die", b"-3", b"15")
    assert drive.run([exits, killed]) == [b"lost"] * 2
    lost = handler.losses[exits.id]
    assert (lost.kind, lost.detail, lost.signum) == ("child_lost", "exitcode 3", None)
    assert handler.losses[killed.id].detail == "signal 15 (SIGTERM)"
    assert drive.run(jobs_of("echo", b"x")) == [b"x"]


def test_children_dying_all_the_time_cost_no_other_job(begin: Begin) -> None:
    handler = Bodies(BODIES)
    _, drive = begin(handler, size=3)
    jobs = []
    for n in range(10):
        jobs += jobs_of("echo", *[b"x"] * 50)
        jobs += jobs_of("die", b"9" if n % 2 else b"-1")
    drive.run(jobs)
    assert {job.name for job in jobs if job.id in handler.losses} == {"die"}
    assert len(handler.losses) == 10


def test_a_job_that_closes_what_is_not_its_own_is_lost_and_nothing_hangs(begin: Begin) -> None:
    handler = Bodies({"close": lambda _: os.closerange(3, 1000) or b""})
    _, drive = begin(handler, size=1)
    jobs = [*jobs_of("close", b""), *jobs_of("echo", b"x")]
    assert drive.run(jobs) == [b"lost", b"x"]


class FailsToStart(Bodies):
    def __init__(self, tries: Path, mended: Path) -> None:
        super().__init__({})
        self.tries, self.mended = tries, mended

    def process_started(self) -> None:
        with self.tries.open("ab") as file:
            file.write(b".")
        if not self.mended.exists():
            raise RuntimeError("cannot prepare")


def test_children_that_fail_at_their_start_are_tried_again_ever_more_slowly(
    tmp_path: Path,
) -> None:
    handler = FailsToStart(tmp_path / "tries", tmp_path / "mended")
    pool = PreforkPool(1)
    drive = Drive(pool, handler)
    jobs = jobs_of("echo", b"x")
    pool.submit(jobs)
    end = time.monotonic() + 0.7
    drive.until(lambda: time.monotonic() > end)
    assert 2 <= len(handler.tries.read_bytes()) <= 5
    assert pool.capacity() == 0
    handler.mended.touch()
    assert drive.finish(jobs) == [b"x"]
    pool.stop(kill=False)


def test_running_out_of_descriptors_is_outlived(caplog: pytest.LogCaptureFixture) -> None:
    pool = PreforkPool(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 8, hard))
    try:
        drive = Drive(pool, Bodies({}))
        drive.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "cannot fork" in caplog.text
    drive.until_room(2)
    pool.stop(kill=False)


def test_a_worn_child_is_replaced_and_no_job_is_lost(begin: Begin) -> None:
    handler = Bodies(BODIES)
    _, drive = begin(handler, max_jobs_per_child=7)
    pids = drive.run(jobs_of("pid", *[b""] * 70))
    counts = sorted(pids.count(pid) for pid in set(pids))
    # The last two children may share what is left.
    assert set(counts[2:]) == {7}
    assert max(counts) == 7
    assert handler.losses == {}


def test_a_child_that_used_too_much_memory_is_replaced(begin: Begin) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    limit_kib = pages * resource.getpagesize() // 1024 + 30_000
    handler = Bodies({**BODIES, "eat": lambda _: str(len(b"x" * 100_000_000)).encode()})
    _, drive = begin(handler, size=1, max_memory_per_child_kib=limit_kib)
    first = drive.run(jobs_of("pid", b"", b""))
    assert first[0] == first[1]
    drive.run(jobs_of("eat", b""))
    assert drive.run(jobs_of("pid", b"")) != first[:1]
    assert handler.losses == {}


# -- time limits and terminate -----------------------------------------------------------------


def wait_long(_: bytes) -> bytes:
    threading.Event().wait(60)
    return b"waited"


def hold_the_gil(_: bytes) -> bytes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(60)
    return b"slept"


def test_the_soft_limit_raises_in_the_job(begin: Begin) -> None:
    handler = Bodies({**BODIES, "wait": wait_long}, limits={"wait": (0.2, None)})
    _, drive = begin(handler, size=1)
    pid = drive.run(jobs_of("pid", b""))
    began = time.monotonic()
    assert drive.run(jobs_of("wait", b"")) == [b"TooSlowError"]
    assert 0.2 <= time.monotonic() - began < 2
    assert drive.run(jobs_of("pid", b"")) == pid


def catch_and_go_on(_: bytes) -> bytes:
    caught = 0
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        try:
            threading.Event().wait(end - time.monotonic())
        except Exception:
            caught += 1
    return str(caught).encode()


def test_the_soft_limit_is_raised_once(begin: Begin) -> None:
    handler = Bodies({"go_on": catch_and_go_on}, limits={"go_on": (0.1, 30)})
    _, drive = begin(handler)
    (job,) = jobs_of("go_on", b"")
    assert drive.run([job]) == [b"1"]
    assert handler.interruptions == [(job.id, 0.1)]


def test_the_hard_limit_kills_a_job_that_holds_the_gil_and_ignores_sigterm(begin: Begin) -> None:
    handler = Bodies({"gil": hold_the_gil}, limits={"gil": (None, 0.5)})
    _, drive = begin(handler)
    jobs = jobs_of("gil", b"")
    began = time.monotonic()
    assert drive.run(jobs) == [b"lost"]
    assert 0.5 <= time.monotonic() - began < 2
    lost = handler.losses[jobs[0].id]
    assert (lost.kind, lost.limit_s, lost.signum) == ("time_limit", 0.5, signal.SIGKILL)
    assert drive.run(jobs_of("echo", b"x")) == [b"x"]


def test_soft_limit_signals_that_nobody_asked_for_do_nothing(begin: Begin, tmp_path: Path) -> None:
    _, drive = begin(Bodies(BODIES), size=1)
    (pid,) = map(int, filter(None, drive.run(jobs_of("pid", b""))))
    os.kill(pid, signal.SIGUSR1)  # between two jobs
    held = tmp_path / "held"
    jobs = jobs_of("hold", bytes(held))
    drive.pool.submit(jobs)
    assert held_pid(held) == pid
    os.kill(pid, signal.SIGUSR1)  # in a job without a limit
    os.kill(pid, signal.SIGINT)
    held.touch()
    assert drive.finish(jobs) == [str(pid).encode()]


def test_terminate_kills_the_child_that_runs_the_job_and_cancels_one_that_waits(
    begin: Begin, tmp_path: Path
) -> None:
    handler = Bodies({"mixed": sometimes_long})
    pool, drive = begin(handler, size=1, chunk_window_s=30)
    teach(drive, "mixed", b"", b"")
    running, cancelled, other = jobs_of("mixed", bytes(tmp_path / "held"), b"", b"")
    pool.submit([running, cancelled, other])
    pid = held_pid(tmp_path / "held")
    assert pool.terminate(cancelled.id, signal.SIGTERM)
    assert pool.terminate(running.id, signal.SIGTERM)
    assert not pool.terminate("unknown", signal.SIGTERM)
    assert drive.finish([running, cancelled, other]) == [b"lost", b"lost", b"short"]
    assert handler.losses[cancelled.id].kind == "cancelled"
    lost = handler.losses[running.id]
    assert (lost.kind, lost.pid, lost.signum) == ("terminated", pid, signal.SIGTERM)
    assert not pool.terminate(running.id, signal.SIGTERM)


def test_terminate_with_sigusr1_raises_the_soft_limit_error(begin: Begin) -> None:
    handler = Bodies({"wait": wait_long})
    pool, drive = begin(handler)
    (job,) = jobs_of("wait", b"")
    pool.submit([job])
    drive.turn()
    assert pool.terminate(job.id, signal.SIGUSR1)
    assert drive.finish([job]) == [b"TooSlowError"]
    assert handler.interruptions == []


def ignore_sigterm(payload: bytes) -> bytes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return hold(payload)


def test_a_job_that_survives_terminate_keeps_its_outcome_and_its_child_ends(
    begin: Begin, tmp_path: Path
) -> None:
    handler = Bodies({**BODIES, "stubborn": ignore_sigterm})
    pool, drive = begin(handler, size=1)
    held = tmp_path / "held"
    (job,) = jobs_of("stubborn", bytes(held))
    pool.submit([job])
    pid = held_pid(held)
    assert pool.terminate(job.id, signal.SIGTERM)
    held.touch()
    assert drive.finish([job]) == [str(pid).encode()]
    assert drive.run(jobs_of("pid", b"")) != [str(pid).encode()]
    assert handler.losses == {}


# -- size and end ------------------------------------------------------------------------------


def test_grow_and_shrink_change_the_number_of_children(begin: Begin, tmp_path: Path) -> None:
    pool, drive = begin(Bodies(BODIES), size=1)
    pool.grow(2)
    drive.until_room(3)
    jobs = jobs_of("hold", *[bytes(tmp_path / f"{n}") for n in range(2)])
    pool.submit(jobs)
    pids = {held_pid(tmp_path / f"{n}") for n in range(2)}
    pool.shrink(2)  # the idle one at once, a busy one after its job
    with pytest.raises(ValueError, match="at least one"):
        pool.shrink(1)
    drive.until(lambda: {child.pid for child in pool._crew.children} == pids)
    for n in range(2):
        (tmp_path / f"{n}").touch()
    assert set(drive.finish(jobs)) == {str(pid).encode() for pid in pids}
    drive.until(lambda: len(pool._crew.children) == 1)
    assert drive.run(jobs_of("echo", *[b"x"] * 10)) == [b"x"] * 10


class SaysGoodbye(Bodies):
    def __init__(self, path: Path) -> None:
        super().__init__(BODIES)
        self.path = path

    def process_stopping(self, exitcode: int) -> None:
        (self.path / f"{os.getpid()}.{exitcode}").touch()


def test_a_warm_stop_lets_children_clean_up_and_leaves_no_zombie(tmp_path: Path) -> None:
    pool = PreforkPool(3)
    drive = Drive(pool, SaysGoodbye(tmp_path))
    drive.until_room(3)
    pids = [child.pid for child in pool._crew.children]
    pool.stop(kill=False)
    assert {path.name for path in tmp_path.iterdir()} == {f"{pid}.0" for pid in pids}
    for pid in pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_a_stop_kills_what_does_not_end_and_tells_what_was_cut_off(tmp_path: Path) -> None:
    for kill in (False, True):
        pool = PreforkPool(1, stop_timeout_s=0.3)
        handler = Bodies(BODIES)
        drive = Drive(pool, handler)
        drive.until_room(1)
        held = tmp_path / f"{kill}"
        running, waiting = jobs_of("hold", bytes(held), b"never")
        pool.submit([running, waiting])
        pid = held_pid(held)
        pool.stop(kill=kill)
        assert is_gone(pid)
        assert pool.collect() == []
        assert pool.recall() == [waiting]
        assert [(active.job, active.pid) for active in pool.active()] == [(running, pid)]
        assert handler.losses == {}


# -- what a child is -----------------------------------------------------------------------------


def describe(_: bytes) -> bytes:
    actions = [
        signal.getsignal(signum)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)
    ]
    sockets = [fd for fd in os.listdir("/proc/self/fd") if _target(fd).startswith("socket:")]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return repr((actions, _target("0"), len(sockets), blocked)).encode()


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # the listing's own
        return ""


def test_a_child_sheds_what_it_inherits(begin: Begin) -> None:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    inherited = [fd for fd in os.listdir("/proc/self/fd") if _target(fd).startswith("socket:")]
    try:
        _, drive = begin(Bodies({"describe": describe}), size=4)
        said = drive.run(jobs_of("describe", b"", b"", b"", b""))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR2, before)
    default = [signal.SIG_IGN, *[signal.SIG_DFL] * 4]
    # Its one socket comes on top of those that are none of the pool's.
    assert set(said) == {repr((default, os.devnull, len(inherited) + 1, set())).encode()}


def test_a_child_knows_its_slot_and_number(begin: Begin, tmp_path: Path) -> None:
    def on_fork(slot: int, number: int) -> None:
        (tmp_path / f"{slot}-{number}").touch()

    handler = Bodies(BODIES)
    _, drive = begin(handler, on_fork=on_fork)
    drive.run(jobs_of("die", b"9", b"9"))
    drive.until_room(2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[2:] for name in sorted(names, key=lambda n: n[2:])] == ["1", "2", "3", "4"]
    assert sorted(name[0] for name in names) == ["0", "0", "1", "1"]


def test_it_works_without_pidfd(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    handler = Bodies(BODIES)
    _, drive = begin(handler)
    assert drive.run(jobs_of("die", b"9")) == [b"lost"]
    assert drive.run(jobs_of("echo", b"x")) == [b"x"]


def test_it_can_be_driven_by_a_thread(begin: Begin) -> None:
    said: list[list[bytes | None]] = []

    def node() -> None:
        handler = Bodies({**BODIES, "wait": wait_long}, limits={"wait": (0.1, None)})
        _, drive = begin(handler)
        said.append(drive.run([*jobs_of("echo", b"x"), *jobs_of("wait", b"")]))
        said.append(drive.run(jobs_of("die", b"9")))

    thread = threading.Thread(target=node)
    thread.start()
    thread.join(30)
    assert said == [[b"x", b"TooSlowError"], [b"lost"]]


ORPHANS = """
import ctypes, os, sys, threading
from pgcelery.engine.pool import PreforkPool
from tests.support.pools import Bodies, Drive, jobs_of

def busy(_):
    os.write(1, b"%d busy\\n" % os.getpid())
    ctypes.PyDLL(None).sleep(60)

def node():
    pools = [PreforkPool(2), PreforkPool(2)]  # the second one's children inherit from the first
    drives = [Drive(pool, Bodies({"busy": busy})) for pool in pools]
    for drive in drives:
        drive.until_room(2)
        drive.pool.submit(jobs_of("busy", b""))
        for child in drive.pool._crew.children:
            os.write(1, b"%d\\n" % child.pid)
    os.write(1, b"ready\\n")
    while True:
        for drive in drives:
            drive.turn()

if sys.argv[1] == "thread":
    threading.Thread(target=node, daemon=True).start()
    threading.Event().wait(60)
node()
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_no_child_outlives_a_killed_parent_even_one_that_holds_the_gil(where: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS, where], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    lines: list[bytes] = []
    with parent:
        while not (b"ready\n" in lines and sum(b"busy" in line for line in lines) == 2):
            lines.append(parent.stdout.readline())
            assert lines[-1], "it ended early"
        pids = {int(line.split()[0]) for line in lines if line != b"ready\n"}
        assert len(pids) == 4
        assert not any(map(is_gone, pids))
        parent.kill()
    wait_for(lambda: all(map(is_gone, pids)), timeout_s=5)
