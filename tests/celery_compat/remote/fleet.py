"""An application with tasks to look at and remote control commands of its own."""

from __future__ import annotations

import pathlib
import threading

from celery import Celery
from celery.worker.control import control_command, inspect_command

app = Celery("fleet")
app.conf.task_send_sent_event = True
app.conf.worker_log_format = "%(levelname)s|%(name)s|%(message)s"


@app.task(name="add", rate_limit="1000/s")
def add(x, y):
    return x + y


@app.task(name="hold", bind=True)
def hold(self, path, *, note=None):
    pathlib.Path(f"{path}.begun").touch()
    while not pathlib.Path(f"{path}.go").exists():
        threading.Event().wait(0.01)
    return note


@control_command(args=[("n", int), ("times", int)], signature="<n> [times]")
def multiply(state, n, times=2):
    """Multiply a number."""
    return {"ok": n * times, "app": state.app.main, "node": state.hostname}


@control_command(variadic="words", alias="say_all", help="Join words.")
def say(state, words, **kwargs):
    return {"ok": "-".join(words)}


@inspect_command(name="pool_size", visible=False)
def size_of_pool(state):
    return {"known": state.consumer.pool is not None, "sets": len(state.tset([1, 2]))}


@control_command()
def fail(state, how="error"):
    raise KeyError(how)
