"""The application that gets bad input, and the tasks that give bad output."""

from __future__ import annotations

import os
from typing import Any

from pgcelery import Celery
from pgcelery.exceptions import Ignore
from tests.worker.bad_input.endings import RAISED, RETURNED, endless

app = Celery("inputs", broker=os.environ["INPUTS_DSN"])


@app.task(shared=False)
def echo(*args: Any, **kwargs: Any) -> Any:
    if kwargs:
        return kwargs
    return args[0] if len(args) == 1 else list(args)


@app.task(shared=False)
def two(x: Any, y: Any) -> Any:
    return [x, y]


@app.task(shared=False, bind=True)
def about(self: Any) -> dict[str, Any]:
    """What a run knows of its own message."""
    names = ("id", "retries", "headers", "delivery_info", "expires", "eta")
    return {name: getattr(self.request, name, None) for name in names}


@app.task(shared=False)
def fail(kind: str) -> None:
    raise RAISED[kind]()


@app.task(shared=False)
def overflow() -> None:
    endless()


@app.task(shared=False)
def give(kind: str) -> Any:
    return RETURNED[kind]()


@app.task(shared=False, bind=True, max_retries=1)
def again(self: Any, countdown: Any) -> str:
    if self.request.retries:
        return "again"
    if countdown == "huge":
        countdown = 10**12
    raise self.retry(countdown=float(countdown) if countdown in ("nan", "inf") else countdown)


@app.task(shared=False)
def ignored() -> None:
    raise Ignore
