"""Run faults and print the table; or break the source and see that they are found."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.suite import mutations, report
from tests.faults.suite.catalogue import BY_NUMBER, FAULTS
from tests.faults.suite.running import Job, run_all


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.faults.suite", description=__doc__)
    parser.add_argument("--faults", help="their numbers, with commas; all without")
    parser.add_argument("--quick", action="store_true", help="some faults, and less of each")
    parser.add_argument("--at-once", type=int, default=2, help="trials side by side (2)")
    parser.add_argument("--json", type=Path, help="write all that was measured")
    parser.add_argument("--write", type=Path, help="put the table into this page of the docs")
    parser.add_argument("--keep", type=Path, help="keep logs and histories in this directory")
    parser.add_argument("--list", action="store_true", help="name the faults, run nothing")
    parser.add_argument(
        "--mutations", nargs="?", const="", help="try these, with commas, or all; see mutations.py"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    if args.list:
        for fault in FAULTS:
            say(f"{fault.number:>4}  {fault.title}{'  (quick)' if fault.quick else ''}")
        return 0
    folder = args.keep or Path(tempfile.mkdtemp(prefix="pgcelery-faults-"))
    began = time.monotonic()
    if args.mutations is not None:
        reports, bad = _try_mutations(args, folder)
    else:
        reports, bad = _try_faults(args, folder)
    say(f"{time.monotonic() - began:.0f} s" + (f"; {bad} FAILED, see {folder}" if bad else ""))
    if args.json:
        args.json.write_text(json.dumps(reports, indent=1) + "\n")
    if not bad and not args.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


def _try_faults(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], int]:
    numbers = args.faults.split(",") if args.faults else [
        fault.number for fault in FAULTS if fault.quick or not args.quick
    ]  # fmt: skip
    jobs = [Job(BY_NUMBER[number].number, folder / number, args.quick) for number in numbers]

    def done(one: dict[str, Any]) -> None:
        say(f"{one['number']:>4}  {one['title']}: {report.verdict(one)}")

    reports = list(run_all(jobs, args.at_once, done))
    say("\n" + report.table(reports) + "\n")
    if args.write:
        report.write(args.write, reports)
    for one in reports:
        if story := report.story(one):
            say(story)
    return reports, sum(report.failed(one) for one in reports)


def _try_mutations(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], int]:
    def run(pair: tuple[int, mutations.Mutation]) -> dict[str, Any]:
        number, mutation = pair
        try:
            found = mutations.try_mutation(mutation, folder / f"mutation{number}")
        except LookupError as exc:
            found = {"mutation": mutation.name, "by": None, "found": [str(exc)]}
        how = f"found by fault {found['by']}" if found["by"] else "NOT FOUND"
        how = "not applied" if found["by"] == "none" else how
        say(f"{number:>3}  {mutation.name}: {how}")
        for text in found["found"][:2]:
            say(f"       {text[:200]}")
        return {"number": number, **found}

    with ThreadPoolExecutor(args.at_once) as threads:
        reports = list(threads.map(run, mutations.wanted(args.mutations)))
    survived = sum(one["by"] is None for one in reports)
    say(f"{len(reports) - survived} of {len(reports)} mutations found")
    return reports, survived


if __name__ == "__main__":
    sys.exit(main())
