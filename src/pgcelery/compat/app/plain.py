"""Calls that say nothing unusual: their messages are written without being made first.

Nobody is told of them, no option has a value that is more than a number or a text, and nothing
waits. All that a message says is then known from a few values, by which `heads` finds its head.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from pgcelery.compat import signals
from pgcelery.compat.app.envelope import check_text, repr_args, repr_kwargs
from pgcelery.compat.app.heads import quote
from pgcelery.compat.message import Message
from pgcelery.compat.serialization import dump
from pgcelery.compat.utils.nodenames import anon_nodename

__all__ = ("Draft", "draft")

_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

#: Types of values that are the same whenever they are equal.
_VALUES = frozenset((type(None), str, int, float, bool))
_TEXT = (str, type(None))

#: Options that have blanks of their own in a head, or are where it goes to.
_VARYING = frozenset(("group_id", "group_index", "root_id", "parent_id", "reply_to", "queue"))

#: Options that are no part of a head only if they are None.
_MUST_BE_NONE = (
    *("link", "link_error", "chain", "chord", "stamped_headers", "compression", "retry_policy"),
    *("argsrepr", "kwargsrepr", "origin", "exchange", "routing_key", "exchange_type"),
)


class Draft(NamedTuple):
    """A call that is plain, ready to be written.

    Attributes:
        key: All that its head says but the blanks.
        blanks: As `Heads.write` takes them.
        body: Encoded.
        kinds: Content type and encoding of the body.
        queue: Name of its queue.
        exchange: Of its delivery info.
        routing_key: Of its delivery info.
    """

    key: Hashable
    blanks: Mapping[str, str]
    body: bytes
    kinds: tuple[str, str]
    queue: str
    exchange: str
    routing_key: str

    def payload(self, app: Any) -> bytes | None:
        """Write it; None if nobody has learnt its head yet."""
        return app._heads.write(self.key, self.blanks, self.body)  # type: ignore[no-any-return]

    def learn(self, app: Any, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """Keep the head of the message that was made of the call in full."""
        app._heads.learn(self.key, Message(headers, properties, b"", *self.kinds))


def draft(
    app: Any,
    name: str,
    task_id: str,
    args: Any,
    kwargs: Any,
    options: Mapping[str, Any],
    *limits: Any,
) -> Draft | None:
    """Draft a call that is to be sent at once; None if it is not plain.

    Args:
        app: The application.
        name: Name of the task.
        task_id: The call's id.
        args: Positional arguments, or None.
        kwargs: Keyword arguments, or None.
        options: Those that are left when it has been routed; not changed.
        *limits: What else the head says: `ignore_result`, `time_limit`, `soft_time_limit`.

    Raises:
        kombu.exceptions.EncodeError: Arguments that the serializer cannot say.
    """
    if (
        "correlation_id" in options
        or signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
    ):
        return None
    get = options.get
    for option in _MUST_BE_NONE:
        if get(option) is not None:
            return None
    serializer, compression, mode, tells = app.conf.several(
        "task_serializer", "task_compression", "task_default_delivery_mode", "task_send_sent_event"
    )
    rest = {option: value for option, value in options.items() if option not in _VARYING}
    said = (name, mode, anon_nodename(), *limits, *rest.values())
    types = tuple(map(type, said))
    places = _places(app, task_id, options)
    if compression or tells or places is None or not _VALUES.issuperset(types):
        return None
    destinations = app.amqp.resolve_queue(options)
    if len(destinations) != 1:
        return None
    ((queue, info),) = destinations
    args, kwargs = args or (), kwargs or {}
    *kinds, body, _ = dump((args, kwargs, _EMBED), get("serializer") or serializer)
    exchange, routing_key = info["exchange"], info["routing_key"]
    places["argsrepr"] = quote(repr_args(app, args, 1024))
    places["kwargsrepr"] = quote(repr_kwargs(app, kwargs, 1024))
    places["exchange"], places["routing_key"] = quote(exchange), quote(routing_key)
    key = (said, types, tuple(rest), *kinds)
    return Draft(
        key, places, body, (kinds[0], kinds[1]), check_text("queue", queue), exchange, routing_key
    )


def _places(app: Any, task_id: str, options: Mapping[str, Any]) -> dict[str, str] | None:
    """Give the blanks that are ids; None if one has a type that it should not have."""
    get = options.get
    group, index, root, parent = (
        get("group_id"),
        get("group_index"),
        get("root_id"),
        get("parent_id"),
    )
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
