"""``pgcelery events``: watch the event stream.

Source: Celery 5.7, ``celery.bin.events`` (options). There is no curses monitor.
"""

from __future__ import annotations

from typing import Any

import click

from pgcelery.cli.base import (
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    Decorator,
    handle_preload_options,
)

__all__ = ("events",)

DUMPER, SNAPSHOT = "Dumper", "Snapshot"


def _option(group: str, *names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group=group, **kwargs)


@click.command(cls=CeleryDaemonCommand)
@_option(DUMPER, "-d", "--dump", is_flag=True, help="Write events as they come.")
@_option(SNAPSHOT, "-c", "--camera", help="Camera class to take snapshots with.")
@_option(SNAPSHOT, "--detach", is_flag=True, help="Run the camera in the background.")
@_option(SNAPSHOT, "-F", "--frequency", "--freq", type=float, default=1.0, help="Seconds.")
@_option(SNAPSHOT, "-r", "--maxrate", help="Most snapshots, as 10/m.")
@_option(SNAPSHOT, "-l", "--loglevel", default="WARNING", type=LOG_LEVEL, help="Logging level.")
@click.pass_context
@handle_preload_options
def events(
    ctx: click.Context,
    dump: bool,
    camera: str | None,
    detach: bool,
    frequency: float,
    maxrate: str | None,
    loglevel: int,
    logfile: str | None,
    pidfile: str | None,
    uid: str | None,
    gid: str | None,
    umask: str | None,
    executable: str | None,
) -> None:
    """Event-stream utilities."""
    from pgcelery.compat.events.dumper import evdump
    from pgcelery.compat.events.snapshot import evcam
    from pgcelery.compat.platforms import detached

    app = ctx.obj.app
    if dump:
        return evdump(app)
    if not camera:
        raise click.UsageError(
            "There is no curses monitor; use --dump, --camera, or a monitor such as Flower.",
            ctx=ctx,
        )

    def run() -> None:
        evcam(
            camera,
            app=app,
            freq=frequency,
            maxrate=maxrate,
            loglevel=loglevel,
            logfile=logfile,
            pidfile=pidfile,
        )

    if not detach:
        return run()
    with detached(logfile, pidfile, uid, gid, umask or 0, ctx.obj.workdir):
        return run()
