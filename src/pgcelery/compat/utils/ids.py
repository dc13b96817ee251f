"""Unique ids.

The module is not called ``uuid`` because ``celery.utils.uuid`` is the function.
"""

from __future__ import annotations

import os
import time

__all__ = ("gen_unique_id", "uuid")


#: The digit that says by its two upper bits how a UUID is laid out, for each random digit.
_VARIANTS = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def uuid() -> str:
    """Give a new UUID of version 7 as text.

    Ids that grow with time keep the database's indexes dense; Celery's are of version 4.
    """
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    noise = os.urandom(10).hex()
    middle = f"7{noise[1:4]}-{_VARIANTS[noise[4]]}{noise[5:8]}"
    return f"{stamp[:8]}-{stamp[8:]}-{middle}-{noise[8:]}"


gen_unique_id = uuid
