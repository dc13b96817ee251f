"""What a worker asks of its operating system: signals, pid files, users, the process title.

Source: Celery 5.7, ``celery.platforms`` (names, exit codes, texts of the pid file and root checks).
"""

from __future__ import annotations

import atexit
import errno
import grp
import math
import os
import platform as _platform
import pwd
import resource
import signal as _signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pgcelery.compat.exceptions import SecurityError, SecurityWarning

__all__ = (
    "EX_CANTCREAT",
    "EX_FAILURE",
    "EX_OK",
    "EX_UNAVAILABLE",
    "EX_USAGE",
    "IS_WINDOWS",
    "SIGMAP",
    "SYSTEM",
    "DaemonContext",
    "IS_macOS",
    "LockFailed",
    "Pidfile",
    "check_privileges",
    "close_open_fds",
    "create_pidlock",
    "detached",
    "get_fdmax",
    "ignore_errno",
    "isatty",
    "maybe_drop_privileges",
    "parse_gid",
    "parse_uid",
    "pyimplementation",
    "set_mp_process_title",
    "set_process_title",
    "signal_name",
    "signals",
    "strargv",
)

EX_OK = 0
EX_FAILURE = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73

SYSTEM = _platform.system()
IS_macOS = SYSTEM == "Darwin"
IS_WINDOWS = SYSTEM == "Windows"

SIGNAMES = {name for name in dir(_signal) if name.startswith("SIG") and "_" not in name}
SIGMAP: dict[int, str] = {int(getattr(_signal, name)): name for name in SIGNAMES}

PIDLOCKED = "ERROR: Pidfile ({0}) already exists.\nSeems we're already running? (pid: {1})"
ROOT_DISALLOWED = (
    "Refusing to run a worker as a privileged user while it accepts pickle: whoever can add a "
    "task could then run any code as root. Start it as another user (--uid), take pickle out of "
    "accept_content, or set the environment variable C_FORCE_ROOT to go on all the same.\n"
    "uid={uid} euid={euid} gid={gid} egid={egid}"
)
ROOT_DISCOURAGED = (
    "The worker runs as a privileged user, and so does every task. Start it as another user, "
    "for example with --uid.\nuid={uid} euid={euid} gid={gid} egid={egid}"
)

SignalHandler = Callable[[int, FrameType | None], Any] | int | None


def isatty(stream: Any) -> bool:
    """Whether a stream is a terminal; a closed or missing one is not."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def pyimplementation() -> str:
    """Name of the running Python implementation."""
    return _platform.python_implementation()


class LockFailed(Exception):
    """The pid file could not be taken."""


class Pidfile:
    """A file that holds the pid of the one process that may run.

    Raises:
        LockFailed: From `acquire`, when the file exists or cannot be written.
    """

    path: str

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def acquire(self) -> Pidfile:
        """Create the file with this process's pid."""
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except OSError as exc:
            raise LockFailed(str(exc)) from exc
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        return self

    __enter__ = acquire

    def __exit__(self, *args: object) -> None:
        self.release()

    def is_locked(self) -> bool:
        """Whether the file exists."""
        return os.path.exists(self.path)

    def release(self, *args: object) -> None:
        """Remove the file if it is this process's own."""
        with suppress(OSError, ValueError):
            if self.read_pid() == os.getpid():
                os.unlink(self.path)

    def read_pid(self) -> int | None:
        """Pid in the file; None when there is no file.

        Raises:
            ValueError: The file does not hold a pid.
        """
        try:
            with open(self.path, encoding="ascii") as file:
                line = file.readline()
        except FileNotFoundError:
            return None
        try:
            return int(line.strip())
        except ValueError:
            raise ValueError(f"pidfile {self.path} contents invalid.") from None

    def remove(self) -> None:
        """Remove the file, whoever's it is."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)

    def remove_if_stale(self) -> bool:
        """Remove the file if its process is gone; True when the path is free now."""
        try:
            pid = self.read_pid()
        except ValueError:
            pid = None
        if pid and pid != os.getpid():
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                pass
            except PermissionError:
                return False
            else:
                return False
        self.remove()
        return True


PIDFile = Pidfile


def create_pidlock(pidfile: str) -> Pidfile:
    """Take a pid file until this process exits.

    Raises:
        SystemExit: With 73 when a live process holds it, after saying so on stderr.
    """
    lock = _free_pidfile(pidfile)
    lock.acquire()
    atexit.register(lock.release)
    return lock


def _free_pidfile(pidfile: str) -> Pidfile:
    lock = Pidfile(pidfile)
    if lock.is_locked() and not lock.remove_if_stale():
        sys.stderr.write(PIDLOCKED.format(pidfile, lock.read_pid()) + "\n")
        raise SystemExit(EX_CANTCREAT)
    return lock


def get_fdmax(default: int | None = None) -> int | None:
    """Most file descriptors this process may have; `default` when there is no limit."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default if limit == resource.RLIM_INFINITY else limit


