"""What became of each test, from the records that a shard's pytest has written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PASSED = "passed"
FAILED = "failed"
SKIPPED = "skipped"
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Outcome:
    """A test's one and only run."""

    state: str
    seconds: float
    details: str = ""


def read_outcomes(lines: Iterable[str]) -> dict[str, Outcome]:
    """Sum up the records, each the report of a phase or of a subtest, as JSON.

    A process that is killed may leave half a line at the end; it says nothing.
    """
    reports: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        try:
            report = json.loads(line)
        except ValueError:
            continue
        reports.setdefault(report["key"], []).append(report)
    return {key: _outcome(some) for key, some in reports.items()}


def _outcome(reports: list[dict[str, Any]]) -> Outcome:
    phases = {report["when"]: report for report in reports if not report["subtest"]}
    seconds = round(sum(report["seconds"] for report in phases.values()), 2)
    for state in (FAILED, SKIPPED):
        for report in reports:
            if report["outcome"] == state:
                return Outcome(state, seconds, report["details"])
    done = phases.keys() >= {"setup", "call", "teardown"}
    return Outcome(PASSED if done else UNFINISHED, seconds)
