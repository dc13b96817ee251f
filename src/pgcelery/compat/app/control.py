"""``app.control``: commands to running workers, and what they answer.

Source: Celery 5.7, ``celery.app.control``. Commands travel through the database to every live
worker, which is known by its heartbeat, so a call with ``reply=True`` returns as soon as all of
them have answered and waits for its timeout only when one does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from kombu import matcher as _matcher
from kombu.utils import json
from kombu.utils.uuid import uuid

from pgcelery.compat import states
from pgcelery.compat.app.steering import Steering, kombu_errors
from pgcelery.compat.exceptions import DuplicateNodenameWarning, TaskRevokedError
from pgcelery.compat.platforms import signals
from pgcelery.engine import NotPermitted

__all__ = ("Control", "Inspect", "flatten_reply")

# Kombu does not say its types, or says them wrong.
match: Any = _matcher.match
dumps: Any = json.dumps
loads: Any = json.loads

TERM_SIGNAME = "SIGTERM"
#: seconds for which a revoke by stamps holds for workers that start later, as one by id does
KEPT_S = 86400.0
#: states in which a revoke may write REVOKED over what the result backend holds
REVOCABLE = (states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED)

W_DUPNODE = (
    "Received multiple replies from node {0}: {1}.\n"
    "Please make sure you give each node a unique nodename using\n"
    "the celery worker `-n` option."
)


def flatten_reply(reply: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Turn ``[{'a@x': 1}, {'b@x': 2}]`` into ``{'a@x': 1, 'b@x': 2}``; warn of double names."""
    nodes: dict[str, Any] = {}
    twice: set[str] = set()
    for item in reply:
        twice.update(name for name in item if name in nodes)
        nodes.update(item)
    if twice:
        text = W_DUPNODE.format("name" if len(twice) == 1 else "names", ", ".join(sorted(twice)))
        warnings.warn(DuplicateNodenameWarning(text), stacklevel=2)
    return nodes


