"""What the outcomes mean: the list of known failures is strict in both directions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.celery_compat.suite.errors import SuiteError
from tests.celery_compat.suite.outcomes import PASSED, UNFINISHED, Outcome

KNOWN_FAILURES = Path(__file__).parent / "known_failures.txt"
MISSING = "missing"


@dataclass(frozen=True)
class Problem:
    """A demanded test that did not do what was expected of it."""

    key: str
    what: str
    details: str = ""


@dataclass
class Verdict:
    """Every demanded test is in exactly one of the three."""

    passed: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)  #: failed, and the list says so
    problems: list[Problem] = field(default_factory=list)


def read_known_failures(text: str, demanded: Collection[str]) -> dict[str, str]:
    """Read lines of a key, white space and a reason; ``#`` at its beginning makes a comment.

    Raises:
        SuiteError: A line without a reason, for the second time, or of a test nobody demands.
    """
    known: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, _, reason = line.partition(" ")
        if not reason.strip():
            raise SuiteError(f"known failure without a reason: {key}")
        if key in known:
            raise SuiteError(f"known failure listed twice: {key}")
        if key not in demanded:
            raise SuiteError(f"known failure of a test that is not demanded: {key}")
        known[key] = reason.strip()
    return known


def judge(
    demanded: Iterable[str], outcomes: Mapping[str, Outcome], known: Mapping[str, str]
) -> Verdict:
    """Hold what happened against what is demanded and what is known to fail."""
    verdict = Verdict()
    for key in demanded:
        outcome = outcomes.get(key)
        if outcome is None:
            # Listed or not: of a test that did not run nothing is known.
            verdict.problems.append(Problem(key, MISSING))
        elif outcome.state == PASSED and key in known:
            verdict.problems.append(
                Problem(key, PASSED, f"must leave the list of known failures: {known[key]}")
            )
        elif outcome.state == PASSED:
            verdict.passed.append(key)
        elif key in known and outcome.state != UNFINISHED:
            verdict.known.append(key)
        else:
            verdict.problems.append(Problem(key, outcome.state, outcome.details))
    return verdict
