"""examples/swap.py, which docs/moving-an-application.md hands to users."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.celery_compat.worlds import EXAMPLES


def _swap(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "swap.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from celery import Celery, chain", "from pgcelery import Celery, chain"),
        ("from celery.result import AsyncResult", "from pgcelery.result import AsyncResult"),
        (
            "    from celery import (\n        group,\n    )",
            "    from pgcelery import (\n        group,\n    )",
        ),
        ("import celery", "import pgcelery as celery"),
        ("import celery  # queue", "import pgcelery as celery  # queue"),
        ("import celery as c", "import pgcelery as c"),
        ("import celery.states as states", "import pgcelery.states as states"),
    ],
)
def test_an_import_of_celery_is_rewritten(before: str, after: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    path.write_text(f"import os\n{before}\nx = 1\n")
    assert _swap(tmp_path).returncode == 0
    assert path.read_text() == f"import os\n{after}\nx = 1\n"


@pytest.mark.parametrize(
    "line",
    [
        "from .celery import app",
        "from proj.celery import app",
        "from celery_extras import x",
        "import celeryconfig",
        "from pgcelery import Celery",
        "import pgcelery as celery",
        'app = Celery("celery")',
        "logging.getLogger('celery')",
    ],
)
def test_anything_else_stays(line: str, tmp_path: Path) -> None:
    path = tmp_path / "celery.py"
    path.write_text(f"{line}\n")
    assert _swap(tmp_path).returncode == 0
    assert path.read_text() == f"{line}\n"


@pytest.mark.parametrize("line", ["import celery.result", "import os, celery", "import celery, os"])
def test_an_import_that_cannot_be_rewritten_alone_is_shown(line: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    path.write_text(f"{line}\n")
    done = _swap(tmp_path)
    assert done.returncode == 1
    assert line in done.stdout
    assert path.read_text() == f"{line}\n"


def test_swapping_twice_changes_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "tasks.py"
    path.write_text("import celery\nfrom celery import chain\n")
    _swap(tmp_path)
    once = path.read_text()
    _swap(tmp_path)
    assert path.read_text() == once
