"""Small programs, each run by real Celery and by pgcelery; every case must give the same."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.celery_compat.worlds import World, copy_program, rename

pytestmark = [pytest.mark.real_celery]
pytest.importorskip("celery")

PROGRAMS = Path(__file__).parent / "programs"
#: (program, case) -> why it differs; strict, so a difference that is gone must leave the list
DIFFERS: dict[tuple[str, str], str] = {
    ("classes", "module"): "a task's proxy names the module of its function, Celery's celery.local",
}


def _cases() -> list[tuple[str, str]]:
    return [
        (path.stem, name)
        for path in sorted(PROGRAMS.glob("*.py"))
        for name in re.findall(r"^def case_(\w+)", path.read_text(), re.MULTILINE)
    ]


@functools.cache
def _run(module: str, program: str) -> subprocess.CompletedProcess[str]:
    world = World(module, {})
    with tempfile.TemporaryDirectory() as folder:
        place = copy_program(world, PROGRAMS, Path(folder, "programs"))
        return subprocess.run(
            [sys.executable, f"{program}.py"],
            cwd=place,
            env=world.env(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def _observed(module: str, program: str) -> dict[str, Any]:
    done = _run(module, program)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(rename(done.stdout, {}))
    return found


@pytest.mark.parametrize(("program", "case"), _cases())
def test_a_program_sees_the_same(program: str, case: str, request: pytest.FixtureRequest) -> None:
    if reason := DIFFERS.get((program, case)):
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    assert _observed("pgcelery", program)[case] == _observed("celery", program)[case]
