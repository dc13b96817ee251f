"""``pgcelery shell``: a Python prompt with the app and its tasks.

Source: Celery 5.7, ``celery.bin.shell``.
"""

from __future__ import annotations

import code
import importlib
import importlib.util
import os
import sys
from typing import Any

import click

from pgcelery.cli.base import CeleryCommand, CeleryOption, Decorator, handle_preload_options

__all__ = ("shell",)

NAMES = ("Task", "chord", "group", "chain", "chunks", "xmap", "xstarmap", "subtask", "signature")


def _flag(*names: str, text: str) -> Decorator:
    return click.option(
        *names, is_flag=True, cls=CeleryOption, help_group="Shell Options", help=text
    )


@click.command(cls=CeleryCommand, context_settings={"allow_extra_args": True})
@_flag("-I", "--ipython", text="Force IPython.")
@_flag("-B", "--bpython", text="Force bpython.")
@_flag("--python", text="Force default Python shell.")
@_flag("-T", "--without-tasks", text="Don't add tasks to locals.")
@_flag("--eventlet", text="Use eventlet.")
@_flag("--gevent", text="Use gevent.")
@click.pass_context
@handle_preload_options
def shell(
    ctx: click.Context,
    ipython: bool = False,
    bpython: bool = False,
    python: bool = False,
    without_tasks: bool = False,
    eventlet: bool = False,
    gevent: bool = False,
    **kwargs: Any,
) -> None:
    """Start a shell with the app as ``app``, Celery's names, and every task by its own name."""
    if eventlet or gevent:
        raise click.UsageError("pgcelery does not run on eventlet or gevent.", ctx=ctx)
    sys.path.insert(0, os.getcwd())
    app = ctx.obj.app
    app.loader.import_default_modules()
    compat = importlib.import_module("pgcelery.compat")
    names: dict[str, Any] = {name: getattr(compat, name) for name in NAMES}
    names.update(app=app, celery=app)
    if not without_tasks:
        names.update(
            {
                task.__name__: task
                for task in app.tasks.values()
                if not task.name.startswith("celery.")
            }
        )
    wanted = [
        name
        for name, asked in (("IPython", ipython), ("bpython", bpython), ("python", python))
        if asked
    ] or [name for name in ("IPython", "bpython") if importlib.util.find_spec(name)]
    _start(ctx, wanted[0] if wanted else "python", names)


def _start(ctx: click.Context, kind: str, names: dict[str, Any]) -> None:
    if kind == "python":
        _complete(names)
        code.interact(local=names)
        return
    try:
        module = importlib.import_module(kind)
    except ImportError:
        raise click.ClickException(f"{kind} is not installed: pip install {kind.lower()}") from None
    if kind == "IPython":
        module.start_ipython(argv=[], user_ns=names)
    else:
        module.embed(names)


def _complete(names: dict[str, Any]) -> None:
    try:
        import readline
        import rlcompleter
    except ImportError:
        return
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab:complete")
