"""Faults of processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.faults.suite.fleet import Worker
from tests.faults.suite.oracle import runs
from tests.faults.suite.trial import Fault, Ground
from tests.faults.world import alive
from tests.support.wait import wait_for

_random = Random(11)


def kill_parent(ground: Ground) -> None:
    """SIGKILL a worker's parent; its children go with it; start another."""
    for _ in range(ground.times(4)):
        worker = ground.fleet.up()[0]
        children = worker.children()
        worker.wanted = False
        with ground.strike("its worker was killed", [worker]):
            os.kill(worker.pid, signal.SIGKILL)
            began = time.monotonic()
            with suppress(AssertionError):
                wait_for(lambda them=children: not any(alive(pid) for pid in them), 5)
        if any(alive(pid) for pid in children):
            ground.wrong("P9", "children outlive a killed parent")
        ground.say(f"children gone after {time.monotonic() - began:.2f} s")
        ground.start_worker()
        ground.rest(1.0)


def at_early(ground: Ground) -> Worker:
    """Send tasks of at most once, and name a worker that is at one."""
    tags = {tag for _ in range(3) for tag in ground.load.send("early_long").calls}

    def found() -> list[Worker]:
        at_it = {run.group for run in runs(ground.oracle) if run.tag in tags and run.ended is None}
        return [worker for worker in ground.fleet.up() if worker.pid in at_it]

    return wait_for(found)[0]


def lose_machine(ground: Ground) -> None:
    """Stop parent and children, then kill them all: nobody can say anything any more."""
    for _ in range(ground.times(3)):
        worker = at_early(ground)
        worker.wanted = False
        with ground.strike("its machine was lost", [worker]):
            worker.signal_all(signal.SIGSTOP)
            worker.signal_all(signal.SIGKILL)
        ground.start_worker()
        ground.rest(1.5)


def kill_children(ground: Ground) -> None:
    """SIGKILL a random child each second."""
    for _ in range(ground.times(15)):
        worker = _random.choice(ground.fleet.up())
        before = worker.children()
        if not before:
            continue
        victim = _random.choice(before)
        with ground.strike("its process was killed", pids=[victim]):
            os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        wait_for(lambda w=worker, gone=victim: gone not in w.children()
                 and len(w.children()) >= ground.fault.slots, 10)  # fmt: skip
        took_s = time.monotonic() - began
        if took_s > 2:
            ground.wrong("P6", f"a killed child was replaced after {took_s:.1f} s")
        ground.rest(max(0.0, 0.8 - took_s))


def _suicides(
    *ways: str, error: str = "WorkerLostError", most: int = 5
) -> Callable[[Ground], None]:
    def inject(ground: Ground) -> None:
        tasks = ground.load.tasks
        for way in ways:
            number = str(ground.load.next_number())
            _, calls = ground.load.maker.single("bad", number)
            call = calls[number]._replace(state="FAILURE", error=error, most_runs=most)
            ground.load.send(way, (tasks.bad.s(call.given, number, way), {number: call}))
        ground.rest(3)

    return inject


def raise_in_task(ground: Ground) -> None:
    """Exits and interrupts of the body are failures of that task."""
    for way in ("exit", "SystemExit", "KeyboardInterrupt"):
        lost = way == "exit"
        _suicides(way, error="WorkerLostError" if lost else way, most=5 if lost else 1)(ground)


def hang(ground: Ground) -> None:
    """Sleep in C with the GIL held and SIGTERM ignored; the time limit is 3 s."""
    tasks, at = ground.load.tasks, time.monotonic()
    sends = []
    for _ in range(2):
        number = str(ground.load.next_number())
        _, calls = ground.load.maker.single("hang", number)
        call = calls[number]._replace(state="FAILURE", error="TimeLimitExceeded")
        made = tasks.hang.s(call.given, number), {number: call}
        sends.append(ground.load.send("hang", made))
    ids = [f"single-{send.number}" for send in sends]

    def ends() -> list[float]:
        query = "select extract(epoch from at)::float8 from audit.ended where id = any(%s)"
        return [row[0] for row in ground.server.execute(query, [ids])]

    wait_for(lambda: len(ends()) == len(ids), 20)
    took = [end - (time.time() - time.monotonic()) - at for end in ends()]
    ground.say(f"killed {max(took):.1f} s after they were sent")
    if max(took) > 3 + 2 or min(took) < 3:
        ground.wrong("P6", f"a limit of 3 s was kept after {took}")


def pause(ground: Ground) -> None:
    """Stop a worker with its children for longer than its lease, then let it go on."""
    lease_s = ground.fault.lease_s
    for pause_s in (lease_s + 1.5,) if ground.quick else (lease_s + 1.5, 2 * lease_s):
        worker = ground.fleet.up()[0]
        with ground.strike("its worker was stopped", [worker], overlaps=True):
            worker.signal_all(signal.SIGSTOP)
            ground.rest(pause_s)
            worker.signal_all(signal.SIGCONT)
            ground.rest(0.3)  # it may have been about to begin something, and then sees the time
        wait_for(lambda w=worker: "registering anew" in w.process.output(), 15)
        ground.rest(1.0)
    late = ground.server.execute("select count(*) from pgcelery.late")[0][0]
    ground.say(f"{late} outcomes refused")


