"""What every command is made of: the context object, options with groups, parameter types.

Source: Celery 5.7, ``celery.bin.base`` (names, conversions, layout of ``--help``).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import numbers
import os
from collections.abc import Callable
from pprint import pformat
from typing import TYPE_CHECKING, Any

import click

__all__ = (
    "COMMA_SEPARATED_LIST",
    "ISO8601",
    "ISO8601_OR_FLOAT",
    "JSON_ARRAY",
    "JSON_OBJECT",
    "LOG_LEVEL",
    "CLIContext",
    "CeleryCommand",
    "CeleryDaemonCommand",
    "CeleryOption",
    "DaemonOption",
    "handle_preload_options",
)

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

#: what an option's decorator is
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


class CLIContext:
    """What the global options said; ``ctx.obj`` of every command.

    Attributes:
        app: The app of ``-A``, else the current one; made on first use.
    """

    def __init__(
        self, app: Any = None, no_color: bool = False, workdir: Any = None, quiet: bool = False
    ) -> None:
        self._app = app
        self.no_color = no_color
        self.quiet = quiet
        self.workdir = workdir

    @property
    def app(self) -> Any:
        """The app this command works on."""
        if self._app is None:
            importlib.import_module("pgcelery.compat.app.base")  # it makes the default app
            from pgcelery.compat._state import get_current_app

            self._app = get_current_app()
        return self._app

    @property
    def OK(self) -> str:  # noqa: N802 - Celery's name
        """``OK`` in green."""
        return self.style("OK", fg="green", bold=True)

    @property
    def ERROR(self) -> str:  # noqa: N802 - Celery's name
        """``ERROR`` in red."""
        return self.style("ERROR", fg="red", bold=True)

    def style(self, message: Any = None, **kwargs: Any) -> str:
        """Colour a text unless colours are off."""
        return str(message) if self.no_color else click.style(message, **kwargs)

    def echo(self, message: Any = None, **kwargs: Any) -> None:
        """Print a line."""
        if self.no_color:
            kwargs["color"] = False
        click.echo(message, **kwargs)

    def secho(self, message: Any = None, **kwargs: Any) -> None:
        """Print a styled line."""
        if self.no_color:
            click.echo(
                message, color=False, nl=kwargs.get("nl", True), err=kwargs.get("err", False)
            )
        else:
            click.secho(message, **kwargs)

    def error(self, message: Any = None, **kwargs: Any) -> None:
        """Print a styled line on stderr."""
        self.secho(message, **{**kwargs, "err": True})

    def pretty(self, value: Any) -> tuple[str, str]:
        """A worker's answer as a status word and a text."""
        if isinstance(value, list):
            return self.OK, self.pretty_list(value)
        if isinstance(value, dict):
            if "ok" in value or "error" in value:
                return self.pretty_dict_ok_error(value)
            return self.OK, json.dumps(value, sort_keys=True, indent=4, default=str)
        return self.OK, value if isinstance(value, str) else pformat(value)

    def pretty_list(self, items: list[Any]) -> str:
        """One bullet an item."""
        if not items:
            return "- empty -"
        return "\n".join(f"{self.style('*', fg='white')} {item}" for item in items)

    def pretty_dict_ok_error(self, value: dict[str, Any]) -> tuple[str, str]:
        """The text of an ``{'ok': ...}`` or ``{'error': ...}`` answer."""
        word, key = (self.OK, "ok") if "ok" in value else (self.ERROR, "error")
        return word, indent(self.pretty(value[key])[1], 4)

    def say_chat(self, direction: str, title: str, body: str = "", show_body: bool = False) -> None:
        """Print what was said to or by a node; what is said to it only without ``-q``."""
        if direction == "<-" and self.quiet:
            return
        arrow = "" if self.quiet else f"{self.style(direction, fg='white', bold=True)} "
        self.echo(f"{arrow} {title}")
        if body and show_body:
            self.echo(body)


def indent(text: str, spaces: int) -> str:
    """Indent every line."""
    return "\n".join(" " * spaces + line for line in text.split("\n"))


class CeleryOption(click.Option):
    """An option with a heading in ``--help``, also read from ``PGCELERY_...``.

    Args:
        help_group: Heading it stands under.
        default_value_from_context: Key of ``ctx.obj`` that holds the default.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.help_group: str | None = kwargs.pop("help_group", None)
        self.default_value_from_context: str | None = kwargs.pop("default_value_from_context", None)
        super().__init__(*args, **kwargs)

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        """Default, or what the context holds for it."""
        if self.default_value_from_context:
            self.default = ctx.obj[self.default_value_from_context]
        return super().get_default(ctx, call=call)

    def resolve_envvar_value(self, ctx: click.Context) -> Any:
        """Value of ``PGCELERY_<COMMAND>_<OPTION>``, else of Celery's variables."""
        if self.name and ctx.auto_envvar_prefix:
            own = os.environ.get(f"PG{ctx.auto_envvar_prefix}_{self.name.upper()}")
            if own:
                return own
        return super().resolve_envvar_value(ctx)


