"""Canvas shapes on real Celery and on pgcelery: everything that can be seen is equal.

Values, states, results with parents and children, requests, signals, who sends what, error links.
The shapes are hand-picked or were drawn by hypothesis. What differs on purpose is in
`shapes/accepted.py`, what is to be mended in `shapes/open_bugs.py`; both are strict both ways.
"""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.celery_compat.shapes import accepted, handpicked, open_bugs
from tests.celery_compat.shapes.running import traces
from tests.celery_compat.shapes.shrink import shrink
from tests.celery_compat.shapes.strategy import Shape, draw_shapes, skeleton
from tests.celery_compat.worlds import ROOT, World, pgcelery_world

pytestmark = [pytest.mark.real_celery, pytest.mark.slow, pytest.mark.timeout(300)]
pytest.importorskip("celery")

#: Drawn once, so that every version of hypothesis runs the same, by
#: `python -m tests.celery_compat.shapes`.
GENERATED = json.loads((Path(__file__).parent / "shapes" / "generated.json").read_text())
SHAPES: dict[str, Shape] = handpicked.SHAPES | {
    f"generated {number}": shape for number, shape in enumerate(GENERATED)
}
DOCUMENT = ROOT / "docs" / "compatibility-differences.md"

#: How many shapes to draw at random, and from which seed; none in the usual run.
AT_RANDOM = int(os.environ.get("SHAPES", "0"))
SEED = int(os.environ.get("SHAPES_SEED", random.randrange(10**6)))
BATCH = 120

_runs: dict[str, tuple[Any, Any]] = {}


def unexplained(pair: tuple[Any, Any]) -> tuple[list[Any], set[str]]:
    """Give the differences of (ours, theirs) that are on no list, and which rules were used."""
    return accepted.unexplained(*pair, accepted.RULES | open_bugs.RULES)


@pytest.fixture
def worlds(real_celery: World, request: pytest.FixtureRequest) -> tuple[World, World]:
    """(pgcelery, Celery), each with a server of its own."""
    return pgcelery_world(request.getfixturevalue("fresh_dsn")), real_celery


@pytest.fixture
def both(request: pytest.FixtureRequest) -> dict[str, tuple[Any, Any]]:
    """{name: (pgcelery's trace, Celery's trace)}, made once for the module."""
    if not _runs:
        shapes = list(SHAPES.values())
        found = [traces(world, shapes) for world in request.getfixturevalue("worlds")]
        _runs.update(zip(SHAPES, zip(*found, strict=True), strict=True))
    return _runs


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_does_the_same(name: str, both: dict[str, tuple[Any, Any]]) -> None:
    left, _ = unexplained(both[name])
    assert [str(one) for one in left] == [], json.dumps(SHAPES[name])


@pytest.mark.parametrize("rule", [*accepted.RULES, *open_bugs.RULES])
def test_a_known_difference_is_there(rule: str, both: dict[str, tuple[Any, Any]]) -> None:
    used = set().union(*(unexplained(pair)[1] for pair in both.values()))
    assert rule in used, "it is gone: strike it from the list"


def test_every_accepted_difference_is_documented() -> None:
    text = DOCUMENT.read_text()
    headings = {line[3:] for line in text.splitlines() if line.startswith("## ")}
    assert {name[0].upper() + name[1:] for name in accepted.RULES} <= headings


def test_celery_runs_most_shapes_to_their_end(both: dict[str, tuple[Any, Any]]) -> None:
    """Else there would be nothing to compare."""
    ended = [
        name for name, (_, theirs) in both.items() if "'PENDING'" not in repr(theirs["result"])
    ]
    assert len(ended) > 0.8 * len(SHAPES)


def test_the_generated_shapes_differ_from_each_other() -> None:
    assert len({json.dumps(skeleton(shape)) for shape in GENERATED}) == len(GENERATED) >= 60


@pytest.mark.skipif(not AT_RANDOM, reason="SHAPES=500 draws so many shapes at random")
@pytest.mark.timeout(0)
def test_shapes_at_random_do_the_same(worlds: tuple[World, World]) -> None:
    shapes = draw_shapes(AT_RANDOM, SEED)
    found: dict[str, Shape] = {}
    for first in range(0, len(shapes), BATCH):
        batch = shapes[first : first + BATCH]
        for shape, kinds in zip(batch, differing(worlds, batch), strict=True):
            for kind in kinds:
                if kind not in found or len(str(shape)) < len(str(found[kind])):
                    found[kind] = shape
    reports = {report(worlds, kind, shape) for kind, shape in found.items()}
    assert not reports, f"SHAPES={AT_RANDOM} SHAPES_SEED={SEED}\n" + "\n".join(sorted(reports))


def differing(worlds: tuple[World, World], shapes: list[Shape]) -> list[set[str]]:
    """Say of each shape which kinds of differences it has that no rule accepts."""
    pairs = zip(*(traces(world, shapes) for world in worlds), strict=True)
    return [{_kind(one.path) for one in unexplained(pair)[0]} for pair in pairs]


def _kind(path: tuple[Any, ...]) -> str:
    """Leave numbers and tags out of a path."""
    return ".".join(re.sub(r"^t?\d+", "*", str(one)) for one in path)


def report(worlds: tuple[World, World], kind: str, shape: Shape) -> str:
    """Say a difference by a small shape that shows it."""
    small = shrink(shape, lambda shapes: [kind in kinds for kinds in differing(worlds, shapes)])
    (pair,) = zip(*(traces(world, [small]) for world in worlds), strict=True)
    return "\n    ".join([json.dumps(small), *map(str, unexplained(pair)[0])])
