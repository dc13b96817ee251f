"""Events as they travel: several at once, with a line that says how they are serialized."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Any

from kombu import serialization

__all__ = ("keep_s", "pack", "unpack")

# Kombu does not say its types.
dumps: Any = serialization.dumps
loads: Any = serialization.loads
prepare_accept_content: Any = serialization.prepare_accept_content

logger = logging.getLogger("celery.events")

_MOST = 500  # events in one batch
_KEEP_S = 60.0


def keep_s(queue_ttl: float | None) -> float:
    """Seconds for which events are kept: ``event_queue_ttl``, but never less than a minute."""
    return max(_KEEP_S, float(queue_ttl or 0))


def pack(items: list[tuple[str, Any]]) -> list[bytes]:
    """Make bodies of ``(serializer, event)``; what cannot be serialized is logged and left out."""
    bodies: list[bytes] = []
    for serializer in dict.fromkeys(name for name, _ in items):
        events = [event for name, event in items if name == serializer]
        for start in range(0, len(events), _MOST):
            bodies += _bodies(events[start : start + _MOST], serializer)
    return bodies


def _bodies(events: list[Any], serializer: str) -> Iterable[bytes]:
    try:
        return [_body(events, serializer)]
    except Exception as exc:
        if len(events) == 1:
            logger.warning("Event %s was not sent: %r", events[0].get("type"), exc)
            return []
    return [body for event in events for body in _bodies([event], serializer)]


def _body(events: list[Any], serializer: str) -> bytes:
    content_type, encoding, payload = dumps(events, serializer)
    payload = payload.encode() if isinstance(payload, str) else payload
    return f"{content_type} {encoding}\n".encode() + bytes(payload)


def unpack(body: bytes, accept: Collection[str]) -> list[dict[str, Any]]:
    """Decode one body.

    Raises:
        kombu.exceptions.ContentDisallowed: It is serialized in a way that is not accepted.
        kombu.exceptions.DecodeError: It cannot be read.
    """
    head, _, payload = body.partition(b"\n")
    content_type, _, encoding = head.decode().partition(" ")
    events: list[dict[str, Any]] = loads(
        payload, content_type, encoding, accept=prepare_accept_content(accept)
    )
    return events
