"""Numbers to a table, a JSON file, and thresholds."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Measure(NamedTuple):
    """One line of the table."""

    title: str
    unit: str
    more_is_better: bool
    speedup: bool = False  #: the ratio is theirs : ours, how many times faster


MEASURES = {
    "enqueue": Measure("enqueue, one .delay() after the other", "/s", True),
    "bulk": Measure("enqueue, groups of 1,000", "/s", True),
    "drain": Measure("drain of waiting no-op tasks, results stored", "/s", True),
    "drain_cpu": Measure("  CPU a task, worker + broker", "µs", False),
    "drain_worker_cpu": Measure("  CPU a task, worker alone", "µs", False),
    "drain_rss": Measure("  RSS of the worker after the drain", "MB", False),
    "others": Measure("  cores busy with other work meanwhile", "", False),
    "start_s": Measure("worker start to first task", "s", False),
    "idle_rss": Measure("idle worker, RSS", "MB", False),
    "idle_pss": Measure("idle worker, PSS", "MB", False),
    "lat20": Measure("20/s: enqueue to start, p50", "ms", False),
    "lat20_p95": Measure("20/s: enqueue to start, p95", "ms", False),
    "result20": Measure("20/s: enqueue to result at the caller, p50", "ms", False),
    "result20_p95": Measure("20/s: enqueue to result at the caller, p95", "ms", False),
    "lat500": Measure("500/s: enqueue to start, p50", "ms", False),
    "lat500_p95": Measure("500/s: enqueue to start, p95", "ms", False),
    "eta_enqueue": Measure("enqueue of tasks with a countdown", "/s", True),
    "eta_without": Measure("immediate tasks, no backlog", "/s", True),
    "eta_with": Measure("immediate tasks, ETA backlog waiting", "/s", True),
    "eta_kept": Measure("  throughput kept", "x", True),
    "eta_without_start": Measure("  worker start to first task, no backlog", "s", False),
    "eta_with_start": Measure("  worker start to first task, backlog", "s", False),
    "eta_without_rss": Measure("  RSS of the worker, no backlog", "MB", False),
    "eta_with_rss": Measure("  RSS of the worker, backlog", "MB", False),
    "eta_growth": Measure("  memory the backlog costs", "MB", False),
    "chain": Measure("chain of 10, until the last result, p50", "ms", False, True),
    "chain_p95": Measure("chain of 10, until the last result, p95", "ms", False, True),
    "group": Measure("group of 100, until all results, p50", "ms", False, True),
    "group_p95": Measure("group of 100, until all results, p95", "ms", False, True),
    "chord": Measure("chord of 100, until the body's result, p50", "ms", False, True),
    "chord_p95": Measure("chord of 100, until the body's result, p95", "ms", False, True),
    "big_members": Measure("big chord: members of the header", "", True),
    "big_sent": Measure("  until it is sent", "s", False, True),
    "big_took": Measure("  until the body's result", "s", False, True),
    "big_producer": Measure("  RSS of the producer, peak", "MB", False),
    "big_producer_growth": Measure("  memory it costs the producer", "MB", False),
    "big_rss": Measure("  RSS of the worker, peak", "MB", False),
    "big_pss": Measure("  PSS of the worker, peak", "MB", False),
    "big_pss_growth": Measure("  memory it costs the worker, PSS", "MB", False),
    "plain_sent": Measure("enqueue without limits, groups of 1,000", "/s", True),
    "keyed_sent": Measure("enqueue over 1,000 keys, groups of 1,000", "/s", True),
    "plain_drain": Measure("drain without limits", "/s", True),
    "keyed_drain": Measure("drain over 1,000 keys, one at a time of each", "/s", True),
    "keyed_kept": Measure("  throughput kept", "x", True),
    "plain_cpu": Measure("  CPU a task, worker + broker, without limits", "µs", False),
    "keyed_cpu": Measure("  CPU a task, worker + broker, keyed", "µs", False),
    "fair_first": Measure("ten of B behind a million of A: B sent to first start", "ms", False),
    "fair_last": Measure("  until the last start", "ms", False),
    "fair_first_others": Measure("  tasks of A started until B's first", "", False),
    "fair_last_others": Measure("  tasks of A started until B's last", "", False),
}
#: what says nothing when divided
NO_RATIO = {"others", "eta_kept", "eta_growth", "big_members", "keyed_kept"}


class Results:
    """Every value of a run: measure, peer, and one number a round (None: not measured)."""

    def __init__(self, peers: list[str]) -> None:
        self.peers = peers
        self.values: dict[str, dict[str, list[float | None]]] = defaultdict(
            lambda: {peer: [] for peer in peers}
        )

    def add(self, peer: str, round_no: int, values: dict[str, float]) -> None:
        """Keep one phase's values of one round (from 0)."""
        for measure, value in values.items():
            rounds = self.values[measure][peer]
            rounds.extend([None] * (round_no - len(rounds)))
            rounds.append(value)

    def median(self, measure: str, peer: str) -> float | None:
        """Over the rounds; None when nothing was measured."""
        values = [v for v in self.values[measure][peer] if v is not None]
        return statistics.median(values) if values else None

    def ratio(self, measure: str) -> float | None:
        """Median of the same-round ratios, first peer : second peer; of a speedup, the inverse."""
        if len(self.peers) < 2:
            return None
        ours, theirs = (self.values[measure][peer] for peer in self.peers[:2])
        if MEASURES[measure].speedup:
            ours, theirs = theirs, ours
        pairs = [a / b for a, b in zip(ours, theirs, strict=False) if a is not None and b]
        return statistics.median(pairs) if pairs else None

    def table(self) -> str:
        """The measures in their order, one a line."""
        head = ["measure", "unit", *(f"{p} (min-max)" for p in self.peers), "ratio"]
        rows = [head, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [_line(row, widths) for row in rows]
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join(lines)

    def _rows(self) -> Iterator[list[str]]:
        for name, measure in MEASURES.items():
            if name not in self.values:
                continue
            cells = [self._cell(name, peer) for peer in self.peers]
            ratio = None if name in NO_RATIO else self.ratio(name)
            verdict = ""
            if ratio is not None and measure.speedup:
                verdict = f"{ratio:.2f}x as fast"
            elif ratio is not None:
                better = ratio >= 1 if measure.more_is_better else ratio <= 1
                verdict = f"{ratio:.2f}x {'better' if better else 'worse'}"
            yield [measure.title, measure.unit, *cells, verdict]

    def _cell(self, name: str, peer: str) -> str:
        values = [v for v in self.values[name][peer] if v is not None]
        if not values:
            return "-"
        spread = f" ({_number(min(values))}-{_number(max(values))})" if len(values) > 1 else ""
        return _number(statistics.median(values)) + spread

    def write(self, path: Path, about: dict[str, object]) -> None:
        """Every value of every round, with what is needed to judge it."""
        medians = {m: {p: self.median(m, p) for p in self.peers} for m in self.values}
        ratios = {m: self.ratio(m) for m in self.values}
        data = {"about": about, "median": medians, "ratio": ratios, "rounds": self.values}
        path.write_text(json.dumps(data, indent=1) + "\n")

    def check(self) -> Iterator[tuple[bool, str]]:
        """Each threshold that could be judged: whether it holds, and a sentence."""
        ours = self.peers[0]
        drained = self.ratio("drain") if "drain" in self.values else None
        if drained is not None:
            yield drained >= 2, f"drain is {drained:.2f}x Celery's, wanted at least 2x"
        for name in ("chain", "chord"):
            faster = self.ratio(name) if name in self.values else None
            if faster is not None:
                yield faster >= 3, f"a {name} is {faster:.2f}x as fast as Celery's, wanted 3x"
        for name, limit, above, text in (
            ("lat20", 5.0, False, "enqueue to start at 20/s, p50, is {:.2f} ms, wanted below 5"),
            (
                "eta_kept",
                0.9,
                True,
                "with the ETA backlog {:.2f} of throughput is kept, wanted 0.9",
            ),
            ("eta_growth", 5.0, False, "the ETA backlog costs {:.1f} MB, wanted at most 5"),
            ("keyed_kept", 0.5, True, "with a key each {:.2f} of throughput is kept, wanted 0.5"),
            ("fair_first_others", 50.0, False, "{:.0f} of A start before B's first, wanted 50"),
        ):
            value = self.median(name, ours) if name in self.values else None
            if value is not None:
                yield (value >= limit if above else value <= limit), text.format(value)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(row: list[str], widths: list[int]) -> str:
    left = row[0].ljust(widths[0]) + "  " + row[1].ljust(widths[1])
    pairs = zip(row[2:], widths[2:], strict=True)
    return (left + "".join("  " + cell.rjust(width) for cell, width in pairs)).rstrip()
