"""``pgcelery call``: send one task by name.

Source: Celery 5.7, ``celery.bin.call``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from pgcelery.cli.base import (
    ISO8601,
    ISO8601_OR_FLOAT,
    JSON_ARRAY,
    JSON_OBJECT,
    CeleryCommand,
    CeleryOption,
    Decorator,
    handle_preload_options,
)

__all__ = ("call",)


def _option(*names: str, group: str = "Calling Options", **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group=group, **kwargs)


@click.command(cls=CeleryCommand)
@click.argument("name")
@_option("-a", "--args", type=JSON_ARRAY, default="[]", help="Positional arguments.")
@_option("-k", "--kwargs", type=JSON_OBJECT, default="{}", help="Keyword arguments.")
@_option("--eta", type=ISO8601, help="scheduled time.")
@_option("--countdown", type=float, help="eta in seconds from now.")
@_option("--expires", type=ISO8601_OR_FLOAT, help="expiry time.")
@_option("--serializer", default="json", help="task serializer.")
@_option("--queue", group="Routing Options", help="custom queue name.")
@_option("--exchange", group="Routing Options", help="custom exchange name.")
@_option("--routing-key", group="Routing Options", help="custom routing key.")
@click.pass_context
@handle_preload_options
def call(
    ctx: click.Context,
    name: str,
    args: list[Any],
    kwargs: dict[str, Any],
    eta: datetime | None,
    countdown: float | None,
    expires: datetime | float | None,
    serializer: str,
    queue: str | None,
    exchange: str | None,
    routing_key: str | None,
) -> None:
    """Call a task by name; its id is printed."""
    result = ctx.obj.app.send_task(
        name,
        args=args,
        kwargs=kwargs,
        countdown=countdown,
        serializer=serializer,
        queue=queue,
        exchange=exchange,
        routing_key=routing_key,
        eta=eta,
        expires=expires,
    )
    ctx.obj.echo(result.id)
