"""The built-in remote control commands.

Source: Celery 5.7, ``celery.worker.control`` (names, arguments and answers).
"""

from __future__ import annotations

import importlib
import logging
import resource
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from kombu.utils.encoding import safe_repr

from pgcelery.compat.exceptions import WorkerShutdown
from pgcelery.compat.platforms import EX_OK, signals
from pgcelery.compat.utils.serialization import jsonify, strtobool
from pgcelery.compat.utils.text import one_line
from pgcelery.compat.worker import looking
from pgcelery.compat.worker import state as worker_state
from pgcelery.compat.worker.panel import (
    Panel,
    State,
    control_command,
    inspect_command,
    nok,
    ok,
)
from pgcelery.compat.worker.rates import per_second
from pgcelery.compat.worker.request import Request

__all__ = ("Panel", "control_command", "inspect_command")

DEFAULT_TASK_INFO_ITEMS = ("exchange", "routing_key", "rate_limit")
#: most memory samples kept for ``memdump``
MEMORY_SAMPLES = 100
#: most tasks with an eta that one answer lists
SCHEDULED_MAX = 1000

logger = logging.getLogger("celery.worker.control")
_memory_kib: list[int] = []


@inspect_command()
def report(state: State, **kwargs: Any) -> Any:
    """Information about Celery installation for bug reports."""
    return ok(state.app.bugreport())


@inspect_command(
    alias="dump_conf",
    signature="[include_defaults=False]",
    args=[("with_defaults", strtobool)],
)
def conf(state: State, with_defaults: bool = False, **kwargs: Any) -> Any:
    """List configuration."""
    return jsonify(
        state.app.conf.table(with_defaults=with_defaults),
        keyfilter=lambda key: isinstance(key, str) and not key.startswith("__"),
        unknown_type_filter=safe_repr,
    )


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: State, ids: Any, **kwargs: Any) -> Any:
    """Query for task information by id."""
    worker, ids = state.consumer.controller, _as_list(ids)
    looking.refresh_active(worker)
    found = {request.id: (_state_of(request), request.info()) for request in _requests(ids)}
    for request in looking.scheduled_among(worker, (id for id in ids if id not in found)):
        found[request.id] = ("scheduled", request.info())
    return found


def _requests(ids: Iterable[str]) -> Iterator[Request]:
    for id in ids:
        if id in worker_state.requests:
            yield worker_state.requests[id]


def _state_of(request: Request) -> str:
    if request in worker_state.active_requests:
        return "active"
    return "reserved" if request in worker_state.reserved_requests else "ready"


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(
    state: State,
    task_id: Any,
    terminate: bool = False,
    signal: str | int | None = None,
    recorded: bool = False,
    **kwargs: Any,
) -> Any:
    """Revoke task by task id (or list of ids).

    Args:
        state: The node.
        task_id: One id or several.
        terminate: Also kill the process of those that run.
        signal: Sent for `terminate`.
        recorded: Whether whoever asks has already written it to the database.
        **kwargs: Accepted and not used.
    """
    ids = set(_as_list(task_id))
    worker_state.revoked.update(ids)
    if not recorded:
        state.app.control.record_revoked(ids, terminate=terminate, signal=signal)
    if not terminate:
        logger.info("Tasks flagged as revoked: %s", one_line(", ".join(ids)))
        return ok(f"tasks {ids} flagged as revoked")
    found = [request.id for request in _requests(ids)]
    for id in found:
        logger.info("Terminating %s (%s)", one_line(id), signals.signum(signal or "SIGTERM"))
    return ok(f"terminate: {', '.join(found) or 'tasks unknown'}")


