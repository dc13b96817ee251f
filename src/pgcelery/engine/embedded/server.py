"""One PostgreSQL cluster: make it, start it, see whether it runs, stop it."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pgcelery.engine.embedded.account import Account
from pgcelery.engine.embedded.binaries import Binaries
from pgcelery.engine.embedded.places import SOCKET_NAME
from pgcelery.engine.errors import EmbeddedServerError

logger = logging.getLogger(__name__)

SUPERUSER = "pgcelery"
#: Written once into the cluster's postgresql.conf, where its owner may change them.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_checkpoints": "off",
}
START_TIMEOUT_S = 60.0  #: crash recovery included
STOP_TIMEOUT_S = 30.0
LOG_MAX_BYTES = 10 * 1024 * 1024  #: a longer log is put aside at the next start


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server. Only its own user (and root) can reach the socket that the DSN names."""

    dsn: str
    data_dir: Path
    socket_dir: Path
    pid: int
    version: str  #: major release, as "18"


class _Postmaster(NamedTuple):
    """What a server writes about itself into postmaster.pid."""

    pid: int
    socket_dir: Path
    status: str  # starting, ready, stopping, standby


def initialise(
    binaries: Binaries, account: Account, data_dir: Path, *, options: Sequence[str] = ()
) -> None:
    """Make a cluster in an empty directory that the account owns.

    Raises:
        EmbeddedServerError: With what initdb said.
    """
    made = account.run(
        [
            binaries.program("initdb"),
            *("-D", data_dir, "-U", SUPERUSER, "-E", "UTF8", "--locale=C", "--no-instructions"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            *options,
        ],
        timeout_s=120,
    )
    if made.returncode != 0:
        raise EmbeddedServerError(f"initdb failed in {data_dir}: {made.stdout.strip()[-2000:]}")
    settings = "".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
    # Written by the account: root does not write where another user could put a link.
    conf = data_dir / "postgresql.conf"
    account.run(["sh", "-c", 'cat >> "$1"', "sh", conf], stdin=f"\n# pgcelery\n{settings}")


def start(
    binaries: Binaries,
    account: Account,
    data_dir: Path,
    socket_dir: Path,
    log: Path,
    *,
    settings: Mapping[str, str] | None = None,
) -> Server:
    """Start a cluster as a daemon and wait until it accepts connections.

    The caller holds the lock that keeps others from starting it too.

    Raises:
        EmbeddedServerError: With the last lines of its log.
    """
    _disown_stale_locks(account, data_dir, socket_dir)
    _open_log(log, account)
    options = ["-p", "5432", "-k", f'"{socket_dir}"']
    for name, value in (settings or {}).items():
        options += ["-c", f"{name}={value}"]
    said = account.run(
        [
            binaries.program("pg_ctl"),
            *("start", "-w", "-s", "-t", str(int(START_TIMEOUT_S))),
            *("-D", data_dir, "-l", log, "-o", shlex.join(options)),
        ],
        timeout_s=START_TIMEOUT_S + 30,
    )
    server = running(data_dir)
    if server is None:
        raise EmbeddedServerError(
            f"PostgreSQL {binaries.version} did not start in {data_dir}: "
            f"{said.stdout.strip()}\n{_tail(log)}".rstrip()
        )
    return server


def running(data_dir: Path) -> Server | None:
    """Return the server of a data directory if it accepts connections now; needs no binaries."""
    postmaster = _postmaster(data_dir)
    if postmaster is None or postmaster.status != "ready":
        return None
    if not _listening(postmaster.socket_dir / SOCKET_NAME):
        return None
    host = quote(str(postmaster.socket_dir))
    return Server(
        dsn=f"postgresql://{SUPERUSER}@/postgres?host={host}&port=5432",
        data_dir=data_dir,
        socket_dir=postmaster.socket_dir,
        pid=postmaster.pid,
        version=(data_dir / "PG_VERSION").read_text().strip(),
    )


def stop(
    account: Account, data_dir: Path, *, how: signal.Signals = signal.SIGINT, timeout_s: float
) -> bool:
    """Stop the server of a data directory and wait for its end.

    Args:
        account: Who runs it.
        data_dir: Its cluster.
        how: SIGINT ends the clients and writes a checkpoint; SIGQUIT ends it at once.
        timeout_s: Longest wait.

    Returns:
        False if none was running.

    Raises:
        EmbeddedServerError: It is still there after the wait.
    """
    postmaster = _postmaster(data_dir)
    if postmaster is None or not _is_postmaster(postmaster.pid, data_dir):
        return False
    account.signal(postmaster.pid, how)
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while _is_postmaster(postmaster.pid, data_dir):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"PostgreSQL in {data_dir} (pid {postmaster.pid}) did not stop in {timeout_s:g} s"
            )
        pause.wait(0.01)
    return True


def _postmaster(data_dir: Path) -> _Postmaster | None:
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not lines or not lines[0].strip().isdigit():
        return None
    lines += [""] * (8 - len(lines))  # a starting server writes them one after the other
    return _Postmaster(int(lines[0]), Path(lines[4]), lines[7].strip())


def _listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(path))
        except TimeoutError:
            return True  # a full backlog has a server behind it
        except OSError:
            return False
    return True


def _is_postmaster(pid: int, data_dir: Path) -> bool:
    """Whether that pid is the server of this directory, not a process that got its number later."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # not ours: as postgres itself sees it
        return False
    cwd = Path(f"/proc/{pid}/cwd")
    if Path("/proc/self").exists():
        try:
            return os.path.samefile(cwd, data_dir)
        except FileNotFoundError:
            return False  # gone, or a zombie
        except OSError:
            return True
    said = subprocess.run(
        ["ps", "-p", str(pid), "-o", "comm="], capture_output=True, text=True, check=False
    )
    return "postgres" in said.stdout


def _disown_stale_locks(account: Account, data_dir: Path, socket_dir: Path) -> None:
    """Let postgres see that the pid in a crashed server's lock files is not a server's any more.

    Where that pid is a zombie, or some other process of the same user by now (both usual in
    containers, where nobody reaps and pids begin anew), postgres refuses to start. It does not
    if the pid is its starter's parent: us. The rest of the file stays, for postgres's own check
    that no backend of the old server is left.
    """
    postmaster = _postmaster(data_dir)
    if postmaster is None:
        return
    if _is_postmaster(postmaster.pid, data_dir):
        raise EmbeddedServerError(
            f"PostgreSQL runs in {data_dir} (pid {postmaster.pid}) but is "
            f"{postmaster.status or 'starting'} or has lost its socket in "
            f"{postmaster.socket_dir}: try again, or stop that process"
        )
    script = 'rest=$(tail -n +2 "$1") && printf "%s\\n%s\\n" "$2" "$rest" > "$1"; rm -f "$3"'
    lock = socket_dir / f"{SOCKET_NAME}.lock"
    pid_file = data_dir / "postmaster.pid"
    account.run(["sh", "-c", script, "sh", pid_file, str(os.getpid()), lock])
    logger.warning("the server in %s had crashed; it recovers now", data_dir)


def _open_log(log: Path, account: Account) -> None:
    if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
        log.replace(log.with_name(log.name + ".old"))
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if account.foreign:
            os.fchown(fd, account.uid, account.gid)
    finally:
        os.close(fd)


def _tail(log: Path, *, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
