from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from unittest import mock

import pytest

from pgcelery.compat import _state
from pgcelery.compat.app import builtins  # noqa: F401  its tasks are every app's, whoever is first
from pgcelery.engine import Client, EngineConfig
from tests.support.database import delete_rows, empty_tables, new_database
from tests.support.logs import restored_logging
from tests.support.process import Process
from tests.support.server import running_server


@pytest.fixture(scope="module", autouse=True)
def _process_as_before_the_module() -> Iterator[None]:
    with restored_logging(), mock.patch.dict(os.environ):
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left_over() -> Iterator[None]:
    """Loggers, environment, current app, tasks for apps to come: not for the next test."""
    before = _state._tls.current_app, _state.default_app, dict(_state._on_app_finalizers)
    with restored_logging(), mock.patch.dict(os.environ):
        yield
    _state._tls.current_app, _state.default_app, kept = before
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(kept)


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A PostgreSQL where databases may be created."""
    with running_server() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def _migrated(server_dsn: str) -> Iterator[tuple[str, list[str]]]:
    with new_database(server_dsn) as dsn:
        with closing(Client(EngineConfig(dsn=dsn))) as client:
            client.migrate()
        yield dsn, empty_tables(dsn)


@pytest.fixture
def dsn(_migrated: tuple[str, list[str]]) -> str:
    """A migrated database without rows; shared by all tests, one after the other."""
    delete_rows(*_migrated)
    return _migrated[0]


@pytest.fixture
def fresh_dsn(server_dsn: str) -> Iterator[str]:
    """An empty database of this test's own, not migrated."""
    with new_database(server_dsn) as dsn:
        yield dsn


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """An engine client on the migrated database."""
    with closing(Client(EngineConfig(dsn=dsn))) as client:
        yield client


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start programs that do not outlive the test: ``spawn(args, env=None, cwd=None)``."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def start(args: list[str], env: dict[str, str] | None = None, cwd: Path | None = None):
            process = Process(args, tmp_path / f"process{next(numbers)}.log", env=env, cwd=cwd)
            stack.callback(process.close)
            return process

        yield start


#: What CI runs after the default run, which is to take less than eight minutes.
LONGER = (
    "tests/security/",
    "tests/worker/bad_input/",
    "tests/faults/test_cut_off.py",
    "tests/faults/test_fence.py",
    "tests/faults/test_outages.py",
    "tests/faults/test_transactional.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(LONGER):
            item.add_marker("longer")
