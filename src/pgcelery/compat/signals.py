"""All signals of Celery. A receiver gets ``signal``, ``sender`` and the arguments named here.

Source: Celery 5.7, `celery.signals`. The publish signals are sent in the caller, with the task's
name as sender; those of a run in the process that runs it, with the task as sender; those of a run
whose process was lost in the worker's main process.
"""

from __future__ import annotations

from pgcelery.compat.utils.dispatch import Signal


def _signal(name: str, *args: str) -> Signal:
    return Signal(providing_args=set(args), name=name)


#: `headers`, `properties` and `body` may be changed, and the change is what is sent.
before_task_publish = _signal(
    "before_task_publish",
    *("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"),
)
after_task_publish = _signal("after_task_publish", "body", "exchange", "routing_key")
task_received = _signal("task_received", "request")
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval")
task_success = _signal("task_success", "result", "runtime")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal(
    "task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo"
)
task_internal_error = _signal(
    "task_internal_error",
    *("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"),
)
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")
task_rejected = _signal("task_rejected", "message", "exc")
#: Not Celery's; in the worker's main process. A run came to `state` when its task had been given to
#: another worker (`reason` ``reassigned``) or had ended (``already finished``): nothing of it was
#: recorded.
task_late = _signal("task_late", "task_id", "state", "reason")
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")
#: Deprecated by Celery for `after_task_publish`.
task_sent = _signal("task_sent", "task_id", "task", "args", "kwargs", "eta", "taskset")

celeryd_init = _signal("celeryd_init", "instance", "conf", "options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")

import_modules = _signal("import_modules")
worker_init = _signal("worker_init")
worker_before_create_process = _signal("worker_before_create_process")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown")
worker_ready = _signal("worker_ready")
worker_shutdown = _signal("worker_shutdown")
worker_shutting_down = _signal("worker_shutting_down")
heartbeat_sent = _signal("heartbeat_sent")

_LOG_ARGS = ("loglevel", "logfile", "format", "colorize")
setup_logging = _signal("setup_logging", *_LOG_ARGS)
after_setup_logger = _signal("after_setup_logger", "logger", *_LOG_ARGS)
after_setup_task_logger = _signal("after_setup_task_logger", "logger", *_LOG_ARGS)

beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")

eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")

user_preload_options = _signal("user_preload_options", "app", "options")

__all__ = tuple(name for name, value in list(globals().items()) if isinstance(value, Signal))
