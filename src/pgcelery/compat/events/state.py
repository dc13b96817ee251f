"""What a cluster looks like, from its events: workers, tasks, and indexes of them.

Source: Celery 5.7, ``celery.events.state``: names, fields, and how events out of order are merged.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any
from weakref import WeakSet, ref

from kombu.clocks import timetuple
from kombu.utils.functional import LRUCache

from pgcelery.compat.events.nodes import (
    HEARTBEAT_DRIFT_MAX,
    HEARTBEAT_EXPIRE_WINDOW,
    Worker,
    heartbeat_expires,
)
from pgcelery.compat.events.tasks import TASK_EVENT_TO_STATE, Task, peek

__all__ = (
    "HEARTBEAT_DRIFT_MAX",
    "HEARTBEAT_EXPIRE_WINDOW",
    "TASK_EVENT_TO_STATE",
    "CallableDefaultdict",
    "State",
    "Task",
    "Worker",
    "heartbeat_expires",
)


class CallableDefaultdict(defaultdict[str, Any]):
    """An index that can be called too: called, it gives what is in it in order of time."""

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.fun = fun
        super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Give what is under a name, in order of time."""
        return self.fun(*args, **kwargs)


class State:
    """Takes in events, and shows what they add up to. Thread-safe where it changes.

    Args:
        callback: Called as ``callback(state, event)`` before each event is taken in.
        workers: To begin with, by hostname.
        tasks: To begin with, by uuid.
        taskheap: To begin with: the events of tasks in order of time.
        max_workers_in_memory: Then the one looked at least recently is forgotten.
        max_tasks_in_memory: Likewise.
        on_node_join: Called with a worker that is new or says that it is online.
        on_node_leave: Called with one that says that it is offline.
        tasks_by_type: To begin with: ids by name.
        tasks_by_worker: To begin with: ids by hostname.

    Attributes:
        tasks_by_type: Tasks by name; called with a name, pairs of uuid and task, newest first.
        tasks_by_worker: The same by hostname.
        event_count: Events taken in.
        task_count: Tasks that were received.
        handlers: Functions ``(subject, event)`` by group, which replace what is done here.
    """

    Worker = Worker
    Task = Task
    event_count = 0
    task_count = 0
    #: events kept in order, for each task that is kept
    heap_multiplier = 4

    def __init__(
        self,
        callback: Callable[[State, dict[str, Any]], Any] | None = None,
        workers: Any = None,
        tasks: Any = None,
        taskheap: list[Any] | None = None,
        max_workers_in_memory: int = 5000,
        max_tasks_in_memory: int = 10000,
        on_node_join: Callable[[Any], Any] | None = None,
        on_node_leave: Callable[[Any], Any] | None = None,
        tasks_by_type: Mapping[str, Iterable[str]] | None = None,
        tasks_by_worker: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.event_callback = callback
        self.workers: Any = LRUCache(max_workers_in_memory) if workers is None else workers
        self.tasks: Any = LRUCache(max_tasks_in_memory) if tasks is None else tasks
        self._taskheap: list[Any] = [] if taskheap is None else taskheap
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self.handlers: dict[str, Callable[[str, dict[str, Any]], Any]] = {}
        self._mutex = threading.Lock()
        self._seen_types: set[str] = set()
        self._orphans: Any = LRUCache(max_tasks_in_memory)  # children by the id of their parent
        self.rebuild_taskheap()
        self.tasks_by_type = self._index(self._tasks_by_type, tasks_by_type)
        self.tasks_by_worker = self._index(self._tasks_by_worker, tasks_by_worker)

    def _index(
        self, fun: Callable[..., Any], ids: Mapping[str, Iterable[str]] | None
    ) -> CallableDefaultdict:
        index = CallableDefaultdict(fun, WeakSet)
        for name, members in (ids or {}).items():
            index[name] = WeakSet(peek(self.tasks, id) for id in members if id in self.tasks)
        return index

    # -- taking in

    def event(self, event: dict[str, Any]) -> Any:
        """Take in an event.

        Returns:
            ``((worker or task, whether it is new), what follows the group in the type)``; None for
            an event of another group.
        """
        with self._mutex:
            return self._event(event)

    def task_event(self, type_: str, fields: dict[str, Any]) -> Any:
        """Take in an event ``task-<type_>``."""
        return self._event({**fields, "type": f"task-{type_}"})[0]

    def worker_event(self, type_: str, fields: dict[str, Any]) -> Any:
        """Take in an event ``worker-<type_>``."""
        return self._event({**fields, "type": f"worker-{type_}"})[0]

    def _event(self, event: dict[str, Any]) -> Any:
        self.event_count += 1
        if self.event_callback:
            self.event_callback(self, event)
        group, _, subject = event["type"].partition("-")
        if group in self.handlers:
            return self.handlers[group](subject, event), subject
        if group == "worker" and {"hostname", "timestamp", "local_received"} <= event.keys():
            return self._worker_event(subject, event), subject
        if group == "task":
            return self._task_event(subject, event), subject
        return None

    def _worker_event(self, subject: str, event: dict[str, Any]) -> tuple[Any, bool]:
        hostname, offline = event["hostname"], subject == "offline"
        worker = peek(self.workers, hostname)
        created = worker is None and not offline
        if worker is None:
            worker = self.Worker(hostname)
            if not offline:
                self.workers[hostname] = worker
        worker.event(subject, event["timestamp"], event["local_received"], event)
        if self.on_node_join and (created or subject == "online"):
            self.on_node_join(worker)
        if self.on_node_leave and offline:
            self.on_node_leave(worker)
            self.workers.pop(hostname, None)
        return worker, created

    def _task_event(self, subject: str, event: dict[str, Any]) -> tuple[Any, bool]:
        uuid, hostname = event["uuid"], event["hostname"]
        timestamp, local_received = event["timestamp"], event["local_received"]
        task = peek(self.tasks, uuid)
        created = task is None
        if created:
            task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
        if subject == "sent":  # by a client, not by a worker
            origin = task.client = hostname
        else:
            task.worker = self._worker_of(hostname)
            if local_received:
                task.worker.event(None, local_received, timestamp)
            origin = task.worker.id
        self._note_time(event["clock"], timestamp, origin, task)
        self.task_count += subject == "received"
        task.event(subject, timestamp, local_received, event)
        if task.name is not None:
            self._seen_types.add(task.name)
            if created:
                self.tasks_by_type[task.name].add(task)
                self.tasks_by_worker[hostname].add(task)
        self._join_family(task)
        return task, created

    def _worker_of(self, hostname: str) -> Any:
        worker = peek(self.workers, hostname)
        if worker is None:
            worker = self.workers[hostname] = self.Worker(hostname)
        return worker

    def _note_time(self, clock: Any, timestamp: Any, origin: Any, task: Any) -> None:
        heap = self._taskheap
        if len(heap) + 1 > self.max_tasks_in_memory * self.heap_multiplier:
            heap.pop(0)
        entry = timetuple(clock, timestamp, origin, ref(task))
        if heap and entry > heap[-1]:  # as most are
            heap.append(entry)
        else:
            bisect.insort(heap, entry)

    def _join_family(self, task: Any) -> None:
        if task.parent_id:
            if task.parent_id in self.tasks:  # which keeps the parent from being forgotten first
                self.tasks[task.parent_id].children.add(task)
            elif task.parent_id in self._orphans:
                self._orphans[task.parent_id].add(task)
            else:
                self._orphans[task.parent_id] = WeakSet([task])
        if task.uuid in self._orphans:
            task.children.update(self._orphans.pop(task.uuid))

    # -- looking

    def get_or_create_worker(self, hostname: str, **kwargs: Any) -> tuple[Any, bool]:
        """Give a worker, updated with `kwargs`, and whether it is new."""
        if hostname in self.workers:
            worker = self.workers[hostname]
            worker.update(kwargs)
            return worker, False
        worker = self.workers[hostname] = self.Worker(hostname, **kwargs)
        return worker, True

    def get_or_create_task(self, uuid: str) -> tuple[Any, bool]:
        """Give a task, and whether it is new."""
        if uuid in self.tasks:
            return self.tasks[uuid], False
        task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
        return task, True

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, Any]]:
        """Yield pairs of uuid and task, at most `limit`, the least recently used first."""
        yield from islice(self.tasks.items(), limit or None)

    def tasks_by_time(
        self, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Yield pairs of uuid and task by the time of their last event, newest first if `reverse`.

        Args:
            limit: How many events to look at.
            reverse: Newest first.
        """
        heap = self._taskheap
        seen = set()
        for entry in islice(reversed(heap) if reverse else heap, 0, limit):
            task = entry[3]()
            if task is not None and task.uuid not in seen:
                seen.add(task.uuid)
                yield task.uuid, task

    tasks_by_timestamp = tasks_by_time

    def _tasks_by_type(
        self, name: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Any]]:
        found = self.tasks_by_time(reverse=reverse)
        return islice((pair for pair in found if pair[1].name == name), 0, limit)

    def _tasks_by_worker(
        self, hostname: str, limit: int | None = None, reverse: bool = True
    ) -> Iterator[tuple[str, Any]]:
        found = self.tasks_by_time(reverse=reverse)
        return islice(
            (pair for pair in found if pair[1].worker and pair[1].worker.hostname == hostname),
            0,
            limit,
        )

    def task_types(self) -> list[str]:
        """List the names of tasks that were seen, in order."""
        return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[Any]:
        """Yield the workers that seem to be alive."""
        return (worker for worker in self.workers.values() if worker.alive)

    # -- keeping house

    def rebuild_taskheap(self, timetuple: Any = timetuple) -> None:
        """Put the tasks in order of time anew."""
        self._taskheap[:] = sorted(
            timetuple(task.clock, task.timestamp, task.origin, ref(task))
            for task in self.tasks.values()
        )

    def freeze_while(
        self, fun: Callable[..., Any], *args: Any, clear_after: bool = False, **kwargs: Any
    ) -> Any:
        """Call a function while no event is taken in; then, if wanted, `clear`."""
        with self._mutex:
            try:
                return fun(*args, **kwargs)
            finally:
                if clear_after:
                    self._clear()

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget tasks: those that have ended, or, if not `ready`, all."""
        with self._mutex:
            self._clear_tasks(ready)

    def _clear_tasks(self, ready: bool = True) -> None:
        keep = {}
        if ready:
            keep = {uuid: task for uuid, task in self.itertasks() if not task.ready}
        self.tasks.clear()
        self.tasks.update(keep)
        self._taskheap.clear()

    def clear(self, ready: bool = True) -> None:
        """Forget workers and tasks (as `clear_tasks`), and count from zero."""
        with self._mutex:
            self._clear(ready)

    def _clear(self, ready: bool = True) -> None:
        self.workers.clear()
        self._clear_tasks(ready)
        self.event_count = self.task_count = 0

    def __repr__(self) -> str:
        return f"<State: events={self.event_count} tasks={self.task_count}>"

    def __reduce__(self) -> Any:
        return type(self), (
            self.event_callback,
            self.workers,
            self.tasks,
            None,
            self.max_workers_in_memory,
            self.max_tasks_in_memory,
            self.on_node_join,
            self.on_node_leave,
            _ids(self.tasks_by_type),
            _ids(self.tasks_by_worker),
        )


def _ids(index: Mapping[str, Iterable[Any]]) -> dict[str, list[str]]:
    return {name: [task.id for task in tasks] for name, tasks in index.items()}
