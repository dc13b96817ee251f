"""A private server that is thrown away: for tests, demos and ``memory://``."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import secrets
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pgcelery.engine.embedded import server as cluster
from pgcelery.engine.embedded.account import Account, server_account
from pgcelery.engine.embedded.binaries import Binaries, find_binaries
from pgcelery.engine.embedded.places import locked, open_lock, short_hash, temp
from pgcelery.engine.embedded.server import Server
from pgcelery.engine.errors import EmbeddedServerError

logger = logging.getLogger(__name__)

_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class EphemeralServer:
    """A running private server; a context manager that stops and deletes it.

    Forked children may use it as long as they live, but only the process that started it
    stops it: by `stop`, at the end of ``with``, or when it exits. If that process is killed, the
    next ephemeral server that this user starts removes what is left.
    """

    def __init__(self, account: Account, directory: Path, owner_fd: int, server: Server) -> None:
        self._account = account
        self._directory = directory
        self._owner_fd = owner_fd
        self._owner_pid = os.getpid()
        self._stopped = False
        self.dsn = server.dsn
        self.data_dir = server.data_dir
        self.pid = server.pid
        self.version = server.version
        atexit.register(self.stop)

    def stop(self) -> None:
        """Stop and delete it; does nothing the second time, or in a forked child."""
        if self._stopped or os.getpid() != self._owner_pid:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        _destroy(self._account, self._directory)
        os.close(self._owner_fd)

    def __enter__(self) -> EphemeralServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def ephemeral_server(*, fsync: bool = False) -> EphemeralServer:
    """Start a private server with a database of its own, in the temporary directory.

    Args:
        fsync: Survive a crash of the machine too; only durability tests and benchmarks want it.

    Raises:
        EmbeddedServerError: It cannot be started; the message says why.
    """
    account = server_account()
    base = temp(account)
    binaries = find_binaries(account)
    with locked(base / "lock"):
        _sweep(base, account)
        directory = base / f"e-{secrets.token_hex(4)}"
        # Locked as long as this process or a child forked from it lives; the kernel knows, so
        # neither a kill nor a reused pid can mislead.
        owner_fd = open_lock(base / f"{directory.name}.owner")
        fcntl.flock(owner_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        account.make_directory(directory)
        template = _template(base, account, binaries)
    try:
        data_dir = directory / "data"
        copied = account.run(["cp", "-R", template, data_dir])
        if copied.returncode != 0:
            raise EmbeddedServerError(f"cannot copy {template}: {copied.stdout.strip()}")
        settings = {} if fsync else _FAST
        log = base / f"{directory.name}.log"
        server = cluster.start(binaries, account, data_dir, directory, log, settings=settings)
    except BaseException:
        _destroy(account, directory)
        os.close(owner_fd)
        raise
    return EphemeralServer(account, directory, owner_fd, server)


def _template(base: Path, account: Account, binaries: Binaries) -> Path:
    """Return an initialised cluster to copy, far quicker than initdb. The caller holds the lock."""
    path = base / f"template-{binaries.version}-{short_hash(binaries.directory)}"
    if not path.exists():
        new = base / "template.new"
        shutil.rmtree(new, ignore_errors=True)
        account.make_directory(new)
        cluster.initialise(binaries, account, new, options=["--no-sync"])
        new.rename(path)
    return path


def _sweep(base: Path, account: Account) -> None:
    """Remove the servers whose owners are gone. The caller holds the lock."""
    for owner in base.glob("e-*.owner"):
        fd = open_lock(owner)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            logger.info("removing the leftover server %s", owner.stem)
            with suppress(EmbeddedServerError):  # it hangs; the next start tries again
                _destroy(account, base / owner.stem)
        finally:
            os.close(fd)


def _destroy(account: Account, directory: Path) -> None:
    data_dir = directory / "data"
    cluster.stop(account, data_dir, how=signal.SIGQUIT, timeout_s=cluster.STOP_TIMEOUT_S)
    shutil.rmtree(directory, ignore_errors=True)
    for name in (f"{directory.name}.log", f"{directory.name}.owner"):
        (directory.parent / name).unlink(missing_ok=True)
