"""The application: tasks that say what was done to them, and canvases made of them."""

from __future__ import annotations

import functools
import json
import operator
from typing import Any

import recording
from celery import Celery, Task, chain, chord, group, signature
from celery.exceptions import Ignore, Reject

app = Celery("canvases")
app.conf.broker_connection_retry_on_startup = True


class Boom(Exception):
    """An application's own."""


def say(value: Any) -> str:
    """Write a value so that it can be told where each part of it came from."""
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(map(say, value))}]"
    return str(value)


class Watched(Task):  # type: ignore[misc]
    """Records its runs."""

    def ran(self, tag: str, args: Any, kwargs: Any) -> str:
        """Record the run; give what the task returns."""
        request = self.request
        recording.note(
            "ran",
            id=request.id,
            tag=tag,
            args=args,
            kwargs=kwargs,
            request=recording.asked(request),
        )
        said = [*map(say, args), *(f"{k}={say(v)}" for k, v in sorted(kwargs.items()))]
        return f"{tag.split('/')[-1]}({' '.join(said)})"


task = functools.partial(app.task, base=Watched, bind=True)


@task(name="do.ok")
def ok(self: Any, *args: Any, tag: str, **kwargs: Any) -> str:
    return str(self.ran(tag, args, kwargs))


@task(name="do.quiet", ignore_result=True)
def quiet(self: Any, *args: Any, tag: str, **kwargs: Any) -> str:
    return str(self.ran(tag, args, kwargs))


@task(name="do.pair")
def pair(self: Any, *args: Any, tag: str, **kwargs: Any) -> list[Any]:
    said = self.ran(tag, args, kwargs)
    return [said, {"nothing": None}]


