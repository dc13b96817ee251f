"""Named places between two statements that matter, where a test lets the process die or stumble.

``PGCELERY_FAILPOINTS="claim.received:kill:3,beat.sent:raise"`` arms points of every process that
starts with it: name, action, and at which hit of the process (1 if not said). The actions: ``kill``
(SIGKILL to itself), ``exit``, ``pause`` (SIGSTOP), ``raise`` (`DatabaseUnavailable`) and
``sleep=SECONDS``. With ``PGCELERY_FAILPOINTS_DIR`` a point that acts leaves a file of its name in
that folder, and acts no more while it is there, in any process. Nothing is armed otherwise, and a
point costs a call and a look at an empty dict.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from pgcelery.engine.errors import DatabaseUnavailable

#: Every point, and what has just happened there.
POINTS = {
    "register.answered": "a worker learns that it is registered",
    "claim.received": "jobs were claimed, and the pool has not got them",
    "outcome.received": "the worker has an outcome of a pool process, and nobody else",
    "step.sent": "outcomes and the wish for jobs are on their way",
    "step.answered": "the answer to them is here, and nothing was done about it",
    "reschedule.sent": "retries and what is given back are on their way",
    "reschedule.answered": "they are recorded",
    "beat.sent": "a renewal of the lease is on its way",
    "beat.answered": "the lease is renewed",
    "maintain.sent": "a round of upkeep is on its way",
    "maintain.answered": "it is done, and its worker does not know what it has to end",
    "child.opens": "a pool process has taken a job, and has not begun it",
    "child.ended": "a body has ended, and only its process knows how",
    "child.told": "the worker has been told",
    "relay.begins": "a pool process is about to record a step itself",
    "relay.sent": "the step is on its way",
    "relay.committed": "the step is recorded and the next claimed; the worker does not know",
    "relay.told": "the worker has been told of the next one, which has not begun",
    "enqueue.begins": "jobs are about to be enqueued",
    "enqueue.batch": "a batch of them is inserted, and more are to come",
    "enqueue.committed": "they are there, and their sender does not know",
    "latch.opened": "a header that grows has begun",
    "latch.closes": "it is complete, and its body is not there",
    "latch.closed": "its body is there, and its sender does not know",
    "schedule.fires": "a time was found to be due, and nothing was enqueued for it",
    "schedule.fired": "its job is enqueued, and that is not committed",
    "schedule.committed": "that is committed",
}

_ACTIONS = ("kill", "exit", "pause", "raise", "sleep")


class _Armed:
    def __init__(self, name: str, action: str, hit: int) -> None:
        self.name = name
        self.action, _, self.argument = action.partition("=")
        self.hits_left = hit

    def hit(self) -> None:
        self.hits_left -= 1
        if self.hits_left or not _leave_mark(self.name):
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "exit":
            os._exit(1)
        elif self.action == "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action == "raise":
            raise DatabaseUnavailable(f"failpoint {self.name}")
        else:
            threading.Event().wait(float(self.argument))


_armed: dict[str, _Armed] = {}
_folder: Path | None = None


def failpoint(name: str) -> None:
    """Act if this point is armed."""
    if _armed and (point := _armed.get(name)) is not None:
        point.hit()


def _leave_mark(name: str) -> bool:
    """Whether this is the first process to act at a point."""
    if _folder is None:
        return True
    try:
        (_folder / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def arm(spec: str, folder: Path | None = None) -> None:
    """Arm points of this process, and disarm all others.

    Raises:
        ValueError: There is no such point or action.
    """
    global _folder
    found = {}
    for one in filter(None, spec.split(",")):
        name, _, rest = one.strip().partition(":")
        action, _, hit = rest.partition(":")
        if name not in POINTS:
            raise ValueError(f"there is no failpoint {name!r}; there are: {', '.join(POINTS)}")
        if action.partition("=")[0] not in _ACTIONS or not (hit or "1").isdigit():
            raise ValueError(
                f"failpoint {one!r}: say NAME:ACTION or NAME:ACTION:HIT, with an action of"
                f" {', '.join(_ACTIONS)}=SECONDS"
            )
        found[name] = _Armed(name, action, int(hit or 1))
    _armed.clear()
    _armed.update(found)
    _folder = folder


def arm_from(environ: Mapping[str, str]) -> None:
    """Arm what the environment says; raises what `arm` does."""
    spec = environ.get("PGCELERY_FAILPOINTS", "")
    folder = environ.get("PGCELERY_FAILPOINTS_DIR")
    if spec:
        arm(spec, Path(folder) if folder else None)


arm_from(os.environ)
