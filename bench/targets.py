"""What is aimed at, of the first peer of a run: the only place where figures are judged.

A target is a ratio to another peer of the same rounds, or a bound on the value itself.
"""

from __future__ import annotations

from typing import NamedTuple

REDIS = "celery+redis"


class Target(NamedTuple):
    """One bar."""

    measure: str
    versus: str | None  #: None: the value itself
    at_least: float | None  #: None: only the goal is set
    goal: float
    more: bool = True  #: whether more is better


TARGETS = (
    Target("enqueue", REDIS, 1.3, 1.8),
    Target("enqueue", "pgqueuer", 1.0, 1.4),
    Target("enqueue", "skeleton", 0.75, 0.95),
    Target("bulk", REDIS, 20, 30),
    Target("bulk", "pgqueuer", None, 1.5),
    Target("drain", REDIS, 10, 16),
    Target("drain", "pgqueuer", 0.6, 1.0),
    Target("drain", "skeleton", 0.4, 0.65),
    Target("drain_cpu", None, 150, 100, more=False),
    Target("ignored", REDIS, 12, 18),
    Target("ignored", "pgqueuer", None, 1.0),
    Target("strict", REDIS, 2, 3),
    Target("strict", "potatoq", 2, 3),
    Target("lat20", REDIS, 0.85, 0.7, more=False),
    Target("lat500_p95", REDIS, 0.25, 0.05, more=False),
    Target("lat500_p95", "pgqueuer", 1.0, 0.4, more=False),
    Target("result20", REDIS, 1.0, 0.7, more=False),
    Target("chain", REDIS, 0.6, 0.2, more=False),
    Target("group", REDIS, 0.12, 0.03, more=False),
    Target("chord", REDIS, 0.25, 0.1, more=False),
    Target("start_s", REDIS, 0.8, 0.5, more=False),
    Target("idle_pss", REDIS, 0.6, 0.5, more=False),
    Target("idle_cpu", None, 0.5, 0.1, more=False),
    Target("idle_queries", None, 2, 0.5, more=False),
    Target("eta_growth", None, 5, 0, more=False),
    Target("eta_first", None, 1, 0.4, more=False),
    Target("eta_kept", None, 0.9, 1.0),
    Target("backlog_kept", None, 0.85, 1.0),  # python -m bench growth
    Target("keyed_kept", None, 0.5, 0.8),
    Target("fair_first_others", None, 50, 10, more=False),
)

GOAL, MET, MISSED, OPEN = "goal", "at least", "missed", "not measured"


def verdict(target: Target, value: float | None) -> str:
    """Which bar a value passes."""
    if value is None:
        return OPEN

    def passes(bar: float) -> bool:
        return value >= bar if target.more else value <= bar

    if passes(target.goal):
        return GOAL
    if target.at_least is not None and passes(target.at_least):
        return MET
    return MISSED
