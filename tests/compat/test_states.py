from __future__ import annotations

import pytest

from pgcelery.compat import states
from pgcelery.compat.states import PENDING, RETRY, STARTED, SUCCESS, state
from pgcelery.engine import State


def test_states_compare_by_rank() -> None:
    assert state(PENDING) < state(SUCCESS)
    assert state("PROGRESS") > state(STARTED)
    assert not state("PROGRESS") > state(SUCCESS)
    assert state(SUCCESS) >= state("SUCCESS")
    assert states.precedence("MINE") == states.precedence("OTHER") > states.precedence(SUCCESS)


def test_the_sets_are_celerys() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == states.READY_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == states.EXCEPTION_STATES
    assert {"FAILURE", "REVOKED"} == states.PROPAGATE_STATES
    assert {"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"} == states.UNREADY_STATES
    assert "REJECTED" not in states.ALL_STATES
    assert "IGNORED" not in states.ALL_STATES


@pytest.mark.parametrize("name", sorted(states.READY_STATES))
def test_exactly_the_ready_states_are_final_in_the_engine(name: str) -> None:
    assert states.to_engine(name).final
    assert states.from_engine(states.to_engine(name)) == name


def test_other_states_are_not_final_in_the_engine() -> None:
    assert states.to_engine("PROGRESS") is State.RUNNING
    assert states.to_engine(RETRY) is State.RETRYABLE
    assert states.from_engine(State.SCHEDULED) == PENDING
