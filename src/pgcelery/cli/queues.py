"""``pgcelery queues``: what waits where, pause and resume. pgcelery's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from pgcelery.cli.base import CeleryOption, handle_preload_options

__all__ = ("queues",)

_HEADINGS = ("QUEUE", "READY", "SCHEDULED", "AT LIMITS", "RUNNING", "PAUSED", "WORKERS")


@click.group(invoke_without_command=True)
@click.option(
    "-j",
    "--json",
    "as_json",
    is_flag=True,
    cls=CeleryOption,
    help_group="Listing Options",
    help="Use json as output format.",
)
@click.pass_context
@handle_preload_options
def queues(ctx: click.Context, as_json: bool, **kwargs: Any) -> None:
    """List the queues, or pause and resume one.

    READY tasks can run now, SCHEDULED ones wait for a time, those AT LIMITS for a slot or a rate.
    WORKERS serve the queue; those that are drained are in brackets.
    """
    if ctx.invoked_subcommand is not None:
        return
    rows = _rows(ctx.obj.app)
    if as_json:
        ctx.obj.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if not rows:
        ctx.obj.echo("No queues.")
        return
    table = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        ctx.obj.echo("  ".join([*cells, row[-1]]).rstrip())


def _rows(app: Any) -> list[dict[str, Any]]:
    engine = app.engine
    counts, paused = engine.counts(), engine.paused()
    serving: dict[str, dict[str, bool]] = {}
    for worker in engine.workers():
        for name in worker.queues:
            serving.setdefault(name, {})[worker.name] = bool(worker.info.get("draining"))
    rows = []
    for name in sorted({*counts, *serving}):
        many = counts.get(name)
        since = paused.get(name)
        rows.append(
            {
                "queue": name,
                "ready": many.ready if many else 0,
                "scheduled": many.scheduled if many else 0,
                "at_limits": many.gated if many else 0,
                "running": many.running if many else 0,
                "paused_since": since and since.isoformat(),
                "workers": sorted(w for w, drained in serving.get(name, {}).items() if not drained),
                "drained": sorted(w for w, drained in serving.get(name, {}).items() if drained),
            }
        )
    return rows


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from pgcelery.cli.runs import age

    since = row["paused_since"]
    waited = datetime.now(UTC) - datetime.fromisoformat(since) if since else None
    return (
        row["queue"],
        *(str(row[key]) for key in ("ready", "scheduled", "at_limits", "running")),
        f"for {age(waited.total_seconds())}" if waited is not None else "-",
        ", ".join([*row["workers"], *(f"({name})" for name in row["drained"])]) or "none",
    )


@queues.command()
@click.argument("name")
@click.option("--create", is_flag=True, help="Make the queue if there is none of this name.")
@click.pass_context
def pause(ctx: click.Context, name: str, create: bool) -> None:
    """Have no worker take tasks of a queue; what runs goes on.

    Needs no worker to be alive, and holds until it is resumed.
    """
    app = ctx.obj.app
    if not create:
        _must_exist(ctx, name)
    app.control.pause_queue(name, create=create)
    ctx.obj.echo(f"Queue {name} is paused.")


@queues.command()
@click.argument("name")
@click.pass_context
def resume(ctx: click.Context, name: str) -> None:
    """Have the tasks of a paused queue taken again, at once."""
    _must_exist(ctx, name)
    was_paused = ctx.obj.app.control.resume_queue(name)
    ctx.obj.echo(f"Queue {name} is resumed." if was_paused else f"Queue {name} was not paused.")


def _must_exist(ctx: click.Context, name: str) -> None:
    import difflib

    app = ctx.obj.app
    known = {*app.engine.counts(), *app.amqp.queues}
    if name not in known:
        close = difflib.get_close_matches(name, known, 3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise click.ClickException(
            f"There is no queue {name!r}.{hint} (`queues pause --create` makes it.)"
        )