def close_open_fds(keep: Iterable[Any] = ()) -> None:
    """Close every descriptor of the process but those of `keep` (descriptors or files)."""
    kept = {fd if isinstance(fd, int) else fd.fileno() for fd in keep if fd is not None}
    for name in os.listdir("/dev/fd"):
        if name.isdigit() and int(name) not in kept:
            with suppress(OSError):
                os.close(int(name))


class DaemonContext:
    """Leave the terminal: two forks, a session of its own, standard streams to /dev/null.

    `umask` is octal text or a number; `fake` stays in the foreground; `after_chdir` is called
    while errors can still be seen.
    """

    def __init__(
        self,
        pidfile: str | None = None,
        workdir: str | None = None,
        umask: int | str | None = None,
        fake: bool = False,
        after_chdir: Callable[[], None] | None = None,
        **kwargs: Any,
    ) -> None:
        self.workdir = workdir or "/"
        self.umask = int(umask, 8) if isinstance(umask, str) and umask else umask
        self.fake = fake
        self.after_chdir = after_chdir

    def open(self) -> None:
        """Become the daemon; the calling process ends here."""
        if not self.fake:
            _fork_and_leave()
        os.chdir(self.workdir)
        if isinstance(self.umask, int):
            os.umask(self.umask)
        if self.after_chdir:
            self.after_chdir()
        if not self.fake:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)

    def close(self, *args: object) -> None:
        """Nothing is left to close."""

    def __enter__(self) -> DaemonContext:
        self.open()
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def _fork_and_leave() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def detached(
    logfile: str | None = None,
    pidfile: str | None = None,
    uid: int | str | None = None,
    gid: int | str | None = None,
    umask: int | str | None = 0,
    workdir: str | None = None,
    fake: bool = False,
    **opts: Any,
) -> DaemonContext:
    """Context in which this process is a daemon.

    The log file must be writable and the pid file free before the terminal is left, so that an
    error can still be seen.
    """
    maybe_drop_privileges(uid=uid, gid=gid)

    def check_files() -> None:
        if logfile:
            with open(logfile, "a", encoding="utf-8"):
                pass
        if pidfile:
            _free_pidfile(pidfile)

    directory = os.getcwd() if workdir is None else str(workdir)
    return DaemonContext(umask=umask, workdir=directory, fake=fake, after_chdir=check_files)


def parse_uid(uid: int | str) -> int:
    """User id of a name or a number.

    Raises:
        KeyError: No such user.
    """
    try:
        return int(uid)
    except ValueError:
        try:
            return pwd.getpwnam(str(uid)).pw_uid
        except KeyError:
            raise KeyError(f"User does not exist: {uid}") from None


def parse_gid(gid: int | str) -> int:
    """Group id of a name or a number.

    Raises:
        KeyError: No such group.
    """
    try:
        return int(gid)
    except ValueError:
        try:
            return grp.getgrnam(str(gid)).gr_gid
        except KeyError:
            raise KeyError(f"Group does not exist: {gid}") from None


def maybe_drop_privileges(uid: int | str | None = None, gid: int | str | None = None) -> None:
    """Become another user and group for good.

    A uid without a gid takes the user's own group.

    Raises:
        SecurityError: The privileges could be taken back.
    """
    user = parse_uid(uid) if uid else 0
    group = parse_gid(gid) if gid else 0
    if user:
        entry = pwd.getpwuid(user)
        group = group or entry.pw_gid
        os.setgid(group)
        if not os.geteuid():
            os.initgroups(entry.pw_name, group)
        os.setuid(user)
        _check_dropped()
    elif group:
        os.setgid(group)


def _check_dropped() -> None:
    try:
        os.setuid(0)
    except OSError as exc:
        if exc.errno != errno.EPERM:
            raise
    else:
        raise SecurityError("The privileges given up with --uid could be taken back.")


