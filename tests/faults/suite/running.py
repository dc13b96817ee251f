"""Trials as processes of their own, two at a time: each has its own server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.suite.catalogue import BY_NUMBER

TIMEOUT_S = 180


class Job(NamedTuple):
    """One trial to run."""

    number: str
    folder: Path
    quick: bool
    env: Mapping[str, str] = {}


def run_one(job: Job) -> dict[str, Any]:
    """Run a trial in a process; what it says of itself, or that it did not come to an end."""
    job.folder.mkdir(parents=True, exist_ok=True)
    report = job.folder / "report.json"
    args = [sys.executable, "-m", "tests.faults.suite.one", job.number, job.folder, report]
    with (job.folder / "output.log").open("wb") as output:
        trial = subprocess.Popen(
            [str(arg) for arg in (*args, *(["--quick"] if job.quick else []))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **job.env},
        )
        how = _ended(trial)
    if report.exists():
        return dict(json.loads(report.read_text()))
    tail = (job.folder / "output.log").read_text(errors="replace").strip().splitlines()[-3:]
    title = BY_NUMBER[job.number].title
    broken = f"no report: {how}: {' / '.join(tail)}"
    return {"number": job.number, "title": title, "known": [], "violations": [broken]}


def _ended(trial: subprocess.Popen[bytes]) -> str:
    """Wait for its end and say how it came; one that takes too long gets time to clear up."""
    try:
        return f"it ended with {trial.wait(TIMEOUT_S)}"
    except subprocess.TimeoutExpired:
        trial.terminate()
        try:
            trial.wait(60)
        except subprocess.TimeoutExpired:
            trial.kill()
            trial.wait()
        return f"it took more than {TIMEOUT_S} s"
    except BaseException:  # interrupted
        trial.terminate()
        trial.wait(60)
        raise


def run_all(
    jobs: Iterable[Job], at_once: int, done: Callable[[dict[str, Any]], None]
) -> Iterator[dict[str, Any]]:
    """Run trials; gives their reports in the order of the jobs, and tells of each as it ends."""
    with ThreadPoolExecutor(at_once) as threads:
        futures = [threads.submit(run_one, job) for job in jobs]
        for future in as_completed(futures):
            done(future.result())
        yield from (future.result() for future in futures)
