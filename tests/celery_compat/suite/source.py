"""Celery's tests: downloaded, checked, unpacked, and freed of their demand for a Redis backend."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.celery_compat.suite.errors import SuiteError

VERSION = "5.7.0"
SHA256 = "6a5dfcf6662287204f009a02002b9e66c83d4105e47ebabdc7079108772fc6f0"
SDIST = f"celery-{VERSION}.tar.gz"

# "if not app.conf.result_backend.startswith('redis')", which skips the test: on another backend
# upstream has no Redis to look into. We have one for that; what needs it as the backend itself is
# not demanded.
GATE = re.compile(
    r"if not (?:manager\.)?app\.conf\.result_backend\.startswith\((?:['\"]redis['\"]|\(.*?\))\):"
)
OPEN = "if False:"
PATIENCE = re.compile(r"^TIMEOUT = 60$", re.MULTILINE)
# The worker may have received the task before `delay` returns: what it said would be forgotten.
FORGOTTEN = re.compile(r"^( +res = \w+\.delay\(\)\n)( +assertion_result = False\n)", re.MULTILINE)
IN_TIME = r"\2\1"

CONFIGURATION = """\
[pytest]
python_classes = test_*
addopts = --strict-markers -p no:cacheprovider
markers =
    amqp
    flaky
"""


def sdist(cache: Path, python: Path) -> Path:
    """Give the source distribution, downloaded with this interpreter's pip if need be.

    Raises:
        SuiteError: It cannot be had, or is not the one that the list of tests was made from.
    """
    path = cache / SDIST
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            download += ["--no-binary", "celery", f"celery=={VERSION}"]
            done = subprocess.run(download, capture_output=True, text=True)
            if done.returncode:
                raise SuiteError(f"cannot download {SDIST}:\n{done.stderr[-2000:]}")
            checked(Path(folder) / SDIST).rename(path)
    return checked(path)


def checked(path: Path, sha256: str = SHA256) -> Path:
    """Give the path back if the file has this digest.

    Raises:
        SuiteError: It has another one.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SuiteError(f"{path} has the sha256 {found}, wanted {sha256}; delete it and try again")
    return path


def unpack(sdist: Path, folder: Path, patience_s: int) -> None:
    """Put the integration tests into the folder, ready to run, and nothing else of Celery.

    Args:
        sdist: What `sdist` gave.
        folder: Will have a ``t`` in it.
        patience_s: How long test_canvas waits for a result that does not come; the suite says 60.
    """
    top = f"celery-{VERSION}/"
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.removeprefix(top)
            if not (member.isfile() and re.match(r"t/(integration/)?\w+\.py$", name)):
                continue
            file = archive.extractfile(member)
            assert file is not None
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(adapted(path.name, file.read().decode(), patience_s))
    (folder / "pytest.ini").write_text(CONFIGURATION)


def adapted(name: str, source: str, patience_s: int) -> str:
    """Change in a test file what keeps it from running here.

    Raises:
        SuiteError: It does not look as it did when this was written.
    """
    changes = {
        "test_canvas.py": [(GATE, OPEN, 75), (PATIENCE, f"TIMEOUT = {patience_s}", 1)],
        "test_group_chains.py": [(GATE, OPEN, 1)],
        "test_tasks.py": [(GATE, OPEN, 3), (FORGOTTEN, IN_TIME, 2)],
    }
    for pattern, replacement, expected in changes.get(name, []):
        source, found = pattern.subn(replacement, source)
        if found != expected:
            raise SuiteError(f"{name}: {found} of {pattern.pattern!r}, expected {expected}")
    return source
