"""The application whose lone tasks are handed to idle workers: each run is a line of a file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pgcelery import Celery

app = Celery("handed", broker=os.environ["FAULTS_DSN"], backend=os.environ["FAULTS_DSN"])
app.conf.broker_transport_options = {"lease_s": 2.0, "heartbeat_s": 0.25, "maintain_s": 0.2}
LOG = Path(os.environ["FAULTS_LOG"])


def twice(number: int, seconds: float) -> int:
    with LOG.open("a") as log:  # one short line: appended whole
        log.write(f"{number}\n")
    threading.Event().wait(seconds)
    return number * 2


early = app.task(name="early")(twice)
late = app.task(name="late", acks_late=True, reject_on_worker_lost=True)(twice)
