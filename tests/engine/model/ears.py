"""Connections of nodes that listen for jobs which they are handed, as `engine/offers.py` does."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import pq

from pgcelery.engine.offers import Offers
from tests.engine.model.database import Engine, Session
from tests.engine.model.plans import Claim
from tests.engine.model.tables import demand


class Ear:
    """A node's own connection; ``channel`` is empty while it has none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: Session | None = None
        self._offers: Offers | None = None
        self.channel = ""

    def connect(self) -> None:
        """Say what a node says first on a new connection."""
        session = self._session = Session(self._engine)

        def send(key: str, statement: Any, params: Any, answered: Any) -> None:
            answered(session.ask(statement, params))

        none: Any = None
        self._offers = Offers(
            self._engine.client.config, none, self._engine.node, send, set(), *[none] * 2
        )
        self._offers.connected()
        demand(self._offers._stands, "another connection holds the lock")
        self.channel = self._offers._channel

    def hang_up(self) -> None:
        """End the connection, and wait until the server knows of that."""
        session, self._session, self.channel = self._session, None, ""
        if session is None:
            return
        pid = session.pid
        session.close()
        with psycopg.connect(self._engine.dsn, autocommit=True) as conn:
            query = "select 1 from pg_stat_activity where pid = %s"
            while conn.execute(query, [pid]).fetchone():
                pass

    def heard(self) -> list[Claim]:
        """Read the notifications of what has been committed so far."""
        if self._session is None or self._offers is None:
            return []
        pgconn = self._session.conn.pgconn
        done = pgconn.exec_(b"")  # what is to be told is told before the answer
        assert done.status == pq.ExecStatus.EMPTY_QUERY
        rows = []
        while (said := pgconn.notifies()) is not None:
            payload = said.extra.decode()
            row = self._offers.heard(said.relname.decode(), payload)
            demand(row is not None, f"heard {json.loads(payload)}, which is for another one")
            rows += [] if row is None else [row]
        return self._session.claims(rows)
