"""Pictures for the documentation. Needs the extra `bench`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.results import Results
from bench.titles import TITLES, number

OURS, THEIRS = "#336791", "#b9c0c7"
PICTURES = {
    "throughput": ("drain", "ignored", "strict", "enqueue", "bulk"),
    "latency": ("lat20", "result20", "lat500_p95"),
    "workflows": ("chain", "group", "chord"),
    "idle": ("start_s", "idle_pss", "idle_cpu", "idle_queries"),
}


def draw(results: Results, folder: Path) -> list[str]:
    """Write an SVG for each picture of which something was measured; their names."""
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, measures in PICTURES.items():
        shown = [m for m in measures if results.median(m, results.peers[0]) is not None]
        if not shown:
            continue
        figure, axes = pyplot.subplots(
            1, len(shown), figsize=(3.1 * len(shown), 2.4), squeeze=False, layout="constrained"
        )
        for axis, measure in zip(axes[0], shown, strict=True):
            _bars(axis, results, measure)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
        names.append(f"{name}.svg")
    return names


def _bars(axis: Any, results: Results, measure: str) -> None:
    """One bar a peer, with the range of the rounds."""
    peers = [p for p in results.peers if results.median(measure, p) is not None]
    medians = [results.median(measure, peer) or 0.0 for peer in peers]
    rounds = [[v for v in results.rounds(measure, p) if v is not None] for p in peers]
    errors = [
        [m - min(r) for m, r in zip(medians, rounds, strict=True)],
        [max(r) - m for m, r in zip(medians, rounds, strict=True)],
    ]
    colours = [OURS if peer == results.peers[0] else THEIRS for peer in peers]
    bars = axis.barh(peers, medians, color=colours, xerr=errors, ecolor="#555", capsize=2)
    axis.bar_label(bars, [f" {number(m)}" for m in medians], fontsize=7, padding=2)
    axis.invert_yaxis()
    axis.margins(x=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    title = TITLES[measure]
    name = "500/s: send to start, p95" if measure == "lat500_p95" else title.title
    better = "more is better" if title.more else "less is better"
    axis.set_title(f"{textwrap.fill(name, 34)}\n{title.unit}, {better}", fontsize=8)
