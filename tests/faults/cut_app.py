"""The application of workers that are cut off: a task that is held while a file is missing."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pgcelery import Celery
from pgcelery.signals import task_late

FOLDER = Path(os.environ["FAULTS_FOLDER"])
app = Celery("cut", broker=os.environ["FAULTS_DSN"])
app.conf.broker_transport_options = {"lease_s": 2.0, "heartbeat_s": 0.25, "maintain_s": 0.2}


def hold(self) -> str:
    with (FOLDER / "runs").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len((FOLDER / "runs").read_text().split()) == 1:
        while not (FOLDER / "go").exists():
            threading.Event().wait(0.01)
    return self.request.hostname


early = app.task(name="early", bind=True)(hold)
late = app.task(name="late", bind=True, acks_late=True)(hold)


@task_late.connect
def note(sender, task_id, state, reason, **kwargs) -> None:
    with (FOLDER / "late").open("a") as file:
        file.write(f"{task_id} {state} {reason}\n")
