"""The same constructions in real Celery and in pgcelery: dict forms, reprs, ids, what is sent."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("shapes.py")
SOURCE = PROGRAM.parents[3] / "src"

pytestmark = [
    pytest.mark.real_celery,
    pytest.mark.skipif(
        importlib.util.find_spec("celery") is None, reason="needs the celery package"
    ),
]


def shapes(library: str) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), library, str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def celery() -> dict[str, Any]:
    return shapes("celery")


@pytest.fixture(scope="module")
def pgcelery() -> dict[str, Any]:
    return shapes("pgcelery.compat")


def names() -> list[str]:
    table = PROGRAM.read_text().partition("SHAPES:")[2].partition("\n}\n")[0]
    return re.findall(r'^    "([^"]+)": lambda|^    "([^"]+)": \w+,$', table, re.MULTILINE)


NAMES = [one or other for one, other in names()]


@pytest.mark.parametrize("name", NAMES)
def test_a_canvas_is_what_celery_makes_of_it(name, celery, pgcelery):
    assert pgcelery[name] == celery[name]


def test_every_shape_is_compared(celery):
    assert sorted(celery) == sorted(NAMES)
    assert not [name for name, shape in celery.items() if "Error:" in str(shape)]