@control_command(
    variadic="headers",
    signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]",
)
def revoke_by_stamped_headers(
    state: State,
    headers: Any,
    terminate: bool = False,
    signal: str | int | None = None,
    **kwargs: Any,
) -> Any:
    """Revoke task by header (or list of headers)."""
    if isinstance(headers, list):
        headers = dict(header.split("=", 1) for header in headers)
    for header, stamps in headers.items():
        revoked = [*_as_list(worker_state.revoked_stamps.get(header)), *_as_list(stamps)]
        worker_state.revoked_stamps[header] = list(dict.fromkeys(revoked))
    if not terminate:
        return ok(f"headers {headers} flagged as revoked, but not terminated")
    looking.refresh_active(state.consumer.controller)
    matched: dict[str, set[Any]] = {}
    for request in list(worker_state.active_requests):
        stamps = request.stamps
        for header, wanted in headers.items():
            hits = set(_as_list(stamps.get(header))) & set(_as_list(wanted))
            if hits:
                matched.setdefault(header, set()).update(hits)
                request.terminate(state.consumer.pool, signal=signal)
    if not matched:
        return ok(f"headers {headers} were not terminated")
    return ok(f"headers {matched} revoked")


@control_command(
    variadic="task_id",
    args=[("signal", str)],
    signature="<signal> [id1 [id2 [... [idN]]]]",
)
def terminate(state: State, signal: str, task_id: Any, **kwargs: Any) -> Any:
    """Terminate task by task id (or list of ids)."""
    return revoke(state, task_id, True, signal, recorded=bool(kwargs.get("recorded")))


@control_command(
    args=[("task_name", str), ("rate_limit", str)],
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: State, task_name: str, rate_limit: Any, **kwargs: Any) -> Any:
    """Tell worker(s) to modify the rate limit for a task by type."""
    try:
        per_second(rate_limit)
    except ValueError as exc:
        return nok(f"Invalid rate limit string: {exc!r}")
    if task_name not in state.app.tasks:
        logger.error("Rate limit attempt for unknown task %r", task_name)
        return nok("unknown task")
    state.app.tasks[task_name].rate_limit = rate_limit
    state.consumer.reset_rate_limits()
    if not rate_limit:
        logger.info("Rate limits disabled for tasks of type %s", task_name)
        return ok("rate limit disabled successfully")
    logger.info("New rate limit for tasks of type %s: %s.", task_name, rate_limit)
    return ok("new rate limit set successfully")


@control_command(
    args=[("task_name", str), ("soft", float), ("hard", float)],
    signature="<task_name> <soft_secs> [hard_secs]",
)
def time_limit(
    state: State,
    task_name: str | None = None,
    hard: float | None = None,
    soft: float | None = None,
    **kwargs: Any,
) -> Any:
    """Tell worker(s) to modify the time limit for task by type."""
    if task_name not in state.app.tasks:
        logger.error("Change time limit attempt for unknown task %r", task_name)
        return nok("unknown task")
    task = state.app.tasks[task_name]
    task.soft_time_limit = soft
    task.time_limit = hard
    state.consumer.controller.renew_pool()
    logger.info("New time limits for tasks of type %s: soft=%s hard=%s", task_name, soft, hard)
    return ok("time limits set successfully")


@inspect_command()
def clock(state: State, **kwargs: Any) -> Any:
    """Get current logical clock value."""
    return {"clock": state.app.clock.value}


@control_command()
def election(state: State, id: str, topic: str, action: Any = None, **kwargs: Any) -> Any:
    """Refused: workers hold no elections."""
    return nok("pgcelery workers hold no elections; the database elects a leader by itself")


@control_command()
def enable_events(state: State, **kwargs: Any) -> Any:
    """Tell worker(s) to send task-related events."""
    groups = state.consumer.event_dispatcher.groups
    if not groups or "task" in groups:
        return ok("task events already enabled")
    groups.add("task")
    _wake_heart(state)
    logger.info("Events of group {task} enabled by remote.")
    return ok("task events enabled")


@control_command()
def disable_events(state: State, **kwargs: Any) -> Any:
    """Tell worker(s) to stop sending task-related events."""
    groups = state.consumer.event_dispatcher.groups
    if "task" not in groups:
        return ok("task events already disabled")
    groups.discard("task")
    logger.info("Events of group {task} disabled by remote.")
    return ok("task events disabled")


