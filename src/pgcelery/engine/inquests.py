"""Questions of a node about runs whose pool process died while it was recording their end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pgcelery.engine.job import Job, Outcome
from pgcelery.engine.link import Rows
from pgcelery.engine.outbox import Doubts
from pgcelery.engine.statements import Statements, ended_outcome
from pgcelery.engine.withholding import Send


class Inquests:
    """Of one node.

    Args:
        sql: Its statements.
        send: Sends one of them.
        flying: Names of those that were sent and not answered.
        doubts: Told of each run that is found to have ended its job.
    """

    def __init__(self, sql: Statements, send: Send, flying: set[str], doubts: Doubts) -> None:
        self._sql = sql
        self._send = send
        self._flying = flying
        self._doubts = doubts
        self._open: dict[int, tuple[Job, Callable[[Outcome | None], None]]] = {}  # by token

    @property
    def empty(self) -> bool:
        """Whether every question was answered."""
        return not self._open

    def open(self, job: Job, told: Callable[[Outcome | None], None]) -> None:
        """Find out whether a run has ended its job; `told` gets the outcome, or None for no.

        The run must be held meanwhile.
        """
        self._open[job.token] = job, told

    def ask(self) -> None:
        """Send what was not asked yet on this connection."""
        for token, (about, _) in list(self._open.items()):
            key = f"inquire after {token}"
            if key not in self._flying:
                self._send("await_end", self._sql.await_end, [token], lambda rows: None)
                self._send(key, self._sql.ended, [about.id, token], partial(self._told, token))

    def _told(self, token: int, rows: Rows) -> None:
        about, told = self._open.pop(token)
        if rows:
            self._doubts.settle(token)
        told(ended_outcome(about, rows[0]) if rows else None)
