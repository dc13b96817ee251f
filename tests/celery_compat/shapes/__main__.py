"""Draws the generated shapes anew: `python -m tests.celery_compat.shapes`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.celery_compat.shapes.strategy import draw_shapes

COUNT = 90
SEED = 2

lines = ",\n".join(json.dumps(shape) for shape in draw_shapes(COUNT, SEED))
Path(__file__).with_name("generated.json").write_text(f"[\n{lines}\n]\n")
