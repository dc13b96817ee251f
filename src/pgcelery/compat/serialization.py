"""Encoding and decoding of task bodies: kombu's serializers, and what is not trusted to pass them.

JSON goes past kombu's registry with an encoder made once, which halves the cost of a body; the text
is the same. A serializer that the application registers under the name ``json`` is used instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from json.encoder import encode_basestring_ascii
from typing import Any

from kombu import compression as _compression
from kombu.exceptions import DecodeError, EncodeError
from kombu.serialization import registry
from kombu.utils import json as kombu_json

from pgcelery.compat.utils.jsontext import TAG, parse

__all__ = ("dump", "load")

_TAG_KEYS = frozenset(("__type__", "__value__"))
_JSON = "application/json"

_kombu_encoder = kombu_json.dumps
_kombu_decoder = kombu_json.loads


def dump(
    data: Any, serializer: str | None = "json", compression: str | None = None
) -> tuple[str, str, bytes, str | None]:
    """Encode `data`.

    Returns:
        Content type, content encoding, bytes, and the content type of the compression or None.

    Raises:
        kombu.exceptions.EncodeError: The serializer cannot say it.
        kombu.exceptions.SerializerNotInstalled: No serializer of this name.
    """
    if serializer == "json" and registry._encoders["json"].encoder is _kombu_encoder:
        content_type, encoding, body = _JSON, "utf-8", _dump_json(data).encode()
    else:
        content_type, encoding, text = registry.dumps(data, serializer or "json")
        body = text.encode() if isinstance(text, str) else text
    if not compression:
        return content_type, encoding, body, None
    body, compressed_as = _compression.compress(body, compression)
    return content_type, encoding, body, compressed_as


def _made_once(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """Give its `encode`, which makes its part in C anew for every call, with one that is kept."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    separators = encoder.key_separator, encoder.item_separator
    # No markers: what holds itself recurses too deep, and is then told as ever.
    write = make(
        None, encoder.default, encode_basestring_ascii, None, *separators, False, False, True
    )

    def encode(data: Any) -> str:
        try:
            return "".join(write(data, 0))
        except Exception:
            return encoder.encode(data)

    return encode


_encode_json = _made_once(kombu_json.JSONEncoder())


def _dump_json(data: Any) -> str:
    try:
        text = _encode_json(data)
    except (TypeError, ValueError, RecursionError, OverflowError) as exc:
        raise EncodeError(exc) from None  # as kombu says it
    if TAG in text and _has_foreign_tag(data):
        raise EncodeError(
            "a dict with exactly the keys '__type__' and '__value__' cannot be sent as JSON: "
            "the serializer keeps them for itself"
        )
    return text


def _has_foreign_tag(data: Any) -> bool:
    """Whether `data` holds a dict that would be taken for a tagged value when it is read."""
    pending = [data]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.keys() == _TAG_KEYS:
                return True
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
    return False


def load(
    body: bytes,
    content_type: str | None,
    content_encoding: str | None,
    accept: Collection[str] | None,
    compression: str | None = None,
) -> Any:
    """Decode what `dump` made; content that is not accepted is not looked at.

    Args:
        body: The bytes.
        content_type: As `dump` said.
        content_encoding: As `dump` said.
        accept: Content types that may be decoded; None leaves it to kombu's own list.
        compression: As `dump` said.

    Raises:
        kombu.exceptions.ContentDisallowed: A content type that is not accepted.
        kombu.exceptions.DecodeError: Bytes that are not what they are said to be.
    """
    if compression:
        body = _decompress(body, content_type, accept, compression)
    if (
        content_type == _JSON
        and (accept is None or _JSON in accept)
        and registry._decoders.get(_JSON) is _kombu_decoder
    ):
        return _load_json(body)
    return registry.loads(body, content_type, content_encoding, accept=accept)


def _decompress(
    body: bytes, content_type: str | None, accept: Collection[str] | None, compression: str
) -> bytes:
    if accept is not None and content_type not in accept:
        raise registry._for_untrusted_content(content_type, "untrusted")
    try:
        plain: bytes = _compression.decompress(body, compression)
    except Exception as exc:
        raise DecodeError(f"cannot decompress {compression}: {exc}") from exc
    return plain


def _load_json(body: bytes) -> Any:
    try:
        return parse(body.decode("utf-8"))
    except (TypeError, ValueError, RecursionError, OverflowError, KeyError) as exc:
        raise DecodeError(f"{type(exc).__name__}: {exc}") from exc
