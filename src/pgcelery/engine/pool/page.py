"""Memory that a child shares with its parent: what one may read while the other does not listen."""

from __future__ import annotations

import marshal
import mmap
from struct import Struct
from zlib import crc32

from pgcelery.engine.relay import Terms

_INTERRUPT = Struct("=Q")  # at 0
_RELAYING = 8
_HEAD = Struct("=II")  # at 16: checksum and length of the terms; no length is none
_TERMS = 24
_SIZE = 65536


class Page:
    """Made before the fork. The parent writes all but `relaying`, and the child reads it.

    A child that begins to relay first sets `relaying` and then looks whether there are terms; a
    parent that wants to be sure that it does not takes the terms away first and then looks at
    `relaying`. Each makes a system call in between, which keeps the two in this order.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._seen = b""
        self._terms: Terms | None = None

    @property
    def interrupt(self) -> int:
        """Token of the run in which the soft limit's error is to be raised."""
        return int(_INTERRUPT.unpack_from(self._memory)[0])

    @interrupt.setter
    def interrupt(self, token: int) -> None:
        _INTERRUPT.pack_into(self._memory, 0, token)

    @property
    def relaying(self) -> bool:
        """Whether the child may be making a claim, or has not told of it yet."""
        return self._memory[_RELAYING] != 0

    @relaying.setter
    def relaying(self, value: bool) -> None:
        self._memory[_RELAYING] = value

    def allow(self, terms: Terms | None) -> None:
        """Say what the child may claim; terms that do not fit are none."""
        body = b"" if terms is None else marshal.dumps(tuple(terms))
        _HEAD.pack_into(self._memory, 16, 0, 0)
        if body and len(body) <= _SIZE - _TERMS:
            self._memory[_TERMS : _TERMS + len(body)] = body
            _HEAD.pack_into(self._memory, 16, crc32(body), len(body))

    def terms(self) -> Terms | None:
        """Give what the child may claim; None as well while it is being written."""
        head = self._memory[16:_TERMS]
        if head != self._seen:
            checksum, length = _HEAD.unpack(head)
            body = self._memory[_TERMS : _TERMS + length]
            if length and crc32(body) != checksum:
                return None
            self._seen = head
            self._terms = Terms(*marshal.loads(body)) if length else None
        return self._terms

    def close(self) -> None:
        """Unmap it here."""
        self._memory.close()
