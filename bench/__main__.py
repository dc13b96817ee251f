"""`python -m bench`: pgcelery and real Celery on Redis, interleaved, in one command."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import measure, report
from bench.marks import Marks
from bench.peers import CeleryRedis, Peer, PgCelery

FULL = measure.Sizes(
    bulk={"pgcelery": 20_000, "celery+redis": 5_000},
    drain={"pgcelery": 20_000, "celery+redis": 6_000},
)
QUICK = measure.Sizes(
    single=500,
    bulk={"pgcelery": 5_000, "celery+redis": 1_000},
    drain={"pgcelery": 5_000, "celery+redis": 1_500},
    slow_rate=40,
    fast_rate=500,
    eta=5_000,
    canvas=8,
    big_chord=10_000,
    keyed=5_000,
    keys=250,
    fairness=50_000,
)
#: Celery takes minutes to hold 100,000 ETA tasks: measured once, in the first round.
ONCE = {("eta", "celery+redis"), ("big_chord", "celery+redis")}
#: Celery has no such limits.
OURS = {"keyed", "fairness"}
#: Not of interest enough to wait for; --everywhere does.
LEFT_OUT = {("big_chord", "celery+redis")}


def main() -> int:
    """Run, print, and return the exit code."""
    options = _options()
    with ExitStack() as stack:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        marks = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)), "marks")
        lab = measure.Lab(Marks(marks), QUICK if options.quick else FULL)
        peers = _peers(stack, marks, options)
        results = report.Results([peer.name for peer, _ in peers])
        about = {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "servers": {peer.name: server for peer, server in peers},
            "versions": {name: version(name) for name in ("pgcelery", "celery", "kombu", "redis")},
            "python": platform.python_version(),
            "machine": f"{os.cpu_count()} cores, {platform.platform()}",
            "concurrency": options.concurrency,
            "rounds": options.rounds,
        }
        _run(options, lab, [peer for peer, _ in peers], results)
    print(
        f"\n{about['machine']}, Python {about['python']}, prefork -c {options.concurrency}, ",
        end="",
    )
    print(f"{options.rounds} interleaved rounds, medians")
    print("\n".join(f"{name}: {server}" for name, server in about["servers"].items()))
    print(f"\n{results.table()}\n")
    results.write(options.json, about)
    print(f"Every value: {options.json}")
    return _check(results) if options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default=",".join(measure.PHASES), help="phases, comma separated")
    parser.add_argument("--peers", default="pgcelery,celery+redis", help="peers, comma separated")
    parser.add_argument("--rounds", type=int, default=0, help="default 3, with --quick 1")
    parser.add_argument("-c", "--concurrency", type=int, default=2, help="pool children (2)")
    parser.add_argument("--quick", action="store_true", help="two minutes, for a first impression")
    parser.add_argument("--everywhere", action="store_true", help="big_chord with Celery as well")
    parser.add_argument("--check", action="store_true", help="exit 1 if a threshold is missed")
    parser.add_argument("--json", type=Path, default=Path("bench-results.json"))
    options = parser.parse_args()
    options.only = options.only.split(",")
    options.peers = options.peers.split(",")
    options.rounds = options.rounds or (1 if options.quick else 3)
    for phase in options.only:
        if phase not in measure.PHASES:
            parser.error(f"no phase {phase!r}; there are {', '.join(measure.PHASES)}")
    return options


def _peers(stack: ExitStack, marks: Path, options: argparse.Namespace) -> list[tuple[Peer, str]]:
    from bench.services import postgres_server, redis_server

    found: list[tuple[Peer, str]] = []
    for name in options.peers:
        if name == PgCelery.name:
            postgres = stack.enter_context(postgres_server())
            found.append((PgCelery(marks, options.concurrency, postgres), postgres.version))
        elif name == CeleryRedis.name:
            redis = stack.enter_context(redis_server())
            found.append((CeleryRedis(marks, options.concurrency, redis), redis.version))
        else:
            raise SystemExit(f"no peer {name!r}; there are pgcelery and celery+redis")
    return found


def _run(
    options: argparse.Namespace, lab: measure.Lab, peers: list[Peer], results: report.Results
) -> None:
    for phase in options.only:
        for number in range(options.rounds):
            for peer in peers if number % 2 == 0 else reversed(peers):
                if number and (phase, peer.name) in ONCE:
                    continue
                if phase in OURS and peer.name != PgCelery.name:
                    continue
                if (phase, peer.name) in LEFT_OUT and not options.everywhere:
                    continue
                begin = time.monotonic()
                values = measure.PHASES[phase](lab, peer)
                results.add(peer.name, number, values)
                shown = ", ".join(f"{k} {v:,.2f}" for k, v in values.items())
                took = time.monotonic() - begin
                print(
                    f"{phase} {number + 1}/{options.rounds} {peer.name} [{took:.0f} s]: {shown}",
                    flush=True,
                )


def _check(results: report.Results) -> int:
    failed = 0
    for holds, sentence in results.check():
        print(f"{'ok  ' if holds else 'FAIL'} {sentence}")
        failed += not holds
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
