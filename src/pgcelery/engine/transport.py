"""Whether what is said to the database could be read on the way."""

from __future__ import annotations

from ipaddress import ip_address

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import connect


def exposed(host: str, address: str, encrypted: bool) -> bool:
    """Say whether a connection leaves the machine in clear text.

    Args:
        host: Name of the server, or the directory of its socket.
        address: Its address; empty for a socket.
        encrypted: Whether TLS is in use.
    """
    if encrypted or not address or host.startswith(("/", "@")):
        return False
    return not ip_address(address.partition("%")[0]).is_loopback


def exposed_host(config: EngineConfig) -> str | None:
    """Connect, and name the server if it is elsewhere and there is no TLS; else None.

    Raises:
        DatabaseUnavailable: It cannot be reached.
    """
    with connect(config) as conn:
        info = conn.info
        return info.host if exposed(info.host, info.hostaddr, conn.pgconn.ssl_in_use) else None
