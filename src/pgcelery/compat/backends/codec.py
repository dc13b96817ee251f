"""A result as bytes, in the layout of Celery's key-value backends.

Source: Celery 5.7, `celery.backends.base`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kombu import compression as _compression
from kombu.serialization import prepare_accept_content, registry

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.serialization import dump, load

#: What compressed results begin with; then the content type of the method, a NUL, and the data.
COMPRESSED_PAYLOAD_MAGIC = b"\x00celery-compressed\x00"


def compress_payload(payload: bytes, compression: str) -> bytes:
    """Compress by a method of kombu's."""
    body, content_type = _compression.compress(payload, compression)
    return b"".join((COMPRESSED_PAYLOAD_MAGIC, content_type.encode(), b"\x00", body))


def decompress_payload(payload: Any) -> Any:
    """Undo `compress_payload`; what is not compressed comes back as it is."""
    if isinstance(payload, memoryview):
        payload = payload.tobytes()
    if not isinstance(payload, bytes) or not payload.startswith(COMPRESSED_PAYLOAD_MAGIC):
        return payload
    content_type, _, body = payload[len(COMPRESSED_PAYLOAD_MAGIC) :].partition(b"\x00")
    return _compression.decompress(body, content_type.decode())


class Codec:
    """One serializer with what may be read back.

    Args:
        serializer: Name of a kombu serializer.
        accept: Names or content types that `decode` reads.
        compression: Name of a kombu compression, or None.

    Raises:
        celery.exceptions.ImproperlyConfigured: No such compression.
    """

    def __init__(self, serializer: str, accept: Collection[str], compression: str | None) -> None:
        self.serializer = serializer
        self.content_type, self.content_encoding, self.encoder = registry._encoders[serializer]
        self.accept = prepare_accept_content(accept)
        self.compression = compression or None
        if self.compression:
            try:
                _compression.get_encoder(self.compression)
            except KeyError:
                methods = ", ".join(sorted(_compression.encoders()))
                raise ImproperlyConfigured(
                    f"Unknown compression method {compression!r} configured in "
                    f"result_compression.\nAvailable methods are: {methods}."
                ) from None

    def encode(self, data: Any) -> bytes:
        """Give the bytes of `data`.

        Raises:
            kombu.exceptions.EncodeError: The serializer cannot say it.
        """
        _, _, payload, _ = dump(data, self.serializer)
        return compress_payload(payload, self.compression) if self.compression else payload

    def decode(self, payload: Any) -> Any:
        """Read what `encode` made.

        Raises:
            kombu.exceptions.ContentDisallowed: Its content type is not accepted.
            kombu.exceptions.DecodeError: Other bytes.
        """
        if payload is None:
            return None
        payload = decompress_payload(payload)
        if isinstance(payload, str):
            payload = payload.encode()
        return load(payload, self.content_type, self.content_encoding, self.accept)
