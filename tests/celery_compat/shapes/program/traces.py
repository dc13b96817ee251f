"""From the events of one shape to its trace, where ids are replaced by the tags of their tasks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from canvases import app
from celery.result import AsyncResult, GroupResult, result_from_tuple
from recording import exception

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: What the trace of a task does not say again.
NOT_ARGUMENTS = ("tag", "into", "shape")


class Names:
    """Knows the tag of every id that an event named, and names groups by their members."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        tags: dict[str, set[str]] = defaultdict(set)
        groups: dict[str, set[str]] = defaultdict(set)
        for event in events:
            if "tag" in event and "id" in event:
                tags[event["id"]].add(event["tag"])
            for sig_id, tag in _signatures(event.get("request")):
                tags[sig_id].add(tag)
            request = event.get("request")
            # A body has the group of its header too, but no place in it.
            if request and request["group"] and request["group_index"] is not None:
                groups[request["group"]].add(event["id"])
        # An id that changed hands is named by who had it first, whose tag is the shorter one.
        self.tags = {i: min(found, key=_tag_order) for i, found in tags.items()}
        members = {i: sorted(self._short(one) for one in found) for i, found in groups.items()}
        self.groups = {i: f"group({' '.join(found)})" for i, found in members.items()}

    def _short(self, task_id: str) -> str:
        return self.tags.get(task_id, "?").split("/")[-1]

    def run_of(self, event: dict[str, Any]) -> str:
        """Give the number of the shape that an event belongs to."""
        tag = self.tags.get(event.get("id", "")) or event.get("tag", "")
        return str(tag).split("/")[0]

    def of(self, task_id: Any) -> str:
        """Give the name of an id."""
        return self.groups.get(task_id) or self._short(task_id)

    def normal(self, value: Any, run: str) -> Any:
        """Replace every id in a value, keep no prefix of a tag, and sort nothing."""
        if isinstance(value, dict):
            return {self.normal(k, run): self.normal(v, run) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.normal(v, run) for v in value]
        if isinstance(value, str):
            return UUID.sub(lambda m: f"<{self.of(m[0])}>", value).replace(f"{run}/", "")
        return value


def _tag_order(tag: str) -> tuple[bool, int, str]:
    return "/" not in tag, len(tag), tag


def _signatures(value: Any) -> Iterator[tuple[str, str]]:
    """Iterate over (id, tag) of the outlines anywhere in a value."""
    if isinstance(value, dict):
        if value.get("id") and value.get("tag"):
            yield value["id"], value["tag"]
        for one in value.values():
            yield from _signatures(one)
    elif isinstance(value, list):
        for one in value:
            yield from _signatures(one)


def trace(names: Names, run: str, events: list[dict[str, Any]], result: Any) -> dict[str, Any]:
    """Say everything that was seen of one shape.

    Args:
        names: Of all ids.
        run: Prefix of its tags.
        events: Its events, in order of time.
        result: What sending it gave; an exception if it raised one.
    """
    by_id: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if "id" in event:
            by_id[event["id"]].append(event)
    ids = {i for i, tag in names.tags.items() if tag.split("/")[0] == run}
    tasks: dict[str, list[Any]] = defaultdict(list)
    for task_id in ids:
        tasks[names.of(task_id)].append(
            {
                "published": [_published(e) for e in by_id[task_id] if "publish" in e["event"]],
                "runs": _runs(by_id[task_id]),
                "stored": _stored(task_id),
            }
        )
    found = {
        "result": _result(result),
        "tasks": tasks,
        "errbacks": [_plain(e) | {"as": e["tag"]} for e in events if e["event"] == "errback"],
        "items": _items(events),
    }
    found = names.normal(found, run)
    found["errbacks"].sort(key=lambda one: (one["as"], one["failed"]))
    for calls in found["tasks"].values():
        calls.sort(key=_place)
    return found


def _place(call: dict[str, Any]) -> str:
    """Tell apart the calls that have one tag: by what they were given, and where they are."""
    args = [run.get("args") for run in call["runs"]]
    where = [(one["group_index"], one["parent_id"]) for one in call["published"]]
    return repr((args, where))


def _items(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event["event"] == "item":
            found[event["by"]].append(event["tag"])
    return found


def _plain(event: dict[str, Any], *without: str) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in {"at", "event", "id", "tag", *without}}


def _published(event: dict[str, Any]) -> dict[str, Any]:
    return {"signal": event["event"], **_plain(event), "as": event["tag"]}


def _runs(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say each run of an id: what its request was, and which signals it sent."""
    found: list[dict[str, Any]] = []
    for event in events:
        if event["event"] == "task_prerun":
            found.append({"task": event["task"], "signals": ["task_prerun"], **_seen(event)})
        elif event["event"] == "ran":
            found[-1]["body sees the same"] = found[-1]["request"] == event["request"]
            found[-1]["tag"] = event["tag"]
        elif event["event"].startswith("task_"):
            run = found[-1] if found else {"signals": []}
            run["signals"].append([event["event"], _plain(event, "children", "ignored", "name")])
            if "children" in event:
                run["children"] = event["children"]
            if not found:
                found.append(run)
    return found


def _seen(event: dict[str, Any]) -> dict[str, Any]:
    kwargs = {k: v for k, v in event["kwargs"].items() if k not in NOT_ARGUMENTS}
    return {"request": event["request"], "args": event["args"], "kwargs": kwargs}


def _stored(task_id: str) -> dict[str, Any]:
    result = AsyncResult(task_id, app=app)
    value = result.result
    return {
        "state": result.state,
        "value": exception(value) if isinstance(value, BaseException) else value,
        "children": [result_from_tuple(one, app).as_tuple() for one in result.children or ()],
        "traceback": bool(result.traceback),
    }


def _result(result: Any) -> Any:
    if isinstance(result, Exception):
        return {"raised": exception(result)}
    if result is None:
        return None
    found: dict[str, Any] = {"tree": result.as_tuple()}
    if isinstance(result, GroupResult):
        # Not `get()`: of several failed members it raises the one that comes to mind first.
        counts = (result.ready(), result.successful(), result.failed(), result.completed_count())
        return found | {"counts": counts, "members": [_result(one) for one in result.results]}
    try:
        found["value"] = result.get(timeout=0.1, interval=0.02)
    except Exception as exc:
        found["value raised"] = exception(exc)
    return found | {"state": result.state, "ignored": bool(result.ignored)}
