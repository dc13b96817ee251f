from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worker.bad_input.world import World, running_world


@pytest.fixture(scope="module")
def world(server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One worker of two processes, for the whole module."""
    with running_world(server_dsn, tmp_path_factory.mktemp("worker")) as world:
        yield world
