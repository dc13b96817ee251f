"""Looking at a running process.

Source: Celery 5.7, ``celery.utils.debug``.
"""

from __future__ import annotations

import resource
import sys
import threading
import traceback
from typing import Any

__all__ = ("cry", "mem_rss")


def mem_rss() -> str:
    """Give the most memory this process has had, as text in KiB."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}kB"


def cry(out: Any = None, sepchr: str = "=", seplen: int = 49) -> str:
    """Give the stack of every thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    separator = sepchr * seplen
    parts = []
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        parts.append(f"{names.get(ident, ident)}\n{separator}\n{stack}{separator}\n")
    return "\n".join(parts)
