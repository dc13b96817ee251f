"""``pgcelery report``: versions and settings, for bug reports.

Source: Celery 5.7, ``celery.bin.celery.report``.
"""

from __future__ import annotations

from typing import Any

import click

from pgcelery.cli.base import CeleryCommand, handle_preload_options

__all__ = ("report",)


@click.command(cls=CeleryCommand)
@click.pass_context
@handle_preload_options
def report(ctx: click.Context, **kwargs: Any) -> None:
    """Shows information useful to include in bug-reports."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    ctx.obj.echo(app.bugreport())
