"""``pgcelery inspect``, ``control`` and ``status``: talk to running workers.

Source: Celery 5.7, ``celery.bin.control``. Exit code 69 when no node replies, as there.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
from kombu.utils import json

from pgcelery.cli.base import (
    COMMA_SEPARATED_LIST,
    CeleryCommand,
    CeleryOption,
    Decorator,
    handle_preload_options,
    indent,
)

__all__ = ("control", "drain", "inspect", "status", "undrain")

#: commands that need no worker to be alive
KEPT = ("revoke", "terminate", "revoke_by_stamped_headers")


def _remote_options(fun: Callable[..., Any]) -> Callable[..., Any]:
    group = "Remote Control Options"
    for decorate in (
        click.option(
            "-j",
            "--json",
            "as_json",
            is_flag=True,
            cls=CeleryOption,
            help_group=group,
            help="Use json as output format.",
        ),
        click.option(
            "-d",
            "--destination",
            type=COMMA_SEPARATED_LIST,
            cls=CeleryOption,
            help_group=group,
            help="Comma separated list of destination node names.",
        ),
        click.option(
            "-t",
            "--timeout",
            type=float,
            default=1.0,
            cls=CeleryOption,
            help_group=group,
            help="Timeout in seconds waiting for reply.",
        ),
    ):
        fun = decorate(fun)
    return fun


def _list_option(kind: str) -> Decorator:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if not value or ctx.resilient_parsing:
            return
        formatter = click.HelpFormatter()
        with formatter.section(f"{kind.capitalize()} Commands"):
            formatter.write_dl(
                [
                    (f"{name} {info.signature}" if info.signature else name, info.help)
                    for name, info in _commands(kind).items()
                ]
            )
        click.echo(formatter.getvalue(), nl=False)
        ctx.exit()

    return click.option(
        "--list",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help=f"List available {kind} commands and exit.",
    )


def _commands(kind: str) -> dict[str, Any]:
    from pgcelery.compat.worker.control import Panel

    return {
        name: info
        for name, info in sorted(Panel.meta.items())
        if info.type == kind and info.visible
    }


def _arguments(kind: str, command: str, args: list[str]) -> dict[str, Any]:
    """Turn the words after a command into its keyword arguments.

    Raises:
        click.UsageError: No such command, too many words, or a word of the wrong type.
    """
    known = _commands(kind)
    if command not in known:
        raise click.UsageError(
            f"Command {command} not recognized.{_hint(kind, command, known)} "
            f"Available {kind} commands: {', '.join(known)}"
        )
    meta = known[command]
    arguments = dict(_typed(meta, command, args))
    rest = args[len(meta.args or ()) :]
    if meta.variadic:
        arguments[meta.variadic] = rest
    elif rest:
        raise click.UsageError(f"Command {command!r} takes arguments: {meta.signature}")
    return arguments


def _hint(kind: str, command: str, known: dict[str, Any]) -> str:
    other = "control" if kind == "inspect" else "inspect"
    if command in _commands(other):
        return f" It is one of `pgcelery {other}`."
    close = difflib.get_close_matches(command, known, 3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _typed(meta: Any, command: str, args: list[str]) -> Iterator[tuple[str, Any]]:
    for (name, kind), word in zip(meta.args or (), args, strict=False):
        try:
            yield name, word if kind is None else kind(word)
        except (TypeError, ValueError) as exc:
            raise click.UsageError(f"{command}: {name} cannot be {word!r}: {exc}") from exc


def _say(
    ctx: click.Context, reply: dict[str, Any], show_body: bool = False, note: str = ""
) -> None:
    node, answer = next(iter(reply.items()))
    word, body = ctx.obj.pretty(answer)
    word += note
    title = ctx.obj.style(f"{node}: ", fg="cyan", bold=True)
    ctx.obj.say_chat("->", f"{title}{word}", indent(body, 4) if show_body else "", show_body)


def _nobody(
    ctx: click.Context, command: str, destination: list[str] | None
) -> click.ClickException:
    from pgcelery.compat.exceptions import CeleryCommandException
    from pgcelery.compat.platforms import EX_UNAVAILABLE

    nodes = ctx.obj.app.engine.workers()
    alive = sorted({node.name for node in nodes if node.info.get("role") != "beat"})
    missing = [name for name in destination or () if name not in alive]
    if not alive:
        why = "no worker is alive"
        if command in KEPT and not destination:
            why += "; the revoke holds for workers that start later"
    elif missing:
        why = f"{', '.join(missing)} is not alive; alive: {', '.join(alive)}"
    else:
        why = f"alive, but silent: {', '.join(alive)}"
    return CeleryCommandException(
        message=f"No nodes replied within time constraint ({why})", exit_code=EX_UNAVAILABLE
    )


def _finish(
    ctx: click.Context,
    command: str,
    replies: Any,
    destination: list[str] | None,
    *,
    as_json: bool,
    count: bool = True,
) -> None:
    if not replies:
        raise _nobody(ctx, command, destination)
    if as_json:
        dumps: Any = json.dumps  # kombu does not say its types
        ctx.obj.echo(dumps(replies))
    elif count and not ctx.obj.quiet:
        ctx.obj.echo(f"\n{len(replies)} {'node' if len(replies) == 1 else 'nodes'} online.")


@click.command(cls=CeleryCommand)
@_remote_options
@click.pass_context
@handle_preload_options
def status(
    ctx: click.Context,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
    **kwargs: Any,
) -> None:
    """Show list of workers that are online."""
    drained = {node.name for node in ctx.obj.app.engine.workers() if node.info.get("draining")}

    def say(reply: dict[str, Any]) -> None:
        _say(ctx, reply, note=" (draining)" if drained & reply.keys() else "")

    replies = ctx.obj.app.control.inspect(
        timeout=timeout, destination=destination, callback=None if as_json else say
    ).ping()
    _finish(ctx, "ping", replies, destination, as_json=as_json)


def _drain_command(name: str, text: str) -> click.Command:
    @click.command(name, cls=CeleryCommand, help=text)
    @click.argument("workers", nargs=-1, metavar="WORKER...")
    @click.option("--all", "everybody", is_flag=True, help="All that are alive.")
    @click.option("-t", "--timeout", type=float, default=1.0, help="Seconds to wait for replies.")
    @click.pass_context
    @handle_preload_options
    def command(
        ctx: click.Context,
        workers: tuple[str, ...],
        everybody: bool,
        timeout: float,
        **kwargs: Any,
    ) -> None:
        if bool(workers) == everybody:
            raise click.UsageError("Name the workers, or say --all.", ctx=ctx)
        destination = list(workers) or None
        replies = ctx.obj.app.control.broadcast(
            name,
            destination=destination,
            timeout=timeout,
            callback=partial(_say, ctx, show_body=True),
            reply=True,
        )
        missing = set(workers) - {node for reply in replies for node in reply}
        if missing or not replies:
            raise _nobody(ctx, name, sorted(missing) or destination)

    return command


drain = _drain_command(
    "drain",
    "Have workers take no more tasks, but live on and finish what runs.  It ends with the worker,"
    " or with undrain.",
)
undrain = _drain_command("undrain", "Have drained workers take tasks again.")


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option("inspect")
@_remote_options
@click.pass_context
@handle_preload_options
def inspect(
    ctx: click.Context,
    command: str,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
    **kwargs: Any,
) -> None:
    """Ask workers with the COMMAND inspect command (--list shows them)."""
    arguments = _arguments("inspect", command, ctx.args)
    replies = ctx.obj.app.control.inspect(
        timeout=timeout,
        destination=destination,
        callback=None if as_json else partial(_say, ctx, show_body=True),
    )._request(command, **arguments)
    _finish(ctx, command, replies, destination, as_json=as_json)


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@click.argument("command")
@_list_option("control")
@_remote_options
@click.pass_context
@handle_preload_options
def control(
    ctx: click.Context,
    command: str,
    timeout: float,
    destination: list[str] | None,
    as_json: bool,
    **kwargs: Any,
) -> None:
    """Tell workers to do something with the COMMAND control command (--list shows them)."""
    arguments = _arguments("control", command, ctx.args)
    replies = ctx.obj.app.control.broadcast(
        command,
        arguments=arguments,
        timeout=timeout,
        destination=destination,
        callback=None if as_json else partial(_say, ctx, show_body=True),
        reply=True,
    )
    _finish(ctx, command, replies, destination, as_json=as_json, count=False)
