"""The per-user server: one for each operating system user, found by every process of theirs.

Nothing but its data directory says that it runs: the server writes its pid and socket there
itself. A running server is therefore found without a lock and without any binaries.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import NamedTuple

from pgcelery.engine.embedded import server as cluster
from pgcelery.engine.embedded.account import Account, server_account
from pgcelery.engine.embedded.binaries import find_binaries
from pgcelery.engine.embedded.places import home, locked, socket_directory
from pgcelery.engine.embedded.server import Server
from pgcelery.engine.errors import EmbeddedServerError

logger = logging.getLogger(__name__)


class _Place(NamedTuple):
    home: Path
    data_dir: Path
    account: Account


def ensure_server() -> Server:
    """Return this user's server, started (and first made) if it does not run.

    Any number of processes may ask at once: one starts it, the others wait. It outlives them all.

    Raises:
        EmbeddedServerError: It cannot be made or started; the message says why.
    """
    place = _place()
    found = cluster.running(place.data_dir)
    if found is not None:
        return found
    with locked(place.home / "lock"):
        return cluster.running(place.data_dir) or _start(place)


def find_server() -> Server | None:
    """Return this user's server if it runs; starts nothing."""
    return cluster.running(_place().data_dir)


def stop_server(*, timeout_s: float = cluster.STOP_TIMEOUT_S) -> bool:
    """Stop this user's server: clients are cut off, what they committed is kept.

    Returns:
        False if it was not running.

    Raises:
        EmbeddedServerError: It did not stop in time.
    """
    place = _place()
    with locked(place.home / "lock"):
        return cluster.stop(place.account, place.data_dir, timeout_s=timeout_s)


def _place() -> _Place:
    base = home(server_account())
    data_dir = base / "data"
    return _Place(base, data_dir, server_account(data_dir))


def _start(place: _Place) -> Server:
    major = _major(place.data_dir)
    try:
        binaries = find_binaries(place.account, major=major)
    except EmbeddedServerError as exc:
        if major is None:
            raise
        raise EmbeddedServerError(
            f"the data in {place.data_dir} was made by PostgreSQL {major}: {exc}; "
            "or move that directory away to begin anew"
        ) from None
    if major is None:
        new = place.home / "data.new"
        shutil.rmtree(new, ignore_errors=True)  # of a start that was killed; we hold the lock
        cluster.initialise(binaries, place.account, place.account.make_directory(new))
        new.rename(place.data_dir)
    started = cluster.start(
        binaries,
        place.account,
        place.data_dir,
        socket_directory(place.home, place.account),
        place.home / "server.log",
    )
    logger.info(
        "started embedded PostgreSQL %s (pid %d), data in %s; 'pgcelery db stop' stops it",
        binaries.version,
        started.pid,
        place.data_dir,
    )
    return started


def _major(data_dir: Path) -> int | None:
    """Return the release that made a data directory; None if there is none yet."""
    version = data_dir / "PG_VERSION"
    if version.exists():
        return int(version.read_text().split(".")[0])
    if data_dir.exists() and any(data_dir.iterdir()):
        raise EmbeddedServerError(f"{data_dir} holds something that is not a PostgreSQL cluster")
    return None
