"""Procrastinate: 30 coroutines, uvloop. It stores no return values."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import procrastinate
import uvloop

from bench.driver import Adapter, main
from bench.marks import mark

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ["BENCH_BROKER"], min_size=4, max_size=10
    )
)


@app.task(name="noop")
async def noop(i: int) -> int:
    """Say that it ran."""
    return mark(i)


class Producer(Adapter):
    """An application with an open connector."""

    blocking = False

    async def open(self) -> None:
        await app.open_async()

    async def close(self) -> None:
        await app.close_async()

    async def setup(self) -> None:
        await app.schema_manager.apply_schema_async()

    async def enqueue(self, i: int) -> None:
        await noop.defer_async(i=i)

    async def bulk(self, numbers: Sequence[int]) -> list[str]:
        await noop.batch_defer_async(*[{"i": i} for i in numbers])
        return []

    async def later(self, numbers: Sequence[int], delay_s: int) -> None:
        timed = noop.configure(schedule_in={"seconds": delay_s})
        await timed.batch_defer_async(*[{"i": i} for i in numbers])


async def work() -> None:
    """Run the worker until it is told to stop."""
    async with app.open_async():
        await app.run_worker_async(concurrency=30)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(work())
    else:
        main(Producer())
