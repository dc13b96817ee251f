"""Celery, and by the same calls the libraries that have its API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bench.driver import Adapter, Answer, main, peak_rss, timed
from bench.peers.app import add, app, library, noop, total


class CeleryApi(Adapter):
    """What Celery's documentation says to call."""

    def enqueue(self, i: int) -> None:
        noop.delay(i)

    def bulk(self, numbers: Sequence[int]) -> list[str]:
        sent = library.group(noop.s(i) for i in numbers).apply_async()
        return [one.id for one in sent.results]

    def later(self, numbers: Sequence[int], delay_s: int) -> None:
        library.group(noop.s(i).set(countdown=delay_s) for i in numbers).apply_async()

    def result(self, i: int) -> int:
        return int(noop.delay(i).get(timeout=30))

    def results(self, ids: Sequence[str]) -> list[Any]:
        found = dict(app.backend.get_many(ids, interval=0.01))
        return [found[one]["result"] for one in ids]

    def do_chain(self, size: int, warm: int, n: int) -> Answer:
        """Chains of `size` tasks, each step given what the one before returned."""

        def run() -> int:
            steps = library.chain(noop.s(size), *(noop.s() for _ in range(size - 1)))
            return int(steps.apply_async().get(timeout=60))

        return timed(run, size, warm, n)

    def do_group(self, size: int, warm: int, n: int) -> Answer:
        """Groups of `size` tasks."""

        def run() -> list[int]:
            members = library.group(*[noop.s(i) for i in range(size)])
            return list(members.apply_async().get(timeout=60))

        return timed(run, list(range(size)), warm, n)

    def do_chord(self, size: int, warm: int, n: int) -> Answer:
        """Chords of `size` tasks and a body that adds up what they return."""

        def run() -> int:
            whole = library.chord([noop.s(i) for i in range(size)], total.s())
            return int(whole.apply_async().get(timeout=60))

        return timed(run, sum(range(size)), warm, n)

    def do_big_chord(self, size: int, timeout_s: int) -> Answer:
        """One chord whose header comes from a generator."""
        before, begin = peak_rss(), time.perf_counter()
        result = library.chord(add.s(i, i) for i in range(size))(total.s())
        sent = time.perf_counter() - begin
        value = result.get(timeout=timeout_s)
        took = time.perf_counter() - begin
        if value != size * (size - 1):
            raise RuntimeError(f"the body returned {value!r}, not {size * (size - 1)}")
        return {"sent": sent, "took": took, "rss_before": before, "rss": peak_rss()}


if __name__ == "__main__":
    main(CeleryApi())
