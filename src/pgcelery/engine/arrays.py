"""PostgreSQL arrays in the binary format, built in one pass.

psycopg's own list dumper asks an adapter for each element, which is a fifth of a batching worker's
processor time; these build the same bytes with one join. Each class is a `bytes` that psycopg knows
the type of, so it can be a parameter of a cursor as well as of a bare libpq call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Self

import psycopg
from psycopg import pq
from psycopg.adapt import Dumper

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HEADER = struct.Struct(">iiiii")
_LENGTH = struct.Struct(">i").pack
_UNPACK_LENGTH = struct.Struct(">i").unpack_from
_NULL = _LENGTH(-1)
_EMPTY = struct.Struct(">iii")


class Array(bytes):
    """Bytes of a one-dimensional array; `oid` is the array's type, `element_oid` its element's."""

    oid: ClassVar[int]
    element_oid: ClassVar[int]

    @classmethod
    def _of(cls, count: int, has_null: bool, elements: Iterable[bytes]) -> Self:
        if not count:
            return cls(_EMPTY.pack(0, 0, cls.element_oid))
        header = _HEADER.pack(1, int(has_null), cls.element_oid, count, 1)
        return cls(header + b"".join(elements))


class TextArray(Array):
    """``text[]``."""

    oid, element_oid = 1009, 25

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Self:
        """Build it. Raises UnicodeEncodeError for lone surrogates."""
        parts: list[bytes] = []
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                data = value.encode()
                parts.append(_LENGTH(len(data)))
                parts.append(data)
        return cls._of(len(values), None in values, parts)

    @staticmethod
    def read(data: bytes) -> list[str]:
        """Read one without nulls."""
        found, at = [], _HEADER.size
        while at < len(data):
            (length,) = _UNPACK_LENGTH(data, at)
            at += 4 + length
            found.append(data[at - length : at].decode())
        return found


class ByteaArray(Array):
    """``bytea[]``."""

    oid, element_oid = 1001, 17

    @classmethod
    def of(cls, values: Sequence[bytes | None]) -> Self:
        """Build it."""
        parts: list[bytes] = []
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                parts.append(_LENGTH(len(value)))
                parts.append(value)
        return cls._of(len(values), None in values, parts)


class _FixedArray(Array):
    """Elements of one struct format."""

    packer: ClassVar[struct.Struct]  # length and value

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Self:
        """Build it. Raises struct.error for a value out of range."""
        pack, size = cls.packer.pack, cls.packer.size - 4
        return cls._of(
            len(values),
            None in values,
            [_NULL if value is None else pack(size, value) for value in values],
        )


class SmallintArray(_FixedArray):
    """``smallint[]``."""

    oid, element_oid, packer = 1005, 21, struct.Struct(">ih")


class IntegerArray(_FixedArray):
    """``integer[]``."""

    oid, element_oid, packer = 1007, 23, struct.Struct(">ii")


class BigintArray(_FixedArray):
    """``bigint[]``."""

    oid, element_oid, packer = 1016, 20, struct.Struct(">iq")


class DoubleArray(_FixedArray):
    """``double precision[]``."""

    oid, element_oid, packer = 1022, 701, struct.Struct(">id")


class BooleanArray(_FixedArray):
    """``boolean[]``."""

    oid, element_oid, packer = 1000, 16, struct.Struct(">i?")


class TimestampArray(_FixedArray):
    """``timestamptz[]`` from aware datetimes."""

    oid, element_oid, packer = 1185, 1184, struct.Struct(">iq")

    @classmethod
    def of_times(cls, values: Sequence[datetime | None]) -> Self:
        """Build it; microseconds since 2000, as the server counts."""
        return cls.of([None if value is None else timestamp(value) for value in values])


def timestamp(value: datetime) -> int:
    """Microseconds from PostgreSQL's epoch to an aware time."""
    delta = value - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def moment(data: bytes) -> datetime:
    """Read a time in binary."""
    return _EPOCH + timedelta(microseconds=int.from_bytes(data, "big", signed=True))


def literal(array: Array) -> str:
    """Write an array as text, for drivers that take no binary parameters."""
    read, elements, at = _READERS[array.element_oid], [], _HEADER.size
    while at < len(array):
        (length,) = _UNPACK_LENGTH(array, at)
        at += 4
        if length < 0:
            elements.append("NULL")
        else:
            text = read(array[at : at + length])
            at += length
            elements.append('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(elements) + "}"


def _int(data: bytes) -> str:
    return str(int.from_bytes(data, "big", signed=True))


def _time(data: bytes) -> str:
    return moment(data).isoformat()


_READERS: dict[int, Callable[[bytes], str]] = {
    TextArray.element_oid: bytes.decode,
    ByteaArray.element_oid: lambda data: "\\x" + data.hex(),
    SmallintArray.element_oid: _int,
    IntegerArray.element_oid: _int,
    BigintArray.element_oid: _int,
    DoubleArray.element_oid: lambda data: repr(struct.unpack(">d", data)[0]),
    BooleanArray.element_oid: lambda data: "t" if data[0] else "f",
    TimestampArray.element_oid: _time,
}


class _ArrayDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


def register(adapters: psycopg.adapt.AdaptersMap) -> None:
    """Teach an adapters map (of a connection or a cursor) the array classes."""
    for kind in (
        TextArray,
        ByteaArray,
        SmallintArray,
        IntegerArray,
        BigintArray,
        DoubleArray,
        BooleanArray,
        TimestampArray,
    ):
        dumper = type(f"{kind.__name__}Dumper", (_ArrayDumper,), {"oid": kind.oid})
        adapters.register_dumper(kind, dumper)
