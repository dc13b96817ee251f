"""Tasks whose SQL commits with their completion, of all kinds."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg

from pgcelery import Celery, Concurrency
from pgcelery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from tests.support.commits import insert

DSN = os.environ["TRANSACTIONAL_DSN"]
app = Celery("transactional", broker=DSN, backend=DSN)
task = partial(
    app.task, shared=False
)  # this is loaded anew for each pool; other apps need none of it
#: what `put_and` does besides
ACTS: dict[str, Callable[[Any, int], Any]] = {}


def act(name: str) -> Callable[[Any], Any]:
    return lambda function: ACTS.setdefault(name, function)


@task(bind=True, transactional=True)
def put(self: Any, number: int) -> int:
    insert(self.connection, number)
    return number


@task(bind=True, transactional=True, ignore_result=True)
def put_quietly(self: Any, number: int) -> None:
    insert(self.connection, number)


@task(bind=True, transactional=True, concurrency=Concurrency("{number}", limit=1))
def put_in_turn(self: Any, number: int) -> int:
    insert(self.connection, number)
    return number


@task(bind=True, transactional=True)
def put_and(self: Any, number: int, what: str) -> Any:
    insert(self.connection, number)
    return ACTS[what](self, number)


@act("raise")
def _(task: Any, number: int) -> None:
    raise ValueError(number)


@act("exit")
def _(task: Any, number: int) -> None:
    raise SystemExit(1)


@act("ignore")
def _(task: Any, number: int) -> None:
    raise Ignore


@act("reject")
def _(task: Any, number: int) -> None:
    raise Reject("no", requeue=False)


@act("replace")
def _(task: Any, number: int) -> Any:
    return task.replace(put.s(number + 1))


@act("commit")
def _(task: Any, number: int) -> None:
    task.connection.commit()


@act("commit by statement")
def _(task: Any, number: int) -> None:
    task.connection.execute("commit")


@act("defer")
def _(task: Any, number: int) -> None:
    task.connection.execute("alter table effects add unique (number) deferrable initially deferred")
    insert(task.connection, number)


@act("spoil")
def _(task: Any, number: int) -> None:
    with suppress(psycopg.Error):
        task.connection.execute("select * from nowhere")


@act("send")
def _(task: Any, number: int) -> None:
    put.apply_async((number + 1,), conn=task.connection)


@act("send and raise")
def _(task: Any, number: int) -> None:
    put.apply_async((number + 1,), conn=task.connection)
    raise ValueError(number)


@act("call")
def _(task: Any, number: int) -> None:
    plain(number + 1)


@act("apply")
def _(task: Any, number: int) -> None:
    put.apply((number + 1,))
    put_and.apply((number + 2, "raise"))


@act("encode")
def _(task: Any, number: int) -> Any:
    return object()


@task(transactional=True)
def plain(number: int) -> None:
    insert(plain.connection, number)


@task(
    bind=True, transactional=True, autoretry_for=(ValueError,), retry_backoff=False, max_retries=3
)
def put_at_third(self: Any, number: int) -> int:
    insert(self.connection, number + self.request.retries)
    if self.request.retries < 2:
        raise ValueError(self.request.retries)
    return self.request.retries


put_at_third.default_retry_delay = 0


@task(bind=True, transactional=True, soft_time_limit=0.3)
def put_too_slowly(self: Any, number: int) -> None:
    insert(self.connection, number)
    try:
        threading.Event().wait(30)
    except SoftTimeLimitExceeded:
        raise ValueError("too slow") from None


@task()
def total(numbers: list[int]) -> int:
    return sum(numbers)


@task(bind=True)
def without(self: Any) -> str:
    try:
        return str(self.connection)
    except AttributeError as exc:
        return str(exc)
