"""``pgcelery beat``: send periodic tasks until told to stop.

Source: Celery 5.7, ``celery.bin.beat`` (options, what they mean).
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

__all__ = ("beat",)


def _option(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group="Beat Options", **kwargs)


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True})
@_option("--detach", is_flag=True, default=False, help="Detach and run in the background.")
@_option("-s", "--schedule", help="Only for schedulers that keep a file; the default does not.")
@_option("-S", "--scheduler", help="Scheduler class to use.")
@_option("--max-interval", type=float, help="Max seconds to sleep between schedule iterations.")
@_option(
    "--enable-remote-control/--no-enable-remote-control",
    "remote_control",
    default=None,
    help="Answer `inspect ping`, so that beat can be health-checked.  "
    "Default: the beat_enable_remote_control setting.",
)
@_option("-n", "--hostname", help="Node name to answer by.  Default: celerybeat@%h.")
@_option("-l", "--loglevel", default="WARNING", type=LOG_LEVEL, help="Logging level.")
@click.pass_context
@handle_preload_options
def beat(
    ctx: click.Context,
    detach: bool,
    logfile: str | None,
    pidfile: str | None,
    uid: str | None,
    gid: str | None,
    umask: str | None,
    executable: str | None,
    **options: Any,
) -> None:
    """Start the beat periodic task scheduler.

    Any number may run at once: each task is sent once.
    """
    from pgcelery.compat.platforms import detached, maybe_drop_privileges

    app = ctx.obj.app
    if ctx.args:
        try:
            app.config_from_cmdline(ctx.args)
        except (KeyError, ValueError) as exc:
            raise click.UsageError(
                f"Unable to parse extra configuration from command line.\nReason: {exc}", ctx=ctx
            ) from exc

    def run() -> None:
        app.Beat(
            logfile=logfile,
            pidfile=pidfile,
            quiet=ctx.obj.quiet,
            no_color=ctx.obj.no_color or None,
            **options,
        ).run()

    if not detach:
        maybe_drop_privileges(uid=uid, gid=gid)
        return run()
    with detached(logfile, pidfile, uid, gid, umask or 0, ctx.obj.workdir):
        return run()
