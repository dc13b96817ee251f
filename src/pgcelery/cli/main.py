"""``pgcelery``: the global options, and commands that are imported when they are named.

Source: Celery 5.7, ``celery.bin.celery`` (options, variables, exit codes). Different on purpose:
``-A`` is also taken after the sub-command, and NO_COLOR follows no-color.org.
"""

from __future__ import annotations

import copy
import gc
import importlib
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pgcelery._version import __version__
from pgcelery.cli.base import CeleryOption, CLIContext, Decorator, handle_preload_options

__all__ = ("celery", "main")

#: name: (where it is, what ``--help`` says); kept here so that ``--help`` imports no command
COMMANDS = {
    "beat": ("pgcelery.cli.beat:beat", "Start the beat periodic task scheduler."),
    "call": ("pgcelery.cli.call:call", "Call a task by name."),
    "cancel": ("pgcelery.cli.workflow:cancel", "Cancel a whole workflow."),
    "control": ("pgcelery.cli.control:control", "Tell workers to do something."),
    "db": ("pgcelery.cli.db:db", "Look after the database: schema, embedded server."),
    "demo": ("pgcelery.cli.demo:demo", "Run a small application and watch it."),
    "drain": ("pgcelery.cli.control:drain", "Have workers take no more tasks."),
    "events": ("pgcelery.cli.events:events", "Event-stream utilities."),
    "graph": ("pgcelery.cli.workflow:graph", "Show a workflow and how far it is."),
    "inspect": ("pgcelery.cli.control:inspect", "Ask workers what they do."),
    "limits": ("pgcelery.cli.limits:limits", "Show limits, and change them at run time."),
    "purge": ("pgcelery.cli.purge:purge", "Erase all messages from task queues."),
    "queues": ("pgcelery.cli.queues:queues", "List queues, pause and resume them."),
    "replay": ("pgcelery.cli.workflow:replay", "Run a workflow again from what failed in it."),
    "report": ("pgcelery.cli.report:report", "Shows information useful to include in bug-reports."),
    "result": ("pgcelery.cli.result:result", "Print the return value for a given task id."),
    "runs": ("pgcelery.cli.runs:runs", "List workflows, the newest first."),
    "shell": ("pgcelery.cli.shell:shell", "Start a shell with the app and its tasks."),
    "status": ("pgcelery.cli.control:status", "Show list of workers that are online."),
    "undrain": ("pgcelery.cli.control:undrain", "Have drained workers take tasks again."),
    "why": ("pgcelery.cli.why:why", "Say why a task does not run."),
    "worker": ("pgcelery.cli.worker:worker", "Start worker instance."),
}
PLUGIN_GROUP = "pgcelery.commands"
UNABLE_TO_LOAD = "Unable to load celery application. "
_VALUE_OPTIONS = {
    "-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir",
}  # fmt: skip
_COMMAND = "pgcelery.command"
_WHILE_LOADING = 200_000  # objects that are new, until the collector looks at them


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, and knows plugins by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands of this package and of plugins."""
        return sorted({*COMMANDS, *self.commands, *(point.name for point in _plugins())})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command; None when there is none of this name."""
        found = self.commands.get(name)
        if found is None and name in COMMANDS:
            module, _, attribute = COMMANDS[name][0].partition(":")
            found = getattr(importlib.import_module(module), attribute)
        if found is None:
            for point in _plugins():
                if point.name == name:
                    found = _load_plugin(point)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = []
        for name in self.list_commands(ctx):
            known = self.commands.get(name)
            text = known.get_short_help_str() if known else COMMANDS.get(name, ("", "(plugin)"))[1]
            rows.append((name, text))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``-A`` from wherever it stands."""
        return super().parse_args(ctx, app_option_first(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the closest names."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(name, self.list_commands(ctx), 3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        command = ctx.meta[_COMMAND] = copy.copy(command)
        return name, command, args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """Run; expected errors of the layers below become one sentence and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as exc:
            from pgcelery.cli.errors import as_click_error

            error = as_click_error(exc)
            if error is None:
                raise
            raise error from exc


def app_option_first(args: list[str]) -> list[str]:
    """Move an ``-A`` that stands after the sub-command before it.

    Pure; what follows ``--`` is left alone.
    """
    start = _command_index(args)
    if start is None:
        return args
    moved: list[str] = []
    rest: list[str] = []
    tail = iter(args[start:])
    for arg in tail:
        if arg == "--":
            rest += [arg, *tail]
        elif arg in ("-A", "--app"):
            moved += [arg, *([following] if (following := next(tail, None)) is not None else [])]
        elif arg.startswith("--app=") or (arg.startswith("-A") and len(arg) > 2):
            moved.append(arg)
        else:
            rest.append(arg)
    return [*args[:start], *moved, *rest]


def _command_index(args: list[str]) -> int | None:
    index = 0
    while index < len(args):
        if args[index] in _VALUE_OPTIONS:
            index += 2
        elif args[index].startswith("-"):
            index += 1
        else:
            return index
    return None


def _plugins() -> Any:
    from importlib.metadata import entry_points

    return entry_points(group=PLUGIN_GROUP)


