"""Real processes: workers, programs, with their output in a file."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.wait import wait_for

ROOT = Path(__file__).parents[2]
PGCELERY = (sys.executable, "-m", "pgcelery")


class Process:
    """A program in a session (and process group) of its own."""

    def __init__(
        self,
        args: Sequence[str | Path],
        output_path: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.args = [str(arg) for arg in args]
        self.output_path = output_path
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        defaults = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with output_path.open("ab") as output:
            self.popen = subprocess.Popen(
                self.args,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **defaults, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    def output(self) -> str:
        """All that it has said so far, on both streams."""
        return self.output_path.read_text("utf-8", errors="replace")

    def wait_for_output(self, pattern: str, timeout_s: float = 30) -> re.Match[str]:
        """Wait until the output matches; fails at once if the process ends without it."""

        def search() -> re.Match[str] | None:
            ended = self.popen.poll() is not None
            found = re.search(pattern, self.output(), re.MULTILINE)
            if found is None and ended:
                raise AssertionError(f"{self._story()}, without {pattern!r}")
            return found

        found = wait_for(search, timeout_s, lambda: f"no {pattern!r} from {self._story()}")
        assert found is not None
        return found

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for its end; returns the exit code, -N for signal N."""
        wait_for(
            lambda: self.popen.poll() is not None, timeout_s, lambda: f"runs on: {self._story()}"
        )
        return self.popen.returncode

    def send(self, signum: int) -> None:
        """Send a signal to this process alone."""
        self.popen.send_signal(signum)

    def close(self) -> None:
        """End it and whatever it started in its group: SIGTERM, five seconds, SIGKILL."""
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(5)

    def _story(self) -> str:
        ended = "" if self.popen.returncode is None else f" (ended: {self.popen.returncode})"
        return f"{' '.join(self.args)}{ended}, which said:\n{self.output()[-4000:]}\n---"
