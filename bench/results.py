"""Every value of a run, and what follows from them."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

Rounds = list[float | None]


class Results:
    """One number a measure, peer and round (None: not measured)."""

    def __init__(self, peers: list[str], about: dict[str, Any] | None = None) -> None:
        self.peers = peers
        self.about = about or {}
        self.values: dict[str, dict[str, Rounds]] = defaultdict(lambda: defaultdict(list))
        self.others: dict[str, dict[str, Rounds]] = defaultdict(lambda: defaultdict(list))
        self.failures: list[dict[str, Any]] = []

    def renew(self, peers: list[str], phases: list[str]) -> None:
        """Make room for more: failures of what is measured again are forgotten."""
        self.peers += [peer for peer in peers if peer not in self.peers]
        self.failures = [
            one for one in self.failures if one["phase"] not in phases or one["peer"] not in peers
        ]

    def add(
        self, peer: str, round_no: int, values: dict[str, float], others: tuple[str, float] | None
    ) -> None:
        """Keep one phase's values of one round (from 0), and the load by others meanwhile."""
        for measure, value in values.items():
            _put(self.values[measure][peer], round_no, value)
        if others:
            _put(self.others[others[0]][peer], round_no, others[1])

    def fail(self, phase: str, peer: str, round_no: int, why: str) -> None:
        """A phase gave no values."""
        self.failures.append({"phase": phase, "peer": peer, "round": round_no, "why": why})

    def rounds(self, measure: str, peer: str) -> Rounds:
        """The values, one a round; empty if there are none."""
        return self.values.get(measure, {}).get(peer, [])

    def median(self, measure: str, peer: str) -> float | None:
        """Over the rounds; None when nothing was measured."""
        values = [v for v in self.rounds(measure, peer) if v is not None]
        return statistics.median(values) if values else None

    def ratio(self, measure: str, peer: str, versus: str, versus_measure: str = "") -> float | None:
        """Median of the same-round ratios of two peers; None when no round has both."""
        ours, theirs = self.rounds(measure, peer), self.rounds(versus_measure or measure, versus)
        pairs = [a / b for a, b in zip(ours, theirs, strict=False) if a is not None and b]
        return statistics.median(pairs) if pairs else None

    def write(self, path: Path) -> None:
        """As JSON: raw rounds, and what is needed to judge them."""
        medians = {m: {p: self.median(m, p) for p in by} for m, by in self.values.items()}
        data = {
            "about": self.about,
            "peers": self.peers,
            "median": medians,
            "rounds": self.values,
            "others_cores": self.others,
            "failures": self.failures,
        }
        path.write_text(json.dumps(data, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        data = json.loads(path.read_text())
        results = cls(data["peers"], data["about"])
        results.failures = data["failures"]
        for kept, given in (
            (results.values, data["rounds"]),
            (results.others, data["others_cores"]),
        ):
            for measure, by_peer in given.items():
                kept[measure].update(by_peer)
        return results


def _put(rounds: Rounds, round_no: int, value: float) -> None:
    rounds.extend([None] * (round_no + 1 - len(rounds)))
    rounds[round_no] = value
