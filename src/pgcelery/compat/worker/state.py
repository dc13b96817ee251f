"""What a worker of this process has done and is doing; one for the whole process, as in Celery.

Source: Celery 5.7, ``celery.worker.state``. `active_requests` is brought up to date whenever remote
control asks, and when a task ends; between these, a task may have begun that is not in it yet.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pgcelery._version import __version__
from pgcelery.compat.exceptions import WorkerShutdown, WorkerTerminate
from pgcelery.compat.utils.collections import LimitedSet

__all__ = (
    "SOFTWARE_INFO",
    "active_requests",
    "all_total_count",
    "late_count",
    "maybe_shutdown",
    "merge_revoked",
    "requests",
    "reserved_requests",
    "reset_state",
    "revoked",
    "revoked_stamps",
    "scheduled_requests",
    "successful_requests",
    "task_accepted",
    "task_ready",
    "task_reserved",
    "total_count",
)

SOFTWARE_INFO = {"sw_ident": "py-celery", "sw_ver": __version__, "sw_sys": platform.system()}

#: most revoked ids that are remembered
REVOKES_MAX = int(os.environ.get("CELERY_WORKER_REVOKES_MAX", "50000"))
#: seconds they are remembered when there are more
REVOKE_EXPIRES = float(os.environ.get("CELERY_WORKER_REVOKE_EXPIRES", "10800"))
#: the same for ids of tasks that succeeded
SUCCESSFUL_MAX = int(os.environ.get("CELERY_WORKER_SUCCESSFUL_MAX", "1000"))
SUCCESSFUL_EXPIRES = float(os.environ.get("CELERY_WORKER_SUCCESSFUL_EXPIRES", "10800"))

#: every request this worker has taken and not ended, by id
requests: dict[str, Any] = {}
#: those taken and not ended
reserved_requests: set[Any] = set()
#: those that run
active_requests: set[Any] = set()
#: stays empty: a task with an eta waits in the database
scheduled_requests: set[Any] = set()
#: ids of tasks that succeeded lately
successful_requests: Any = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES)
#: tasks run, by name
total_count: Counter[str] = Counter()
#: tasks run, as the only item
all_total_count = [0]
#: runs whose end was refused because another had their task by then, by reason
late_count: Counter[str] = Counter()
#: ids this worker was told are revoked
revoked: Any = LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES)
#: stamps this worker was told are revoked: ``{stamp: [values]}``
revoked_stamps: dict[str, Any] = {}

#: exit code once a warm or a cold shutdown was asked for
should_stop: int | bool | None = None
should_terminate: int | bool | None = None


def reset_state() -> None:
    """Forget everything."""
    requests.clear()
    reserved_requests.clear()
    active_requests.clear()
    scheduled_requests.clear()
    successful_requests.clear()
    total_count.clear()
    all_total_count[:] = [0]
    late_count.clear()
    revoked.clear()
    revoked_stamps.clear()


def merge_revoked(task_ids: Iterable[str]) -> None:
    """Remember ids that were revoked elsewhere, as of now."""
    for task_id in task_ids:
        revoked.add(task_id)


def maybe_shutdown() -> None:
    """Raise what ends the worker, if that was asked for.

    Raises:
        WorkerTerminate: A cold shutdown was.
        WorkerShutdown: A warm shutdown was.
    """
    if should_terminate is not None and should_terminate is not False:
        raise WorkerTerminate(should_terminate)
    if should_stop is not None and should_stop is not False:
        raise WorkerShutdown(should_stop)


def task_reserved(request: Any) -> None:
    """Note that the worker has taken a request."""
    requests[request.id] = request
    reserved_requests.add(request)


def task_accepted(request: Any) -> None:
    """Note that a request runs."""
    requests[request.id] = request
    if request not in active_requests:
        active_requests.add(request)
        total_count[request.type] += 1
        all_total_count[0] += 1


def task_ready(request: Any, successful: bool = False) -> None:
    """Note that a request has ended here."""
    if successful:
        successful_requests.add(request.id)
    requests.pop(request.id, None)
    active_requests.discard(request)
    reserved_requests.discard(request)
    scheduled_requests.discard(request)
