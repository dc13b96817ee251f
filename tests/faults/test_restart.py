"""The database goes away: by a crash, and for a while.

Promise P1 of docs/guarantees.md.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from pgcelery.engine import Client, EngineConfig
from pgcelery.engine.embedded import account, binaries, ephemeral_server, server
from tests.faults.world import World, states
from tests.support.process import Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]


class Database:
    """A server of the test's own that can be crashed and started again."""

    def __init__(self) -> None:
        self._ephemeral = ephemeral_server(fsync=True)
        self.dsn = self._ephemeral.dsn
        self._data_dir = self._ephemeral.data_dir
        running = server.running(self._data_dir)
        assert running is not None
        self._socket_dir = running.socket_dir
        self._account = account.server_account(self._data_dir)

    def crash(self) -> None:
        server.stop(self._account, self._data_dir, how=signal.SIGQUIT, timeout_s=20)

    def start(self) -> None:
        found = binaries.find_binaries(self._account)
        log = self._data_dir / "again.log"
        server.start(found, self._account, self._data_dir, self._socket_dir, log)

    def close(self) -> None:
        self._ephemeral.stop()


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.close()


def test_a_crash_of_the_server_under_load_loses_nothing(
    database: Database, tmp_path: Path, spawn: Callable[..., Process]
):
    with Client(EngineConfig(dsn=database.dsn)) as client:
        client.migrate()
    world = World(database.dsn, tmp_path / "runs.log", True, spawn)
    try:
        worker = world.worker("only@%h")
        results = [world.tasks.work.delay(number, 0.002) for number in range(400)]
        wait_for(lambda: len(world.runs()) > 50, 30)
        database.crash()
        with pytest.raises(OperationalError):
            world.tasks.work.delay(9999)
        wait_for(lambda: "trying again" in worker.output())
        database.start()
        wait_for(
            lambda: all(result.ready() for result in results), 60, lambda: str(states(results))
        )
        assert states(results) == {"SUCCESS": 400}
        assert worker.popen.poll() is None
        assert world.tasks.work.delay(1000).get(timeout=20) == 2000
    finally:
        world.close()
