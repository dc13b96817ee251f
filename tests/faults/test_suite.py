"""The fault suite itself: one fault of it, and what it would be blind without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.suite.catalogue import BY_NUMBER, FAULTS
from tests.faults.suite.mutations import MUTATIONS, find
from tests.faults.suite.running import Job, run_one

SRC = Path(__file__).parents[2] / "src" / "pgcelery"


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.longer
def test_killed_children_cost_nothing(tmp_path: Path):
    report = run_one(Job("3", tmp_path, quick=True))
    assert report["violations"] == []
    assert report["lost"] == report["twice"] == 0
    assert report["tasks"] > 50


def test_faults_have_numbers_of_their_own():
    assert len(BY_NUMBER) == len(FAULTS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_what_a_mutation_replaces_is_there_once(mutation):
    assert set(mutation.faults) <= BY_NUMBER.keys()
    if not (SRC / mutation.needs).exists():
        pytest.skip(f"there is no {mutation.needs} yet")
    for edit in mutation.edits:
        assert find(edit.path, SRC).read_text().count(edit.old) == 1
