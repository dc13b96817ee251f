"""``pgcelery why``: what keeps a task from running. pgcelery's own.

Exit code 1 when nothing is known of the id.
"""

from __future__ import annotations

import json

import click

from pgcelery.cli.base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ("why",)


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option(
    "-j",
    "--json",
    "as_json",
    is_flag=True,
    cls=CeleryOption,
    help_group="Output Options",
    help="Use json as output format.",
)
@click.pass_context
@handle_preload_options
def why(ctx: click.Context, id: str, as_json: bool) -> None:
    """Say where the task ID is, and why it does not run."""
    from pgcelery.compat.workflow.outline import printable

    found = ctx.obj.app.why(id)
    if found is None:
        raise click.ClickException(
            f"Nothing is known of a task {printable(id)!r}. It was never sent to this database, or "
            "its result has expired."
        )
    if as_json:
        ctx.obj.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
        return
    name = f" {printable(found.name)}" if found.name else ""
    ctx.obj.echo(f"{printable(id)}{name}  {ctx.obj.style(found.reason, bold=True)}")
    ctx.obj.echo(printable(found.text))
