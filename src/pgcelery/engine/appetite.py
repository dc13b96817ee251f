"""When a node asks for work: at once if there may be some, else after longer and longer pauses."""

from __future__ import annotations

from collections.abc import Sequence

from pgcelery.engine.config import EngineConfig


class Appetite:
    """Of one node. All times are monotonic seconds.

    Attributes:
        asked: How many jobs the last step asked for.
    """

    def __init__(self, config: EngineConfig, now: float) -> None:
        self.asked = 0
        self._first_s = config.poll_min_s
        self._slowest_s = config.poll_max_s if config.listen else config.poll_deaf_max_s
        self._hungry = True  # there may be work: ask as soon as there is room
        self._pause_s = self._first_s
        self._poll_at = now
        self._due_at: float | None = None

    def wake(self) -> None:
        """Ask as soon as there is room."""
        self._hungry = True
        self._pause_s = self._first_s

    def expect(self, at: float) -> None:
        """Ask again at a time, whatever was known of what is due."""
        self._due_at = at

    def fed(self, now: float, got: int, due_ms: Sequence[int]) -> None:
        """Take note of a step's answer: how many jobs, and when others of its queues are due."""
        if got:
            self._pause_s = self._first_s
        if got < self.asked:
            self._hungry = False
            self._poll_at = now + self._pause_s
            self._pause_s = min(self._pause_s * 2, self._slowest_s)
            self._due_at = now + min(due_ms) / 1000 if due_ms else None
        elif self.asked:
            self._hungry = True

    def next(self, now: float) -> float:
        """Tell when to ask, given room; a time that has come is now."""
        if self._hungry:
            return now
        return self._poll_at if self._due_at is None else min(self._poll_at, self._due_at)
