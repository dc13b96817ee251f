"""Where the embedded server keeps its things.

::

    home/                 PGCELERY_HOME, else XDG_DATA_HOME/pgcelery, ~/.local/share/pgcelery,
                          /var/lib/pgcelery (root only), else temp/
        data/             the per-user server's cluster; kept between runs
        run/              its socket, where the path is short enough; else temp/s-<hash>/
        server.log lock
        postgresql-<hash>/  copy of binaries that the server's user could not reach
    temp/                 /tmp/pgcelery-<uid>, only if it is ours
        e-<random>/       one ephemeral server
        template-<version>-<hash>/   what ephemeral clusters are copied from

Only the server's user (and root) can enter a directory with a socket in it: that is what keeps
other local users out, so the server itself trusts whoever connects.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from pgcelery.engine.embedded.account import Account
from pgcelery.engine.errors import EmbeddedServerError

SOCKET_NAME = ".s.PGSQL.5432"
#: Longest path of a socket: sun_path holds 108 bytes on Linux and 104 on macOS, with the NUL.
SOCKET_PATH_MAX = 103


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that at most one process has; waits for it, and a dead holder's is free."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        # Said aloud: a child forked meanwhile holds the same lock, and closing would not free it.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def open_lock(path: Path) -> int:
    """Open (or create) a lock file; the caller closes it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def short_hash(text: object) -> str:
    """Return eight characters that stand for a long path in a file name."""
    return sha256(os.fsencode(str(text))).hexdigest()[:8]


def home(account: Account) -> Path:
    """Return the directory of the per-user server, created if need be.

    The same for every process of a user, whatever its environment: HOME is only a hint.

    Raises:
        EmbeddedServerError: PGCELERY_HOME is set and cannot be used.
    """
    explicit = os.environ.get("PGCELERY_HOME")
    if explicit:
        path = Path(explicit).absolute()
        if not _usable(path, account):
            raise EmbeddedServerError(
                f"PGCELERY_HOME={path} cannot be used: user {os.geteuid()} must be able to write "
                f"it, and user {account.name}, who runs the server, to enter it"
            )
        return path
    for path in _homes():
        if _usable(path, account):
            return path
    return temp(account)


def temp(account: Account) -> Path:
    """Return this user's own directory below the temporary one, created if need be.

    Raises:
        EmbeddedServerError: Its name is taken by something that is not ours.
    """
    uid = os.geteuid()
    for root in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):
        path = Path(root).absolute() / f"pgcelery-{uid}"
        longest = path / "e-00000000" / SOCKET_NAME
        if len(os.fsencode(longest)) > SOCKET_PATH_MAX or not _enterable(path, account):
            continue
        _make(path, account)
        stat = path.lstat()
        if not path.is_dir() or path.is_symlink() or stat.st_uid != uid or stat.st_mode & 0o022:
            raise EmbeddedServerError(
                f"{path} is not a directory that user {uid} alone may write: remove it, "
                "or set TMPDIR to another directory"
            )
        return path
    raise EmbeddedServerError("no temporary directory can be used: set TMPDIR to a short path")


def socket_directory(base: Path, account: Account) -> Path:
    """Return the directory for the per-user server's socket, created if need be."""
    path = base / "run"
    if len(os.fsencode(path / SOCKET_NAME)) > SOCKET_PATH_MAX:
        path = temp(account) / f"s-{short_hash(base)}"
    if not path.exists():
        account.make_directory(path)
    return path


def _homes() -> Iterator[Path]:
    if os.environ.get("XDG_DATA_HOME"):
        yield Path(os.environ["XDG_DATA_HOME"]).absolute() / "pgcelery"
    user_home = os.environ.get("HOME") or _passwd_home()
    if user_home:
        yield Path(user_home).absolute() / ".local" / "share" / "pgcelery"
    if os.geteuid() == 0:
        yield Path("/var/lib/pgcelery")


def _passwd_home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _usable(path: Path, account: Account) -> bool:
    """Whether we can write a directory and the server's user enter it; creates it if both."""
    if not _enterable(path, account):
        return False
    try:
        _make(path, account)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK) and account.may("-x", path)


def _enterable(path: Path, account: Account) -> bool:
    """Whether the nearest existing directory admits both; asked before anything is created."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.X_OK) and account.may("-x", path)


def _make(path: Path, account: Account) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    if account.foreign:
        path.chmod(0o711)  # the server's user passes through, and lists nothing
