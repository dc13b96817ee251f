"""Where the suite runs: a virtual environment that has what its tests import, but no Celery."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.celery_compat.suite.errors import SuiteError

ROOT = Path(__file__).resolve().parents[3]
INSIDE = Path(__file__).parent / "inside"

#: Settings of the machine that would change what the tests do.
FOREIGN = ("CELERY", "DJANGO", "PG", "PYTEST", "REDIS_", "TEST_", "NO_WORKER", "PYTHONPATH")
KEPT = ("PGCELERY_HOME", "PGCELERY_PG_BIN")  # where the embedded server and its programs are


def forget_settings() -> None:
    """Take them out of this process's environment, which all that it starts inherits."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) and name not in KEPT:
            del os.environ[name]


def cache_folder() -> Path:
    """Give this user's cache, made if need be."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "pgcelery" / "celery-suite"
    path.mkdir(parents=True, exist_ok=True)
    return path


def interpreter(cache: Path) -> Path:
    """Give the interpreter of the environment, built first if the requirements are new.

    pgcelery is not installed there: the shards find it in this tree.

    Raises:
        SuiteError: It cannot be built, or has a Celery in it.
    """
    wanted = requirements()
    digest = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()
    folder = cache / f"venv-{digest[:12]}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _run([sys.executable, "-m", "venv", "--clear", folder])
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*pip, *wanted])
            complete.touch()
    # Isolated, so without the alias: a Celery found here would be the real one.
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('celery') is not None)"
    if subprocess.run([python, "-I", "-c", found]).returncode:
        raise SuiteError(f"{folder} has a Celery: what passes there proves nothing")
    return python


def requirements() -> list[str]:
    """List what pgcelery and the suite's tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    return [*project["dependencies"], *(line for line in lines if line and line[0] != "#")]


def variables(python: Path, folder: Path, dsn: str, redis_port: int) -> dict[str, str]:
    """Give the environment variables of a shard that has its tests in this folder."""
    return {
        "PATH": os.pathsep.join([str(INSIDE), str(python.parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, (INSIDE, ROOT / "src", folder))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
        "TEST_BROKER": dsn,
        "TEST_BACKEND": dsn,
        "WORKER_LOGLEVEL": "INFO",  # tests of the log read it at this level
    }


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SuiteError(f"{' '.join(map(str, command))}:\n{done.stderr[-2000:]}")
