"""A worker whose bodies note when they began and ended: `tests.faults.limit_worker DSN LOG`.

A line of the log is S or E, the job's id, its payload (the key), the run's token, and nanoseconds
of the clock that all processes of the machine share.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time

from pgcelery.engine import EngineConfig, Job, Outcome, State, Worker
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder
from tests.support.wait import wait_for

LEASE_S, HEARTBEAT_S, MAINTAIN_S = 2.0, 0.4, 0.4
LONGEST_S = 0.004


class Logged(Recorder):
    """Runs one kind of body and forgets about it."""

    def __init__(self, log: int) -> None:
        super().__init__()
        self._log = log

    def open(self, job: Job) -> Logged._Run:
        return self._Run(self, job)

    def finished(self, outcome: Outcome) -> None: ...

    def note(self, what: str, job: Job) -> None:
        line = f"{what} {job.id} {job.payload.decode()} {job.token} {time.monotonic_ns()}\n"
        os.write(self._log, line.encode())  # short, and appended whole

    class _Run:
        soft_time_limit_s = None
        time_limit_s = None

        def __init__(self, handler: Logged, job: Job) -> None:
            self.handler, self.job = handler, job

        def __call__(self) -> Outcome:
            job = self.job
            self.handler.note("S", job)
            threading.Event().wait(random.uniform(0, LONGEST_S))
            self.handler.note("E", job)
            return Outcome(job.id, job.token, State.COMPLETED)


def main(dsn: str, log: str) -> None:
    config = EngineConfig(dsn=dsn, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S, maintain_s=MAINTAIN_S)
    handler = Logged(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    worker = Worker(config, handler, ThreadPool(8), name=f"w{os.getpid()}", queues=["q"])
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait_for(worker.ready.is_set)
    os.write(1, b"ready\n")
    thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
