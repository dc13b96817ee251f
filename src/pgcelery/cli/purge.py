"""``pgcelery purge``: delete waiting tasks.

Source: Celery 5.7, ``celery.bin.purge``.
"""

from __future__ import annotations

from typing import Any

import click

from pgcelery.cli.base import (
    COMMA_SEPARATED_LIST,
    CeleryCommand,
    CeleryOption,
    Decorator,
    handle_preload_options,
)

__all__ = ("purge",)


def _option(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group="Purging Options", **kwargs)


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@_option("-f", "--force", is_flag=True, help="Don't prompt for verification.")
@_option(
    "-Q",
    "--queues",
    type=COMMA_SEPARATED_LIST,
    help="Comma separated list of queue names to purge.",
)
@_option(
    "-X",
    "--exclude-queues",
    type=COMMA_SEPARATED_LIST,
    help="Comma separated list of queues names not to purge.",
)
@click.pass_context
@handle_preload_options
def purge(
    ctx: click.Context,
    force: bool,
    queues: list[str] | None,
    exclude_queues: list[str] | None,
    **kwargs: Any,
) -> None:
    """Erase all messages from all known task queues.

    There is no way back. Tasks that run are not touched.
    """
    app = ctx.obj.app
    names = sorted(set(queues or app.amqp.queues) - set(exclude_queues or ()))
    if not names:
        return
    word = "queue" if len(names) == 1 else "queues"
    if not force:
        click.confirm(
            f"{ctx.obj.style('WARNING', fg='red')}:"
            f"This will remove all tasks from {word}: {', '.join(names)}.\n"
            "         There is no undo for this operation!\n\n"
            "(to skip this prompt use the -f option)\n"
            "Are you sure you want to delete all tasks?",
            abort=True,
        )
    count = app.engine.purge(names)
    if count:
        what = "message" if count == 1 else "messages"
        ctx.obj.echo(f"Purged {count} {what} from {len(names)} known task {word}.")
    else:
        ctx.obj.echo(f"No messages purged from {len(names)} {word}.")
