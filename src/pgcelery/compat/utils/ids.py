"""Unique ids.

The module is not called ``uuid`` because ``celery.utils.uuid`` is the function.
"""

from __future__ import annotations

import os
import time

__all__ = ("gen_unique_id", "uuid")


def uuid() -> str:
    """Give a new UUID of version 7 as text.

    Ids that grow with time keep the database's indexes dense; Celery's are of version 4.
    """
    stamp = time.time_ns() // 1_000_000
    value = (stamp << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


gen_unique_id = uuid
