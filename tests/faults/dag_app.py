"""The application of the random workflows: one task, which notes each run of its own."""

from __future__ import annotations

import json
import os
from threading import Event
from typing import Any

from pgcelery import Celery
from pgcelery.compat.app import sending
from tests.faults.dags import LEASE_S, mixed

LATE = os.environ["FAULTS_LATE"] == "1"

sending.MAX_DELIVERIES = 1000  # on a slow machine a second's kills can hit one task five times

app = Celery("dags", broker=os.environ["FAULTS_DSN"], backend=os.environ["FAULTS_DSN"])
app.conf.broker_transport_options = {
    "lease_s": LEASE_S,
    "heartbeat_s": 0.5,
    "maintain_s": 0.5,
    "lease_lost": "finish",  # or nothing would come late
}


def note(event: str, tag: str, given: Any) -> None:
    """Append one line, whole, whatever else writes and dies; a worker's processes are one group."""
    line = json.dumps([event, tag, os.getpgrp(), given]) + "\n"
    log = os.open(os.environ["FAULTS_LOG"], os.O_WRONLY | os.O_APPEND)
    os.write(log, line.encode())
    os.close(log)


@app.task(name="mix", acks_late=LATE, reject_on_worker_lost=LATE)
def mix(given: Any, tag: str, factor: int, offset: int, milliseconds: int) -> int:
    note("begun", tag, given)
    Event().wait(milliseconds / 1000)
    note("ended", tag, given)
    return mixed(given, factor, offset)
