"""``pgcelery limits``: limits as they stand, and changing them at run time. pgcelery's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pgcelery.cli.base import CeleryCommand, CeleryOption, Decorator, handle_preload_options
from pgcelery.cli.runs import age

if TYPE_CHECKING:
    from pgcelery.compat.app.limiting import Limit

__all__ = ("limits",)

_MANY = 1000  # what waits is counted no further


def _option(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group="Limit Options", **kwargs)


@click.group(invoke_without_command=True)
@click.option("--name", help="Only the limit of this name.")
@click.option("--key", help="Only this key.")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most to list."
)
@click.option("-j", "--json", "as_json", is_flag=True, help="Use json as output format.")
@click.pass_context
@handle_preload_options
def limits(
    ctx: click.Context, name: str | None, key: str | None, limit: int, as_json: bool
) -> None:
    """List limits, those with most tasks waiting first; set and unset them at run time.

    Listed are limits that tasks have just now, and what is set.
    """
    if ctx.invoked_subcommand is not None:
        return
    found = ctx.obj.app.limits.list(name, key, limit=limit)
    if as_json:
        ctx.obj.echo(json.dumps([one.to_dict() for one in found], ensure_ascii=False, indent=2))
        return
    if not found:
        ctx.obj.echo("No limits in use, and none set.")
        return
    now = datetime.now(UTC)
    rows = [("NAME", "KEY", "LIMIT", "WAITING", "NEXT START", "SET AT RUN TIME")]
    rows += [_row(one, now) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        ctx.obj.echo("  ".join([*cells, row[5]]).rstrip())


def _row(one: Limit, now: datetime) -> tuple[str, str, str, str, str, str]:
    from pgcelery.compat.workflow.outline import printable

    key = "(all keys)" if one.key is None else printable(one.key) or "-"
    opens = ""
    if one.kind == "rate":
        opens = f"in {age((one.opens_at - now).total_seconds())}" if one.opens_at else "now"
    given = ""
    if one.set is not None and one.set_at is not None:
        given = f"{_said(one.set)}, {age((now - one.set_at).total_seconds())} ago"
    elif one.set_at is not None:
        given = "for all keys"
    if one.kind is not None and given:
        given += f"; tasks say {_said(one.declared)}"
    waiting = f"{_MANY}+" if one.waiting >= _MANY else str(one.waiting)
    return printable(one.name), key, _standing(one), waiting if one.kind else "", opens, given


def _standing(one: Limit) -> str:
    if one.kind == "rate":
        return f"{one.rate}, burst {one.burst}"
    if one.kind == "slots":
        return f"{one.in_use} in use" if one.slots is None else f"{one.in_use} of {one.slots}"
    return "not in use"


def _said(values: dict[str, Any]) -> str:
    said = []
    for name, value in values.items():
        if name == "burst" and "rate" not in values and "slots" in values:
            continue  # a limit on slots has none
        if name != "weight":
            said.append(f"{name} {value}")
        elif value != 1:
            said.append(f"weight {value:g}")
    return ", ".join(said) or "no limit"


@limits.command("set", cls=CeleryCommand)
@click.argument("name")
@_option("--key", help="One of its keys; without it all that have nothing of their own.")
@_option("--slots", type=int, help="How many tasks may run at once.")
@_option("--rate", help="How many may start, as 100/m.")
@_option("--burst", type=int, help="How many may start at once after a pause.")
@_option("--weight", type=float, help="Share of the workers against other keys.")
@click.pass_context
@handle_preload_options
def set_limit(ctx: click.Context, name: str, key: str | None, **values: Any) -> None:
    """Overrule what tasks say of the limit NAME, at once and until it is unset.

    It replaces what was set for it before. What runs goes on where a limit is lowered.
    """
    try:
        change = ctx.obj.app.limits.set(name, key, **values)
    except (TypeError, ValueError) as exc:
        raise click.UsageError(f"{str(exc)[0].upper()}{str(exc)[1:]}.", ctx) from exc
    live = change.counting + change.rated
    shown = _shown(name, key)
    if not live:
        ctx.obj.echo(f"Set for {shown}; no task has it just now.")
        return
    ctx.obj.echo(f"Set for {shown}; it holds for {live} in use.")
    if change.unfit:
        kind = "limit how many tasks run" if change.counting else "limit how many tasks start"
        ctx.obj.secho(
            f"Not in force: {' and '.join(change.unfit)}, as those {kind}.", fg="yellow", err=True
        )


@limits.command(cls=CeleryCommand)
@click.argument("name")
@_option("--key", help="One of its keys.")
@click.pass_context
@handle_preload_options
def unset(ctx: click.Context, name: str, key: str | None) -> None:
    """Let what tasks say of the limit NAME hold again; for a key, what is set for the name."""
    try:
        found = ctx.obj.app.limits.unset(name, key)
    except ValueError as exc:
        raise click.UsageError(f"{str(exc)[0].upper()}{str(exc)[1:]}.", ctx) from exc
    said = "Unset for" if found else "Nothing was set for"
    ctx.obj.echo(f"{said} {_shown(name, key)}.")


def _shown(name: str, key: str | None) -> str:
    from pgcelery.compat.workflow.outline import printable

    return f"limit {printable(name)}" + ("" if key is None else f", key {printable(key)!r}")
