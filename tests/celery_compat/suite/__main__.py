from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from pgcelery.engine.embedded import ephemeral_server
from pgcelery.engine.errors import EmbeddedServerError
from tests.celery_compat.suite import environment, report, source
from tests.celery_compat.suite.demand import TIERS, Demand
from tests.celery_compat.suite.errors import SuiteError
from tests.celery_compat.suite.outcomes import Outcome
from tests.celery_compat.suite.runner import Result, Runner
from tests.celery_compat.suite.verdict import KNOWN_FAILURES, judge, read_known_failures

EXIT_CODES = """\
exit codes: 0 all demanded tests passed or are known to fail; 1 not so; 2 the suite could not run"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.celery_compat.suite",
        description="Run Celery's integration tests against pgcelery.",
        epilog=EXIT_CODES,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tier", choices=TIERS, default="core", help="what is demanded")
    parser.add_argument("--files", default="", help="of these alone: test_tasks,test_beat")
    parser.add_argument("--list", action="store_true", help="print the shards' keys, run nothing")
    parser.add_argument("--report", type=Path, help="write what became of each test, as JSON")
    parser.add_argument("--jobs", type=int, default=4, help="shards at a time")
    parser.add_argument("--limit", type=float, default=1500, help="seconds for all of it")
    parser.add_argument(
        "--patience", type=int, default=20, help="TIMEOUT of test_canvas in seconds; its own is 60"
    )
    parser.add_argument("--keep", action="store_true", help="keep the shards' folders and logs")
    return parser.parse_args()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run_shards(args: argparse.Namespace, demand: Demand, keys: list[str]) -> list[Result]:
    if shutil.which("redis-server") is None:
        raise SuiteError("redis-server is not installed; the suite's tasks note their calls in it")
    environment.forget_settings()
    cache = environment.cache_folder()
    python = environment.interpreter(cache)
    sdist = source.sdist(cache, python)
    folder = Path(tempfile.mkdtemp(prefix="celery-suite-"))
    try:
        with ephemeral_server() as server:
            runner = Runner(
                python,
                sdist,
                server.dsn,
                folder,
                patience_s=args.patience,
                limit_s=args.limit,
            )
            return runner.run(demand.shards(keys), args.jobs, lambda result: say(str(result)))
    finally:
        if args.keep:
            say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    demand = Demand.load()
    try:
        keys = demand.keys(args.tier, filter(None, args.files.split(",")))
        known = read_known_failures(KNOWN_FAILURES.read_text(), demand.known_keys)
        if args.list:
            for shard in demand.shards(keys):
                say(f"{shard.name}: {len(shard.keys)} tests, about {shard.seconds:.0f} s")
                say("\n".join(f"  {key}" for key in shard.keys))
            return 0
        began = time.monotonic()
        results = run_shards(args, demand, keys)
    except (SuiteError, EmbeddedServerError) as exc:
        sys.stderr.write(f"the suite could not be run: {exc}\n")
        return 2
    outcomes: dict[str, Outcome] = {}
    for result in results:
        outcomes |= result.outcomes
    verdict = judge(keys, outcomes, known)
    if args.report:
        args.report.write_text(json.dumps(report.as_json(verdict, outcomes), indent=1))
    say(f"{time.monotonic() - began:.0f} s for {len(results)} shards, {args.jobs} at a time")
    say(report.text(verdict, outcomes, known).rstrip())
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