class Signals:
    """The process's signal handlers, by name: ``signals['TERM'] = handler``.

    A name the platform lacks, and a call from another thread than the main one, change nothing.
    """

    ignored = _signal.SIG_IGN
    default = _signal.SIG_DFL

    def arm_alarm(self, seconds: float) -> None:
        """Send SIGALRM to this process in so many seconds."""
        _signal.setitimer(_signal.ITIMER_REAL, seconds)

    def reset_alarm(self) -> int:
        """Call the alarm off; seconds that were left, rounded up."""
        return math.ceil(_signal.setitimer(_signal.ITIMER_REAL, 0)[0])

    def supported(self, name: str) -> bool:
        """Whether the platform has a signal of this name."""
        try:
            self.signum(name)
        except AttributeError:
            return False
        return True

    def signum(self, name: str | int) -> int:
        """Number of a signal; a number is given back.

        Raises:
            TypeError: Not an upper-case name.
            AttributeError: No such signal.
        """
        if isinstance(name, int):
            return int(name)
        if not isinstance(name, str) or not name.isupper():
            raise TypeError("signal name must be uppercase string.")
        return int(getattr(_signal, name if name.startswith("SIG") else f"SIG{name}"))

    def reset(self, *names: str) -> None:
        """Give signals their default handlers back."""
        for name in names:
            self[name] = self.default

    def ignore(self, *names: str) -> None:
        """Ignore signals."""
        for name in names:
            self[name] = self.ignored

    def __getitem__(self, name: str) -> SignalHandler:
        return _signal.getsignal(self.signum(name))

    def __setitem__(self, name: str, handler: SignalHandler) -> None:
        with suppress(AttributeError, ValueError):
            _signal.signal(self.signum(name), handler)

    def update(self, mapping: Mapping[str, SignalHandler] | None = None, **named: Any) -> None:
        """Set several handlers."""
        for name, handler in {**(mapping or {}), **named}.items():
            self[name] = handler


signals = Signals()
get_signal = signals.signum
install_signal_handler = signals.__setitem__
reset_signal = signals.reset
ignore_signal = signals.ignore


def signal_name(signum: int) -> str:
    """Name of a signal number, without ``SIG``."""
    return SIGMAP[signum][3:]


def strargv(argv: list[str]) -> str:
    """Arguments of the program as one line, without the program's own name."""
    return " ".join(argv[2 if "manage" in argv[0] else 1 :])


def set_process_title(progname: str, info: str | None = None) -> str:
    """Name the process for ``ps``, if setproctitle is installed; the title."""
    title = f"[{progname}] {info}" if info else f"[{progname}]"
    module = sys.modules.get("setproctitle")
    if module is not None:
        module.setproctitle(title)
    return title


def set_mp_process_title(
    progname: str, info: str | None = None, hostname: str | None = None
) -> str | None:
    """Name the process ``prog: host:MainProcess``; nothing when NOSETPS is set."""
    if os.environ.get("NOSETPS"):
        return None
    name = f"{progname}: {hostname}" if hostname else progname
    return set_process_title(f"{name}:MainProcess", info=info)


def get_errno_name(n: int | str) -> int:
    """Errno of a name such as ``ENOENT``."""
    return int(getattr(errno, n)) if isinstance(n, str) else n


@contextmanager
def ignore_errno(*errnos: int | str, **kwargs: Any) -> Iterator[None]:
    """Swallow OS errors with one of these numbers or names."""
    types = kwargs.get("types") or (Exception,)
    wanted = {get_errno_name(n) for n in errnos}
    try:
        yield
    except types as exc:
        if getattr(exc, "errno", None) not in wanted:
            raise


def check_privileges(accept_content: Iterable[str]) -> None:
    """Refuse to run privileged with pickle; warn when privileged without it.

    Privileged is root, or the main group ``sudo`` or ``wheel``. ``C_FORCE_ROOT`` in the
    environment turns the refusal into the warning.

    Raises:
        SecurityError: Privileged, and pickle is accepted.
    """
    ids = {"uid": os.getuid(), "euid": os.geteuid(), "gid": os.getgid(), "egid": os.getegid()}
    if not (0 in (ids["uid"], ids["euid"]) or _risky_group(ids["gid"], ids["egid"])):
        return
    pickled = {"pickle", "application/group-python-serialize"} & set(accept_content or ())
    if pickled and not os.environ.get("C_FORCE_ROOT"):
        raise SecurityError(ROOT_DISALLOWED.format(**ids))
    warnings.warn(SecurityWarning(ROOT_DISCOURAGED.format(**ids)), stacklevel=2)


def _risky_group(*gids: int) -> bool:
    names = set()
    for gid in gids:
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            return True
    return bool(names & {"sudo", "wheel"})
