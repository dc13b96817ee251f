"""What the kernel is told about connections: to notice in time that the other side is gone."""

from __future__ import annotations

from typing import Any

from psycopg.conninfo import conninfo_to_dict

from pgcelery.engine.config import EngineConfig


def tcp_options(config: EngineConfig) -> dict[str, Any]:
    """Have the kernel notice within about half a lease that the other side is gone.

    What the URL says itself is left as it is; without a timeout that is two hours.
    """
    probe_s = max(1, round(config.lease_s / 12))
    options = {
        "keepalives": 1,
        "keepalives_idle": 3 * probe_s,
        "keepalives_interval": probe_s,
        "keepalives_count": 3,
        "tcp_user_timeout": 3000 * probe_s,
    }
    said = conninfo_to_dict(config.dsn)
    return {name: value for name, value in options.items() if name not in said}
