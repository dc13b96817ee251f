"""Every knob of the engine, with its unit and its default."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Settings of one client or worker; passed down, never global.

    Raises:
        ValueError: A value is out of its bounds; the message names the field.
    """

    dsn: str = field(repr=False)  #: libpq URL or keyword string
    schema: str = "pgcelery"  #: PostgreSQL schema that holds the engine's tables
    connect_timeout_s: float = 4.0
    pool_size: int = 10  #: connections a client may open at once
    pool_timeout_s: float | None = 30.0  #: wait for a free one; None waits for ever
    application_name: str = "pgcelery"
    lease_s: float = 30.0  #: how long a silent worker is presumed alive
    heartbeat_s: float = 5.0
    #: what a worker does with runs that others may begin once it could not renew its lease in time:
    #: ``kill`` them before it ends (prefork), or ``finish`` them, which may overlap with the others
    lease_lost: str = "kill"
    maintain_s: float = 5.0  #: between two rounds of reaping and retention, by the leader
    poll_min_s: float = 0.005  #: first poll after work ran out
    poll_max_s: float = 5.0  #: slowest poll of an idle worker that hears notifications
    poll_deaf_max_s: float = 0.25  #: the same without LISTEN (behind a transaction pooler)
    listen: bool = True  #: use LISTEN/NOTIFY where it works
    notify_inside: bool = True  #: commits of a sender's own transaction wake workers, with `listen`
    relay: bool = (
        True  #: pool processes go on with chains, and where they hold one job each with short jobs
    )
    offers: bool = True  #: idle workers are handed lone jobs by who sends them, with `listen`
    max_batch: int = 200  #: most jobs claimed in one round trip
    patience_s: float = 60.0  #: a lower priority that waits for longer gets an eighth of the claims
    placement_grace_s: float = 0.2  #: head start of the workers that suit a job best
    synchronous_completion: bool = True  #: wait for the disk when outcomes are written
    max_payload_bytes: int = 64 * 1024 * 1024  #: of one job; larger ones are refused
    prune_batch: int = 5000  #: most expired results deleted in one statement

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "lease_s", "heartbeat_s", "maintain_s", "poll_min_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0 seconds")
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError("heartbeat_s must be at most half of lease_s")
        if self.lease_lost not in ("kill", "finish"):
            raise ValueError("lease_lost must be kill or finish")
        if not 1 <= self.max_batch <= 1000:
            raise ValueError("max_batch must be 1 to 1000")
        if not 1 <= len(self.schema) <= 30 or set(self.schema) & set("'%\\\0"):
            raise ValueError("schema must be 1 to 30 characters without ' % and backslash")
        for name in ("patience_s", "placement_grace_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0 seconds")
        if self.pool_size < 1:
            raise ValueError("pool_size must be at least 1")
