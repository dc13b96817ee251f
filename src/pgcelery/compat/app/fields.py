"""What of a call's options is a field of its message, or becomes one of its job."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kombu.utils.functional import maybe_list

__all__ = ("delivery_mode", "take", "ttl_s")

#: Options that are fields of the message.
_ENVELOPE_OPTIONS = ("origin", "argsrepr", "kwargsrepr")

#: Options of kombu's `publish` that mean nothing here.
IGNORED_OPTIONS = (
    "declare",
    "timeout",
    "confirm_timeout",
    "immediate",
    "mandatory",
    "event_dispatcher",
    "create_sent_event",
)

_MODES: dict[Any, int] = {"transient": 1, "persistent": 2}


def take(app: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Take out of `options` what is a field of the message; gives keywords of `envelope.seal`."""
    take = options.pop
    stamped = take("stamped_headers", None)
    fields = {
        "callbacks": maybe_list(take("link", None)),
        "errbacks": maybe_list(take("link_error", None)),
        "chain": take("chain", None),
        "chord": take("chord", None),
        "group_id": take("group_id", None),
        "group_index": take("group_index", None),
        "retries": take("retries", 0),
        "reply_to": take("reply_to", None) or app.thread_oid,
        "root_id": take("root_id", None),
        "parent_id": take("parent_id", None),
        "shadow": take("shadow", None),
        "replaced_task_nesting": take("replaced_task_nesting", 0),
        "stamped_headers": stamped,
        "stamps": {stamp: take(stamp) for stamp in maybe_list(stamped) or () if stamp in options},
    }
    for option in _ENVELOPE_OPTIONS:
        fields[option] = take(option, None)
    for option in IGNORED_OPTIONS:
        take(option, None)
    return fields


def ttl_s(expires: Any) -> float | None:
    """Give the `result_expires` setting in seconds; None for never."""
    if isinstance(expires, timedelta):
        expires = expires.total_seconds()
    return float(expires) if expires else None


def delivery_mode(mode: Any) -> int:
    """Give AMQP's number of a mode."""
    return _MODES[mode] if mode in _MODES else int(mode)