@control_command()
def heartbeat(state: State, **kwargs: Any) -> None:
    """Tell worker(s) to send event heartbeat immediately."""
    logger.debug("Heartbeat requested by remote.")
    state.consumer.event_dispatcher.send("worker-heartbeat", freq=5, **worker_state.SOFTWARE_INFO)
    _wake_heart(state)


def _wake_heart(state: State) -> None:
    heart = getattr(state.consumer, "heart", None)
    if heart is not None:
        heart.wake()


@inspect_command(visible=False)
def hello(state: State, from_node: str, revoked: Any = None, **kwargs: Any) -> Any:
    """Request mingle sync-data."""
    if from_node == state.hostname:
        return None
    logger.info("sync with %s", from_node)
    worker_state.merge_revoked(revoked or ())
    worker_state.revoked.purge()
    return {"revoked": list(worker_state.revoked), "clock": state.app.clock.forward()}


@inspect_command(default_timeout=0.2)
def ping(state: State, **kwargs: Any) -> Any:
    """Ping worker(s)."""
    return ok("pong")


@inspect_command()
def stats(state: State, **kwargs: Any) -> Any:
    """Request worker statistics/information."""
    return state.consumer.controller.stats()


@inspect_command(alias="dump_schedule")
def scheduled(state: State, **kwargs: Any) -> Any:
    """List of currently scheduled ETA/countdown tasks."""
    return [
        {
            "eta": request.eta.isoformat() if request.eta else None,
            "priority": 6,
            "request": request.info(),
        }
        for request in looking.scheduled(state.consumer.controller, SCHEDULED_MAX)
    ]


@inspect_command(alias="dump_reserved")
def reserved(state: State, **kwargs: Any) -> Any:
    """List of currently reserved tasks, not including scheduled/active."""
    looking.refresh_active(state.consumer.controller)
    waiting = state.tset(worker_state.reserved_requests) - worker_state.active_requests
    return [request.info() for request in waiting]


@inspect_command(alias="dump_active")
def active(state: State, safe: bool = False, **kwargs: Any) -> Any:
    """List of tasks currently being executed."""
    looking.refresh_active(state.consumer.controller)
    return [request.info(safe=safe) for request in state.tset(worker_state.active_requests)]


@inspect_command(alias="dump_revoked")
def revoked(state: State, **kwargs: Any) -> Any:
    """List of revoked task-ids."""
    return list(worker_state.revoked)


@inspect_command(
    alias="dump_tasks",
    variadic="taskinfoitems",
    signature="[attr1 [attr2 [... [attrN]]]]",
)
def registered(
    state: State, taskinfoitems: Any = None, builtins: bool = False, **kwargs: Any
) -> Any:
    """List of registered tasks.

    Args:
        state: The node.
        taskinfoitems: Attributes to show; ``exchange``, ``routing_key`` and ``rate_limit`` if none.
        builtins: Also those named ``celery.``.
        **kwargs: Accepted and not used.
    """
    items = [
        item
        for item in taskinfoitems or DEFAULT_TASK_INFO_ITEMS
        if isinstance(item, str) and not item.startswith("_")
    ]

    def describe(task: Any) -> str:
        values = {item: getattr(task, item, None) for item in items}
        shown = [f"{item}={value}" for item, value in values.items() if value is not None]
        return f"{task.name} [{' '.join(shown)}]" if shown else str(task.name)

    tasks = state.app.tasks
    return [
        describe(tasks[name])
        for name in sorted(tasks)
        if builtins or not name.startswith("celery.")
    ]


@inspect_command()
def memsample(state: State, **kwargs: Any) -> Any:
    """Sample current RSS memory usage."""
    _memory_kib.append(_resident_kib())
    del _memory_kib[:-MEMORY_SAMPLES]
    return f"{_memory_kib[-1] / 1024:.1f}MB"