@task(name="do.nothing")
def nothing(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    self.ran(tag, args, kwargs)


@task(name="do.unsayable")
def unsayable(self: Any, *args: Any, tag: str, **kwargs: Any) -> Any:
    self.ran(tag, args, kwargs)
    return {1, 2}


@task(name="do.fail")
def fail(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    raise ValueError(self.ran(tag, args, kwargs), 7)


@task(name="do.boom", throws=(Boom,))
def boom(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    raise Boom(self.ran(tag, args, kwargs))


@task(name="do.ignore")
def ignore(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    self.ran(tag, args, kwargs)
    raise Ignore


@task(name="do.reject")
def reject(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    self.ran(tag, args, kwargs)
    raise Reject("not wanted", requeue=False)


@task(name="do.retry")
def retry(self: Any, *args: Any, tag: str, **kwargs: Any) -> str:
    said = self.ran(tag, args, kwargs)
    if not self.request.retries:
        raise self.retry(countdown=0)
    return str(said)


@task(name="do.give_up", max_retries=1)
def give_up(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    said = self.ran(tag, args, kwargs)
    raise self.retry(countdown=0, exc=Boom(said))


@task(name="do.auto", autoretry_for=(Boom,), max_retries=1, default_retry_delay=0)
def auto(self: Any, *args: Any, tag: str, **kwargs: Any) -> None:
    raise Boom(self.ran(tag, args, kwargs))


@task(name="do.replace")
def replace(self: Any, *args: Any, tag: str, into: Any, **kwargs: Any) -> Any:
    """Put a canvas in its own place."""
    self.ran(tag, args, kwargs)
    return self.replace(build(into, tag.split("/")[0]))


@task(name="do.spawn")
def spawn(self: Any, *args: Any, tag: str, into: Any, **kwargs: Any) -> str:
    """Send a canvas from its body."""
    said = self.ran(tag, args, kwargs)
    build(into, tag.split("/")[0]).apply_async()
    return str(said)


@task(name="do.grow")
def grow(self: Any, *args: Any, tag: str, into: Any, **kwargs: Any) -> str:
    """Add a canvas to the chord that it is a member of."""
    said = self.ran(tag, args, kwargs)
    self.add_to_chord(build(into, tag.split("/")[0]))
    return str(said)


@task(name="do.launch")
def launch(self: Any, *args: Any, tag: str, shape: Any) -> Any:
    """Send a shape from within a task; give its result."""
    result = send(shape, tag.split("/")[0])
    return None if result is None else result.as_tuple()


@task(name="do.item")
def item(self: Any, tag: str, value: Any = None) -> Any:
    """Take part in a map, a starmap or a chunk, where arguments have no names."""
    recording.note("item", tag=tag, by=app.current_worker_task.request.id)
    if value == "fail":
        raise ValueError(tag.split("/")[-1])
    return [tag.split("/")[-1], value]


@app.task(name="err.old")
def err_old(task_id: str, *, tag: str) -> None:
    recording.note("errback", style="old", tag=tag, failed=task_id)


@app.task(name="err.new")
def err_new(request: Any, exc: Any, traceback: Any, *, tag: str) -> None:
    caller = app.current_worker_task
    recording.note(
        "errback", style="new", tag=tag, failed=request.id, exc=recording.exception(exc),
        traceback=type(traceback).__name__, task=request.task, retries=request.retries,
        root_id=request.root_id, parent_id=request.parent_id, by=caller and caller.request.id,
    )  # fmt: skip


def build(shape: dict[str, Any], run: str) -> Any:
    """Make the signature that a shape says.

    Args:
        shape: See `tests.celery_compat.shapes.strategy`.
        run: Prefix of the tags.
    """
    sig = _MAKERS[shape["kind"]](shape, run)
    for link in shape.get("link", ()):
        sig.link(build(link, run))
    for errback in shape.get("link_error", ()):
        sig.link_error(build(errback, run))
    return sig


def _task(shape: dict[str, Any], run: str) -> Any:
    kwargs = dict(shape.get("kwargs", {}), tag=f"{run}/{shape['tag']}")
    if "into" in shape:
        kwargs["into"] = shape["into"]
    options = shape.get("options", {})
    sig = app.tasks[shape["do"]].signature(tuple(shape.get("args", ())), kwargs, **options)
    return sig.set(immutable=True) if shape.get("immutable") else sig


def _chain(shape: dict[str, Any], run: str) -> Any:
    steps = [build(one, run) for one in shape["of"]]
    return functools.reduce(operator.or_, steps) if shape.get("pipe") else chain(*steps)


def _group(shape: dict[str, Any], run: str) -> Any:
    members = [build(one, run) for one in shape["of"]]
    return group(one for one in members) if shape.get("drawn") else group(members)


def _chord(shape: dict[str, Any], run: str) -> Any:
    return chord([build(one, run) for one in shape["of"]], build(shape["body"], run))


def _map(shape: dict[str, Any], run: str) -> Any:
    return item.map([f"{run}/{tag}" for tag, _ in shape["items"]])


def _starmap(shape: dict[str, Any], run: str) -> Any:
    return item.starmap([[f"{run}/{tag}", value] for tag, value in shape["items"]])


def _chunks(shape: dict[str, Any], run: str) -> Any:
    chunks = item.chunks([[f"{run}/{tag}", value] for tag, value in shape["items"]], shape["size"])
    return chunks.group() if shape.get("group") else chunks


_MAKERS = {
    "task": _task,
    "chain": _chain,
    "group": _group,
    "chord": _chord,
    "map": _map,
    "starmap": _starmap,
    "chunks": _chunks,
}


def send(shape: dict[str, Any], run: str) -> Any:
    """Send a whole shape as it says; gives its result."""
    sig = build(shape["canvas"], run)
    if shape.get("json"):
        sig = signature(json.loads(json.dumps(sig)), app=app)
    if shape.get("frozen"):
        sig.freeze()
    options = dict(shape.get("options", {}))
    for key in ("link", "link_error"):
        if key in shape:
            options[key] = [build(one, run) for one in shape[key]]
    return sig.apply_async(tuple(shape.get("args", ())), dict(shape.get("kwargs", {})), **options)


app.finalize()
recording.connect(app)
