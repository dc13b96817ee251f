"""Each promise is named where it is kept and where it is shown, as docs/guarantees.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
ROWS = re.findall(r"^\| P(\d+) \| (`[^|]+) \| (`[^|]+) \|$", PAGE, re.MULTILINE)
PROMISES = range(1, 24)


def files(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_each_promise_is_made_and_has_its_place():
    made = {int(name) for cell in re.findall(r"^\| (P[\dP, ]+) \|", PAGE, re.MULTILINE)
            for name in re.findall(r"P(\d+)", cell)}  # fmt: skip
    assert made == set(PROMISES)
    assert [int(number) for number, _, _ in ROWS] == list(PROMISES)


@pytest.mark.parametrize(("number", "kept", "shown"), ROWS, ids=lambda value: str(value)[:3])
def test_the_files_name_it(number: str, kept: str, shown: str):
    sources = [ROOT / "src" / "pgcelery" / name for name in files(kept)]
    tests = [ROOT / name for name in files(shown)]
    assert sources
    assert tests
    for path in [*sources, *tests]:
        assert re.search(rf"\bP{number}\b", path.read_text()), path
