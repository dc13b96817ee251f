"""An embedded PostgreSQL: no server to install.

`ensure_server` gives the server of this operating system user, which every process of theirs
finds by itself and which keeps its data; `ephemeral_server` a private one that is thrown away.
"""

from __future__ import annotations

from pgcelery.engine.embedded.binaries import find_program
from pgcelery.engine.embedded.ephemeral import EphemeralServer, ephemeral_server
from pgcelery.engine.embedded.instance import ensure_server, find_server, stop_server
from pgcelery.engine.embedded.server import Server

__all__ = [
    "EphemeralServer",
    "Server",
    "ensure_server",
    "ephemeral_server",
    "find_program",
    "find_server",
    "stop_server",
]
