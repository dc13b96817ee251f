"""Running the command line from an app.

Source: Celery 5.7, ``Celery.start`` and ``Celery.worker_main``.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ("start", "worker_main")


def start(app: Any, argv: list[str] | None = None) -> Any:
    """Run the command line for an app, and give its exit status.

    Args:
        app: Used where the command line names none.
        argv: Without the program's name; by default the process's own.
    """
    # The command line is the layer above this one, so it is not imported but looked up.
    command = importlib.import_module("pgcelery.cli.main").celery
    args = sys.argv[1:] if argv is None else argv
    return command.main(args=list(args), prog_name="pgcelery", obj=app, standalone_mode=False)


def worker_main(app: Any, argv: list[str] | None = None) -> Any:
    """Run a worker for an app.

    Raises:
        ValueError: `argv` is not that of a worker.
    """
    args = sys.argv[1:] if argv is None else argv
    if "worker" not in args:
        raise ValueError(
            "The worker sub-command must be specified in argv.\n"
            "Use app.start() to programmatically start other commands."
        )
    return start(app, args)
