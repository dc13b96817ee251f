"""`python -m bench run`: peers interleaved, round by round."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import measure, physical, report, venvs
from bench.catalog import RECIPES, make, with_servers
from bench.marks import Marks
from bench.peer import Peer
from bench.processes import Machine
from bench.results import Results
from bench.services import Services
from bench.targets import MISSED

FULL = measure.Sizes()
QUICK = measure.Sizes(
    single=500,
    bulk=5_000,
    drain=0.25,
    strict=500,
    slow_rate=40,
    fast_rate=500,
    idle_s=2,
    eta=5_000,
    canvas=8,
    big_chord=10_000,
    keyed=5_000,
    keys=250,
    fairness=50_000,
)
#: Minutes, and the same each time: measured in the first round only.
ONCE = {("eta", peer) for peer in RECIPES if peer != "pgcelery"} | {("big_chord", "celery+redis")}
#: Not of interest enough to wait for; --everywhere does.
LEFT_OUT = {("big_chord", "celery+redis")}
PHYSICAL = "physical"


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The options of a run, checked."""
    parser = argparse.ArgumentParser(prog="python -m bench run", description=__doc__)
    standard = [*measure.STANDARD, PHYSICAL]
    parser.add_argument("--only", default=",".join(standard), help="measures, comma separated")
    parser.add_argument(
        "--peers", help="comma separated; ours first; all whose servers are installed"
    )
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument("-c", "--concurrency", type=int, default=2, help="pool children (2)")
    parser.add_argument("--quick", action="store_true", help="small, for a first impression")
    parser.add_argument("--eta", type=int, default=0, help="tasks that wait for a time")
    parser.add_argument("--everywhere", action="store_true", help="big_chord with Celery as well")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--venvs", type=Path, default=venvs.CACHE, help="where environments are")
    parser.add_argument(
        "--no-venvs", action="store_true", help="run every peer by this interpreter"
    )
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"))
    parser.add_argument(
        "--add", action="store_true", help="keep what that file has of other measures and peers"
    )
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    options.peers = options.peers.split(",") if options.peers else with_servers()
    options.rounds = options.rounds or (1 if options.quick else 3)
    for name, known in (("only", [*measure.PHASES, PHYSICAL]), ("peers", list(RECIPES))):
        for one in getattr(options, name):
            if one not in known:
                parser.error(f"--{name}: no {one!r}; there are {', '.join(known)}")
    return options


def main(arguments: list[str]) -> int:
    """Run, print, and return the exit code."""
    options = options_of(arguments)
    results = Results(options.peers)
    if options.add and options.json.exists():
        results = Results.read(options.json)
        results.renew(options.peers, options.only)
    with ExitStack() as stack:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        marks = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)), "marks")
        sizes = QUICK if options.quick else FULL
        lab = measure.Lab(Marks(marks), replace(sizes, eta=options.eta or sizes.eta))
        services = Services()
        where = None if options.no_venvs else options.venvs
        peers = make(options.peers, stack, services, marks, options.concurrency, where)
        if PHYSICAL in options.only:
            services.postgres(stack)
        results.about = facts_of(peers, services) | {
            "concurrency": options.concurrency,
            "rounds": options.rounds,
            "quick": options.quick,
        }
        _measure(options, lab, peers, services, stack, results)
    print(f"\n{report.whole(results)}\n\nEvery value: {options.json}")
    missed = [row for row in report.judged(results) if row.verdict == MISSED]
    return 1 if results.failures or (options.check and missed) else 0


def facts_of(peers: list[Peer], services: Services) -> dict[str, object]:
    """What is needed to judge figures of these peers."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, {_processor()}",
        "python": platform.python_version(),
        "servers": services.versions(),
        "durable": {peer.name: peer.recipe.durable for peer in peers},
        "drained": {peer.name: peer.recipe.drain for peer in peers},
        "versions": {peer.name: venvs.versions_of(peer.python) for peer in peers},
    }


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, "unknown processor")


def _measure(
    options: argparse.Namespace,
    lab: measure.Lab,
    peers: list[Peer],
    services: Services,
    stack: ExitStack,
    results: Results,
) -> None:
    for phase in options.only:
        for number in range(options.rounds):
            if phase == PHYSICAL:
                values = physical.measure(services.postgres(stack), 0.2 if options.quick else 1)
                results.add(physical.NAME, number, values, None)
                results.write(options.json)
                continue
            for peer in peers if number % 2 == 0 else reversed(peers):
                if _wanted(phase, peer, number, options.everywhere):
                    _one(phase, number, lab, peer, results)
                    results.write(options.json)  # a run that is broken off leaves what it has


def _wanted(phase: str, peer: Peer, number: int, everywhere: bool) -> bool:
    if phase in measure.ASKED and phase not in peer.recipe.can:
        return False
    if number and (phase, peer.name) in ONCE:
        return False
    return everywhere or (phase, peer.name) not in LEFT_OUT


def _one(phase: str, number: int, lab: measure.Lab, peer: Peer, results: Results) -> None:
    begin, machine = time.monotonic(), Machine(peer.servers())
    try:
        values = measure.PHASES[phase](lab, peer)
    except Exception as error:  # a peer that fails is told of, and the others are measured
        results.fail(phase, peer.name, number, f"{type(error).__name__}: {error}")
        print(f"{phase} {number + 1} {peer.name} FAILED: {error}", flush=True)
        return
    results.add(peer.name, number, values, (phase, machine.others()))
    shown = ", ".join(f"{k} {v:,.2f}" for k, v in values.items())
    took = time.monotonic() - begin
    print(f"{phase} {number + 1} {peer.name} [{took:.0f} s]: {shown}", flush=True)
