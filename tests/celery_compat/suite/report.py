"""What is said at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from tests.celery_compat.suite.demand import file_of
from tests.celery_compat.suite.outcomes import Outcome
from tests.celery_compat.suite.verdict import MISSING, Verdict

SHOWN_LINES = 25  # of a failure's text, its last
SHOWN_WIDTH = 160


def text(verdict: Verdict, outcomes: Mapping[str, Outcome], known: Mapping[str, str]) -> str:
    """Tell of every problem, then the table by file; the last line is ``N of M passed``."""
    lines = []
    missing = [problem.key for problem in verdict.problems if problem.what == MISSING]
    if missing:
        lines += ["", "not collected, or never begun:", *(f"  {key}" for key in missing)]
    for problem in verdict.problems:
        if problem.what == MISSING:
            continue
        lines += ["", f"{problem.what.upper()} {problem.key}"]
        lines += [
            f"    {line[:SHOWN_WIDTH]}" for line in problem.details.splitlines()[-SHOWN_LINES:]
        ]
    if verdict.known:
        lines += ["", "known to fail:"]
        lines += [f"  {key}: {known[key]}" for key in verdict.known]
    return "\n".join([*lines, "", *_table(verdict, outcomes), "", _summary(verdict)]) + "\n"


def as_json(verdict: Verdict, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Give the same, of every test, for a program."""
    states = dict.fromkeys(verdict.known, "known failure")
    states |= dict.fromkeys(verdict.passed, "passed")
    problems = {problem.key: problem for problem in verdict.problems}
    return {
        "passed": len(verdict.passed),
        "known_failures": len(verdict.known),
        "problems": len(verdict.problems),
        "tests": {
            key: {
                "verdict": states.get(key, "problem"),
                "state": outcomes[key].state if key in outcomes else "missing",
                "seconds": outcomes[key].seconds if key in outcomes else 0,
                "details": problems[key].details if key in problems else "",
            }
            for key in sorted([*states, *problems])
        },
    }


def _table(verdict: Verdict, outcomes: Mapping[str, Outcome]) -> list[str]:
    passed = Counter(map(file_of, verdict.passed))
    known = Counter(map(file_of, verdict.known))
    problems = Counter(file_of(problem.key) for problem in verdict.problems)
    seconds: dict[str, float] = defaultdict(float)
    for key, outcome in outcomes.items():
        seconds[file_of(key)] += outcome.seconds
    row = "{:28} {:>8} {:>8} {:>8} {:>8} {:>8}".format
    lines = [row("file", "demanded", "passed", "known", "problems", "seconds")]
    for file in sorted(passed | known | problems):
        counts = passed[file], known[file], problems[file]
        lines.append(row(file, sum(counts), *counts, f"{seconds[file]:.0f}"))
    return lines


def _summary(verdict: Verdict) -> str:
    demanded = len(verdict.passed) + len(verdict.known) + len(verdict.problems)
    known = f", {len(verdict.known)} known to fail" if verdict.known else ""
    return f"{len(verdict.passed)} of {demanded} passed{known}"
