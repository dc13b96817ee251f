"""``pgcelery graph``, ``cancel`` and ``replay``: a whole workflow. pgcelery's own.

Exit code 1 when nothing is known of the id, or when it cannot be replayed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pgcelery.cli.base import CeleryCommand, CeleryOption, Decorator, handle_preload_options
from pgcelery.cli.runs import STATE_COLOURS

__all__ = ("cancel", "graph", "replay")


def _option(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group="Workflow Options", **kwargs)


def _workflow(ctx: click.Context, id: str, limit: int | None) -> Any:
    from pgcelery.compat.workflow import WorkflowNotFound

    try:
        return ctx.obj.app.workflow(id, limit=limit)
    except WorkflowNotFound as exc:
        raise click.ClickException(
            f"{str(exc)[0].upper()}{str(exc)[1:]}. It was never sent to this database, or its "
            "results have expired; 'pgcelery runs' lists workflows."
        ) from exc


_limit = _option(
    "--limit",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Most tasks to read.",
)


@click.command(cls=CeleryCommand)
@click.argument("id")
@_option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["tree", "mermaid", "svg", "json"]),
    default="tree",
    show_default=True,
)
@_limit
@click.pass_context
@handle_preload_options
def graph(ctx: click.Context, id: str, form: str, limit: int) -> None:
    """Show the workflow ID: its tasks, what waits for what, and how far it is.

    ID is that of the workflow or of any of its tasks. Of branches that look alike, six and more are
    shown as one.
    """
    workflow = _workflow(ctx, id, limit)
    if form == "json":
        ctx.obj.echo(json.dumps(workflow.to_dict(), ensure_ascii=False, indent=2))
    elif form == "tree":
        _show(ctx, workflow)
    else:
        ctx.obj.echo(workflow.draw(form))


def _show(ctx: click.Context, workflow: Any) -> None:
    from pgcelery.compat.workflow.drawing import tree

    def style(text: str, about: str) -> str:
        if about == "dim":
            return str(ctx.obj.style(text, dim=True))
        return str(ctx.obj.style(text, fg=STATE_COLOURS.get(about)))

    signs = tree.UNICODE if _can_say("".join(tree.UNICODE.marks.values())) else tree.ASCII
    ctx.obj.echo(workflow.draw("tree", style=style, signs=signs))


def _can_say(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


@click.command(cls=CeleryCommand)
@click.argument("id")
@_option("--terminate", is_flag=True, help="Also kill the processes that run its tasks.")
@_option("--signal", default="SIGTERM", show_default=True, help="Sent for --terminate.")
@click.pass_context
@handle_preload_options
def cancel(ctx: click.Context, id: str, terminate: bool, signal: str) -> None:
    """Cancel the workflow ID: what waits ends REVOKED, and nothing begins any more.

    Tasks that run go on to their end, unless --terminate is given.
    """
    from pgcelery.compat.platforms import signals

    try:
        signals.signum(signal)
    except (AttributeError, TypeError, ValueError) as exc:
        raise click.BadParameter(
            f"there is no signal {signal!r}", ctx, param_hint="--signal"
        ) from exc
    workflow = _workflow(ctx, id, 1)
    if workflow.done:
        ctx.obj.echo(f"Workflow {workflow.id} has ended already: {_told(workflow)}.")
        return
    workflow.cancel(terminate=terminate, signal=signal)
    ctx.obj.echo(f"Workflow {workflow.id} is cancelled: {_told(workflow)}.")


@click.command(cls=CeleryCommand)
@click.argument("id")
@_option("--from", "begin", metavar="TASK", multiple=True, help="Id of a task where to begin.")
@_option("--all", "everything", is_flag=True, help="Begin where the workflow began.")
@_limit
@click.pass_context
@handle_preload_options
def replay(
    ctx: click.Context, id: str, begin: tuple[str, ...], everything: bool, limit: int
) -> None:
    """Run the workflow ID again from what failed in it, with all that comes after.

    What has been done before that is not done again: its results are used. All of it must have
    ended.
    """
    from pgcelery.compat.workflow import NotReplayable

    if begin and everything:
        raise click.UsageError("--from and --all exclude each other.", ctx)
    workflow = _workflow(ctx, id, limit)
    try:
        workflow.replay(workflow.starts if everything else begin or None)
    except NotReplayable as exc:
        raise click.ClickException(f"{str(exc)[0].upper()}{str(exc)[1:]}.") from exc
    ctx.obj.echo(f"Workflow {workflow.id} runs again: {_told(workflow)}.")


def _told(workflow: Any) -> str:
    from pgcelery.compat.workflow.drawing.words import told

    return told(workflow.counts)
