"""Calls that say nothing unusual: their messages are written without being made first.

Nobody is told of them, and no option has a value that is more than a number or a text. All that a
message says is then known from a few values, by which `heads` finds its head; what it waits for,
and where in a chain it stands, is a blank in that.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from pgcelery.compat import signals
from pgcelery.compat.app.envelope import check_text, repr_args, repr_kwargs
from pgcelery.compat.app.headers import check_workflow
from pgcelery.compat.app.heads import quote
from pgcelery.compat.message import Message, to_json
from pgcelery.compat.serialization import dump
from pgcelery.engine import NewJob

__all__ = ("Draft", "draft")

EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: Types of values that are the same whenever they are equal.
VALUES = frozenset((type(None), str, int, float, bool))
_TEXT = (str, type(None))

#: Options that have blanks of their own in a head, or are where it goes to.
_VARYING = frozenset(("group_id", "group_index", "root_id", "parent_id", "reply_to", "queue"))

#: Options that make a call unusual if they are not None.
_UNUSUAL = frozenset(
    (
        *("link", "link_error", "chain", "chord", "stamped_headers", "compression", "retry_policy"),
        *("argsrepr", "kwargsrepr", "origin", "exchange", "routing_key", "exchange_type"),
    )
)

_SETTINGS = (
    "task_serializer",
    "task_compression",
    "task_default_delivery_mode",
    "task_send_sent_event",
    "task_publish_retry",
    "task_publish_retry_policy",
)


class Draft(NamedTuple):
    """A call that is plain.

    Attributes:
        payload: Its message, written; None if nobody has learnt its head yet.
        key: All that its head says but the blanks.
        waits: Names of the headers that say what it waits for.
        kinds: Content type and encoding of the body.
        queue: Name of its queue.
        exchange: Of its delivery info.
        routing_key: Of its delivery info.
        retry: The setting.
        retry_policy: The setting, copied.
    """

    payload: bytes | None
    key: Hashable
    waits: tuple[str, ...]
    kinds: tuple[str, str]
    queue: str
    exchange: str
    routing_key: str
    retry: bool
    retry_policy: dict[str, Any]

    def learn(self, app: Any, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """Keep the head of the message that was made of the call in full."""
        app._heads.learn(self.key, Message(headers, properties, b"", *self.kinds), self.waits)


def draft(
    app: Any,
    shape: NewJob,
    args: Any,
    kwargs: Any,
    options: Mapping[str, Any],
    waits: Mapping[str, Any],
    *limits: Any,
) -> Draft | None:
    """Write a call that is to be sent at once; None if it is not plain.

    Args:
        app: The application.
        shape: Its job, so far.
        args: Positional arguments, or None.
        kwargs: Keyword arguments, or None.
        options: Those that are left when it has been routed; not changed.
        waits: What it waits for: more headers.
        *limits: What else the head says: `ignore_result`, `time_limit`, `soft_time_limit`.

    Raises:
        kombu.exceptions.EncodeError: Arguments that the serializer cannot say.
        TypeError: What it waits for is not what the protocol says.
    """
    if (
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
        or "correlation_id" in options
    ):
        return None
    serializer, compression, mode, tells, retry, policy = app.conf.several(_SETTINGS)
    if compression or tells:
        return None
    rest = {}
    for option, value in options.items():
        if option in _UNUSUAL and value is not None:
            return None
        if option not in _VARYING:
            rest[option] = value
    said = (shape.name, os.getpid(), mode, *limits, *rest.values())
    types = tuple(map(type, said))
    blanks = _blanks(app, shape.id, options)
    if blanks is None or not VALUES.issuperset(types):
        return None
    destinations = app.amqp.resolve_queue(options)
    if len(destinations) != 1:
        return None
    ((queue, info),) = destinations
    exchange, routing_key = info["exchange"], info["routing_key"]
    args, kwargs = args or (), kwargs or {}
    kind, encoding, body, _ = dump((args, kwargs, EMBED), rest.get("serializer") or serializer)
    blanks["argsrepr"] = quote(repr_args(app, args, 1024))
    blanks["kwargsrepr"] = quote(repr_kwargs(app, kwargs, 1024))
    blanks["exchange"], blanks["routing_key"] = quote(exchange), quote(routing_key)
    if waits:
        check_workflow(waits)
        blanks.update({name: to_json(value) for name, value in waits.items()})
    key = (said, types, tuple(rest), kind, encoding, *waits)
    return Draft(
        app._heads.write(key, blanks, body),
        key,
        tuple(waits),
        (kind, encoding),
        check_text("queue", queue),
        exchange,
        routing_key,
        retry,
        {**policy},
    )


def _blanks(app: Any, task_id: str, options: Mapping[str, Any]) -> dict[str, str] | None:
    """Give the blanks that are ids; None if one has a type that it should not have."""
    get = options.get
    group, index = get("group_id"), get("group_index")
    root, parent = get("root_id"), get("parent_id")
    reply_to = get("reply_to") or app.thread_oid
    if not (
        isinstance(group, _TEXT)
        and (index is None or type(index) is int)
        and isinstance(root, _TEXT)
        and isinstance(parent, _TEXT)
        and isinstance(reply_to, str)
    ):
        return None
    id = quote(task_id)
    return {
        "id": id,
        "group": "null" if group is None else quote(group),
        "group_index": "null" if index is None else str(index),
        "root_id": quote(root) if root else id,
        "parent_id": "null" if parent is None else quote(parent),
        "reply_to": quote(reply_to),
    }
