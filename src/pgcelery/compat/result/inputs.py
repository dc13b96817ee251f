"""What a job that waits for others takes from them.

A call that is sent before its input exists carries the option ``chord_parents``: the id of the call
whose result is its first argument, or a (nested) list of ids when that argument is a list. It
becomes the message header of that name, and the flat ids become the job's parents. The argument's
place is held by `SLOT`, so that the call has as many arguments as it will have.
``chord_immutable`` says that it only waits and takes no argument; ``chord_member`` that it is one
of a group that is a chord's body, which fails with the header's own error; ``chord_latch`` that the
ids joined this latch of the engine, which is the one parent; ``chord_after`` the step of a chain
that a chord's header waited for: if that failed, so does the body, in silence; ``chord_end`` the id
of the call that a body of several ends with, and which calls the error links if the header fails;
``chord_errbacks`` which of its error links those are, by place, for a step has others too;
``chord_lives`` the seconds until it expires, counted from the end of what it waited for. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

#: An id, or a list of these.
Inputs = Any

#: What stands for the argument until it exists.
SLOT = None

#: Options of `apply_async` that are about this.
OPTIONS = (
    "chord_parents",
    "chord_immutable",
    "chord_member",
    "chord_latch",
    "chord_after",
    "chord_end",
    "chord_errbacks",
    "chord_lives",
)


def of(result: Any) -> Inputs:
    """Say which results make up the value of `result`, an `AsyncResult` or `GroupResult`."""
    members = getattr(result, "results", None)
    return result.id if members is None else [of(member) for member in members]


def flat(inputs: Inputs) -> tuple[str, ...]:
    """List the ids in `inputs`, each once, in order."""
    found: dict[str, None] = {}
    pending = [inputs]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found[item] = None
        else:
            pending.extend(reversed(item))
    return tuple(found)


def parents(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which jobs a call with these options waits for."""
    latch = options.get("chord_latch")
    return flat(options.get("chord_parents", ())) if latch is None else (latch,)


def build(inputs: Inputs, value_of: Callable[[str], Any]) -> Any:
    """Make the value: each id replaced by ``value_of(id)``."""
    if isinstance(inputs, str):
        return value_of(inputs)
    return [build(item, value_of) for item in inputs]


def end(options: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Say to those that begin a body which call it ends with, if there is one such call.

    Args:
        options: What the body, or the part of one, is sent with.
        result: Its result.
    """
    waits_for_header = isinstance(options.get("chord_parents"), list)
    if not waits_for_header or "chord_end" in options or hasattr(result, "results"):
        return {}
    return {"chord_end": result.id}


def take(options: dict[str, Any]) -> dict[str, Any]:
    """Remove these options from `options` and give them."""
    return {key: options.pop(key) for key in OPTIONS if key in options}


def fill(
    args: Any,
    headers: Mapping[str, Any],
    value_of: Callable[[str], Any],
    joined: Iterable[str] = (),
) -> tuple[Any, ...]:
    """Give the arguments of a call whose parents have ended.

    Args:
        args: Those it was sent with.
        headers: Its message headers.
        value_of: Gives the result of a parent.
        joined: Parents it got since; their values come last in the list.
    """
    if headers.get("chord_immutable"):
        return tuple(args)
    value = build(headers["chord_parents"], value_of)
    if not isinstance(headers["chord_parents"], str):
        value += [value_of(task_id) for task_id in joined]
    return (value, *args[1:])