@inspect_command(args=[("samples", int)], signature="[n_samples=10]")
def memdump(state: State, samples: int = 10, **kwargs: Any) -> Any:
    """Dump statistics of previous memsample requests."""
    lines = [f"- rss (sample): {kib / 1024:.1f}MB." for kib in _memory_kib[-samples:]]
    return "\n".join([*lines, f"- rss (end): {_resident_kib() / 1024:.1f}MB."]) + "\n"


def _resident_kib() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@inspect_command(
    default_timeout=60.0,
    args=[("type", str), ("num", int), ("max_depth", int)],
    signature="[object_type=Request] [num=200 [max_depth=10]]",
)
def objgraph(
    state: State, num: int = 200, max_depth: int = 10, type: str = "Request", **kwargs: Any
) -> Any:
    """Create graph of uncollected objects (memory-leak debugging).

    Args:
        state: The node.
        num: Most objects to draw.
        max_depth: Most levels of references.
        type: Name of their class.
        **kwargs: Accepted and not used.

    Raises:
        ImportError: The library objgraph is not installed.
    """
    library: Any = importlib.import_module("objgraph")
    objects = library.by_type(type)[:num]
    with tempfile.NamedTemporaryFile(prefix="cobjg", suffix=".png", delete=False) as file:
        library.show_backrefs(
            objects, max_depth=max_depth, highlight=lambda one: one in objects, filename=file.name
        )
        return {"filename": file.name}


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: State, n: int = 1, **kwargs: Any) -> Any:
    """Grow pool by n processes/threads."""
    if refusal := _not_by_hand(state, n):
        return refusal
    state.consumer.pool.grow(n)
    return ok("pool will grow")


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: State, n: int = 1, **kwargs: Any) -> Any:
    """Shrink pool by n processes/threads."""
    if refusal := _not_by_hand(state, n):
        return refusal
    state.consumer.pool.shrink(n)
    return ok("pool will shrink")


def _not_by_hand(state: State, n: int) -> dict[str, Any] | None:
    """Refuse to resize a pool that resizes itself, or by nothing."""
    if state.consumer.controller.autoscaler is not None:
        return nok("this pool autoscales; change its range with the autoscale command")
    return nok(f"a pool changes by one slot or more, not by {n}") if n < 1 else None


@control_command()
def pool_restart(
    state: State, modules: Any = None, reload: bool = False, reloader: Any = None, **kwargs: Any
) -> Any:
    """Restart execution pool."""
    if not state.app.conf.worker_pool_restarts:
        raise ValueError("Pool restarts not enabled")
    state.consumer.controller.reload(modules, reload, reloader=reloader)
    return ok("reload started")


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: State, max: int | None = None, min: int | None = None, **kwargs: Any) -> Any:
    """Modify autoscale settings."""
    scaler = state.consumer.controller.autoscaler
    if scaler is None:
        raise ValueError("Autoscale not enabled")
    most, least = scaler.update(max, min)
    return ok(f"autoscale now max={most} min={least}")


@control_command()
def shutdown(state: State, msg: str = "Got shutdown from remote", **kwargs: Any) -> Any:
    """Shutdown worker(s)."""
    logger.warning(msg)
    raise WorkerShutdown(EX_OK)


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    state: State,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Any:
    """Tell worker(s) to consume from task queue by name."""
    state.consumer.add_task_queue(
        queue, exchange, exchange_type or "direct", routing_key, **options
    )
    return ok(f"add consumer {queue}")


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: State, queue: str, **kwargs: Any) -> Any:
    """Tell worker(s) to stop consuming from task queue by name."""
    state.consumer.cancel_task_queue(queue)
    return ok(f"no longer consuming from {queue}")


@inspect_command()
def active_queues(state: State, **kwargs: Any) -> Any:
    """List the task queues a worker is currently consuming from."""
    return [dict(queue.as_dict(recurse=True)) for queue in state.consumer.task_consumer.queues]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
