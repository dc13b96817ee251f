"""Where the links given to a chord go.

Source: Celery 5.7, `celery.canvas._chord._add_body_callbacks`.
"""

from __future__ import annotations

from typing import Any

from kombu.utils.functional import maybe_list

from pgcelery.compat.canvas import kinds
from pgcelery.compat.canvas.signature import clone_deep, maybe_signature

#: Options of a chain that are not its first step's.
RUN_OPTIONS = frozenset(
    {"chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id"}
)


def add_callbacks(body: Any, options: dict[str, Any]) -> Any:
    """Move ``link`` and ``link_error`` from `options` to the body of a chord.

    Gives the body to use: a copy, if there was something to move.
    """
    callbacks = maybe_list(options.pop("link", None)) or ()
    errbacks = maybe_list(options.pop("link_error", None)) or ()
    if callbacks or errbacks:
        body = clone_deep(body)
    for callback in callbacks:
        callback = clone_deep(maybe_signature(callback, app=body._app))
        if kinds.is_group(body) and not body.tasks:
            body.append_to_list_option("link", callback)
        else:
            body.link(callback)
    for errback in errbacks:
        if kinds.is_group(body):
            _link_error_to_members(body, maybe_signature(errback, app=body._app))
        else:
            body.append_to_list_option("link_error", errback)
    return body


def _link_error_to_members(sig: Any, errback: Any, as_group: bool = True) -> None:
    """Link a copy of `errback` to each task of a group that is a body, once.

    A group that has error links of its own, even none, keeps it there: when it runs, those replace
    its members'. Groups inside are flattened then, their options lost, so theirs do not count.
    """
    if kinds.is_group(sig):
        if as_group and sig.options.get("link_error") is not None:
            sig.append_to_list_option("link_error", errback.clone())
        else:
            for task in sig.tasks:
                _link_error_to_members(task, errback, as_group=False)
    elif kinds.is_chord(sig):
        _link_error_to_members(sig.body, errback)
    else:
        sig.link_error(errback.clone())
