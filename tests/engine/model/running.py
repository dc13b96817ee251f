"""How many sequences of rules are run, and from where."""

from __future__ import annotations

import time

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import ExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.engine.model.database import Engine
from tests.engine.model.machine import EngineMachine

EXAMPLES = 40  #: sequences of a run that is not timed
STEPS = 50  #: rules of a sequence, at most


def run_sequences(
    engine: Engine, *, examples: int = EXAMPLES, seconds: float = 0, seed: int | None = None
) -> str:
    """Run sequences of rules until one fails or there were enough; say what that came to.

    Args:
        engine: On a database of its own.
        examples: How many; always the same ones.
        seconds: How long, instead: as many in each round, with other ones each time.
        seed: Of the first round, the next one's is one more; then they are the same ones each time,
            and how far it comes is all that differs.
    """

    class Machine(EngineMachine):
        pass

    Machine.engine = engine
    began = time.monotonic()
    rounds = 0
    while True:
        if seed is not None:
            hypothesis.seed(seed + rounds)(Machine)
        run_state_machine_as_test(
            Machine,
            settings=settings(
                _SETTINGS,
                max_examples=examples,
                stateful_step_count=STEPS,
                derandomize=not seconds,
                database=None,
                print_blob=True,
            ),
        )
        rounds += 1
        took = time.monotonic() - began
        if took >= seconds:
            break
    per_s = Machine.steps / took
    pairs = ", ".join(f"{many} {what}" for what, many in sorted(Machine.counts.items()))
    return (
        f"{rounds * examples} sequences, {Machine.steps} rules in {took:.0f} s"
        f" ({per_s:.0f} a second); {pairs}"
    )


def run_until_one_fails(
    machine: type[RuleBasedStateMachine], kept: ExampleDatabase, *, examples: int, steps: int
) -> None:
    """Run sequences, always the same ones; keep the one that fails as it is."""
    hypothesis.seed(0)(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            _SETTINGS,
            max_examples=examples,
            stateful_step_count=steps,
            database=kept,
            phases=[Phase.generate],
        ),
    )


def run_again(machine: type[RuleBasedStateMachine], kept: ExampleDatabase, *, steps: int) -> None:
    """Run the sequence that was kept, and no other."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            _SETTINGS, stateful_step_count=steps, database=kept, phases=[Phase.reuse]
        ),
    )


_SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))
