"""What a worker's node asks of a pool, and how fast the jobs of each name are.

One thread, the node's, calls everything here, and nothing blocks it but `Pool.stop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.job import Handler, Job, Lost, Outcome
from pgcelery.engine.relay import Step, Terms


class ActiveJob(NamedTuple):
    """A job that a pool has begun."""

    job: Job
    pid: int
    started_monotonic_s: float  #: `time.monotonic()` of its start, as far as the pool knows


class Unsure(NamedTuple):
    """An outcome that may be recorded already, with a claim of what comes next under a token.

    What that claimed does not run. See `relay.AnswerLost`.
    """

    outcome: Outcome
    claim: int


class Doubtful(NamedTuple):
    """A job whose process died while it was recording the end of it, as a `relay.Step`.

    It may be recorded, with a claim of what comes next under a token; or it was lost.
    """

    job: Job
    why: Lost
    claim: int


class Cut(NamedTuple):
    """A job whose process was killed by `Pool.cut`; nobody has judged it."""

    job: Job
    why: Lost  #: of kind ``lease_lost``


Result = Outcome | Step | Unsure | Doubtful | Cut


class Pool(Protocol):
    """Runs jobs. Each submitted job comes back once: from `collect` or from `recall`.

    So does each job that a process went on with: it came from `collect` in a `Step`.
    """

    size: int

    @property
    def idle(self) -> bool:
        """Whether no job is inside and no outcome waits to be collected."""
        ...

    def start(self, handler: Handler, relay: EngineConfig | None = None) -> None:
        """Begin to take jobs; children may need a moment until `capacity` says so.

        Args:
            handler: What jobs mean.
            relay: How processes reach the database to go on with what follows their jobs; None
                keeps them from it.
        """
        ...

    def allow(self, terms: Terms | None) -> None:
        """Say what processes may claim by themselves from now on; None, as at first: nothing."""
        ...

    def spares(self) -> list[int]:
        """List the tokens under which processes may have claimed what was not told of yet."""
        ...

    def capacity(self) -> int:
        """Count the jobs it would take now; more than the free slots when jobs are short."""
        ...

    def free_at(self) -> float:
        """Give the monotonic time by which another slot is likely to be free; infinity if none."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs, in order; more than `capacity` wait inside."""
        ...

    def filenos(self) -> list[int]:
        """Name descriptors that become readable when `collect` should be called."""
        ...

    def collect(self) -> Sequence[Result]:
        """Give the outcomes that are there, also of jobs whose run was lost."""
        ...

    def tick(self) -> float | None:
        """Enforce limits and mend; call it last before waiting.

        Returns:
            Seconds until it wants the next tick; None if only a descriptor will tell.
        """
        ...

    def active(self) -> list[ActiveJob]:
        """List what is running; after `stop`, what was cut off."""
        ...

    def recall(self, *, waiting_s: float = 0.0) -> list[Job]:
        """Take back jobs that have not begun; they will not run.

        Args:
            waiting_s: Only jobs submitted longer ago than this.
        """
        ...

    def terminate(self, job_id: str, signum: int) -> bool:
        """Stop one job: by a signal if it runs, else by forgetting it (lost as ``cancelled``).

        Returns:
            Whether anything was done; False for an unknown job or a pool without processes.
        """
        ...

    def cut(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Kill the processes of wanted jobs that run, now; `collect` gives a `Cut` of each.

        Returns:
            Those that were killed by this call; none where there are no processes.
        """
        ...

    def grow(self, n: int) -> None:
        """Add `n` slots."""
        ...

    def shrink(self, n: int) -> None:
        """Remove `n` slots, idle ones first; busy ones end after their job.

        Raises:
            ValueError: No slot would be left.
        """
        ...

    def stop(self, *, kill: bool) -> None:
        """End the pool; blocks until its processes are gone.

        Without `kill` running jobs get a few seconds. `collect` still gives the outcomes that came
        in time, `recall` the jobs that never began, `active` those that were cut off.
        """
        ...


class Pace:
    """Weighted means of run times, which decide how many jobs are worth queueing ahead.

    A job name that is new, or whose mean is over half the window, is *slow*: nothing is queued
    behind it. The window is short enough that a wrong guess costs little before it is recalled.
    """

    WEIGHT = 0.2  #: of the newest run in the mean
    MAX_NAMES = 4096  #: then all is learned anew; names may come from outside

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._means: dict[str, float] = {}
        self._recent: float | None = None
        self._way_s = 0.0

    def note(self, name: str, run_s: float) -> None:
        """Learn from one run."""
        if len(self._means) >= self.MAX_NAMES:
            self._means.clear()
        mean = self._means.get(name)
        self._means[name] = run_s if mean is None else mean + (run_s - mean) * self.WEIGHT
        recent = self._recent
        self._recent = run_s if recent is None else recent + (run_s - recent) * self.WEIGHT

    def note_way(self, way_s: float) -> None:
        """Learn what a job that was alone in its process took besides its run."""
        self._way_s += (max(0.0, way_s) - self._way_s) * self.WEIGHT

    def likely(self, name: str) -> float | None:
        """Give the seconds after which a job of a fast name that runs alone has mostly ended."""
        fast_s = self.fast(name)
        return None if fast_s is None else 2 * (fast_s + self._way_s)

    def fast(self, name: str) -> float | None:
        """Give the mean of a fast name in seconds; None for a slow or unknown one."""
        mean = self._means.get(name)
        return mean if mean is not None and mean <= self.window_s / 2 else None

    def depth(self, most: int) -> int:
        """Count the jobs like the recent ones that fit in two windows, 1 to `most`."""
        recent = self._recent
        if recent is None or recent > self.window_s / 2:
            return 1
        return max(1, min(most, int(2 * self.window_s / max(recent, 1e-6))))
