"""The table at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("#", "fault", "tasks", "lost", "twice", "extra runs, and why", "recovered", "verdict")

_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"


def verdict(report: Mapping[str, Any]) -> str:
    if "skipped" in report:
        return f"skipped: {report['skipped']}"
    if report["violations"]:
        return f"FAILED ({len(report['violations'])})"
    return "as known" if report["known"] else "kept"


def failed(report: Mapping[str, Any]) -> bool:
    return bool(report.get("violations"))


def _cells(report: Mapping[str, Any]) -> list[str]:
    if "tasks" not in report:
        return [report["number"], report["title"], "", "", "", "", "", verdict(report)]
    extra = report["extra"]
    why = ", ".join(f"{many}: {reason}" for reason, many in extra.items())
    return [
        report["number"],
        report["title"],
        str(report["tasks"]),
        str(report["lost"]),
        str(report["twice"]),
        why or "0",
        f"{report['recovered_s']:.1f} s",
        verdict(report),
    ]


def table(reports: Iterable[Mapping[str, Any]]) -> str:
    """Make the table, in Markdown."""
    rows = [list(COLUMNS), *(_cells(report) for report in reports)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def write(page: Path, reports: Sequence[Mapping[str, Any]]) -> None:
    """Put the table where the page has a place for it."""
    text = page.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{table(reports)}\n{_END}{after}")


def story(report: Mapping[str, Any]) -> str:
    """Say what was measured and what is wrong, below the table."""
    lines = [f"{report['number']}: {note}" for note in report.get("notes", ())]
    lines += [f"{report['number']} known: {one}" for one in report.get("known", ())]
    wrong = report.get("violations", ())
    lines += [f"{report['number']} WRONG {one}" for one in wrong[:10]]
    if len(wrong) > 10:
        lines.append(f"{report['number']} ... and {len(wrong) - 10} more")
    return "\n".join(lines)
