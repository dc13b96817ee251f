"""Faults of the server."""

from __future__ import annotations

from contextlib import suppress

import psycopg

from tests.faults.suite.trial import Fault, Ground


def terminate(ground: Ground) -> None:
    """End all connections each second; nothing is run again for that."""
    for _ in range(ground.times(15)):
        with suppress(psycopg.OperationalError):
            ground.server.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where backend_type = 'client backend' and pid <> pg_backend_pid()"
            )
        ground.rest(1.0)


def crash(ground: Ground) -> None:
    """Stop the server at once and start it again."""
    for _ in range(ground.times(3)):
        with ground.strike("the server crashed", everyone=True, reruns=False):
            ground.server.crash()
            ground.rest(1.0)
            ground.server.start()
        ground.rest(3.0)


FAULTS = [
    Fault("31", "all connections ended by the server each second", terminate, quick=True),
    Fault("32", "immediate stop of the server, restarted", crash, direct=True, quick=True),
    Fault("32b", "the same behind a balancer that accepts and resets", crash),
]