def _load_plugin(point: Any) -> click.Command:
    try:
        command: click.Command = point.load()
    except Exception as exc:
        # A broken plugin must not take the other commands with it.
        message = f"The plugin {point.name} ({point.value}) cannot be loaded: {exc!r}"

        def broken(*args: Any, **kwargs: Any) -> None:
            raise click.ClickException(message)

        return click.Command(
            point.name,
            callback=broken,
            help=message,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
    return command


def _chdir(ctx: click.Context, param: click.Parameter, value: pathlib.Path | None) -> Any:
    if value:
        os.chdir(value)
    return value


def _global(*names: str, **kwargs: Any) -> Decorator:
    return click.option(*names, cls=CeleryOption, help_group="Global Options", **kwargs)


@click.group(cls=LazyGroup, invoke_without_command=True)
@_global("-A", "--app", envvar="APP", type=click.UNPROCESSED, help="Application, as module:name.")
@_global("-b", "--broker", envvar="BROKER_URL", help="URL of the database.")
@_global("--result-backend", envvar="RESULT_BACKEND")
@_global("--loader", envvar="LOADER")
@_global("--config", envvar="CONFIG_MODULE", help="Module with the settings.")
@_global("--workdir", type=pathlib.Path, callback=_chdir, is_eager=True)
@_global("-C", "--no-color", is_flag=True)
@_global("-q", "--quiet", is_flag=True)
@_global("--version", is_flag=True)
@_global("--skip-checks", envvar="SKIP_CHECKS", is_flag=True, help="Skip Django's checks.")
@click.pass_context
def celery(
    ctx: click.Context,
    app: Any,
    broker: str | None,
    result_backend: str | None,
    loader: str | None,
    config: str | None,
    workdir: pathlib.Path | None,
    no_color: bool,
    quiet: bool,
    version: bool,
    skip_checks: bool,
) -> None:
    """Celery's commands on PostgreSQL."""
    if version:
        click.echo(f"{__version__} (pgcelery)")
        ctx.exit()
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit()
    _to_environment(
        CELERY_LOADER=loader,
        CELERY_BROKER_URL=broker,
        CELERY_RESULT_BACKEND=result_backend,
        CELERY_CONFIG_MODULE=config,
        CELERY_SKIP_CHECKS="true" if skip_checks else None,
    )
    no_color = no_color or _colours_off()
    if no_color:
        ctx.color = False
    if isinstance(app, str):
        works = ctx.invoked_subcommand == "worker"
        with _uncollected(works):
            app = load_app(ctx, app)
            if works:  # what it is going to import stays as well
                importlib.import_module("pgcelery.compat.apps.worker")
    elif app is None:
        app = ctx.obj  # of `app.start()`; None from a shell
    ctx.obj = CLIContext(app=app, no_color=no_color, workdir=workdir, quiet=quiet)
    if app is not None:
        _add_user_options(ctx.meta[_COMMAND], app)


def _to_environment(**values: str | None) -> None:
    os.environ.update({name: value for name, value in values.items() if value})


def _colours_off() -> bool:
    if os.environ.get("FORCE_COLOR"):
        return False
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


@contextmanager
def _uncollected(wanted: bool) -> Iterator[None]:
    """Keep the collector from what modules make, if `wanted`: it stays, and there is much of it."""
    if not wanted:
        yield
        return
    usual = gc.get_threshold()
    gc.set_threshold(_WHILE_LOADING, *usual[1:])
    try:
        yield
    finally:
        if gc.get_threshold()[0] == _WHILE_LOADING:  # else the application has chosen
            gc.freeze()
            gc.set_threshold(*usual)


def load_app(ctx: click.Context, name: str) -> Any:
    """Find the app that ``-A`` names.

    Raises:
        click.UsageError: It cannot be found, or its module raised; exit code 2.
    """
    from pgcelery.compat.app.utils import find_app

    try:
        return find_app(name)
    except ModuleNotFoundError as exc:
        if exc.name and (exc.name == name or name.startswith((f"{exc.name}.", f"{exc.name}:"))):
            ctx.fail(f"{UNABLE_TO_LOAD}The module {exc.name} was not found.")
        ctx.fail(_raised_in_module(name, exc))
    except AttributeError as exc:
        if _raised_by_user_code(exc):
            ctx.fail(_raised_in_module(name, exc))
        ctx.fail(f"{UNABLE_TO_LOAD}{str(exc).capitalize()}")
    except Exception as exc:
        # Whatever the application's module raises is told to its author, with the place.
        ctx.fail(_raised_in_module(name, exc))


def _raised_in_module(name: str, exc: Exception) -> str:
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    where = "" if _is_ours(frame.filename) else f" at {frame.filename}:{frame.lineno}"
    return (
        f"{UNABLE_TO_LOAD}While trying to load the module {name} the following error occurred"
        f"{where}: {type(exc).__name__}: {exc}"
    )


def _raised_by_user_code(exc: Exception) -> bool:
    return not _is_ours(traceback.extract_tb(exc.__traceback__)[-1].filename)


def _is_ours(filename: str) -> bool:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return filename.startswith((here, os.path.dirname(importlib.__file__), "<frozen"))


def _add_user_options(command: click.Command, app: Any) -> None:
    preload = list(app.user_options.get("preload") or ())
    own = list(app.user_options.get(command.name or "") or ())
    command.params = [*command.params, *own, *preload]
    if preload and command.callback is not None:
        command.callback = handle_preload_options(command.callback)


def main() -> Any:
    """Entry point of the program; ends the process."""
    sys.path.insert(0, os.getcwd()) if "" not in sys.path else None
    return celery(auto_envvar_prefix="CELERY", prog_name="pgcelery")
