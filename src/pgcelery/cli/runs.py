"""``pgcelery runs``: the workflows that were sent, the newest first. pgcelery's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pgcelery.cli.base import CeleryCommand, CeleryOption, Decorator, handle_preload_options

if TYPE_CHECKING:
    from pgcelery.compat.workflow import Summary

__all__ = ("STATE_COLOURS", "runs")

STATE_COLOURS = {
    "SUCCESS": "green",
    "FAILURE": "red",
    "REVOKED": "magenta",
    "STARTED": "cyan",
    "RETRY": "yellow",
}

_STATES = ("PENDING", "STARTED", "SUCCESS", "FAILURE", "REVOKED")


def _option(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group="Listing Options", **kwargs)


@click.command(cls=CeleryCommand)
@_option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Most to list."
)
@_option(
    "--state",
    type=click.Choice(_STATES, case_sensitive=False),
    multiple=True,
    help="Only those in this state; may be given again.",
)
@_option("-j", "--json", "as_json", is_flag=True, help="Use json as output format.")
@click.pass_context
@handle_preload_options
def runs(ctx: click.Context, limit: int, state: tuple[str, ...], as_json: bool) -> None:
    """List the workflows that were sent, the newest first.

    A workflow is a chain, group or chord; single tasks are not listed. FAILURE and REVOKED are told
    when all of its tasks have ended.
    """
    from pgcelery.compat.workflow import newest

    found = list(newest(ctx.obj.app, limit, state))
    if as_json:
        texts = [one.to_dict() for one in found]
        ctx.obj.echo(json.dumps(texts, ensure_ascii=False, indent=2))
        return
    if not found:
        ctx.obj.echo("No workflows.")
        return
    now = datetime.now(UTC)
    rows = [("ID", "AGE", "STATE", "TASKS", "FIRST TASK"), *(_row(one, now) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        if number:
            cells[2] = ctx.obj.style(cells[2], fg=STATE_COLOURS.get(row[2]))
        ctx.obj.echo("  ".join([*cells, row[4]]))


def _row(one: Summary, now: datetime) -> tuple[str, str, str, str, str]:
    from pgcelery.compat.workflow.drawing.words import told
    from pgcelery.compat.workflow.outline import printable

    id, name = printable(one.id), printable(one.name)
    return id, age((now - one.created_at).total_seconds()), one.state, told(one.counts), name


def age(seconds: float) -> str:
    """Write a length of time in one unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"
