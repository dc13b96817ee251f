"""What has to be done so that tasks of a workflow, and all that comes after them, run again. Pure.

What a task that runs again had sent itself (links, the parts of a replacement) it will send anew:
that is dropped. A task that was replaced is again what it was at first, unless only its replacement
runs again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pgcelery.compat import states
from pgcelery.compat.workflow.node import word
from pgcelery.compat.workflow.structure import Structure


class NotReplayable(Exception):
    """These tasks cannot run again now; the message says why. Nothing was done."""


class Plan(NamedTuple):
    """What to ask the engine for."""

    again: list[str]  #: ids that run again
    restored: set[str]  #: those of them that become what they were sent as
    waits: dict[str, int]  #: how many tasks each of them was sent to wait for
    edges: list[tuple[str, str]]  #: what waits for what, both run again
    drops: list[str]  #: ids that will be made anew
    needs: list[str]  #: ids whose results are used


def starts(structure: Structure) -> list[str]:
    """Give the tasks with which a workflow began."""
    return [
        id
        for id, call in structure.calls.items()
        if structure.maker(id) is None and not structure.known(call.first_waits)
    ]


def failed(structure: Structure) -> list[str]:
    """Give the tasks that failed or were revoked though nothing before them was."""
    bad = {
        id for id, call in structure.calls.items() if word(call.state) in states.PROPAGATE_STATES
    }
    return [
        id for id in structure.order if id in bad and not bad.intersection(structure.parents[id])
    ]


def plan(structure: Structure, begin: Iterable[str]) -> Plan:
    """Plan the replay of `begin` and all that comes after.

    Raises:
        NotReplayable: One of them, or one that they need, has not ended or is not known any more.
    """
    begin = set(begin)
    reached = _reached(structure, begin)
    restored = {
        id
        for id in reached
        if structure.calls[id].rewritten and _from_the_start(structure, id, begin, reached)
    }
    dropped = _dropped(structure, reached, restored)
    order = [id for id in structure.order if id in reached]
    again = [id for id in order if id not in dropped]
    for id in order:
        if not structure.calls[id].state.final:
            raise NotReplayable(f"task {id} has not ended: {word(structure.calls[id].state)}")
    found = Plan(again, restored - dropped, {}, [], [id for id in order if id in dropped], [])
    needs: dict[str, None] = {}
    for id in again:
        call = structure.calls[id]
        waits = call.first_waits if id in restored else call.waits
        found.waits[id] = len(waits)
        for parent in dict.fromkeys((*waits, *call.joined)):
            if parent in reached:
                found.edges.extend([(parent, id)] if parent not in dropped else ())
            elif parent in structure.calls:
                needs[parent] = None
            elif parent in waits:
                raise NotReplayable(f"the result of {parent}, for which {id} waits, is gone")
    for id in needs:
        if not structure.calls[id].state.final:
            raise NotReplayable(f"task {id}, whose result is needed, has not ended")
    found.needs.extend(needs)
    return found


def _reached(structure: Structure, begin: set[str]) -> set[str]:
    pending = [*begin, *(part for id in begin for part in structure.parts.get(id, ()))]
    reached: set[str] = set()
    while pending:
        id = pending.pop()
        if id not in reached:
            reached.add(id)
            pending.extend(structure.children[id])
    return reached


def _from_the_start(structure: Structure, id: str, begin: set[str], reached: set[str]) -> bool:
    """Whether a rewritten task runs as it was sent: unless only its replacement is reached."""
    call = structure.calls[id]
    if not call.waits or call.waits == call.first_waits or id in begin:
        return True
    return not reached.isdisjoint(structure.place(id))


def _dropped(structure: Structure, reached: set[str], restored: set[str]) -> set[str]:
    """Pick from what is reached all that tasks which run again will make anew."""
    dropped: set[str] = set()
    for id in structure.order:
        if id not in reached:
            continue
        before = structure.known(structure.calls[id].first_waits)
        maker = structure.maker(id)
        if before:
            anew = dropped.issuperset(before)
        elif maker is None:
            anew = False
        elif id in structure.parts.get(maker, ()):
            anew = maker in restored
        else:
            anew = maker in reached
        if anew:
            dropped.add(id)
    return dropped
