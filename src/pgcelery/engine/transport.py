"""Whether what is said to the database could be read on the way."""

from __future__ import annotations

from ipaddress import ip_address

from psycopg import Connection
from psycopg.rows import TupleRow


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


def exposed_host(conn: Connection[TupleRow]) -> str | None:
    """Name the server if it is elsewhere and there is no TLS; else None."""
    info = conn.info
    return info.host if exposed(info.host, info.hostaddr, conn.pgconn.ssl_in_use) else None
