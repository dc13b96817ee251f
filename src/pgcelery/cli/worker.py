"""``pgcelery worker``: run a worker until it is told to stop.

Source: Celery 5.7, ``celery.bin.worker`` (options, what they mean, exit codes). Options without a
meaning on PostgreSQL are taken and noted in one DEBUG line.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from pgcelery.cli.base import (
    COMMA_SEPARATED_LIST,
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    Decorator,
    handle_preload_options,
)

__all__ = ("worker",)

logger = logging.getLogger("celery.bin.worker")

POOLS = ("prefork", "solo", "threads", "processes", "eventlet", "gevent", "custom")
NO_MEANING = ("optimization", "without_gossip", "without_mingle")
#: options that are said again in the arguments of the detached process's parent only
_ONLY_TO_DETACH = {"--detach": 0, "-D": 0, "--uid": 1, "--gid": 1}


def _option(group: str, *names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group=group, **kwargs)


def _hostname(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    from pgcelery.compat.utils.nodenames import default_nodename, host_format

    return host_format(default_nodename(value))


def _concurrency(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    if not value:
        return None
    if value == "auto":
        return value
    if not value.isdigit():
        raise click.BadParameter(f"must be a non-negative integer or 'auto', got {value!r}")
    return int(value) or None


def _labels(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    from pgcelery.engine.placement import parse_label

    try:
        for text in value:
            parse_label(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return value


def _autoscale(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    from pgcelery.compat.exceptions import ImproperlyConfigured
    from pgcelery.compat.worker.autoscale import bounds

    try:
        return bounds(value)
    except ImproperlyConfigured as exc:
        raise click.BadParameter(str(exc)) from exc


def _from_conf(name: str) -> Any:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value or ctx.resilient_parsing:
            return value
        return ctx.obj.app.conf.get(name)

    return callback


WORKER, POOL, QUEUE = "Worker Options", "Pool Options", "Queue Options"
FEATURES, BEAT = "Features", "Embedded Beat Options"


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True})
@_option(
    WORKER,
    "-n",
    "--hostname",
    callback=_hostname,
    help="Set custom hostname (e.g., 'w1@%h').  "
    "Expands: %h (hostname), %n (name) and %d, (domain).",
)
@_option(
    WORKER, "-D", "--detach", is_flag=True, default=False, help="Start worker in the background."
)
@_option(
    WORKER,
    "-S",
    "--statedb",
    type=click.Path(),
    callback=_from_conf("worker_state_db"),
    help="Taken without effect: revoked ids are kept in the database.",
)
@_option(WORKER, "-l", "--loglevel", default="WARNING", type=LOG_LEVEL, help="Logging level.")
@_option(
    WORKER,
    "-O",
    "--optimization",
    default="default",
    type=click.Choice(("default", "fair")),
    help="Taken without effect.",
)
@_option(
    WORKER,
    "--prefetch-multiplier",
    type=int,
    metavar="<prefetch multiplier>",
    help="Tasks a worker may hold for each of its processes.",
)
@_option(
    WORKER,
    "--disable-prefetch",
    is_flag=True,
    default=None,
    help="Take a task only when a process is free.",
)
@_option(
    POOL,
    "-c",
    "--concurrency",
    callback=_concurrency,
    metavar="<concurrency>",
    help="Number of processes or threads; 'auto' follows the cgroup's CPU quota.  "
    "Default: the number of CPUs.",
)
@_option(POOL, "-P", "--pool", type=click.Choice(POOLS), help="Pool implementation.")
@_option(
    POOL,
    "-E",
    "--task-events",
    "--events",
    is_flag=True,
    default=None,
    help="Send task-related events that can be captured by monitors.",
)
@_option(POOL, "--time-limit", type=float, help="Hard time limit of tasks, in seconds.")
@_option(POOL, "--soft-time-limit", type=float, help="Soft time limit of tasks, in seconds.")
@_option(
    POOL,
    "--max-tasks-per-child",
    type=int,
    help="Tasks a pool process may execute before it is replaced.",
)
@_option(
    POOL,
    "--pool-start-method",
    type=click.Choice(["fork", "spawn"]),
    help="How pool processes are made; only fork.",
)
@_option(
    POOL,
    "--max-memory-per-child",
    type=int,
    help="Resident memory, in KiB, above which a pool process is replaced after its task.",
)
@_option(
    WORKER,
    "--label",
    "labels",
    multiple=True,
    metavar="<name=value>",
    callback=_labels,
    help="What tasks may ask of the worker that runs them; may be given again.  "
    "Default: the setting worker_labels.",
)
@_option(QUEUE, "--purge", "--discard", is_flag=True, help="Erase waiting tasks at the start.")
@_option(QUEUE, "--queues", "-Q", type=COMMA_SEPARATED_LIST, help="Queues to consume.")
@_option(QUEUE, "--exclude-queues", "-X", type=COMMA_SEPARATED_LIST, help="Queues to leave out.")
@_option(QUEUE, "--include", "-I", type=COMMA_SEPARATED_LIST, help="More modules to import.")
@_option(FEATURES, "--without-gossip", is_flag=True, help="Taken without effect.")
@_option(FEATURES, "--without-mingle", is_flag=True, help="Taken without effect.")
@_option(FEATURES, "--without-heartbeat", is_flag=True, help="Send no heartbeat events.")
@_option(FEATURES, "--heartbeat-interval", type=int, help="Seconds between two heartbeats.")
@_option(
    FEATURES,
    "--autoscale",
    callback=_autoscale,
    metavar="<max>,<min>",
    help="Grow the pool up to max while tasks wait, shrink it to min when it rests; "
    "replaces --concurrency.",
)
@_option(
    BEAT,
    "-B",
    "--beat",
    is_flag=True,
    help="Also send periodic tasks.  Any number of workers may: each task is sent once.",
)
@_option(BEAT, "-s", "--schedule-filename", "--schedule", help="As `beat --schedule`; with -B.")
@_option(BEAT, "--scheduler", help="As `beat --scheduler`; with -B.")
@click.pass_context
@handle_preload_options
def worker(
    ctx: click.Context,
    hostname: str,
    detach: bool,
    loglevel: int,
    logfile: str | None,
    pidfile: str | None,
    uid: str | None,
    gid: str | None,
    umask: str | None,
    executable: str | None,
    disable_prefetch: bool | None,
    **options: Any,
) -> Any:
    r"""Start worker instance.

    \b
    $ pgcelery --app=proj worker -l INFO
    $ pgcelery -A proj worker -l INFO -Q hipri,lopri
    $ pgcelery -A proj worker --concurrency=4
    """
    from pgcelery.compat.platforms import maybe_drop_privileges
    from pgcelery.compat.utils.nodenames import node_format

    app = ctx.obj.app
    _refuse(ctx, options)
    if disable_prefetch is not None:
        app.conf.worker_disable_prefetch = disable_prefetch
    _read_extra_configuration(ctx, app)
    if detach:
        logfile = logfile and node_format(logfile, hostname)
        rest = {"pidfile": pidfile, "uid": uid, "gid": gid, "umask": umask or 0}
        return ctx.exit(_detach(ctx, executable, logfile, **rest))
    maybe_drop_privileges(uid=uid, gid=gid)
    if umask:
        os.umask(int(umask, 8))
    instance = app.Worker(
        hostname=hostname,
        loglevel=loglevel,
        logfile=logfile,
        pidfile=pidfile and node_format(pidfile, hostname),
        no_color=ctx.obj.no_color or None,
        quiet=ctx.obj.quiet,
        **options,
    )
    for name in NO_MEANING:
        if options.get(name) not in (None, False, "default"):
            logger.debug("--%s has no effect on PostgreSQL.", name.replace("_", "-"))
    instance.start()
    return ctx.exit(instance.exitcode or 0)


def _refuse(ctx: click.Context, options: dict[str, Any]) -> None:
    if options.get("pool_start_method") == "spawn":
        raise click.UsageError("--pool-start-method spawn is not available; use fork.", ctx=ctx)
    if options.get("pool") in ("eventlet", "gevent", "custom"):
        raise click.UsageError(
            f"There is no {options['pool']} pool; use --pool threads, prefork or solo.", ctx=ctx
        )


def _read_extra_configuration(ctx: click.Context, app: Any) -> None:
    if not ctx.args:
        return
    try:
        app.config_from_cmdline(ctx.args, namespace="worker")
    except (KeyError, ValueError) as exc:
        raise click.UsageError(
            f"Unable to parse extra configuration from command line.\nReason: {exc}", ctx=ctx
        ) from exc


def _detach(ctx: click.Context, executable: str | None, logfile: str | None, **rest: Any) -> int:
    """Start this command again as a daemon; only an exec that fails comes back.

    The rest is for `detached`: pid file, user, group and umask.
    """
    from pgcelery.compat.platforms import EX_FAILURE, detached

    path = executable or sys.executable
    arguments = ["-m", "pgcelery", *_without(sys.argv[1:], _ONLY_TO_DETACH)]
    fake = bool(os.environ.get("C_FAKEFORK"))
    with detached(logfile, workdir=ctx.obj.workdir, fake=fake, **rest):
        try:
            os.execv(path, [path, *arguments])
        except OSError:
            ctx.obj.app.log.setup_logging_subsystem("ERROR", logfile)
            logger.critical("Can't exec %r", " ".join([path, *arguments]), exc_info=True)
    return EX_FAILURE


def _without(arguments: list[str], options: dict[str, int]) -> list[str]:
    """Leave out options, each with the number of values that follow it."""
    kept: list[str] = []
    skip = 0
    for argument in arguments:
        if skip:
            skip -= 1
            continue
        name, _, value = argument.partition("=")
        if name in options:
            skip = 0 if value else options[name]
        else:
            kept.append(argument)
    return kept
