"""What waits for what in a workflow, read from the messages of its tasks. Pure.

The engine forgets an edge when its parent ends; the messages say it for good. A task that was
sent to wait has the ids in the header ``chord_parents`` (`result.inputs`); one that a running task
sent, as a link or in the place of itself, has that one's id as its ``parent_id``. A retry or a
replacement writes another message: what was sent at first is kept beside it (``Member.sent``).

The parts of a replacement come after what the replaced task waited for, and before the task with
its id, which is the replacement's end.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kombu.exceptions import DecodeError

from pgcelery.compat.message import decode
from pgcelery.compat.result import inputs
from pgcelery.engine import Member, State


class Call(NamedTuple):
    """A task, as its row and its messages say."""

    id: str
    name: str
    queue: str
    state: State
    args: str
    group: str | None
    retries: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    rewritten: bool  #: what it was sent as is kept beside what it is now
    waits: tuple[str, ...]  #: ids that it waits for by its message
    first_waits: tuple[str, ...]  #: ids that it waited for by what it was sent as
    joined: tuple[str, ...]  #: ids that it waits for besides
    maker: str | None  #: id of the task that sent it
    nesting: int  #: how many replacements it is in


def read(member: Member) -> Call:
    """Read a job of a workflow; one that is no task has its job's name, and no ties."""
    headers = _headers(member.payload)
    first = headers if member.sent is None else _headers(member.sent)
    return Call(
        member.id, str(headers.get("shadow") or headers.get("task") or member.name),
        member.queue, member.state, _arguments(headers), headers.get("group"),
        int(headers.get("retries") or 0),
        member.created_at, member.started_at, member.finished_at,
        rewritten=member.sent is not None,
        waits=_waits(headers), first_waits=_waits(first), joined=tuple(member.joined),
        maker=first.get("parent_id"), nesting=int(headers.get("replaced_task_nesting") or 0),
    )  # fmt: skip


def _headers(payload: bytes) -> dict[str, Any]:
    try:
        return decode(payload).headers
    except DecodeError:
        return {}


def _waits(headers: Mapping[str, Any]) -> tuple[str, ...]:
    return inputs.flat(headers.get("chord_parents") or ())


def _arguments(headers: Mapping[str, Any]) -> str:
    args, kwargs = str(headers.get("argsrepr") or "()"), str(headers.get("kwargsrepr") or "{}")
    if args[0] in "([" and args[-1] in ")]":
        args = args[1:-1].removesuffix(",")
    slot = repr(inputs.SLOT)
    if headers.get("chord_parents") and not headers.get("chord_immutable"):
        args = f"...{args.removeprefix(slot)}" if args.startswith(slot) else args
    return ", ".join(part for part in (args, "" if kwargs == "{}" else f"**{kwargs}") if part)


class Structure:
    """The shape of a workflow.

    Args:
        calls: Its tasks, in the order in which they were sent.

    Attributes:
        calls: By id.
        parents: Ids that each one comes after, of this workflow.
        children: Ids that come after each.
        order: All ids, parents before children.
        parts: Of each replaced task, ids with which its replacement begins.
    """

    def __init__(self, calls: Iterable[Call]) -> None:
        self.calls = {call.id: call for call in calls}
        self.parts = self._find_parts()
        self.parents = {id: self._parents(id) for id in self.calls}
        self.order = self._sort()
        self.children: dict[str, list[str]] = {id: [] for id in self.calls}
        for id in self.order:
            for parent in self.parents[id]:
                self.children[parent].append(id)

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Every (parent, child)."""
        return [(parent, id) for id in self.order for parent in self.parents[id]]

    def known(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Pick the ids of this workflow, each once."""
        return tuple(dict.fromkeys(id for id in ids if id in self.calls))

    def maker(self, id: str) -> str | None:
        """Give the task of this workflow that sent one, if one did."""
        call = self.calls[id]
        made = not call.first_waits and call.maker != id and call.maker in self.calls
        return call.maker if made else None

    def place(self, id: str) -> tuple[str, ...]:
        """Give what a task came after when it was sent, whatever has replaced it since."""
        for _ in self.calls:
            call = self.calls[id]
            if call.first_waits:
                return self.known(call.first_waits)
            maker = self.maker(id)
            if maker is None:
                return ()
            if id not in self.parts.get(maker, ()):
                return (maker,)
            id = maker
        return ()

    def _parents(self, id: str) -> tuple[str, ...]:
        call = self.calls[id]
        return self.known((*(self.known(call.waits) or self.place(id)), *call.joined))

    def _find_parts(self) -> dict[str, frozenset[str]]:
        made: dict[str, list[str]] = defaultdict(list)
        for id in self.calls:
            maker = self.maker(id)
            if maker is not None:
                made[maker].append(id)
        return {
            maker: self._above(maker).intersection(ids)
            for maker, ids in made.items()
            if self._is_replaced(self.calls[maker])
        }

    @staticmethod
    def _is_replaced(call: Call) -> bool:
        """Whether it waits for parts of its replacement; those wait for nothing else."""
        return bool(call.waits) and (call.waits != call.first_waits or call.nesting > 0)

    def _above(self, id: str) -> frozenset[str]:
        found: set[str] = set()
        pending = [id]
        while pending:
            call = self.calls[pending.pop()]
            more = self.known((*(call.waits or call.first_waits), *call.joined))
            pending.extend(one for one in more if one not in found)
            found.update(more)
        return frozenset(found)

    def _sort(self) -> list[str]:
        """Order by parents, then by sending; an edge that closes a circle is taken out."""
        left = {id: len(parents) for id, parents in self.parents.items()}
        below: dict[str, list[str]] = defaultdict(list)
        for id, parents in self.parents.items():
            for parent in parents:
                below[parent].append(id)
        ready = deque(id for id, many in left.items() if not many)
        order: dict[str, None] = {}
        while len(order) < len(self.calls):
            if not ready:
                stuck = next(id for id in self.calls if id not in order)
                self.parents[stuck] = tuple(one for one in self.parents[stuck] if one in order)
                ready.append(stuck)
            id = ready.popleft()
            order[id] = None
            for child in below[id]:
                left[child] -= 1
                if not left[child] and child not in order:
                    ready.append(child)
        return list(order)
