"""``pgcelery demo``: a small shop on embedded PostgreSQL, with a real worker, in the terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pgcelery.demo.story import Order

_RUSH = 2000
_GIVE_UP_S = 60.0
_NOTES = {"RETRY": "retry", "STARTED": "...", "PENDING": ""}
_COLORS = {"FAILURE": "red", "RETRY": "yellow", "STARTED": "cyan"}


class _WrongError(Exception):
    """The demo did not come out as it must."""


@click.command()
@click.option("--orders", default=12, show_default=True, type=click.IntRange(1, 500))
@click.option("--concurrency", "-c", default=4, show_default=True, type=click.IntRange(1, 64))
@click.option("--database", metavar="URL", help="PostgreSQL to use instead of the embedded one.")
@click.pass_context
def demo(ctx: click.Context, orders: int, concurrency: int, database: str | None) -> None:
    """Run a small application and watch it.

    Starts the embedded PostgreSQL and a worker, sends orders that are workflows (a chain with a
    chord in it, with retries and a limited dock), then a burst of small tasks, and checks every
    result.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _run(orders, concurrency, database)
    except _WrongError as error:
        click.secho(f"\n{error}", fg="red", err=True)
        ctx.exit(1)
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
        ctx.exit(130)


def _run(count: int, concurrency: int, database: str | None) -> None:
    begin = time.monotonic()
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL", "RESULT_BACKEND"):
        os.environ.pop(f"CELERY_{name}", None)
    os.environ["PGCELERY_DATABASE_URL"] = database or _embedded()

    from pgcelery.demo import app, story

    app.app.engine.migrate()
    click.echo(f"Starting a worker with {concurrency} processes ...")
    with _worker(concurrency) as check:
        app.stamp.delay(0).get(timeout=_GIVE_UP_S, on_interval=check)
        shop = story.orders(count)
        sent = time.monotonic()
        for order in shop:
            order.send()
        _watch(shop, check)
        took = time.monotonic() - sent
        _all_right(order.wrong() for order in shop)
        total = story.daily_report(shop).get(timeout=_GIVE_UP_S)
        _all_right([story.wrong_report(shop, total), story.wrong_dock(shop)])
        click.echo(f"\nA burst of {_RUSH:,} small tasks ...")
        enqueued, drained = _rush(app)
    _summary(shop, total, took, (enqueued, drained), time.monotonic() - begin)
    _what_next(database is None)


def _all_right(sentences: Iterable[str | None]) -> None:
    if wrong := [sentence for sentence in sentences if sentence]:
        raise _WrongError("\n".join(wrong))


def _embedded() -> str:
    from pgcelery.engine.embedded import ensure_server

    begin = time.monotonic()
    dsn = ensure_server().dsn
    click.echo(f"Embedded PostgreSQL is up ({time.monotonic() - begin:.1f} s).")
    return str(dsn)


@contextlib.contextmanager
def _worker(concurrency: int) -> Iterator[Callable[..., None]]:
    """Run a worker as anybody would; yields a check that raises once it is dead."""
    from pgcelery.demo.app import QUEUES

    command = [sys.executable, "-m", "pgcelery", "-A", "pgcelery.demo.app", "worker"]
    command += ["-Q", ",".join(QUEUES), "-c", str(concurrency), "-l", "WARNING", "-n", "demo@%h"]
    with tempfile.TemporaryFile("w+") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

        def check(*_: Any) -> None:
            if worker.poll() is not None:
                raise _WrongError(f"the worker ended with {worker.returncode}:\n{_tail(log)}")

        try:
            yield check
        except Exception as error:
            if isinstance(error, _WrongError):
                raise
            raise _WrongError(f"{type(error).__name__}: {error}\n{_tail(log)}") from error
        finally:
            _stop(worker)


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-3000:]


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    try:
        worker.wait(10)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _watch(shop: list[Order], check: Callable[[], None]) -> None:
    """Show the orders until all are over: redrawn on a terminal, else a line for every change."""
    live = sys.stdout.isatty() and shutil.get_terminal_size().lines > len(shop) + 2
    end = time.monotonic() + _GIVE_UP_S
    pause = threading.Event()
    if live:
        click.echo("\n" * len(shop), nl=False)
    while True:
        changed = [order for order in shop if order.look()]
        if live and changed:
            click.echo(f"\x1b[{len(shop)}A", nl=False)
            for order in shop:
                click.echo(f"\x1b[2K{_line(order)}")
        elif not live:
            for order in changed:
                click.echo(_line(order))
        if all(order.over for order in shop):
            return
        check()
        if time.monotonic() > end:
            raise _WrongError("the orders take too long")
        pause.wait(0.1)


def _line(order: Order) -> str:
    from pgcelery.demo.story import STEPS

    cells = [click.style(step, fg="green") for step in STEPS[: order.done]]
    if order.state != "SUCCESS":
        state = order.state
        if order.error is not None:
            note = type(order.error).__name__
        elif STEPS[order.done] == "pick":
            note = f"{order.picked}/{len(order.skus)}"
        else:
            note = _NOTES[state]
        cells.append(click.style(f"{STEPS[order.done]} {note}".rstrip(), fg=_COLORS.get(state)))
    return f"order {order.number:>3}  {' '.join(order.skus):<15}  {' '.join(cells)}"


def _rush(app: Any) -> tuple[float, float]:
    """Tasks a second, enqueued in one group and until every result is here."""
    from pgcelery import group

    begin = time.monotonic()
    result = group(app.stamp.s(i) for i in range(_RUSH)).apply_async()
    enqueued = time.monotonic()
    values = result.get(timeout=_GIVE_UP_S)
    end = time.monotonic()
    if values != list(range(_RUSH)):
        raise _WrongError("the burst lost a task")
    return _RUSH / (enqueued - begin), _RUSH / (end - begin)


def _summary(
    shop: list[Order],
    total: dict[str, int],
    took: float,
    burst: tuple[float, float],
    seconds: float,
) -> None:
    from pgcelery.demo.app import DOORS
    from pgcelery.demo.story import most_at_the_dock

    retries = sum(order.retries for order in shop)
    hopeless = sum(order.hopeless for order in shop)
    tasks = sum(order.tasks for order in shop)
    click.secho("\nEvery result is right.", fg="green", bold=True)
    click.echo(
        f"  orders    {len(shop)} in {took:.1f} s: {total['orders']} shipped for {total['amount']},"
        f" {hopeless} out of stock\n"
        f"  workflow  {tasks} tasks in chains and chords, {retries} retries waited for and made\n"
        f"  limit     {DOORS} parcels at the dock at once, over all processes; most seen:"
        f" {most_at_the_dock(shop)}\n"
        f"  burst     {_RUSH:,} tasks: enqueued at {burst[0]:,.0f}/s,"
        f" all results back at {burst[1]:,.0f}/s\n"
        f"  in all    {seconds:.1f} s"
    )


def _what_next(embedded: bool) -> None:
    click.echo(
        "\nThe application is pgcelery/demo/app.py. Yours: change `from celery import ...` to\n"
        "`from pgcelery import ...`, then run `pgcelery -A yourproject worker`."
    )
    if embedded:
        click.echo(
            "The embedded PostgreSQL keeps running and keeps its data:\n"
            "  pgcelery db status    pgcelery db psql    pgcelery db stop"
        )
