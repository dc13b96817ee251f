"""The numbers of ``inspect stats``.

Source: Celery 5.7, ``celery.worker.worker`` and the ``info`` of its parts (keys).
"""

from __future__ import annotations

import resource
from typing import Any

from pgcelery.compat.app.reporting import filter_hidden_settings

__all__ = ("of", "rusage")


def rusage() -> dict[str, float]:
    """What this process has used, by the names of getrusage(2) without ``ru_``."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}


def of(worker: Any) -> dict[str, Any]:
    """What a `WorkController` has and is connected to."""
    return {
        "pool": worker.pool_cls.info(worker.pool, worker),
        "broker": _broker(worker.app),
        "prefetch_count": worker.prefetch_count,
        "rusage": rusage(),
    }


def _broker(app: Any) -> dict[str, Any]:
    """Where the database is, under the names of kombu's connections."""
    info: dict[str, Any] = app.connection().info()
    config = app.engine_config
    return {
        **{name: value for name, value in info.items() if name not in ("uri", "password")},
        "alternates": [],
        "connect_timeout": round(config.connect_timeout_s),
        "credential_provider": None,
        "failover_strategy": "round-robin",
        "heartbeat": config.heartbeat_s,
        "insist": False,
        "login_method": None,
        "ssl": bool(app.conf.broker_use_ssl),
        "transport_options": filter_hidden_settings(app.conf.broker_transport_options or {}),
        "uri_prefix": None,
    }
