"""A `Link` that is kept up: opened again after pauses that grow, given up when answers stay out.

Promise P21 of docs/guarantees.md.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import AWAY, OVERTAKEN
from pgcelery.engine.errors import DatabaseUnavailable
from pgcelery.engine.link import Link, LinkState, Param, Rows, Statement

logger = logging.getLogger(__name__)

_RECONNECT_S = (0.05, 10.0)  # first and slowest pause between attempts
_REFUSED_PAUSE_S = 0.5  # after the server refused a statement for a passing reason
_OVERTAKEN_PAUSE_S = (0.01, 0.05)  # after a deadlock: shortest and longest
#: Of the lease: what a statement may take in the server, and then until its answer is here. Of the
#: two the server's comes first, or it would go on with what nobody waits for any more.
_STATEMENT, _ANSWER = 0.2, 0.25
_LEAST_S = 2.0  # of both: a server may be busy for a moment


class Session:
    """What a `Node` is, without what it says. Used from one thread.

    Attributes:
        link: The connection.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.link = Link(config)
        self._flying: set[str] = set()  # names of statements sent and not answered
        self._pids: list[int] = []  # of connections that are not known to have ended; now's is last
        now = time.monotonic()
        self._reconnect_at = self._quiet_until = now
        self._reconnect_s = _RECONNECT_S[0]
        self._statement_s = max(config.lease_s * _STATEMENT, _LEAST_S)
        self._answer_s = max(config.lease_s * _ANSWER, _LEAST_S * 1.25)

    # -- for subclasses -------------------------------------------------------------------------

    def _connected(self, now: float) -> None:
        """Say what is to be said first."""

    def _disconnected(self, now: float) -> None:
        """Keep what was not answered for."""

    def _heard(self, channel: str, payload: str) -> None:
        """Take a notification."""

    # -- connection -----------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Go on with the connection and handle what has arrived."""
        if self.link.state is LinkState.CLOSED:
            if now >= self._reconnect_at:
                self._guard(self.link.open, now)
            return
        was = self.link.state
        self._guard(self._receive, now)
        if was is LinkState.CONNECTING and self.link.state is LinkState.OPEN:
            self._pids.append(self.link.server_pid)
            self._connected(now)
        overdue_at = self._overdue_at()
        if overdue_at is not None and time.monotonic() >= overdue_at:
            self._broken("no answer in time", now)

    def _overdue_at(self) -> float | None:
        return self.link.overdue_at(self.config.connect_timeout_s, self._answer_s)

    def drop(self, why: str) -> None:
        """Give the connection up and open another one soon."""
        if self.link.state is not LinkState.CLOSED:
            self._broken(why, time.monotonic())

    def _receive(self) -> None:
        for channel, payload in self.link.advance():
            self._heard(channel, payload)

    def _guard(self, act: Callable[[], None], now: float) -> None:
        try:
            act()
        except DatabaseUnavailable as exc:
            self._broken(str(exc), now)

    def _broken(self, why: str, now: float) -> None:
        logger.warning(
            "database connection lost (%s); trying again in %.1f s",
            why.splitlines()[0] if why else "no reason given",
            self._reconnect_s,
            extra={"action": "node.disconnected"},
        )
        self.link.close()
        self._disconnected(now)
        self._flying.clear()
        self._reconnect_at = now + self._reconnect_s * random.uniform(0.7, 1.0)
        self._reconnect_s = min(self._reconnect_s * 2, _RECONNECT_S[1])

    def _well(self) -> None:
        """Note that this connection is one that work can be done with: it renewed a lease."""
        self._reconnect_s = _RECONNECT_S[0]

    def _send(
        self,
        key: str,
        statement: Statement,
        params: Sequence[Param],
        on_rows: Callable[[Rows], None] = lambda rows: None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        if self.link.state is not LinkState.OPEN:
            return  # it broke a moment ago; what is due is sent again once it is back

        def answered(rows: Rows) -> None:
            self._flying.discard(key)
            on_rows(rows)

        def refused(state: str, text: str) -> None:
            self._flying.discard(key)
            self._note_refusal(key, state, text)
            if on_refused is not None:
                on_refused(state)
            if state.startswith(AWAY):  # another connection may find a server that is well
                raise DatabaseUnavailable(text)

        self._flying.add(key)
        self._guard(lambda: self.link.send(statement, params, answered, refused), time.monotonic())

    def _begin_anew(self, state: str) -> NoReturn:
        """Give the connection up, as the server refused what all else on it builds on."""
        raise DatabaseUnavailable(f"what has to come first was refused ({state})")

    def _outlive(self, outlive: Statement) -> None:
        """End the connections before: what they still do must not come after what is said now."""
        for pid in self._pids[:-1]:

            def over(_: object, pid: int = pid) -> None:
                self._pids.remove(pid)

            params = [pid, round(self._statement_s * 500)]
            self._send(f"outlive {pid}", outlive, params, over, over)

    def _note_refusal(self, key: str, state: str, text: str) -> None:
        if state in OVERTAKEN:  # nobody's fault, and over
            logger.debug("%s is sent again: %s (%s)", key, text, state)
            self._quiet_until = time.monotonic() + random.uniform(*_OVERTAKEN_PAUSE_S)
            return
        logger.error(
            "the database refused to %s: %s (%s)",
            key,
            text,
            state,
            extra={"action": "node.refused", "sqlstate": state},
        )
        self._quiet_until = time.monotonic() + _REFUSED_PAUSE_S
