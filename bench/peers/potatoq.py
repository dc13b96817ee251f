"""potatoq on PostgreSQL, by Celery's calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.driver import main
from bench.peers.app import app, library
from bench.peers.celery import CeleryApi


class PotatoQ(CeleryApi):
    """The same calls; its groups have no results to be read together."""

    def setup(self) -> None:
        app.broker.setup()

    def results(self, ids: Sequence[str]) -> list[Any]:
        return [library.AsyncResult(one).get(timeout=10) for one in ids]


if __name__ == "__main__":
    main(PotatoQ())
