"""Waiting for something to become true, with an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(
    predicate: Callable[[], T], timeout_s: float = 20, message: str | Callable[[], str] = ""
) -> T:
    """Call the predicate until it returns something true, and return that.

    Raises:
        AssertionError: The time is over; with the message and what was returned last.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    interval_s = 0.002
    while True:
        found = predicate()
        if found:
            return found
        if time.monotonic() >= deadline:
            said = message() if callable(message) else message
            raise AssertionError(
                f"{said or 'still waiting'} (after {timeout_s:g} s; last: {found!r})"
            )
        pause.wait(interval_s)
        interval_s = min(interval_s * 1.5, 0.05)
