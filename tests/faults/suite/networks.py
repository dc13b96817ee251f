"""Faults of the network: each client has a link of its own through the proxy."""

from __future__ import annotations

from collections import Counter

from tests.faults.suite.fleet import Worker
from tests.faults.suite.oracle import runs
from tests.faults.suite.trial import Fault, Ground
from tests.support.wait import wait_for


def busy_worker(ground: Ground) -> Worker:
    """Give all workers tasks that take longer than a lease, and name one that has begun some."""
    for _ in range(ground.fault.workers * ground.fault.slots - 1):
        ground.load.send("endless")

    def found() -> list[Worker]:
        begun = Counter(run.group for run in runs(ground.oracle) if run.ended is None)
        return [worker for worker in ground.fleet.up() if begun[worker.pid] >= 2]

    return wait_for(found)[0]


def blackhole(ground: Ground) -> None:
    """Nothing passes between one worker and the server for two leases; then it arrives."""
    lease_s = ground.fault.lease_s
    worker = busy_worker(ground)
    link = ground.link_of(worker)
    with ground.strike("its worker was cut off", [worker], fenced_s=lease_s):
        link.hold()
        ground.rest(lease_s * 2)
        link.let_go()
    wait_for(lambda: "registering anew" in worker.process.output(), 15)


NETWORK = [
    Fault(
        "20", "one worker cut off for two leases", blackhole, quick=True,
        mix=("quick", "slow", "early", "chord", "chain"), rate=4, lease_s=4, slack_s=12,
        known={
            "P9 self-fencing": "a worker that is cut off lets its children go on",
            "P5": "sometimes a claim whose answer arrives after the lease begins all the same",
            "P9": "sometimes, for the same reason",
        },
    ),
]  # fmt: skip
FAULTS = NETWORK
