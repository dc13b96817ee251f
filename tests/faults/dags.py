"""Random workflows, and what a plain model says of them: every call's argument and the result.

A workflow is a tree of plans. `signature_of` makes a canvas of it, `expect` computes it without
running any task. The arithmetic depends on the order of a list, so that a result is right only if
every step got the right arguments in the right places.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from pgcelery import chain, chord, group

PRIME = 1_000_003
LEASE_S = 3.0  #: of the workers of `dag_app`


def mixed(given: Any, factor: int, offset: int) -> int:
    """What a task returns for a number, or for a list of these, however deep."""
    return (_number(given) * factor + offset) % PRIME


def _number(given: Any) -> int:
    if isinstance(given, int):
        return given
    number = 7
    for item in given:
        number = (number * 31 + _number(item)) % PRIME
    return number


@dataclass(frozen=True)
class Step:
    """One task. With a `fixed` argument it is the first of its path, or takes no other's result."""

    tag: str
    factor: int
    offset: int
    milliseconds: int
    fixed: int | None = None
    immutable: bool = False
    links: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class Chain:
    parts: tuple[Plan, ...]
    links: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class Group:
    members: tuple[Plan, ...]


@dataclass(frozen=True)
class Chord:
    header: tuple[Plan, ...]
    body: Plan
    slow: bool = False  #: the header is a generator that takes its time
    links: tuple[Plan, ...] = ()


Plan = Step | Chain | Group | Chord


def wide(plan: Plan | None) -> bool:
    """Whether its value is a list."""
    if isinstance(plan, Chain):
        return wide(plan.parts[-1])
    return wide(plan.body) if isinstance(plan, Chord) else isinstance(plan, Group)


@dataclass
class Expected:
    """What the model says of one workflow."""

    calls: dict[str, Any] = field(default_factory=dict)  #: argument by tag
    value: Any = None  #: of the workflow: a number, or a list for a group


class Generator:
    """Makes the same workflows for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._flows = self._tags = 0

    def workflow(self) -> Plan:
        """One of 3 to 25 tasks, links included."""
        self._flows += 1
        while True:
            self._tags = 0
            plan = self._plan(self._random.randint(3, 20), first=True, depth=0)
            if self._tags <= 25:
                return plan

    def _plan(self, tasks: int, first: bool, depth: int) -> Plan:
        """A workflow of so many tasks; the `first` of one get no argument from another."""
        random = self._random
        if tasks == 1:
            return self._step(first)
        if depth == 3 or random.random() < 0.4:
            return self._chain(tasks, first, depth)
        if random.random() < 0.3:
            return Group(tuple(self._members(self._split(tasks, 2), first, depth)))
        parts = self._split(tasks, 2)
        return self._linked(
            Chord(
                tuple(self._members(parts[:-1], first, depth)),
                self._plan(parts[-1], False, depth + 1),
                slow=depth == 0 and random.random() < 0.3,
            ),
            depth,
        )

    def _chain(self, tasks: int, first: bool, depth: int) -> Plan:
        sizes = [1] * tasks if depth == 3 else self._split(tasks, 2)
        parts: list[Plan] = []
        for place, size in enumerate(sizes):
            fits = partial(self._fits, parts[-1] if parts else None, place == len(sizes) - 1)
            parts.append(self._that(fits, size, first and not parts, depth + 1))
        return self._linked(Chain(tuple(parts)), depth)

    @staticmethod
    def _fits(before: Plan | None, last: bool, plan: Plan) -> bool:
        """Whether a step can follow one; two that end wide can so only at the end.

        In Celery a step after a chord that ends in a group is called once for each member.
        """
        return last or not wide(plan) or (isinstance(plan, Group) and not wide(before))

    def _members(self, sizes: list[int], first: bool, depth: int) -> Iterator[Plan]:
        """Of a group or header: no groups, whose members Celery reorders there."""
        for size in sizes:
            yield self._that(lambda plan: not isinstance(plan, Group), size, first, depth + 1)

    def _that(self, fits: Callable[[Plan], bool], tasks: int, first: bool, depth: int) -> Plan:
        tags = self._tags
        while not fits(plan := self._plan(tasks, first, depth)):
            self._tags = tags
        return plan

    def _linked(self, plan: Chain | Chord, depth: int) -> Plan:
        """Give it links; none if it ends wide, for Celery calls these without an argument."""
        if depth or wide(plan):
            return plan
        return replace(plan, links=tuple(self._links(depth)))

    def _step(self, first: bool) -> Step:
        random = self._random
        immutable = not first and random.random() < 0.1
        self._tags += 1
        tag = f"{self._flows}.{self._tags}"
        return Step(
            tag,
            factor=random.randrange(2, 1000),
            offset=random.randrange(1000),
            milliseconds=random.randint(5, 50),
            fixed=random.randrange(1000) if first or immutable else None,
            immutable=immutable,
            links=tuple(self._links(2)) if random.random() < 0.25 else (),
        )

    def _links(self, depth: int) -> Iterator[Plan]:
        for _ in range(self._random.choice([0, 0, 1, 2]) if depth == 0 else 1):
            yield self._plan(self._random.randint(1, 2), False, 3)

    def _split(self, tasks: int, least: int) -> list[int]:
        """So many tasks in a few parts, at least one in each."""
        parts = self._random.randint(least, min(tasks, 6))
        cuts = sorted(self._random.sample(range(1, tasks), parts - 1))
        return [b - a for a, b in zip([0, *cuts], [*cuts, tasks], strict=True)]


def expect(plan: Plan) -> Expected:
    """Compute a workflow."""
    expected = Expected()
    expected.value = _value(plan, None, expected.calls)
    return expected


def _value(plan: Plan, given: Any, calls: dict[str, Any]) -> Any:
    if isinstance(plan, Step):
        argument = given if plan.fixed is None else plan.fixed
        assert plan.tag not in calls
        calls[plan.tag] = argument
        value: Any = mixed(argument, plan.factor, plan.offset)
    elif isinstance(plan, Chain):
        value = given
        for part in plan.parts:
            value = _value(part, value, calls)
    elif isinstance(plan, Group):
        return _values(plan.members, given, calls)
    else:
        value = _value(plan.body, _values(plan.header, given, calls), calls)
    for link in plan.links:
        _value(link, value, calls)
    return value


def _values(members: tuple[Plan, ...], given: Any, calls: dict[str, Any]) -> list[Any]:
    return [_value(member, given, calls) for member in members]


def signature_of(plan: Plan, task: Any) -> Any:
    """Make a canvas of calls of `task`, which takes (given, tag, factor, offset, milliseconds)."""
    if isinstance(plan, Group):
        return group(signature_of(member, task) for member in plan.members)
    if isinstance(plan, Step):
        fields = ("tag", "factor", "offset", "milliseconds")
        args = () if plan.fixed is None else (plan.fixed,)
        make = task.si if plan.immutable else task.s
        made = make(*args, **{name: getattr(plan, name) for name in fields})
    elif isinstance(plan, Chain):
        made = chain(*(signature_of(part, task) for part in plan.parts))
    elif plan.slow:
        made = chord(_drawn(plan.header, task), signature_of(plan.body, task))
    else:
        header = [signature_of(member, task) for member in plan.header]
        made = chord(header, signature_of(plan.body, task))
    for link in plan.links:
        made.link(signature_of(link, task))
    return made


def _drawn(members: tuple[Plan, ...], task: Any) -> Iterator[Any]:
    for member in members:
        time.sleep(0.04)  # noqa: TID251  the generator is slow, which is what is tested
        yield signature_of(member, task)
