"""Whether starts keep a rate, as they look on a machine that is busy with other things."""

from __future__ import annotations

from collections.abc import Sequence

LATE_S = 0.1  #: between the turn of a job and the first line of its body


def excess(times: Sequence[float], rate: float) -> float:
    """Seconds by which the worst span of starts is too short for a rate; 0 if it is kept."""
    ordered = sorted(times)
    # At most so late is the first of a span, the last one not at all.
    spans = [
        (later - earlier) / rate - (ordered[later] - ordered[earlier]) - LATE_S
        for earlier in range(len(ordered))
        for later in range(earlier + 1, len(ordered))
    ]
    return max(0.0, max(spans, default=0.0))


def share(times: Sequence[float], rate: float) -> float:
    """How much of what the rate allows was used."""
    return (len(times) - 1) / rate / (max(times) - min(times))