class CeleryCommand(click.Command):
    """A command whose options are listed under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, grouped."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                heading = getattr(param, "help_group", None) or "Options"
                groups.setdefault(str(heading), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class DaemonOption(CeleryOption):
    """An option of a long-running program, whose default is a setting of the app."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("help_group", "Daemonization Options")
        kwargs.setdefault("callback", self.daemon_setting)
        super().__init__(args, **kwargs)

    def daemon_setting(self, ctx: click.Context, option: click.Parameter, value: Any) -> Any:
        """Value given, else the setting ``<command>_<option>``."""
        if value or ctx.resilient_parsing:
            return value
        return getattr(ctx.obj.app.conf, f"{ctx.command.name}_{self.name}", None)


class CeleryDaemonCommand(CeleryCommand):
    """A command of a long-running program: log file, pid file, user, umask."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(
            (
                DaemonOption("--logfile", "-f", help="Log destination; defaults to stderr"),
                DaemonOption("--pidfile", help="PID file path; defaults to no PID file"),
                DaemonOption("--uid", help="Drops privileges to this user ID"),
                DaemonOption("--gid", help="Drops privileges to this group ID"),
                DaemonOption("--umask", help="Create files and directories with this umask"),
                DaemonOption("--executable", help="Override path to the Python executable"),
            )
        )


class CommaSeparatedList(_ParamType):
    """``a,b`` as a list."""

    name = "comma separated list"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[str]:
        """Split."""
        return value.split(",") if isinstance(value, str) else list(value)


class _Json(_ParamType):
    """A JSON text of one kind; a value that already is of that kind passes."""

    def __init__(self, kind: type, word: str) -> None:
        self.kind = kind
        self.word = word
        self.name = f"json {word}"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read."""
        if isinstance(value, self.kind):
            return value
        try:
            read = json.loads(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if not isinstance(read, self.kind):
            self.fail(f"{value} was not an {self.word}", param, ctx)
        return read


class ISO8601DateTime(_ParamType):
    """An ISO 8601 time."""

    name = "iso-86091"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read."""
        from pgcelery.compat.utils.time import maybe_iso8601

        try:
            return maybe_iso8601(value)
        except (TypeError, ValueError) as exc:
            self.fail(str(exc), param, ctx)


class ISO8601DateTimeOrFloat(ISO8601DateTime):
    """An ISO 8601 time, or seconds."""

    name = "iso-86091 or float"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read."""
        try:
            return float(value)
        except (TypeError, ValueError):
            return super().convert(value, param, ctx)


class LogLevel(click.Choice[str]):
    """Name of a log level, in any case, or its number."""

    def __init__(self) -> None:
        super().__init__(LOG_LEVELS)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Number of the level."""
        if isinstance(value, numbers.Integral):
            return value
        import logging

        return logging.getLevelName(super().convert(str(value).upper(), param, ctx))


JSON_ARRAY = _Json(list, "array")
JSON_OBJECT = _Json(dict, "object")
ISO8601 = ISO8601DateTime()
ISO8601_OR_FLOAT = ISO8601DateTimeOrFloat()
LOG_LEVEL = LogLevel()
COMMA_SEPARATED_LIST = CommaSeparatedList()


def handle_preload_options(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Send the app's own preload options to ``user_preload_options`` before the command.

    Those that the command does not take are not passed on to it.
    """
    if getattr(fun, "_handles_preload_options", False):
        return fun

    @functools.wraps(fun)
    def command(*args: Any, **kwargs: Any) -> Any:
        ctx = click.get_current_context()
        taken = _take_preload_options(ctx.obj.app, kwargs, fun)
        if taken:
            from pgcelery.compat.signals import user_preload_options

            user_preload_options.send(sender=fun, app=ctx.obj.app, options=taken)
        return fun(*args, **kwargs)

    command._handles_preload_options = True  # type: ignore[attr-defined]
    return command


def _take_preload_options(
    app: Any, kwargs: dict[str, Any], fun: Callable[..., Any]
) -> dict[str, Any]:
    options = app.user_options.get("preload") or ()
    taken = {option.name: kwargs[option.name] for option in options if option.name in kwargs}
    parameters = inspect.signature(fun).parameters.values()
    if taken and all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
        accepted = {p.name for p in parameters}
        for name in taken.keys() - accepted:
            del kwargs[name]
    return taken
