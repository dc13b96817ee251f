"""All faults, in the order of the table."""

from __future__ import annotations

from tests.faults.suite import networks, processes, servers, work
from tests.faults.suite.trial import Fault

FAULTS: list[Fault] = [*processes.FAULTS, *networks.FAULTS, *servers.FAULTS, *work.FAULTS]
BY_NUMBER = {fault.number: fault for fault in FAULTS}
