"""Compares the two traces of one shape, leaf by leaf; what may differ is in `accepted`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

Trace = dict[str, Any]
#: Stands for what one side does not have.
MISSING = "(nothing)"
#: A task that a trace does not know.
UNKNOWN: Trace = {"published": [], "runs": [], "stored": {"state": "PENDING", "children": []}}


class Difference(NamedTuple):
    """One leaf of two traces that is not the same."""

    path: tuple[Any, ...]
    ours: Any
    theirs: Any

    @property
    def task(self) -> str:
        """Name of the task that it is about, or nothing."""
        return str(self.path[1]) if self.path[0] == "tasks" else ""

    @property
    def number(self) -> int:
        """Which of the tasks of this name it is about."""
        return self.path[2] if len(self.path) > 2 and self.task else 0

    @property
    def part(self) -> str:
        """What of the task it is about: published, runs or stored."""
        return str(self.path[3]) if len(self.path) > 3 and self.task else ""

    @property
    def leaf(self) -> Any:
        """The last of its path."""
        return self.path[-1]

    def __str__(self) -> str:
        where = ".".join(map(str, self.path))
        return f"{where}: pgcelery {self.ours!r:.300}, Celery {self.theirs!r:.300}"


def differences(ours: Any, theirs: Any, path: tuple[Any, ...] = ()) -> Iterator[Difference]:
    """Iterate over every leaf that differs. Lists of different lengths are leaves."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**theirs, **ours}:
            pair = ours.get(key, MISSING), theirs.get(key, MISSING)
            yield from differences(*pair, (*path, key))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(a, b, (*path, k))
    elif not _same(ours, theirs):
        yield Difference(path, ours, theirs)


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two leaves are equal, where an id that a side never named may be any."""
    if isinstance(ours, str) and isinstance(theirs, str):
        for one, other in ((ours, theirs), (theirs, ours)):
            if "<?>" in one:
                return bool(re.fullmatch(re.escape(one).replace(r"<\?>", "<[^<>]*>"), other))
    return bool(ours == theirs)


class Pair:
    """Both traces of a shape, with what can be asked of them."""

    def __init__(self, ours: Trace, theirs: Trace) -> None:
        self.ours = ours
        self.theirs = theirs
        #: whether Celery never comes to an end, and pgcelery does
        self.hangs = _pending(theirs) > _pending(ours)
        #: (names that a body begins with, names of the members of its header that ran in Celery)
        self.headers: list[tuple[set[str], set[str]]] = []
        #: the ids of the steps of each chain that waits for something
        self.waiting_chains: list[list[str]] = []
        for name, request in requests(theirs):
            if request["chord"]:
                self._add_member(first_ids(request["chord"]), f"<{name}>")
            for chain in chains_in([request["chord"], *request["chain"]]):
                self.waiting_chains.append(list(map(last_id, chain)))

    def _add_member(self, body: set[str], member: str) -> None:
        for known, members in self.headers:
            if known == body:
                members.add(member)
                return
        self.headers.append((body, {member}))

    def calls(self, found: Difference) -> tuple[Any, Any]:
        """Give what both sides know of the task that a difference is about."""
        return _nth(self.ours, found), _nth(self.theirs, found)

    def ran(self, found: Difference) -> bool:
        """Whether the task that a difference is about ran on either side."""
        return any(call["runs"] for call in self.calls(found))

    def is_member(self, name: str) -> bool:
        """Whether a task is a member of a header."""
        return any(f"<{name}>" in members for _, members in self.headers)

    def same_header(self, one: Any, other: Any) -> bool:
        """Whether both are members of one header."""
        return any({one, other} <= members for _, members in self.headers)

    def same_root(self, one: Any, other: Any) -> bool:
        """Whether both are roots of members of one header, or of headers so connected."""
        reached = {one}
        sets = [self._roots(members) for _, members in self.headers]
        for _ in sets:
            reached = reached.union(*(roots for roots in sets if roots & reached))
        return other in reached

    def _roots(self, members: set[str]) -> set[str]:
        return {asked["root_id"] for name, asked in requests(self.theirs) if f"<{name}>" in members}


def _nth(trace: Trace, found: Difference) -> Any:
    known = trace["tasks"].get(found.task, [])
    return known[found.number] if found.number < len(known) else UNKNOWN


def _pending(trace: Trace) -> int:
    return repr(trace["result"]).count("'PENDING'")


def calls(trace: Trace) -> Iterator[tuple[str, Any]]:
    """Iterate over (name, what is known of it) of all tasks."""
    for name, known in trace["tasks"].items():
        for call in known:
            yield name, call


def requests(trace: Trace) -> Iterator[tuple[str, Any]]:
    """Iterate over (name, request) of all runs."""
    for name, call in calls(trace):
        yield from ((name, run["request"]) for run in call["runs"] if "request" in run)


def chains_in(outline: Any) -> list[list[Any]]:
    """Give the steps of every chain in a signature."""
    if isinstance(outline, list):
        return [found for one in outline for found in chains_in(one)]
    if not outline:
        return []
    own = [outline["chain"]] if "chain" in outline else []
    inner = [outline.get(key) for key in ("chain", "group", "chord", "body")]
    return own + chains_in([one for one in inner if one])


def first_ids(outline: Any) -> set[str]:
    """Give the ids of the tasks that a signature begins with."""
    if not outline:
        return set()
    if "chain" in outline:
        return first_ids(outline["chain"][0])
    if "group" in outline or "chord" in outline:
        return set().union(*map(first_ids, outline.get("group") or outline["chord"]))
    return {outline["id"]}


def last_id(outline: Any) -> str:
    """Give the id of the task that a signature ends with; nothing if it is a group."""
    if "chord" in outline:
        return last_id(outline["body"])
    return last_id(outline["chain"][-1]) if "chain" in outline else str(outline.get("id", ""))
