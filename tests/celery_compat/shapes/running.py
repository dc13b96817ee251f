"""Runs a batch of shapes in one world, with one start of its worker."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.celery_compat.worlds import World, copy_program, run_program

#: Processes of the worker. Celery publishes a retry before it stores that there is one, and which
#: header member ends last is chance: with one process its traces are the same every time.
CONCURRENCY = {"celery": "1", "pgcelery": "2"}
PROGRAM = Path(__file__).parent / "program"
Shape = dict[str, Any]


def traces(world: World, shapes: list[Shape]) -> list[dict[str, Any]]:
    """Give the trace of each shape. The world's broker and database may have been used before."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = copy_program(world, PROGRAM, place / "program")
        (place / "shapes.json").write_text(json.dumps(shapes))
        (place / "records").mkdir()
        environment = {
            "SHAPES": str(place / "shapes.json"),
            "SHAPES_RECORDS": str(place / "records"),
        }
        run = run_program(
            world, folder, "canvases", ["-c", CONCURRENCY[world.module]], environment=environment
        )
    return [run.trace[str(number)] for number in range(len(shapes))]
