"""The source, broken on purpose: the suite must find each of these.

A mutation replaces text that must be there exactly once, in a copy of the source, so that none of
them rots silently. `*` in a path means the newest version of a function.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.suite.running import Job, run_one

SRC = Path(__file__).parents[3] / "src"


class Edit(NamedTuple):
    path: str  #: below src/pgcelery
    old: str
    new: str


class Mutation(NamedTuple):
    """One way to break a promise, and the faults that should show it, the likeliest first."""

    name: str
    edits: tuple[Edit, ...]
    faults: tuple[str, ...]
    shows: str  #: how the broken promise is called
    needs: str = ""  #: a file that has to be there for it


MUTATIONS = [
    Mutation(
        "an outcome is recorded whatever its run's token",
        (Edit("engine/sql/functions/finish_v*.sql", "where r.token = g.token",
              "where r.job_id = g.id"),),
        ("20b", "8"), "P7",
    ),
    Mutation(
        "late acknowledgement is early",
        (Edit("compat/app/sending.py", "max_deliveries=MAX_DELIVERIES if late else 1",
              "max_deliveries=1"),),
        ("2", "1"), "P7",
    ),
    Mutation(
        "early acknowledgement is late: a lost run is run again",
        (Edit("engine/sql/functions/maintain_v*.sql", "g.delivery >= j.max_deliveries as over",
              "g.delivery > j.max_deliveries as over"),),
        ("2", "1"), "P10",
    ),
    Mutation(
        "a worker whose lease has run out lets its runs go on",
        (Edit("engine/worker.py", "        self._fenced.look(self._node, self.pool, self._tokens)",
              "        return"),),
        ("20",), "P9", "engine/fence.py",
    ),
    Mutation(
        "deliveries are not counted",
        (Edit("compat/app/lost.py",
              "sending.MAX_DELIVERIES:\n        return redelivery(job, counted=True)",
              "sending.MAX_DELIVERIES:\n        return redelivery(job, counted=False)"),),
        ("5",), "P1/P5",
    ),
    Mutation(
        "what waits for several is released one early",
        (Edit("engine/sql/functions/enqueue_v*.sql",
              "select b.id, b.parents from born b where",
              "select b.id, b.parents - (b.parents > 1)::integer from born b where"),),
        ("31",), "P7",
    ),
    Mutation(
        "outcomes on their way are forgotten when the connection breaks",
        (Edit("engine/node.py", "self.ended.take_back(now)", "self.ended.answered()"),),
        ("24", "24"), "P5",  # an end must be on its way just then: once in six it is not
    ),
    Mutation(
        "workers are buried while their lease runs",
        (Edit("engine/sql/functions/maintain_v*.sql",
              "delete from pgcelery.workers w where w.lease_until < now()",
              "delete from pgcelery.workers w"
              " where w.lease_until < now() + interval '5.7 seconds'"),),
        ("10", "31"), "P5",
    ),
    Mutation(
        "a group is sent task by task",
        (Edit("compat/app/sending.py",
              "return dict(app.engine.enqueue(jobs, conn=conn))",
              "parts = [jobs] if any(job.parents for job in jobs) else [[job] for job in jobs]\n"
              "        return {k: v for part in parts\n"
              "                for k, v in app.engine.enqueue(part, conn=conn).items()}"),),
        ("23",), "P4",
    ),
    Mutation(
        "a request to end a running task is swallowed",
        (Edit("engine/worker.py",
              "elif row.flags:", "elif row.flags and row.token is None:"),),
        ("52",), "P17",
    ),
    Mutation(
        "a pool process does not tell what it went on with",
        (Edit("engine/pool/child.py", "self._say(WENT_ON, dump_step(step), took_ns)",
              "step.job or self._say(WENT_ON, dump_step(step), took_ns)"),),
        ("31b", "3"), "P",
    ),
    Mutation(
        "a warm shutdown does not wait",
        (Edit("engine/worker.py",
              "        if not self.pool.idle:\n            return False\n        self._farewell()",
              "        self._farewell()"),),
        ("10",), "P",
    ),
]  # fmt: skip


def find(path: str, root: Path) -> Path:
    """Find the file that a mutation means."""
    if "*" not in path:
        return root / path
    found = list(root.glob(path))
    return max(found, key=lambda one: int(re.findall(r"\d+", one.stem)[-1]))


def broken(mutation: Mutation, folder: Path) -> Path:
    """Copy the source with the mutation applied; gives what to put first on the path.

    Raises:
        LookupError: The source has changed, and the mutation has to.
    """
    shutil.copytree(SRC, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in mutation.edits:
        path = find(edit.path, folder / "pgcelery")
        text = path.read_text()
        if text.count(edit.old) != 1:
            raise LookupError(
                f"{mutation.name!r}: {text.count(edit.old)} times in {path.name}: {edit.old!r}"
            )
        path.write_text(text.replace(edit.old, edit.new))
    return folder


def try_mutation(mutation: Mutation, folder: Path) -> dict[str, Any]:
    """Run its faults until one finds it; what the report says."""
    if not (SRC / "pgcelery" / mutation.needs).exists():
        return {"mutation": mutation.name, "by": "none", "found": [f"no {mutation.needs} here"]}
    root = broken(mutation, folder / "src")
    for number in mutation.faults:
        report = run_one(Job(number, folder / number, True, {"PYTHONPATH": str(root)}))
        found = [one for one in report["violations"] if one.startswith(mutation.shows)]
        if found:
            return {"mutation": mutation.name, "by": number, "found": found}
    return {"mutation": mutation.name, "by": None, "found": []}


def wanted(words: str | None) -> Iterator[tuple[int, Mutation]]:
    """Number them from 1; those of a list of numbers, or all."""
    numbers = {int(one) for one in words.split(",")} if words else None
    for number, mutation in enumerate(MUTATIONS, 1):
        if numbers is None or number in numbers:
            yield number, mutation
