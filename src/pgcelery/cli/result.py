"""``pgcelery result``: print what a task returned.

Source: Celery 5.7, ``celery.bin.result``. Different on purpose: what the task raised is told in
one line, with exit code 1.
"""

from __future__ import annotations

import click

from pgcelery.cli.base import CeleryCommand, CeleryOption, handle_preload_options

__all__ = ("result",)


@click.command(cls=CeleryCommand)
@click.argument("task_id")
@click.option(
    "-t",
    "--task",
    cls=CeleryOption,
    help_group="Result Options",
    help="Name of task (if custom backend).",
)
@click.option(
    "--traceback",
    is_flag=True,
    cls=CeleryOption,
    help_group="Result Options",
    help="Show traceback instead.",
)
@click.pass_context
@handle_preload_options
def result(ctx: click.Context, task_id: str, task: str | None, traceback: bool) -> None:
    """Print the return value for a given task id, waiting for its end."""
    app = ctx.obj.app
    if task and task not in app.tasks:
        raise click.UsageError(f"The task {task} is not registered in this app.", ctx=ctx)
    found = (app.tasks[task] if task else app).AsyncResult(task_id)
    if traceback:
        ctx.obj.echo(found.traceback)
        return
    value = found.get(propagate=False)
    if found.failed() or isinstance(value, BaseException):
        raise click.ClickException(f"{found.state} {type(value).__name__}: {value}")
    ctx.obj.echo(value)
