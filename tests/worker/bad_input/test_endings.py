"""Whatever a task raises or returns is its own end, not its process's."""

from __future__ import annotations

import pytest

from tests.worker.bad_input.endings import RAISED, RETURNED
from tests.worker.bad_input.world import World

#: Returned values that JSON can say.
SAID = {"nan", "10**400", "deep-500", "bytes", "nul", "lone-surrogate", "100-MB"}


@pytest.mark.parametrize("kind", RAISED)
def test_what_is_raised_is_a_recorded_failure(kind: str, world: World) -> None:
    letter, task_id = world.outcome(lambda: world.module.fail.delay(kind))
    assert letter == "F"
    assert task_id is not None
    said = world.read(task_id)
    assert isinstance(said["result"], BaseException)
    world.check(task_id)


def test_a_real_overflow_of_the_stack_is_a_recorded_failure(world: World) -> None:
    letter, task_id = world.outcome(lambda: world.module.overflow.delay())
    assert letter == "F"
    assert isinstance(world.read(task_id or "")["result"], RecursionError)
    world.check(task_id)


@pytest.mark.parametrize("kind", RETURNED)
def test_what_is_returned_is_stored_or_a_recorded_failure(kind: str, world: World) -> None:
    letter, task_id = world.outcome(lambda: world.module.give.delay(kind))
    assert letter in ("S", "F")
    if kind in SAID:
        assert letter == "S"
    world.check(task_id)


@pytest.mark.parametrize("countdown", [-5, "nan", "inf", "huge", "text", [1]])
def test_an_odd_countdown_of_a_retry_ends(countdown: object, world: World) -> None:
    letter, task_id = world.outcome(lambda: world.module.again.delay(countdown))
    assert letter == ("S" if countdown == -5 else "F")
    world.check(task_id)
