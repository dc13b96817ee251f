"""A task message, and its bytes as they lie in a job's payload.

The fields are those of Celery's protocol 2 on a broker: string-keyed `headers` and `properties`,
and a `body` that is ``[args, kwargs, embed]`` in the content type named beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from kombu.exceptions import DecodeError
from kombu.utils.json import JSONEncoder

from pgcelery.compat.utils.jsontext import parse

__all__ = ("Message", "decode", "encode", "head_of", "join", "to_json")

#: Version of the framing, then the length of the JSON head; the body is the rest.
_FRAME = Struct(">BI")
_VERSION = 2

# Kombu's encoder, made once: it tags times, decimals, UUIDs and bytes in custom headers.
to_json = JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True)
class Message:
    """One task message."""

    headers: dict[str, Any]
    properties: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


def encode(message: Message) -> bytes:
    """Give the payload of `message`.

    Raises:
        TypeError: A header or property that JSON cannot say.
    """
    return join(head_of(message), message.body)


def head_of(message: Message) -> str:
    """Write the head of a message, in ASCII.

    Raises:
        TypeError: A header or property that JSON cannot say.
    """
    return to_json(
        (message.headers, message.properties, message.content_type, message.content_encoding)
    )


def join(head: str, body: bytes) -> bytes:
    """Give the payload with a head that is written already."""
    return _FRAME.pack(_VERSION, len(head)) + head.encode("ascii") + body


def decode(payload: bytes) -> Message:
    """Read what `encode` made.

    Raises:
        kombu.exceptions.DecodeError: Other bytes.
    """
    try:
        version, length = _FRAME.unpack_from(payload)
        if version != _VERSION:
            raise ValueError(f"a payload of version {version}, not {_VERSION}")
        end = _FRAME.size + length
        head = payload[_FRAME.size : end].decode()
        headers, properties, content_type, content_encoding = parse(head)
        if not isinstance(headers, dict) or not isinstance(properties, dict):
            raise TypeError("headers and properties must be objects")
    except Exception as exc:
        raise DecodeError(f"no task message: {exc}") from exc
    return Message(headers, properties, payload[end:], content_type, content_encoding)
