"""How long a worker may presume that its lease holds: by its own clock, and on the safe side.

The database counts a lease from the moment at which it renews it. A worker cannot know that moment,
only when it asked and when the answer came, so it counts from the asking.

Promises P9, P18 of docs/guarantees.md.
"""

from __future__ import annotations

_SAFE = 0.8  # of the lease: what is left after that is for what has to be over before it ends


class Lease:
    """One worker's. Times are monotonic, in seconds.

    Attributes:
        safe_s: For how long after the asking the worker may act as one that is alive.
        buried: The database has said that it does not know this worker any more.
    """

    def __init__(self, lease_s: float, now: float) -> None:
        self.safe_s = lease_s * _SAFE
        self.buried = False
        self._asked_at = self._renewed_at = now

    def asked(self, now: float) -> None:
        """Note that the worker asks for a renewal, or for its first lease."""
        self._asked_at = now

    def renewed(self) -> None:
        """Note the answer to what was asked last."""
        self._renewed_at = self._asked_at
        self.buried = False

    def bury(self) -> None:
        """Note that others have, or will have, what this worker ran."""
        self.buried = True

    @property
    def safe_until(self) -> float:
        """When to stop everything that others may begin, unless it is renewed before."""
        return self._renewed_at + self.safe_s

    def safe(self, now: float) -> bool:
        """Whether nobody else can have this worker's runs."""
        return not self.buried and now < self.safe_until
