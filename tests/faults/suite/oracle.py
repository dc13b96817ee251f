"""What bodies note about their runs, in a file that none of the faults touches.

Each record is one line, appended by one write: there whole or not at all, whoever dies.
Times are of the monotonic clock, which all processes of a machine share and no fault can turn.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.suite.history import Run


class Pen:
    """The writing side, in the worker."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, **fields: Any) -> None:
        fields.update(what=what, at=time.monotonic(), wall=time.time(), pid=os.getpid())
        fields["group"] = os.getpgrp()  # a worker's processes are one group, numbered as its parent
        os.write(self._fd, json.dumps(fields).encode() + b"\n")


def records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def runs(path: Path) -> list[Run]:
    """Each start of a body, with its end if that was reached."""
    found: list[Run] = []
    places: dict[tuple[int, int, int], int] = {}  # by token, process and attempt
    for one in records(path):
        key = one["token"], one["pid"], one["attempt"]
        if one["what"] == "begun":
            places[key] = len(found)
            known = {name: one[name] for name in Run._fields if name in one}
            found.append(Run(**known, begun=one["at"], begun_wall=one["wall"]))
        elif one["what"] == "ended":
            found[places[key]] = found[places[key]]._replace(ended=one["at"])
    return found
