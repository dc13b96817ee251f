"""Which options a task is sent with: ``task_routes``.

Source: Celery 5.7, userguide "Routing Tasks".
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from kombu.entity import Queue

from pgcelery.compat.exceptions import QueueNotFound
from pgcelery.compat.utils.collections import lpmerge
from pgcelery.compat.utils.functional import maybe_evaluate, mlazy
from pgcelery.compat.utils.imports import symbol_by_name

__all__ = ("MapRoute", "Router", "expand_router_string", "prepare")


class MapRoute:
    """Routes by task name, glob pattern or compiled expression; exact names go first."""

    def __init__(self, map: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        self.map: dict[str, Any] = {}
        self.patterns: dict[re.Pattern[str], Any] = {}
        for key, route in map.items() if isinstance(map, Mapping) else map:
            if isinstance(key, re.Pattern):
                self.patterns[key] = route
            elif "*" in key:
                self.patterns[re.compile(fnmatch.translate(key))] = route
            else:
                self.map[key] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Give the route of a task; None if there is none."""
        if name in self.map:
            return _as_options(self.map[name])
        for pattern, route in self.patterns.items():
            if pattern.match(name):
                return _as_options(route)
        return None


def _as_options(route: Any) -> dict[str, Any]:
    return {"queue": route} if isinstance(route, (str, Queue)) else dict(route)


class Router:
    """Finds the route of each task.

    Args:
        routes: Functions ``(name, args, kwargs, options, task=None)``, as `prepare` gives.
        queues: The app's, by name; a missing one is made there or raises ``KeyError``.
        create_missing: Kept for whoever reads it.
        app: For its default queue.
    """

    def __init__(
        self,
        routes: Sequence[Any] | None = None,
        queues: Mapping[str, Any] | None = None,
        create_missing: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.queues = {} if queues is None else queues
        self.routes = [] if routes is None else routes
        self.create_missing = create_missing

    def route(
        self,
        options: MutableMapping[str, Any],
        name: str,
        args: Sequence[Any] | None = (),
        kwargs: Mapping[str, Any] | None = None,
        task_type: Any = None,
    ) -> dict[str, Any]:
        """Give the options to send a task with; the caller's own win over the route's.

        `queue` in them is a ``kombu.Queue``.

        Raises:
            QueueNotFound: A queue is not in `task_queues` and may not be made.
        """
        own = self.expand_destination(options)
        if self.routes:
            found = self.lookup_route(name, args, kwargs or {}, own, task_type)
            if found:
                return lpmerge(self.expand_destination(found), own)  # type: ignore[no-any-return]
        if "queue" not in own:
            default = self.expand_destination(self.app.conf["task_default_queue"])
            default.update({key: value for key, value in own.items() if value is not None})
            return default
        return own

    def expand_destination(self, route: Any) -> dict[str, Any]:
        """Give options in which the name of a queue is replaced by the queue."""
        options = _as_options(route)
        queue = options.pop("queue", None)
        if queue:
            options["queue"] = queue if isinstance(queue, Queue) else self._queue(queue)
        return options

    def _queue(self, name: str) -> Any:
        try:
            return self.queues[name]
        except KeyError:
            raise QueueNotFound(f"Queue {name!r} missing from task_queues") from None

    def lookup_route(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        options: Any = None,
        task_type: Any = None,
    ) -> Any:
        """Give the first route that is not None."""
        for router in self.routes:
            route = self.query_router(router, name, args, kwargs, options, task_type)
            if route is not None:
                return route
        return None

    def query_router(
        self, router: Any, task: str, args: Any, kwargs: Any, options: Any, task_type: Any
    ) -> Any:
        """Ask one router."""
        router = maybe_evaluate(router)
        if hasattr(router, "route_for_task"):
            return router.route_for_task(task, args, kwargs)
        return router(task, args, kwargs, options, task=task_type)


def expand_router_string(router: str) -> Any:
    """Give the router that a dotted name names; a class of Celery 3's kind is instantiated."""
    found = symbol_by_name(router)
    return found() if hasattr(found, "route_for_task") and isinstance(found, type) else found


def prepare(routes: Any) -> list[Any]:
    """Turn the `task_routes` setting into a list of routers."""
    if routes is None:
        return []
    if not isinstance(routes, (list, tuple)):
        routes = (routes,)
    return [_expand(route) for route in routes]


def _expand(route: Any) -> Any:
    if isinstance(route, tuple) and len(route) == 2 and isinstance(route[1], (str, Mapping)):
        return MapRoute([route])  # a pair in a flat list, which Celery wants nested once more
    if isinstance(route, (Mapping, list, tuple)):
        return MapRoute(route)
    return mlazy(expand_router_string, route) if isinstance(route, str) else route
