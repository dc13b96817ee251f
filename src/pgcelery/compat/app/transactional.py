"""What ``transactional=True`` means to a task: the connection of its run. Ours; Celery has no such.

How a worker commits it is told in `committing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import psycopg

from pgcelery.compat.app import sending
from pgcelery.compat.exceptions import Reject
from pgcelery.engine import Transaction

__all__ = ("connection", "entered", "run_eagerly", "settle", "shielded")


class _Current(NamedTuple):
    transaction: Transaction
    repeatable: bool  #: the job can be given back


_current: ContextVar[_Current | None] = ContextVar("pgcelery_transaction", default=None)


def settle(cls: Any) -> None:
    """Give a class of transactional tasks what that implies: a run cut short is repeated."""
    if cls.transactional:
        cls.acks_late = cls.reject_on_worker_lost = True


def connection(task: Any) -> psycopg.Connection[Any]:
    """Give the connection of the run that this thread is in.

    Raises:
        AttributeError: There is none, and why.
    """
    current = _current.get()
    if current is not None:
        return current.transaction.connection
    if not task.transactional:
        raise AttributeError(f"task {task.name} has no connection: it is not transactional=True")
    raise AttributeError(
        f"task {task.name} has a connection only while it runs: in a worker, or by apply()"
    )


@contextmanager
def entered(transaction: Transaction, *, repeatable: bool) -> Iterator[None]:
    """While active in this thread, `connection` gives that of the transaction.

    Args:
        transaction: The transaction.
        repeatable: Whether the run can be given back, to be repeated, if its connection is lost.
    """
    token = _current.set(_Current(transaction, repeatable))
    try:
        yield
    finally:
        _current.reset(token)


def shielded(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Let a body that fails because its connection was lost be repeated, not fail."""

    def body(*args: Any, **kwargs: Any) -> Any:
        try:
            return fun(*args, **kwargs)
        except Exception as exc:
            current = _current.get()
            if current is not None and current.repeatable and current.transaction.broken:
                raise Reject(f"its connection was lost: {exc}", requeue=True) from exc
            raise

    return body


def run_eagerly(task: Any, trace: Callable[[], Any]) -> Any:
    """Run a call here and now; in a transaction of its own that commits if it succeeds.

    Inside of another one it is part of that: in a savepoint.

    Args:
        task: The task.
        trace: Runs it; gives what a tracer returns.

    Raises:
        kombu.exceptions.OperationalError: The database cannot be reached.
        psycopg.Error: It cannot be committed.
    """
    if not task.transactional:
        return trace()
    outer = _current.get()
    if outer is not None:
        with outer.transaction.connection.transaction() as savepoint:
            ret = trace()
            if ret.info is not None:
                raise psycopg.Rollback(savepoint)
        return ret
    with sending.reached(task.app.transactions.begin) as transaction:
        with entered(transaction, repeatable=False):
            ret = trace()
        if ret.info is None:
            transaction.commit()
    return ret
