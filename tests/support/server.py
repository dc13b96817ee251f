"""The PostgreSQL that the tests run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pgcelery.engine.embedded import ephemeral_server
from pgcelery.engine.errors import EmbeddedServerError


@contextmanager
def running_server() -> Iterator[str]:
    """Yield the DSN of a server where databases may be created.

    PGCELERY_TEST_DSN names one; else an ephemeral one is started. With neither the tests are
    skipped at home and fail in CI.
    """
    given = os.environ.get("PGCELERY_TEST_DSN")
    if given:
        yield given
        return
    try:
        server = ephemeral_server()
    except EmbeddedServerError as exc:
        reason = f"no PostgreSQL for the tests (PGCELERY_TEST_DSN is not set): {exc}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with server:
        yield server.dsn
