from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgcelery.cli.main import celery
from pgcelery.compat.contrib.testing.worker import start_worker


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """What tasks that hold wait for; set at the end in any case."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def run(app: Any) -> Callable[..., Result]:
    """Call the command line on the file's app: ``run("why", id)``."""

    def run(*args: str, **options: Any) -> Result:
        return CliRunner().invoke(celery, args, obj=app, **options)

    return run


@pytest.fixture
def worker(app: Any, go_on: threading.Event) -> Iterator[None]:
    """A worker of the file's app in a thread, by the name of w@here."""
    options = {"pool": "threads", "concurrency": 8, "perform_ping_check": False}
    with start_worker(app, hostname="w@here", **options):
        yield
        go_on.set()
