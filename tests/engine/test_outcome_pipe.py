"""Outcomes come out of the pipe between two processes as they went in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pgcelery.engine import Gate, NewJob, Outcome, State
from pgcelery.engine.job import Unique, dump_outcome, load_outcome

_WHEN = datetime(2031, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
_NEXT = NewJob("n", "q", "t", b"p", due_at=_WHEN, gates=(Gate("g", "k", slots=1),))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("j", 1, State.COMPLETED),
        Outcome(
            "j", 2**60, State.COMPLETED, b"r", ttl_s=1.5, note=("x", {"a": None}), drops=("d",)
        ),
        Outcome("j", 1, State.RETRYABLE, b"r", b"p", "q", 3, _WHEN),
        Outcome("j", 1, State.RETRYABLE, delay_s=2.0, expires_at=_WHEN, counted=True),
        Outcome("j", 1, State.COMPLETED, follow_ups=(_NEXT, _NEXT._replace(unique=Unique("u")))),
    ],
)
def test_an_outcome_passes_a_pipe_unchanged(outcome: Outcome, state: State):
    sent = outcome._replace(state=state)
    got = load_outcome(dump_outcome(sent))
    assert got == sent
    assert type(got.state) is State
    assert type(got.drops) is type(got.follow_ups) is tuple
