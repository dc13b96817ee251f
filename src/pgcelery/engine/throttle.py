"""A worker's own rates: how many jobs of a name it may begin in a time. No I/O.

A claim does not look at rates. What was claimed begins at once if its name has no rate or the rate
allows it, is held for a moment if its turn comes within that, and else is withheld: it goes to a
place of its queue where claims do not look, and from which any worker draws as many as its rate
allows, just before their turn. So each job is moved once however long it waits, the order is kept,
and a worker whose rate was changed or lifted only draws faster.

A rate is counted when a job is given to the pool, which must have room then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf

from pgcelery.engine.job import Job
from pgcelery.engine.territory import Territory

_HORIZON_S = 0.25  # jobs whose turn is nearer are held here
_LATE_S = 0.01  # a start that is late by no more does not put off the next one


class _Line:
    """The jobs of one name, and when they may begin."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.last = -inf  # when the last one began, or should have
        self.since = -inf  # when the first that is held came
        self.held: deque[Job] = deque()

    @property
    def next_at(self) -> float:
        return self.last + self.interval_s

    def behind(self, now: float) -> float:
        """Give the turn of one that comes after those that are held."""
        return max(self.next_at, now) + self.interval_s * len(self.held)

    def room(self, now: float) -> int:
        """Count the jobs that may be held beside those that are."""
        left_s = now + _HORIZON_S - self.behind(now)
        return int(left_s / self.interval_s) + 1 if left_s >= 0 else 0

    def begin(self, now: float) -> Job:
        self.last = max(self.next_at, self.since, now - _LATE_S)
        return self.held.popleft()


class Throttle:
    """What one worker's rates let begin. Times are monotonic seconds. Used from one thread.

    Args:
        territory: Knows the throttled places, and where there may be something to draw.

    Attributes:
        names: Those that have a rate.
    """

    def __init__(self, territory: Territory) -> None:
        self._territory = territory
        self.names: tuple[str, ...] = ()
        self._lines: dict[str, _Line] = {}
        self._holding: list[_Line] = []  # those of them that hold something

    @property
    def rates(self) -> dict[str, float]:
        """Starts a second, by name."""
        return {name: 1 / line.interval_s for name, line in self._lines.items()}

    def set_rates(self, rates: Mapping[str, float]) -> list[Job]:
        """Have these rates, in starts a second, and no others, from now on.

        Returns:
            Jobs that were held for a rate which is no more, to begin now.
        """
        lines, self._lines = self._lines, {}
        for name, rate in rates.items():
            line = lines.pop(name) if name in lines else _Line(1 / rate)
            line.interval_s = 1 / rate
            self._lines[name] = line
        self.names = tuple(self._lines)
        self._holding = [line for line in self._holding if line not in lines.values()]
        return [job for line in lines.values() for job in line.held]

    # -- what was claimed -----------------------------------------------------------------------

    def sift(
        self, jobs: Sequence[Job], now: float, *, drawn: bool, stopping: bool
    ) -> tuple[list[Job], list[Job], list[Job]]:
        """Tell claimed jobs apart: what has no rate, what is to be held, what is to be withheld.

        Args:
            jobs: As they were claimed.
            now: The time.
            drawn: They were withheld before: others that wait do not come first.
            stopping: Nothing is held any more.
        """
        free: list[Job] = []
        held: list[Job] = []
        withheld: list[Job] = []
        first = frozenset[str]() if drawn else self._territory.awaiting
        room = dict.fromkeys(self._lines, 0) if stopping else self._rooms(jobs, now)
        for job in jobs:
            if job.name not in room or job.parent_failed:  # that one is only to be ended
                free.append(job)
            elif room[job.name] > 0 and job.name not in first:
                room[job.name] -= 1
                held.append(job)
            else:
                withheld.append(job)
        return free, held, withheld

    def _rooms(self, jobs: Sequence[Job], now: float) -> dict[str, int]:
        names = {job.name for job in jobs}
        return {name: self._lines[name].room(now) for name in names if name in self._lines}

    def hold(self, jobs: Sequence[Job], now: float) -> None:
        """Hold these until their turn comes."""
        for job in jobs:
            line = self._lines[job.name]
            if not line.held:
                self._holding.append(line)
                line.since = now
            line.held.append(job)

    # -- what is held ---------------------------------------------------------------------------

    def begin(self, now: float, room: int) -> list[Job]:
        """Take jobs whose turn has come, up to `room`; those first whose came first."""
        begun: list[Job] = []
        while len(begun) < room:
            due = [line for line in self._holding if line.next_at <= now]
            if not due:
                break
            begun.append(min(due, key=lambda line: line.next_at).begin(now))
            self._holding = [line for line in self._holding if line.held]
        return begun

    def due(self, now: float) -> int:
        """Count the jobs whose turn has come, each name's next one: they want room in the pool."""
        return sum(line.next_at <= now for line in self._holding) if self._holding else 0

    def next_in(self, now: float) -> float:
        """Give the seconds until the turn of the next job comes; infinity for none to come."""
        if not self._holding:
            return inf
        turns = (line.next_at - now for line in self._holding)
        return min((turn for turn in turns if turn > 0), default=inf)

    def recall(self, before: float = inf) -> list[Job]:
        """Take back what is held: all of the names whose first one could begin before a time."""
        taken: list[Job] = []
        for line in self._holding:
            if max(line.next_at, line.since) <= before:
                taken += line.held
                line.held.clear()
        self._holding = [line for line in self._holding if line.held]
        return taken

    def withdraw(self, job_id: str) -> Job | None:
        """Take one job back, if it is held."""
        for line in self._holding:
            for job in line.held:
                if job.id == job_id:
                    line.held.remove(job)
                    self._holding = [one for one in self._holding if one.held]
                    return job
        return None

    # -- what was withheld ----------------------------------------------------------------------

    def draw_at(self, now: float) -> float:
        """Tell when to draw, given room; infinity if there is nothing to hope for."""
        names = self._territory.awaiting
        return min([self._draw_at(name, now) for name in names]) if names else inf

    def _draw_at(self, name: str, now: float) -> float:
        line = self._lines.get(name)
        # Half a horizon ahead, so that several are drawn at a time when the rate is high.
        return now if line is None else line.behind(now) - _HORIZON_S / 2

    def draws(self, now: float, want: int) -> dict[int, int]:
        """Say what to draw: how many jobs at most, by throttled place; `want` in all.

        One place a name, another one each time.
        """
        plan: dict[int, int] = {}
        for name, place in self._territory.hopes():
            line = self._lines.get(name)
            if want <= 0 or self._draw_at(name, now) > now:
                continue
            plan[place] = want if line is None else min(want, line.room(now))
            want -= plan[place]
        return plan
