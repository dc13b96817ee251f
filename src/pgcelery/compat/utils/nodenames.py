"""Names of worker nodes.

Source: Celery 5.7, ``celery.utils.nodenames``.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import Any

from kombu.entity import Exchange, Queue

from pgcelery.compat.utils.log import current_process_index
from pgcelery.compat.utils.text import simple_format

__all__ = (
    "anon_nodename",
    "default_nodename",
    "gethostname",
    "host_format",
    "node_format",
    "nodename",
    "nodesplit",
    "worker_direct",
)

#: Exchange and name of the queue that only one worker serves.
WORKER_DIRECT_EXCHANGE = Exchange("C.dq2")
WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"

NODENAME_SEP = "@"
NODENAME_DEFAULT = "celery"


@cache
def gethostname() -> str:
    """Give the name of this machine."""
    return socket.gethostname()


def worker_direct(hostname: str | Queue) -> Queue:
    """Give the queue that leads to one worker, named as ``w1@example.com``."""
    if isinstance(hostname, Queue):
        return hostname
    name = WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname)
    return Queue(name, WORKER_DIRECT_EXCHANGE, hostname)


def nodename(name: str, hostname: str) -> str:
    """Join the two halves of a node name."""
    return NODENAME_SEP.join((name, hostname))


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """Name this process where it is not a worker; tasks carry it as their origin."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> Any:
    """Split a node name into its two halves; the first is None in a bare host name."""
    parts = name.split(NODENAME_SEP, 1)
    return (None, parts[0]) if len(parts) == 1 else parts


def default_nodename(hostname: str | None, default_name: str = NODENAME_DEFAULT) -> str:
    """Fill what is missing of a node name."""
    name, host = nodesplit(hostname or "")
    return nodename(name or default_name, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """Expand ``%h %n %d %i %I %p`` for a node."""
    shortname, host = nodesplit(name)
    return host_format(s, host, shortname or NODENAME_DEFAULT, p=name, **extra)


def _process_index(prefix: str = "", default: str = "0") -> str:
    index = current_process_index()
    return f"{prefix}{index}" if index else default


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """Expand ``%h`` (host), ``%n`` (name), ``%d`` (domain), ``%i`` and ``%I`` (pool process)."""
    host = host or gethostname()
    short, _, domain = host.partition(".")
    keys = {
        "h": host,
        "n": name or short,
        "d": domain,
        "i": _process_index,
        "I": lambda: _process_index("-", ""),
    }
    return simple_format(s, {**keys, **extra})
