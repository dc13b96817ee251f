"""What happens in any process of a run, one JSON object a line, a file for every process."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import signals, signature

FOLDER = os.environ.get("SHAPES_RECORDS", "")
_file: Any = None
_pid = 0

REQUEST = (
    "root_id", "parent_id", "group", "group_index", "retries", "replaced_task_nesting",
    "ignore_result", "correlation_id", "is_eager", "called_directly", "eta", "expires", "timelimit",
    "headers", "shadow", "delivery_info", "stamps", "stamped_headers",
)  # fmt: skip


def note(event: str, **what: Any) -> None:
    """Append one event to this process's file."""
    global _file, _pid
    if _pid != os.getpid():  # also after a fork: two processes do not share a file
        _pid = os.getpid()
        _file = open(os.path.join(FOLDER, f"{_pid}.jsonl"), "a", buffering=1)  # noqa: SIM115
    _file.write(
        json.dumps({"event": event, "at": time.monotonic_ns(), **what}, default=repr) + "\n"
    )


def exception(exc: BaseException) -> list[Any]:
    """Say an exception so that it can be compared."""
    cause = exc.__cause__
    return [
        type(exc).__name__,
        [repr(arg) for arg in exc.args],
        None if cause is None else repr(cause),
    ]


def outline(sig: Any) -> Any:
    """Say a signature by the tags of its tasks, with the ids it has: ``{"tag", "id", ...}``."""
    sig = signature(sig)
    kind, options = sig.subtask_type, sig.options
    found: dict[str, Any] = {
        "id": options.get("task_id"),
        "tag": tag_of(sig.task, sig.args, sig.kwargs),
    }
    if kind == "group":
        found = {"group": [outline(one) for one in sig.kwargs["tasks"]]}
    elif kind == "chain":
        found = {"chain": [outline(one) for one in sig.kwargs["tasks"]]}
    elif kind == "chord":
        header = sig.kwargs["header"]
        header = header["kwargs"]["tasks"] if isinstance(header, dict) else header
        body = sig.kwargs["body"]
        found = {"chord": [outline(one) for one in header], "body": body and outline(body)}
    for key in ("link", "link_error"):
        links = options.get(key)
        if links:
            links = links if isinstance(links, (list, tuple)) else [links]
            found[key] = [outline(one) for one in links]
    if sig.immutable:
        found["immutable"] = True
    return found


def tag_of(name: str, args: Any, kwargs: Any) -> str:
    """Give what a call is named by: its tag, or for Celery's own tasks what they work on."""
    if "tag" in kwargs:
        return str(kwargs["tag"])
    for item in kwargs.get("it") or ():
        first = item[0] if isinstance(item, (list, tuple)) else item
        return f"{first} {name}"
    return name


def asked(request: Any) -> dict[str, Any]:
    """Say what a task's request says."""
    found = {key: getattr(request, key) for key in REQUEST}
    found["chord"] = request.chord and outline(request.chord)
    for key in ("callbacks", "errbacks", "chain"):
        found[key] = [outline(sig) for sig in getattr(request, key) or ()]
    found["reply_to"] = bool(request.reply_to)
    found["hostname"] = bool(request.hostname)
    found["origin"] = bool(request.origin)
    return found


def children(request: Any) -> list[Any]:
    """Say which calls a task has made."""
    return [child.as_tuple() for child in request.children or ()]


def connect(app: Any) -> None:
    """Record the signals of this process, be it the worker's or the caller's."""

    def on(signal: Any, name: str, say: Any) -> None:
        def receiver(sender: Any = None, **kwargs: Any) -> None:
            note(name, **say(sender, kwargs))

        signal.connect(receiver, weak=False)

    def published(sender: Any, kwargs: Any) -> dict[str, Any]:
        headers, (args, named, _) = kwargs["headers"], kwargs["body"]
        task = app.current_worker_task
        fields = ("id", "root_id", "parent_id", "group", "group_index", "retries", "task")
        found = {key: headers.get(key) for key in fields}
        found |= {"queue": kwargs["routing_key"], "tag": tag_of(sender, args, named)}
        return found | {"by": task and task.request.id, "ignore_result": headers["ignore_result"]}

    def ran(sender: Any, kwargs: Any) -> dict[str, Any]:
        request = kwargs.get("request") or sender.request
        found: dict[str, Any] = {"id": kwargs.get("task_id") or request.id}
        for key in ("exception", "result", "reason", "retval"):
            value = kwargs.get(key)
            found |= {key: exception(value) if isinstance(value, BaseException) else value}
        return found | {"state": kwargs.get("state"), "name": sender.name}

    def over(sender: Any, kwargs: Any) -> dict[str, Any]:
        said = sender.request.ignore_result
        found = {"ignored": sender.ignore_result if said is None else said}
        return found | {"children": children(sender.request)} | ran(sender, kwargs)

    def begun(sender: Any, kwargs: Any) -> dict[str, Any]:
        request = sender.request
        return {"id": kwargs["task_id"], "request": asked(request), "task": sender.name,
                "args": kwargs["args"], "kwargs": kwargs["kwargs"]}  # fmt: skip

    on(signals.before_task_publish, "before_task_publish", published)
    on(signals.after_task_publish, "after_task_publish", published)
    on(signals.task_prerun, "task_prerun", begun)
    on(signals.task_success, "task_success", ran)
    on(signals.task_failure, "task_failure", ran)
    on(signals.task_retry, "task_retry", ran)
    on(signals.task_internal_error, "task_internal_error", ran)
    on(signals.task_revoked, "task_revoked", ran)
    on(signals.task_postrun, "task_postrun", over)
