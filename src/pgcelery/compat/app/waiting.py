"""Why a task waits: the engine's reason, with what a task's message and result add to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError, SerializationError

from pgcelery.compat.app.lost import REVOKED
from pgcelery.compat.message import decode
from pgcelery.engine import State, Why

__all__ = ("why",)


def why(app: Any, id: str) -> Why | None:
    """Say where a task is and what keeps it there; None when nothing is known of it."""
    found: Why | None = app.engine.why(id)
    if found is None:
        return None
    if found.reason == "retry" and found.payload is not None:
        return _retry(found, found.payload)
    if found.reason == "ended" and found.state is State.CANCELLED and found.result is not None:
        return _revoked(app, found, found.result)
    return found


def _retry(found: Why, payload: bytes) -> Why:
    try:
        retries = decode(payload).headers.get("retries")
    except DecodeError:
        return found  # its headers are longer than what is read of them
    if not isinstance(retries, int) or retries < 1:
        return found
    text = found.text.replace("for a retry:", f"for retry {retries}:", 1)
    return replace(found, retries=retries, text=text)


def _revoked(app: Any, found: Why, result: bytes) -> Why:
    try:
        said = app.backend.decode(result)["result"]["exc_message"]
    except (ContentDisallowed, SerializationError, LookupError, TypeError, AttributeError):
        return found  # of another serializer, or written by hand
    message = said[0] if isinstance(said, (list, tuple)) and said else said
    for kind, (text, _) in REVOKED.items():
        if message == text and kind != "cancelled":
            told = found.text.replace("It was cancelled", "It was revoked", 1)
            return replace(found, reason=kind, text=f"{told[:-1]}: {text}.")
    return found
