from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.compat.contrib.testing.worker import start_worker


@pytest.fixture
def app(dsn: str) -> Iterator[Any]:
    """An application with a few tasks, on the database."""
    with Celery("canvas", broker=dsn, backend=dsn, set_as_current=False) as app:

        @app.task(shared=False, name="t.add")
        def add(x, y):
            return x + y

        @app.task(shared=False, name="t.tsum")
        def tsum(numbers):
            return sum(numbers)

        @app.task(shared=False, name="t.same")
        def same(x):
            return x

        @app.task(shared=False, name="t.quiet", ignore_result=True)
        def quiet(x):
            return x

        @app.task(shared=False, name="t.fail")
        def fail(*args):
            raise ValueError("boom")

        @app.task(shared=False, name="t.ids", bind=True)
        def ids(self, *args):
            return [self.request.root_id, self.request.parent_id, self.request.id]

        yield app


@pytest.fixture
def worker(app: Any) -> Iterator[Any]:
    """A worker for it, in a thread of this process."""
    with start_worker(app, pool="solo", perform_ping_check=False) as worker:
        yield worker
