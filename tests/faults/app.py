"""The application under fault: tasks that log each run of theirs to a file of its own."""

from __future__ import annotations

import os
from pathlib import Path

from pgcelery import Celery

app = Celery("faults", broker=os.environ["FAULTS_DSN"], backend=os.environ["FAULTS_DSN"])
app.conf.broker_transport_options = {"lease_s": 3.0, "heartbeat_s": 0.5, "maintain_s": 0.5}
app.conf.task_acks_late = os.environ.get("FAULTS_LATE") == "1"
app.conf.task_reject_on_worker_lost = app.conf.task_acks_late
LOG = Path(os.environ["FAULTS_LOG"])


@app.task
def work(number: int, seconds: float = 0.0) -> int:
    with LOG.open("a") as log:  # one short line: appended whole
        log.write(f"{number}\n")
    if seconds:
        import threading  # noqa: PLC0415

        threading.Event().wait(seconds)
    return number * 2


@app.task
def suicide(number: int) -> None:
    with LOG.open("a") as log:
        log.write(f"{number}\n")
    os.kill(os.getpid(), 9)