class Inspect:
    """Questions to workers; every method gives ``{node: answer}``, None when nobody answers.

    Args:
        destination: Node names; a single name gives that node's answer alone.
        timeout: Seconds to wait for answers.
        callback: Called with each ``{node: answer}`` as it arrives.
        limit: Most answers to wait for.
        pattern: Node names to ask, in the syntax named by `matcher` (``glob`` or ``pcre``).
    """

    app: Any = None

    def __init__(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        connection: Any = None,
        app: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _prepare(self, reply: list[dict[str, Any]] | None) -> Any:
        if not reply:
            return None
        by_node = flatten_reply(reply)
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        if self.pattern:
            return {
                node: answer
                for node, answer in by_node.items()
                if match(node, self.pattern, self.matcher)
            }
        return by_node

    def _request(self, command: str, **kwargs: Any) -> Any:
        return self._prepare(
            self.app.control.broadcast(
                command,
                arguments=kwargs,
                destination=self.destination,
                callback=self.callback,
                connection=self.connection,
                limit=self.limit,
                timeout=self.timeout,
                reply=True,
                pattern=self.pattern,
                matcher=self.matcher,
            )
        )

    def report(self) -> Any:
        """Ask for ``{'ok': bug report}``."""
        return self._request("report")

    def clock(self) -> Any:
        """Ask for ``{'clock': logical time}``."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """Ask for the tasks that run now, as a list of task infos.

        Args:
            safe: Arguments as text rather than as values.
        """
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Ask for tasks with an eta that waits in the node's queues: eta, priority, request."""
        return self._request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:
        """Ask for tasks that a node has taken and not begun, as a list of task infos."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Ask for totals, pid, uptime, pool, rusage."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Ask for the ids a node was told are revoked."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Ask for registered tasks, each with the named attributes."""
        return self._request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def labels(self) -> Any:
        """Ask for the labels by which tasks are placed; ours, not Celery's."""
        return self._request("labels")

    def ping(self, destination: Sequence[str] | None = None) -> Any:
        """Ask for ``{'ok': 'pong'}``."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """Ask for the queues a node consumes, as `kombu.Queue.as_dict` gives them."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Ask which of these ids a node has: ``{id: [state, task info]}``."""
        if len(ids) == 1 and isinstance(ids[0], list | tuple):
            ids = tuple(ids[0])
        return self._request("query_task", ids=ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Ask for the configuration, secrets masked."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Tell of revoked ids; the nodes answer with theirs."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Ask for the resident memory of the node's main process."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Ask for the last memory samples, as text."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Ask for a drawing of live objects; needs objgraph on the node."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


class Control(Steering):
    """Commands to workers. Without ``reply=True`` nothing is waited for and None is returned."""

    def __init__(self, app: Any = None) -> None:
        self.app = app

    @cached_property
    def inspect(self) -> type[Inspect]:
        """`Inspect`, bound to this app."""
        return type("Inspect", (Inspect,), {"app": self.app})

    def purge(self, connection: Any = None) -> int:
        """Delete every waiting task of the app's queues; how many there were. No way back."""
        with kombu_errors():
            return int(self.app.engine.purge(list(self.app.amqp.queues.consume_from)))

    discard_all = purge

    def revoke(
        self,
        task_id: Any,
        destination: Any = None,
        terminate: bool = False,
        signal: str | int = TERM_SIGNAME,
        **kwargs: Any,
    ) -> Any:
        """Keep tasks from running: waiting ones end REVOKED now, unknown ids are remembered.

        Args:
            task_id: One id or a list of them.
            destination: Nodes that are told; the tasks are revoked wherever they are.
            terminate: Also kill the process of those that run.
            signal: Sent for `terminate`.
            kwargs: As for `broadcast`.
        """
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", destination=destination, arguments=arguments, **kwargs)

    def record_revoked(
        self, ids: Iterable[str], *, terminate: bool = False, signal: str | int | None = None
    ) -> None:
        """Write to the database that tasks are revoked, which is what stops them."""
        ids = list(ids)
        if not ids:
            return
        backend = self.app.backend
        with kombu_errors():
            found = self.app.engine.cancel(
                ids,
                terminate=terminate,
                signum=signals.signum(signal or TERM_SIGNAME),
                result=self._revoked_meta,
            )
        for id in ids:
            if found.get(id) is None and backend.get_state(id) in REVOCABLE:
                with suppress(NotPermitted):  # it is remembered, and shows once it is sent
                    backend.mark_as_revoked(id, reason="revoked", store_result=True)

    def _revoked_meta(self, id: str) -> bytes:
        meta: bytes = self.app.backend.encode_meta(id, TaskRevokedError("revoked"), states.REVOKED)
        return meta

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Any = None,
        terminate: bool = False,
        signal: str | int = TERM_SIGNAME,
        **kwargs: Any,
    ) -> Any:
        """Have workers revoke tasks by their stamps, ``{stamp: value or values}``.

        Without a destination it also holds for workers that start within a day.
        """
        return self.broadcast(
            "revoke_by_stamped_headers",
            destination=destination,
            arguments={"headers": headers, "terminate": terminate, "signal": signal},
            **kwargs,
        )

    def terminate(
        self,
        task_id: Any,
        destination: Any = None,
        signal: str | int = TERM_SIGNAME,
        **kwargs: Any,
    ) -> Any:
        """Revoke, and kill the process of those that run."""
        return self.revoke(
            task_id, destination=destination, terminate=True, signal=signal, **kwargs
        )

    def ping(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> Any:
        """Ask who is there: ``[{node: {'ok': 'pong'}}, ...]``."""
        return self.broadcast(
            "ping", reply=True, arguments={}, destination=destination, timeout=timeout, **kwargs
        )

    def rate_limit(
        self, task_name: str, rate_limit: Any, destination: Any = None, **kwargs: Any
    ) -> Any:
        """Set the rate limit of a task in the workers."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", arguments=arguments, destination=destination, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Set the time limits of a task in the workers, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments=arguments, destination=destination, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Have workers also take tasks from a queue."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast(
            "add_consumer", arguments=arguments, destination=destination, **kwargs
        )

    def cancel_consumer(self, queue: str, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers take no more tasks from a queue."""
        return self.broadcast(
            "cancel_consumer", arguments={"queue": queue}, destination=destination, **kwargs
        )

    def pool_grow(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Add processes or threads to the pools."""
        return self.broadcast("pool_grow", arguments={"n": n}, destination=destination, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Take processes or threads from the pools."""
        return self.broadcast("pool_shrink", arguments={"n": n}, destination=destination, **kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Replace the processes of the pools; needs ``worker_pool_restarts``."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast(
            "pool_restart", arguments=arguments, destination=destination, **kwargs
        )

    def autoscale(self, max: int, min: int, destination: Any = None, **kwargs: Any) -> Any:
        """Change the bounds of autoscaling workers."""
        arguments = {"max": max, "min": min}
        return self.broadcast("autoscale", arguments=arguments, destination=destination, **kwargs)

    def shutdown(self, destination: Any = None, **kwargs: Any) -> Any:
        """Stop workers; running tasks are finished."""
        return self.broadcast("shutdown", arguments={}, destination=destination, **kwargs)

    def enable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Switch task events on."""
        return self.broadcast("enable_events", arguments={}, destination=destination, **kwargs)

    def disable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Switch task events off."""
        return self.broadcast("disable_events", arguments={}, destination=destination, **kwargs)

    def heartbeat(self, destination: Any = None, **kwargs: Any) -> Any:
        """Ask for a heartbeat now."""
        return self.broadcast("heartbeat", arguments={}, destination=destination, **kwargs)

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Have the workers elect one of them; they answer that they do not."""
        arguments = {"id": id, "topic": topic, "action": action}
        self.broadcast("election", arguments=arguments)

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Sequence[str] | str | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> list[dict[str, Any]] | None:
        """Send a command to live workers.

        Args:
            command: Its name, built in or registered with ``control_command``.
            arguments: Keyword arguments of the command.
            destination: Node names; None is every live worker.
            connection: Accepted and not used.
            reply: Wait for answers.
            timeout: Seconds to wait at most.
            limit: Most answers to wait for.
            callback: Called with each ``{node: answer}``.
            channel: Accepted and not used.
            pattern: Node names to send to.
            matcher: Syntax of `pattern`: ``glob`` or ``pcre``.
            **extra_kwargs: More keyword arguments of the command.

        Returns:
            ``[{node: answer}, ...]`` when `reply`, else None.

        Raises:
            kombu.exceptions.OperationalError: The database cannot be reached.
        """
        arguments = {**(arguments or {}), **extra_kwargs}
        if command in ("revoke", "terminate"):
            self._record(command, arguments)
        body = dumps({"method": command, "arguments": arguments})
        ticket = uuid() if reply else None
        names = [destination] if isinstance(destination, str) else destination
        engine = self.app.engine
        with kombu_errors():
            if command == "revoke_by_stamped_headers" and names is None and not pattern:
                engine.keep_message(body.encode(), KEPT_S)
            if reply or (pattern and matcher):
                names = self._nodes(command, names, pattern, matcher)
            try:
                sent = engine.broadcast(
                    body.encode(), destination=names, reply_to=ticket, ttl_s=self._ttl_s()
                )
            except NotPermitted:
                if command not in ("revoke", "terminate") or reply:
                    raise
                return None  # of what is recorded workers hear all the same
            if ticket is None:
                return None
            answers: list[dict[str, Any]] = []
            wanted = min(sent, limit) if limit else sent
            if not wanted:
                return answers
            # None waits for ever in kombu; nobody means that with live workers known by name.
            for node, payload in engine.replies(
                ticket, timeout_s=timeout if timeout is not None else 60.0, limit=wanted
            ):
                answer = {node: loads(payload.decode())}
                if callback:
                    callback(answer)
                answers.append(answer)
            return answers

    def _record(self, command: str, arguments: dict[str, Any]) -> None:
        """Write a revoke to the database, so that it needs no worker to be alive."""
        if not arguments.get("recorded"):
            arguments["recorded"] = True
            self.record_revoked(
                _as_list(arguments.get("task_id")),
                terminate=command == "terminate" or bool(arguments.get("terminate")),
                signal=arguments.get("signal"),
            )

    def _nodes(
        self, command: str, names: Sequence[str] | None, pattern: str | None, matcher: str | None
    ) -> list[str]:
        """Names of the live nodes that are meant and will answer; beat answers pings only."""
        return [
            node.name
            for node in self.app.engine.workers()
            if (names is None or node.name in names)
            and (not (pattern and matcher) or match(node.name, pattern, matcher))
            and (command == "ping" or node.info.get("role") != "beat")
        ]

    def _ttl_s(self) -> float:
        return float(self.app.conf.get("control_queue_ttl") or 300.0)


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
