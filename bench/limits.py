"""What limits cost: `python -m bench.limits`, on an embedded PostgreSQL of its own.

    python -m bench.limits admission --keys 100,1000,10000,100000
    python -m bench.limits steps          # a step without gates, against another checkout's
    python -m bench.limits enqueue

The database is driven by the statements of a node, without worker processes, so that what is timed
is PostgreSQL: medians of calls, in microseconds a job.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg

from bench.services import Postgres, postgres_server
from pgcelery.engine import Client, EngineConfig, Gate, NewJob, Outcome, State
from tests.support.nodes import SimNode, connect

BATCH = 100
