"""When a node asks for work: at once if there may be some, else after longer and longer pauses.

A step costs a round trip and a commit, whatever it carries. Where each process holds one job, a
step at each end leaves the other processes' ends to the steps after it: they take turns, and each
step carries one job. So while there is a backlog, a step waits for an end that is near.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgcelery.engine.config import EngineConfig

_WEIGHT = 0.2  # of the last step in the mean of what they take


class Appetite:
    """Of one node. All times are monotonic seconds.

    Args:
        config: The pauses.
        now: The time.
        free_at: Gives the time by which another slot is likely to be free, which is twice as far
            away as the time at which that is expected.

    Attributes:
        asked: How many jobs the last step asked for.
        backlog: The last step that asked got all it asked for.
    """

    def __init__(self, config: EngineConfig, now: float, free_at: Callable[[], float]) -> None:
        self.asked = 0
        self._free_at = free_at
        self._first_s = config.poll_min_s
        self._slowest_s = config.poll_max_s if config.listen else config.poll_deaf_max_s
        self._hungry = True  # there may be work: ask as soon as there is room
        self._pause_s = self._first_s
        self._poll_at = now
        self._due_at: float | None = None
        self.backlog = False
        self._asked_at = now
        self._trip_s = 0.0  # what steps take, as a weighted mean

    def ask(self, now: float, want: int) -> None:
        """Note that a step is sent."""
        self.asked = want
        self._asked_at = now

    def wake(self) -> None:
        """Ask as soon as there is room."""
        self._hungry = True
        self._pause_s = self._first_s

    def expect(self, at: float) -> None:
        """Ask again at a time, whatever was known of what is due."""
        self._due_at = at

    def fed(self, now: float, got: int, due_ms: Sequence[int]) -> None:
        """Take note of a step's answer: how many jobs, and when others of its queues are due."""
        self._trip_s += (now - self._asked_at - self._trip_s) * _WEIGHT
        if self.asked:
            self.backlog = got >= self.asked
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

    def held_until(self, now: float, want: int) -> float:
        """Tell until when a step should wait for company; now if it should not.

        Args:
            now: Monotonic time.
            want: Slots that are free, which are idle for as long.
        """
        if not (self.backlog and want):
            return now
        at = self._free_at()
        expected_s = (at - now) / 2
        return at if expected_s * want < self._trip_s else now

    def due(self, now: float, want: int) -> float:
        """Tell when a step is due that has nothing to say and wants something."""
        return max(self.next(now), self.held_until(now, want))
