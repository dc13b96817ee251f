"""A virtual environment for each peer, made once and kept.

The versions below are pinned; what they brought with them is recorded in the results. All are made
from the interpreter that runs the bench.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path.home() / ".cache" / "pgcelery" / "bench"

_CELERY = ["celery[redis]==5.7.0", "kombu==5.7.0", "redis==8.1.0", "hiredis==3.5.0"]
_PSYCOPG = ["psycopg[binary]==3.3.9"]
REQUIREMENTS = {
    "pgcelery": ["kombu==5.7.0", *_PSYCOPG, "-e", str(ROOT)],
    "celery": _CELERY,
    "pgqueuer": ["pgqueuer[asyncpg]==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"],
    "procrastinate": ["procrastinate==3.10.0", *_PSYCOPG, "uvloop==0.23.0"],
    "potatoq": ["potatoq==26.1a8", *_PSYCOPG],
    "skeleton": _PSYCOPG,
}


def python_of(name: str, folder: Path | None) -> Path:
    """The interpreter of a peer's environment, which is made if there is none yet.

    Args:
        folder: Where they are kept; None: no environments, this interpreter has everything.

    Raises:
        RuntimeError: It could not be made; the message is pip's.
    """
    if folder is None:
        return Path(sys.executable)
    wanted = REQUIREMENTS[name]
    ours = (ROOT / "pyproject.toml").read_text() if str(ROOT) in wanted else ""
    key = json.dumps([wanted, sys.version, ours])
    home = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    python = home / "bin" / "python"
    complete = home / "complete"
    if not complete.exists():
        print(f"making the environment of {name}: {home}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        _run([str(python), "-m", "pip", "install", "-q", *wanted])
        complete.touch()
    return python


def versions_of(python: Path) -> list[str]:
    """What is installed beside an interpreter, one `name==version` each."""
    line = [str(python), "-m", "pip", "list", "--format=freeze"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.stdout.split()


def _run(line: list[str]) -> None:
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}: {done.stderr[-2000:]}")
