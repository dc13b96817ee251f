"""Whom the server runs as, and how its programs are run.

PostgreSQL refuses to run as root. For root the server therefore belongs to an unprivileged user
that exists already, ``postgres`` or else ``nobody``; for anybody else it belongs to that user.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgcelery.engine.errors import EmbeddedServerError


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system user who owns the server's files and processes."""

    name: str
    uid: int
    gid: int
    foreign: bool  #: another user than this process's

    def run(
        self, args: Sequence[str | Path], *, timeout_s: float = 60.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user to its end and collect what it says.

        Raises:
            EmbeddedServerError: It could not be begun, or took longer than allowed.
        """
        switch: dict[str, Any] = {}
        if self.foreign:
            switch = {"user": self.uid, "group": self.gid, "extra_groups": []}
        try:
            return subprocess.run(
                [str(arg) for arg in args],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout_s,
                cwd="/",  # this process's own may be closed to the other user
                env=_environment(),
                umask=0o077,
                **switch,
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise EmbeddedServerError(f"cannot run {args[0]} as user {self.name}: {exc}") from exc

    def may(self, test: str, path: Path) -> bool:
        """Whether this user may read (``-r``), write (``-w``) or enter (``-x``) a path."""
        if self.foreign:
            return self.run(["test", test, path]).returncode == 0
        return os.access(path, {"-r": os.R_OK, "-w": os.W_OK, "-x": os.X_OK}[test])

    def signal(self, pid: int, signum: signal.Signals) -> None:
        """Send a signal with this user's rights, not root's: their file named the pid."""
        if self.foreign:
            self.run(["sh", "-c", 'kill -"$1" "$2"', "sh", str(int(signum)), str(pid)])
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signum)

    def make_directory(self, path: Path) -> Path:
        """Create a directory that only this user (and root) may enter; it may not exist yet."""
        path.mkdir(mode=0o700)
        if self.foreign:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        return path


def server_account(data_dir: Path | None = None) -> Account:
    """Return who runs the server; for root, whoever owns the existing data directory.

    Raises:
        EmbeddedServerError: Root, and the machine has neither ``postgres`` nor ``nobody``.
    """
    uid = os.geteuid()
    if uid:
        return Account(_name(uid), uid, os.getegid(), foreign=False)
    if data_dir is not None and data_dir.is_dir() and data_dir.stat().st_uid:
        stat = data_dir.stat()
        return Account(_name(stat.st_uid), stat.st_uid, stat.st_gid, foreign=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid:
            return Account(name, entry.pw_uid, entry.pw_gid, foreign=True)
    raise EmbeddedServerError(
        "PostgreSQL does not run as root and this machine has neither a user 'postgres' nor "
        "'nobody': run as another user, or set PGCELERY_DATABASE_URL to a PostgreSQL of yours"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _environment() -> dict[str, str]:
    """Ours without PGDATA, PGPORT, ...; LC_ALL because macOS needs some, and errors are parsed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return kept | {"LC_ALL": "C"}
