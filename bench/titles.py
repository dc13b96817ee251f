"""What each measured value is called, in which unit, and which way is better."""

from __future__ import annotations

from typing import NamedTuple


class Title(NamedTuple):
    """One line of a table."""

    title: str
    unit: str
    more: bool = False  #: whether more is better


def _spread(name: str, title: str) -> dict[str, Title]:
    return {
        name: Title(f"{title}, p50", "ms"),
        f"{name}_p95": Title("  p95", "ms"),
        f"{name}_p99": Title("  p99", "ms"),
    }


def _drained(name: str, title: str) -> dict[str, Title]:
    return {
        name: Title(title, "/s", more=True),
        f"{name}_cpu": Title("  CPU a task, worker and servers", "µs"),
        f"{name}_worker_cpu": Title("  CPU a task, worker alone", "µs"),
        f"{name}_rss": Title("  RSS of the worker after it", "MB"),
        f"{name}_pss": Title("  PSS of the worker after it", "MB"),
    }


TITLES = {
    "enqueue": Title("enqueue, one after the other", "/s", more=True),
    "bulk": Title("enqueue, 1,000 a call", "/s", more=True),
    **_drained("drain", "drain, results stored"),
    **_drained("drain_threads", "drain, results stored, threads"),
    **_drained("drain_solo", "drain, results stored, solo"),
    "ignored": Title("drain, results ignored, best pool", "/s", more=True),
    "ignored_cpu": Title("  CPU a task, worker and servers", "µs"),
    "ignored_prefork": Title("  prefork", "/s", more=True),
    "ignored_threads": Title("  threads", "/s", more=True),
    "ignored_solo": Title("  solo", "/s", more=True),
    **_drained("strict", "drain, strict: one at a time, acknowledged late"),
    **_spread("lat20", "20/s: send to start"),
    **_spread("result20", "20/s: send to result at the caller"),
    **_spread("lat500", "500/s: send to start"),
    **_spread("chain", "chain of 10, until the last result"),
    **_spread("group", "group of 100, until all results"),
    **_spread("chord", "chord of 100, until the body's result"),
    "start_s": Title("worker start to first task", "s"),
    "idle_rss": Title("idle worker, RSS", "MB"),
    "idle_pss": Title("idle worker, PSS", "MB"),
    "idle_cpu": Title("idle, CPU of worker and servers", "%"),
    "idle_queries": Title("idle, queries", "/s"),
    "eta_enqueue": Title("enqueue of tasks with a countdown, 1,000 a call", "/s", more=True),
    "eta_without": Title("drain without a backlog", "/s", more=True),
    "eta_with": Title("drain with the ETA backlog waiting", "/s", more=True),
    "eta_kept": Title("  throughput kept", "x", more=True),
    "eta_without_start": Title("  worker start to first task, without", "s"),
    "eta_first": Title("  worker start to first task, with", "s"),
    "eta_without_rss": Title("  RSS of the worker, without", "MB"),
    "eta_with_rss": Title("  RSS of the worker, with", "MB"),
    "eta_growth": Title("  memory the backlog costs the worker", "MB"),
    "big_members": Title("big chord: members of the header", "", more=True),
    "big_sent": Title("  until it is sent", "s"),
    "big_took": Title("  until the body's result", "s"),
    "big_producer": Title("  RSS of the producer, peak", "MB"),
    "big_producer_growth": Title("  memory it costs the producer", "MB"),
    "big_rss": Title("  RSS of the worker, peak", "MB"),
    "big_pss": Title("  PSS of the worker, peak", "MB"),
    "big_pss_growth": Title("  memory it costs the worker, PSS", "MB"),
    "plain_sent": Title("enqueue without limits, 1,000 a call", "/s", more=True),
    "keyed_sent": Title("enqueue over many keys, 1,000 a call", "/s", more=True),
    "plain_drain": Title("drain without limits", "/s", more=True),
    "keyed_drain": Title("drain over many keys, one at a time of each", "/s", more=True),
    "keyed_kept": Title("  throughput kept", "x", more=True),
    "plain_cpu": Title("  CPU a task, worker and servers, without limits", "µs"),
    "keyed_cpu": Title("  CPU a task, worker and servers, keyed", "µs"),
    "fair_first": Title("ten of B behind a million of A: B sent to first start", "ms"),
    "fair_last": Title("  until the last start", "ms"),
    "fair_first_others": Title("  tasks of A started until B's first", ""),
    "fair_last_others": Title("  tasks of A started until B's last", ""),
    "backlog_kept": Title("drain at 10 million waiting, against 20,000", "x", more=True),
}

LIMITS = {
    "limit_loop500": Title("claim, call, delete and store; 500 a commit", "/s", more=True),
    "limit_loop100": Title("  100 a commit", "/s", more=True),
    "limit_loop10": Title("  10 a commit", "/s", more=True),
    "limit_loop1": Title("  1 a commit", "/s", more=True),
    "limit_commit": Title("insert of one row with NOTIFY, a commit each", "/s", more=True),
    "limit_select": Title("`select 1`, there and back", "ms"),
    "limit_notify": Title("NOTIFY until another connection has heard it", "ms"),
    "limit_calls": Title("json.loads, call, json.dumps; one core", "/s", more=True),
    "limit_pipe": Title("message to a child process and back", "/s", more=True),
}

#: What is measured, and the limit it cannot pass.
DISTANCES = (
    ("drain", "limit_loop500"),
    ("ignored", "limit_loop500"),
    ("strict", "limit_loop1"),
    ("enqueue", "limit_commit"),
    ("lat20", "limit_notify"),
)


def full_title(name: str) -> str:
    """A title that can stand alone: an indented line belongs to the one above it."""
    above = ""
    for each, title in TITLES.items():
        if not title.title.startswith("  "):
            above = title.title.removesuffix(", p50")
        if each == name:
            break
    own = TITLES[name].title
    return f"{above}: {own.strip()}" if own.startswith("  ") else own


def number(value: float | None) -> str:
    """As many digits as can be trusted."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
