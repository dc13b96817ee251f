"""Tasks whose SQL commits with their completion, under fault."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

from pgcelery import Celery
from tests.support.commits import insert
from tests.support.wait import wait_for

app = Celery("transactional", broker=os.environ["FAULTS_DSN"], backend=os.environ["FAULTS_DSN"])
app.conf.broker_transport_options = {
    "lease_s": 3.0,
    "heartbeat_s": 0.5,
    "maintain_s": 0.5,
    "lease_lost": os.environ.get("FAULTS_LEASE_LOST", "kill"),
}
FOLDER = Path(os.environ["FAULTS_FOLDER"])


def began(number: int) -> None:
    with (FOLDER / "began").open("a") as log:  # one short line: appended whole
        log.write(f"{number} {os.getpid()}\n")


@app.task(bind=True, transactional=True)
def put(self: Any, number: int) -> int:
    began(number)
    insert(self.connection, number)
    threading.Event().wait(random.uniform(0, 0.01))
    return number


@app.task(bind=True, transactional=True)
def put_and_send(self: Any, number: int) -> int:
    """One row, and a task that is to come if and only if the row does."""
    began(number)
    insert(self.connection, number)
    note.apply_async((number,), conn=self.connection)
    threading.Event().wait(random.uniform(0, 0.01))
    return number


@app.task(bind=True, transactional=True)
def note(self: Any, number: int) -> None:
    insert(self.connection, -number)


@app.task(bind=True, transactional=True)
def put_pid(self: Any) -> int:
    """Insert the process's id, and go on when told."""
    began(0)
    insert(self.connection, os.getpid())
    wait_for((FOLDER / "go").exists, timeout_s=60)
    return os.getpid()
