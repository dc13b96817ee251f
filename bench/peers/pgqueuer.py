"""PgQueuer: batches of 200, a pool of asyncpg connections, uvloop. It stores no return values."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.driver import Adapter, main
from bench.marks import mark

DSN = os.environ["BENCH_BROKER"]


class Producer(Adapter):
    """One connection."""

    blocking = False

    async def open(self) -> None:
        self.connection = await asyncpg.connect(DSN)
        self.queries = Queries(AsyncpgDriver(self.connection))

    async def close(self) -> None:
        await self.connection.close()

    async def setup(self) -> None:
        await self.queries.install()

    async def enqueue(self, i: int) -> None:
        await self.queries.enqueue("noop", b"%d" % i)

    async def bulk(self, numbers: Sequence[int]) -> list[str]:
        n = len(numbers)
        await self.queries.enqueue(["noop"] * n, [b"%d" % i for i in numbers], [0] * n)
        return []

    async def later(self, numbers: Sequence[int], delay_s: int) -> None:
        n, delay = len(numbers), timedelta(seconds=delay_s)
        payloads = [b"%d" % i for i in numbers]
        await self.queries.enqueue(["noop"] * n, payloads, [0] * n, [delay] * n)


async def work() -> None:
    """Run the worker until it is told to stop."""
    async with asyncpg.create_pool(DSN, min_size=2, max_size=5) as pool:
        queuer = PgQueuer(AsyncpgPoolDriver(pool))

        @queuer.entrypoint("noop")
        async def noop(job: Job) -> None:
            mark(int(job.payload or b""))

        await queuer.run(batch_size=200)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(work())
    else:
        main(Producer())
