from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.celery_compat.worlds import World, redis_server


@pytest.fixture(scope="module")
def real_celery() -> Iterator[World]:
    """Celery 5.7 on a Redis that this module starts."""
    if shutil.which("redis-server") is None:
        reason = "redis-server is not installed, so there is no real Celery to compare with"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    pytest.importorskip("celery")
    with redis_server() as url:
        yield World(
            "celery",
            {"CELERY_BROKER_URL": f"{url}/0", "CELERY_RESULT_BACKEND": f"{url}/1"},
        )
