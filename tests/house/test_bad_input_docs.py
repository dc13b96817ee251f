"""docs/bad-input.md says what the tests of bad input accept, row by row."""

from __future__ import annotations

import re
from pathlib import Path

from tests.worker.bad_input.rows import OPTIONS, TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "bad-input.md").read_text()


def test_the_page_has_every_row_with_an_outcome_that_is_accepted() -> None:
    told = dict(re.findall(r"^\| ([^|]+?) \| ([RSFVP]) \|$", PAGE, re.MULTILINE))
    accepted = {row.name: {one[0] for one in row.accepted.split()} for row in TABLE + OPTIONS}
    assert told.keys() == accepted.keys()
    assert [name for name, letter in told.items() if letter not in accepted[name]] == []
