"""pgcelery: Celery's calls, and what Celery has no name for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from bench.driver import Answer, main
from bench.peers.app import app
from bench.peers.celery import CeleryApi
from pgcelery.engine import Client, EngineConfig, Gate, NewJob


class PgCelery(CeleryApi):
    """The same calls."""

    def setup(self) -> None:
        Client(EngineConfig(dsn=app.conf.broker_url)).migrate()

    def results(self, ids: Sequence[str]) -> list[Any]:
        found = app.backend.get_task_metas(ids)
        return [found[one]["result"] for one in ids]

    def do_keyed(self, start: int, n: int, keys: int, first: int = 0, slots: int = 1) -> Answer:
        """`bulk`, with a limit: each job passes one of `keys` lines, from number `first` on."""
        send = Client.enqueue
        gates = itertools.cycle((Gate("bench", str(first + k), slots=slots),) for k in range(keys))

        def gated(client: Client, jobs: list[NewJob], **options: Any) -> dict[str, str]:
            return send(client, [job._replace(gates=next(gates)) for job in jobs], **options)

        Client.enqueue = gated  # type: ignore[method-assign]
        begin = time.perf_counter()
        for i in range(start, start + n, 1000):
            self.bulk(range(i, min(i + 1000, start + n)))
        return {"seconds": time.perf_counter() - begin, "sent": time.time_ns()}


if __name__ == "__main__":
    main(PgCelery())
