"""`python -m bench report`: results to tables, for a terminal and for the documentation.

python -m bench report bench-results.json
python -m bench report bench-results.json --docs docs/    # benchmarks.md and img/*.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.physical import NAME as MACHINE
from bench.results import Results
from bench.targets import REDIS, TARGETS, Target, verdict
from bench.titles import DISTANCES, LIMITS, TITLES, full_title, number

RUN, GROWTH = "bench", "growth"  #: names of the markers in the page
Table = list[list[str]]


class Judged(NamedTuple):
    """A target, what was measured, and which bar that passes."""

    target: Target
    value: float | None
    verdict: str


def judged(results: Results) -> list[Judged]:
    """The targets of which something was measured."""
    rows = []
    for target in TARGETS:
        ours = results.peers[0]
        if target.versus is None:
            value = results.median(target.measure, ours)
        else:
            value = results.ratio(target.measure, ours, target.versus)
        if value is not None:
            rows.append(Judged(target, value, verdict(target, value)))
    return rows


def targets_table(results: Results) -> Table:
    """Bars and verdicts."""
    rows = [["measure", "against", "measured", "at least", "goal", "verdict"]]
    for target, value, said in judged(results):
        unit = "x" if target.versus else _unit(target.measure)
        sign = "" if target.more else "≤ "
        rows.append(
            [
                full_title(target.measure),
                target.versus or "",
                number(value) + unit,
                "" if target.at_least is None else f"{sign}{target.at_least:g}{unit}",
                f"{sign}{target.goal:g}{unit}",
                said,
            ]
        )
    return rows


def values_table(results: Results, *, spread: bool = True) -> Table:
    """Medians of each peer, and the ratio to Celery on Redis if it took part."""
    ours = results.peers[0]
    ratios = REDIS in results.peers[1:]
    rows = [["measure", "unit", *results.peers, *([f"x {REDIS}"] if ratios else [])]]
    for name, title in TITLES.items():
        if name not in results.values:
            continue
        cells = [_cell(results, name, peer, spread) for peer in results.peers]
        ratio = results.ratio(name, ours, REDIS) if ratios else None
        rows.append([title.title, title.unit, *cells, *([number(ratio)] if ratios else [])])
    return rows


def ratios_table(results: Results) -> Table:
    """Ours against each of the others."""
    ours, *others = results.peers
    rows = [["measure", *(f"x {peer}" for peer in others)]]
    for name, title in TITLES.items():
        ratios = [results.ratio(name, ours, peer) for peer in others]
        if any(ratio is not None for ratio in ratios) and not title.title.startswith("  "):
            rows.append([title.title, *map(number, ratios)])
    return rows


def limits_table(results: Results) -> Table:
    """What the machine allows."""
    rows = [["physical limit", "unit", "median"]]
    for name, title in LIMITS.items():
        if name in results.values:
            rows.append([title.title, title.unit, _cell(results, name, MACHINE, True)])
    return rows


def distances_table(results: Results) -> Table:
    """What each peer reaches of what cannot be passed."""
    rows = [["share of the limit", "limit", *results.peers]]
    for name, limit in DISTANCES:
        shares = [results.ratio(name, peer, MACHINE, limit) for peer in results.peers]
        if any(share is not None for share in shares):
            rows.append([TITLES[name].title, LIMITS[limit].title.strip(), *map(number, shares)])
    return rows


def growth_table(rows: Sequence[dict[str, float | str]]) -> Table:
    """One subject of `python -m bench growth`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [[_shown(row.get(name, "")) for name in names] for row in rows]
    return [[name.replace("_", " ") for name in names], *shown]


def facts(results: Results) -> Iterator[str]:
    """What is needed to judge the figures."""
    about = results.about
    yield f"{about['machine']}; Python {about['python']}; concurrency {about['concurrency']}"
    yield f"{about['rounds']} interleaved rounds, medians; begun {about['began']}"
    yield from about["servers"].values()
    loads = [v for by in results.others.values() for rounds in by.values() for v in rounds]
    known = sorted(v for v in loads if v is not None)
    if known:
        middle = known[len(known) // 2]
        yield f"cores busy with other work: median {middle:.2f}, at most {known[-1]:.2f}"
    for failure in results.failures:
        why = str(failure["why"]).splitlines()[0]
        yield f"failed: {failure['phase']} of {failure['peer']}, {why}"


def whole(results: Results) -> str:
    """All of it for a terminal."""
    tables = (values_table, ratios_table, targets_table, limits_table, distances_table)
    made = [table(results) for table in tables]
    parts = ["\n".join(facts(results)), *(plain(table) for table in made if len(table) > 1)]
    return "\n\n".join(parts)


def plain(table: Table) -> str:
    """Columns aligned with spaces."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown(table: Table) -> str:
    """A table of Markdown."""
    head, *rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: Results, images: Sequence[str]) -> str:
    """What belongs between the markers."""
    wanted = (targets_table, _short_values, ratios_table, limits_table, distances_table)
    tables = [markdown(table) for table in (t(results) for t in wanted) if len(table) > 1]
    pictures = [f"![{Path(name).stem.replace('-', ' ')}](img/{name})" for name in images]
    durable = [f"{peer}: {said}." for peer, said in results.about["durable"].items()]
    lines = [*facts(results), *durable]
    return "\n\n".join(["\n".join(f"* {line}" for line in lines), *pictures, *tables])


def growth_page(data: dict[str, Any]) -> str:
    """The same of `python -m bench growth`."""
    about = data["about"]
    parts = [f"{about['machine']}; scale {about['scale']:g}; begun {about['began']}"]
    for subject, rows in data["growth"].items():
        parts += [f"**{subject}**", markdown(growth_table(rows))]
    return "\n\n".join(parts)


def put_between(text: str, name: str, filling: str) -> str:
    """The text with what is between its markers of that name replaced.

    Raises:
        ValueError: It does not have both, in their order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"no {begin} with an {end} after it")
    return f"{before}{begin}\n\n{filling}\n\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Print, or write the documentation's part; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("file", type=Path, help="what run wrote")
    parser.add_argument("--docs", type=Path, help="write DOCS/benchmarks.md and DOCS/img/*.svg")
    options = parser.parse_args(arguments)
    target = None if options.docs is None else options.docs / "benchmarks.md"
    data = json.loads(options.file.read_text())
    if GROWTH in data:
        shown, name = growth_page(data), GROWTH
    elif target is None:
        shown, name = whole(Results.read(options.file)), RUN
    else:
        from bench import plots  # matplotlib: only here

        results = Results.read(options.file)
        shown, name = page(results, plots.draw(results, options.docs / "img")), RUN
    if target is None:
        print(shown)
    else:
        target.write_text(put_between(target.read_text(), name, shown))
    return 0


def _shown(value: float | str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else value


def _short_values(results: Results) -> Table:
    return values_table(results, spread=False)


def _unit(measure: str) -> str:
    unit = TITLES[measure].unit
    return unit if unit in ("", "x") else f" {unit}"


def _cell(results: Results, name: str, peer: str, spread: bool) -> str:
    values = [v for v in results.rounds(name, peer) if v is not None]
    shown = number(results.median(name, peer))
    if spread and len(values) > 1:
        return f"{shown} ({number(min(values))}-{number(max(values))})"
    return shown
