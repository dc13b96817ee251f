"""Canvas shapes, drawn by hypothesis.

A shape is a dict that JSON can say:

    {"canvas": CANVAS, "args": [...], "kwargs": {...}, "options": {...}, "link": [CANVAS],
     "link_error": [ERRBACK], "inside": true, "json": true, "frozen": true}

Everything but the canvas is how it is sent: with partial arguments, from within a task, after a
journey through JSON, after `freeze()`. A canvas is

    {"kind": "task", "tag": "t1", "do": NAME, "args": [...], "kwargs": {...}, "immutable": true,
     "options": {...}, "into": CANVAS}
    {"kind": "chain", "of": [CANVAS], "pipe": true}
    {"kind": "group", "of": [CANVAS], "drawn": true}
    {"kind": "chord", "of": [CANVAS], "body": CANVAS}
    {"kind": "map" | "starmap" | "chunks", "items": [[TAG, VALUE]], "size": 2, "group": true}

each with "link" and "link_error" if it has any. What the tasks do is in `program/canvases.py`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

Shape = dict[str, Any]

MAX_DEPTH = 4
MAX_TASKS = 14
#: Behaviours, as often as they are drawn.
PLAIN = ["do.ok"] * 12 + ["do.pair", "do.nothing", "do.quiet", "do.retry"]
TROUBLE = ["do.fail", "do.fail", "do.boom", "do.ignore", "do.reject", "do.give_up", "do.auto"]
GROWING = ["do.replace", "do.spawn"]


@st.composite
def tasks(draw: Any, depth: int) -> Shape:
    """One task; deeper ones may grow."""
    choice = draw(st.integers(0, 19))
    if choice < 14 or (choice > 17 and depth == 0):
        do = draw(st.sampled_from(PLAIN))
    else:
        do = draw(st.sampled_from(TROUBLE if choice < 18 else GROWING))
    found: Shape = {"kind": "task", "do": do}
    if do in GROWING:
        found["into"] = draw(canvases(depth - 1))
    if args := draw(st.lists(st.integers(0, 9), max_size=2)):
        found["args"] = args
    if draw(st.integers(0, 9)) == 0:
        found["kwargs"] = {"k": draw(st.sampled_from([None, 1, [1, "x"], {"y": 2.5}]))}
    if draw(st.integers(0, 6)) == 0:
        found["immutable"] = True
    if draw(st.integers(0, 19)) == 0:
        found["options"] = draw(
            st.sampled_from([{"ignore_result": True}, {"ignore_result": False}, {"countdown": 0}])
        )
    return found


errbacks = st.sampled_from(["err.old", "err.new", "do.ok"]).map(
    lambda do: {"kind": "task", "do": do}
)


@st.composite
def linked(draw: Any, canvas: Any, depth: int) -> Shape:
    """A canvas, now and then with links."""
    found: Shape = draw(canvas)
    choice = draw(st.integers(0, 24))
    if choice in (0, 1):
        found["link"] = draw(st.lists(canvases(min(depth, 1) - 1), min_size=1, max_size=2))
    if choice in (1, 2, 3):
        found["link_error"] = draw(st.lists(errbacks, min_size=1, max_size=2))
    return found


@st.composite
def sequences(draw: Any, kind: str, depth: int) -> Shape:
    """A chain or a group."""
    of = draw(st.lists(canvases(depth - 1), min_size=1, max_size=3))
    if kind == "chain" and len(of) == 1 and of[0]["kind"] in ("group", "chunks"):
        return dict(of[0])  # Celery loses the arguments of a chain that is one group
    found = {"kind": kind, "of": of}
    # Not `group | group | chain`, after which Celery runs one id once for every member; and not a
    # group in a generator, whose members get wrong indexes.
    plain = all(one["kind"] not in (kind, "chunks") for one in of)
    if plain and draw(st.booleans()):
        found["pipe" if kind == "chain" else "drawn"] = True
    return found


@st.composite
def chords(draw: Any, depth: int) -> Shape:
    """A chord."""
    header = draw(st.lists(canvases(depth - 1), min_size=1, max_size=3))
    return {"kind": "chord", "of": header, "body": draw(canvases(depth - 1))}


@st.composite
def maps(draw: Any) -> Shape:
    """A map, a starmap or chunks."""
    values = draw(st.lists(st.sampled_from([1, 1, 2, None, "fail"]), min_size=1, max_size=4))
    found: Shape = {"kind": draw(st.sampled_from(["map", "starmap", "chunks"]))}
    found["items"] = [["", value] for value in values]
    if found["kind"] == "chunks":
        found |= {"size": draw(st.integers(1, 3)), "group": True}
    return found


def canvases(depth: int) -> Any:
    """Canvases at most so deep."""
    if depth <= 0:
        return linked(tasks(0), 0)
    deeper = [sequences("chain", depth), sequences("group", depth), chords(depth)]
    weighed = [tasks(depth)] * 4 + deeper * 2 + [maps()]
    return st.integers(0, len(weighed) - 1).flatmap(lambda n: linked(weighed[n], depth))


@st.composite
def shapes(draw: Any) -> Shape:
    """Shapes with tags, of at most `MAX_TASKS` tasks."""
    depth = draw(st.sampled_from([1, 2, 2, 3, 3, MAX_DEPTH]))
    deeper = [sequences("chain", depth), sequences("group", depth), chords(depth)]
    found: Shape = {"canvas": draw(linked(deeper[draw(st.integers(0, 2))], depth))}
    for key in ("inside", "json", "frozen"):
        if draw(st.integers(0, 7)) == 0:
            found[key] = True
    if draw(st.integers(0, 4)) == 0:
        found["args"] = draw(st.lists(st.integers(10, 19), min_size=1, max_size=2))
    if draw(st.integers(0, 9)) == 0:
        found["link"] = [draw(canvases(0))]
    if draw(st.integers(0, 9)) == 0:
        found["link_error"] = [draw(errbacks)]
    return tagged(found)


def tagged(shape: Shape) -> Shape:
    """Give every task of a shape its tag, in the order of reading."""
    shape = copy.deepcopy(shape)
    for number, task in enumerate(tasks_of(shape), 1):
        if isinstance(task, list):
            task[0] = f"t{number}"
        else:
            task["tag"] = f"t{number}"
    return shape


def tasks_of(value: Any) -> Iterator[Any]:
    """Iterate over the tasks in a shape, and the items of its maps."""
    if isinstance(value, list):
        for one in value:
            yield from tasks_of(one)
    elif isinstance(value, dict):
        if value.get("kind") == "task":
            yield value
        if "items" in value:
            yield from value["items"]
        for key in ("canvas", "of", "body", "into", "link", "link_error"):
            yield from tasks_of(value.get(key))


def skeleton(value: Any) -> Any:
    """Give what makes a shape different from others: all but the values of arguments."""
    if isinstance(value, list):
        return [skeleton(one) for one in value]
    if isinstance(value, dict):
        return {k: len(v) if k in ("args", "kwargs") else skeleton(v) for k, v in value.items()}
    return value


def draw_shapes(count: int, at: int) -> list[Shape]:
    """Draw so many different shapes, smallest first; always the same ones for a seed.

    Args:
        count: How many.
        at: The seed. More than one is needed, since what one of them gives is much alike.
    """
    found: dict[str, Shape] = {}
    for offset in range(2 * count):
        for shape in _drawn(at * 10_000 + offset):
            found.setdefault(json.dumps(skeleton(shape)), shape)
        if len(found) >= count:
            break
    return sorted(list(found.values())[:count], key=lambda shape: len(json.dumps(shape)))


def _drawn(at: int) -> list[Shape]:
    """Draw a few shapes of a fitting size."""
    found: list[Shape] = []

    @seed(at)
    @settings(
        max_examples=12,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(shapes())
    def draw(shape: Shape) -> None:
        if 1 < sum(1 for _ in tasks_of(shape)) <= MAX_TASKS and not _blocks(shape["canvas"]):
            found.append(shape)

    draw()
    return found[-1:]  # the first ones are small and simple


def _blocks(canvas: Any, inside: int = 0) -> bool:
    """Whether an unkept result is in a group in a header: Celery's worker waits for it for ever."""
    if not isinstance(canvas, dict):
        return False
    unkept = canvas.get("do") == "do.quiet" or canvas.get("options", {}).get("ignore_result")
    if unkept and inside > 1:
        return True
    inside += canvas["kind"] in ("group", "chord")
    parts = [*canvas.get("of", ()), canvas.get("body"), canvas.get("into")]
    return any(_blocks(part, inside) for part in parts)
