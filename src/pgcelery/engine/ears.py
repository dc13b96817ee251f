"""Connections that listen: what wakes a waiting client. Polling stands behind them."""

from __future__ import annotations

import json
import os
import select
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import ceil

import psycopg
from psycopg import sql as pgsql

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import connect, translated
from pgcelery.engine.errors import DatabaseUnavailable
from pgcelery.engine.exchange import Connection


class Ear:
    """One connection that listens on a channel of its own."""

    def __init__(self, config: EngineConfig) -> None:
        self.channel = f"{config.schema}.{uuid.uuid4().hex}"[:63]
        self.conn: Connection = connect(config)
        self._comes = select.poll()
        self._comes.register(self.conn.fileno(), select.POLLIN)
        try:
            with translated():
                self.conn.execute(pgsql.SQL("listen {}").format(pgsql.Identifier(self.channel)))
        except DatabaseUnavailable:
            self.conn.close()
            raise

    def hear(self, timeout_s: float) -> list[str] | None:
        """Wait for a notification; return the ids that it names.

        Returns:
            None when the time is over; an empty list when something came that names none.

        Raises:
            DatabaseUnavailable: The connection broke; the ear is useless.
        """
        deadline = time.monotonic() + timeout_s
        with translated():
            while (heard := self._heard()) is None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                if self._comes.poll(ceil(left_s * 1000)):
                    self.conn.pgconn.consume_input()
        return heard

    def _heard(self) -> list[str] | None:
        heard: list[str] | None = None
        while notice := self.conn.pgconn.notifies():
            heard = heard or []
            with suppress(ValueError):
                heard += json.loads(notice.extra)
        return heard


class Ears:
    """Ears kept for reuse, one lent to each waiting thread; beyond the bound none is lent."""

    def __init__(self, config: EngineConfig, *, keep: int = 2) -> None:
        self._config = config
        self._keep = keep
        self._pid = os.getpid()
        self._idle: list[Ear] = []
        self._inherited: list[Ear] = []
        self._lent = 0

    @property
    def open(self) -> bool:
        """Whether one lies here, so that lending it opens no connection."""
        return bool(self._idle) and self._pid == os.getpid()

    @contextmanager
    def lend(self) -> Iterator[Ear | None]:
        """Lend an ear, or None when listening is off, not possible now, or too many listen."""
        if self._pid != os.getpid():
            self._inherited += self._idle
            self._idle, self._lent, self._pid = [], 0, os.getpid()
        if not self._config.listen or self._lent >= self._config.pool_size:
            yield None
            return
        self._lent += 1
        ear: Ear | None = None
        try:
            with suppress(DatabaseUnavailable):
                ear = self._idle.pop() if self._idle else Ear(self._config)
            yield ear
        finally:
            self._lent -= 1
            if ear is not None and self._pid == os.getpid():
                self._give_back(ear)

    def _give_back(self, ear: Ear) -> None:
        healthy = ear.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if healthy and len(self._idle) < self._keep:
            self._idle.append(ear)
        else:
            ear.conn.close()

    def close(self) -> None:
        """Close the idle ones."""
        if self._pid == os.getpid():
            while self._idle:
                self._idle.pop().conn.close()


def packed(ids: Sequence[str]) -> list[str]:
    """Pack ids into notification payloads (JSON lists) below the server's limit of 8000 bytes."""
    payloads: list[str] = []
    batch: list[str] = []
    size = 2
    for one in ids:
        length = len(json.dumps(one)) + 2
        if size + length > 7900 and batch:
            payloads.append(json.dumps(batch))
            batch, size = [], 2
        batch.append(one)
        size += length
    if batch:
        payloads.append(json.dumps(batch))
    return payloads