def rolling_restart(ground: Ground) -> None:
    """SIGTERM, wait, start: nothing is run again."""
    for _ in range(ground.times(4)):
        worker = ground.fleet.up()[0]
        worker.wanted = False
        began = time.monotonic()
        worker.process.send(signal.SIGTERM)
        code = worker.process.wait(20)
        if code != 0:
            ground.wrong("P20", f"a warm shutdown ended with {code}")
        ground.say(f"down in {time.monotonic() - began:.1f} s")
        ground.start_worker()
    ground.healed_at = time.monotonic()


def cold_stop(ground: Ground) -> None:
    """SIGQUIT, and SIGTERM and SIGQUIT after it: what runs goes back at once, uncounted."""
    for signals in ([signal.SIGQUIT], [signal.SIGTERM, signal.SIGQUIT]) * ground.times(2):
        worker = ground.fleet.up()[0]
        worker.wanted = False
        with ground.strike("its worker was told to stop at once", [worker]):
            for signum in signals:
                worker.process.send(signum)
                ground.rest(0.2)
            worker.process.wait(20)
        left = ground.server.execute(
            "select count(*) from pgcelery.running r"
            " where not exists (select from pgcelery.workers w where w.id = r.worker_id)"
        )[0][0]
        if left:
            ground.wrong("P20", f"{left} runs were not given back by a cold stop")
        ground.start_worker()


def same_name(ground: Ground) -> None:
    """A second worker of the same name; one of the two is then killed."""
    first = ground.fleet.up()[0]
    twin = ground.start_worker(first.name)
    ground.rest(2.0)
    first.wanted = False
    with ground.strike("its worker was killed", [first]):
        first.signal_all(signal.SIGKILL)
    ground.rest(2.0)
    if twin.pid not in {run.group for run in runs(ground.oracle)}:
        ground.wrong("P5", "the second worker of the name ran nothing")


def leak(ground: Ground) -> None:
    """Tasks that leak 20 MB each, while children are replaced after 5 tasks or 120 MB."""
    before = set(ground.fleet.children())
    ground.rest(6)
    after = set(ground.fleet.children())
    ground.say(f"{len(before - after)} of {len(before)} first children replaced")
    if not before - after:
        ground.wrong("P6", "no child was replaced")


def threads(ground: Ground) -> None:
    """Threads that sleep in C: without the GIL the heart beats on; with it, for 1.5 leases, not."""
    tasks, lease_s = ground.load.tasks, ground.fault.lease_s
    for holding, seconds in ((False, lease_s * 1.5), (True, lease_s * 1.5)):
        number = str(ground.load.next_number())
        _, calls = ground.load.maker.single("block", number)
        made = tasks.block.s(calls[number].given, number, int(seconds), holding), calls
        if not holding:
            ground.load.send("block", made)
            ground.rest(seconds + 0.5)
            if any("registering anew" in w.process.output() for w in ground.fleet.up()):
                ground.wrong("P9", "a lease was lost though the GIL was free")
            continue
        with ground.strike("a thread held the GIL", ground.fleet.up(), overlaps=True):
            ground.load.send("block", made)
            ground.rest(seconds + 1)


FAULTS = [
    Fault("1", "SIGKILL of the worker's parent, restarted", kill_parent, quick=True),
    Fault("2", "parent and children lost at once", lose_machine),
    Fault("3", "SIGKILL of a random child each second", kill_children, quick=True),
    Fault("4", "tasks that segfault", _suicides("segfault", "segfault")),
    Fault("5", "tasks killed with SIGKILL", _suicides("kill", "kill"), quick=True),
    Fault("6", "os._exit, SystemExit, KeyboardInterrupt in tasks", raise_in_task),
    Fault("7", "hang in C with the GIL, deaf to SIGTERM", hang),
    Fault(
        "8", "whole worker stopped beyond its lease, continued", pause, quick=True,
        mix=("quick", "slow", "long", "chain", "early", "chord", "slow", "long"), rate=4,
    ),
    Fault("10", "rolling restart by SIGTERM", rolling_restart, quick=True),
    Fault("11", "SIGQUIT, and SIGTERM then SIGQUIT", cold_stop),
    Fault("14", "two workers of the same name, one killed", same_name),
    Fault(
        "15", "tasks that leak, children replaced", leak,
        mix=("leak", "slow", "leak", "chain", "leak", "chord", "leak", "group"), rate=16,
        args=("--max-tasks-per-child", "5", "--max-memory-per-child", "120000"),
    ),
    Fault(
        "17", "threads that block in C, with and without the GIL", threads,
        args=("-P", "threads"), lease_s=4, rate=6, slack_s=8,
    ),
]  # fmt: skip
