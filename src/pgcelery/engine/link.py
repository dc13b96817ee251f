"""A worker's one connection: statements in a row, answers by callback, never blocking.

libpq's asynchronous interface in pipeline mode. A node talks to its pool and to the database from
one thread; waiting in a call of the driver would deafen it to its children, and a second thread
would be there when it forks. Each statement is its own transaction and fails alone.
"""

from __future__ import annotations

import fcntl
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from functools import cache
from typing import NamedTuple

import psycopg
from psycopg import conninfo, pq

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.errors import DatabaseUnavailable
from pgcelery.engine.tcp import tcp_options

_UNKNOWN_STATEMENT = "26000"  # SQLSTATE: a pooler or an operator threw it away
_SLOWEST_BYTES_S = 1_000_000  # what a network must at least carry of what is sent
_HEARD_S = 0.1  # a sign of life is as good as one that came so much later

Param = bytes | str | int | float | bool | None
Rows = list[list[bytes | None]]


class LinkState(Enum):
    """What the connection is doing."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    OPEN = "open"


class Statement(NamedTuple):
    """A statement with ``$n`` parameters, prepared on first use under its name."""

    name: bytes
    text: bytes
    oids: tuple[int, ...]


class _Request(NamedTuple):
    name: bytes
    prepares: bool
    on_rows: Callable[[Rows], None]
    on_error: Callable[[str, str], None]  # sqlstate, message
    size: int  # bytes of its parameters
    on_early: Callable[[Rows], None] | None


class Link:
    """One non-blocking connection. Not thread-safe.

    `advance` does the work when `fileno` is ready; answers arrive there, in the order of `send`.
    When the connection breaks `advance` raises, pending answers never come, and `open` starts anew.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._where = _where(config)
        self._conn: pq.abc.PGconn | None = None
        self.state = LinkState.CLOSED
        self._pending: deque[_Request] = deque()
        self._prepared: set[bytes] = set()
        self._rows: Rows = []
        self._error: tuple[str, str] | None = None
        self._accepted = False  # the pending statement was prepared
        self._poll = pq.PollingStatus.WRITING
        self._heard_at = 0.0  # monotonic time of the last sign of life, or of asking for one

    def open(self) -> None:
        """Start connecting; `advance` goes on with it.

        Raises:
            DatabaseUnavailable: It failed at once.
        """
        self.close()
        conn = pq.PGconn.connect_start(self._where)
        self._conn = conn
        if conn.status == pq.ConnStatus.BAD:
            self._fail()
        conn.nonblocking = 1
        self._heard_at = time.monotonic()
        self.state = LinkState.CONNECTING
        self._poll = pq.PollingStatus.WRITING

    def close(self) -> None:
        """Drop the connection and every pending answer."""
        if self._conn is not None:
            self._conn.finish()
        self._conn = None
        self.state = LinkState.CLOSED
        self._pending.clear()
        self._prepared.clear()
        self._rows, self._error, self._accepted = [], None, False

    @property
    def server_pid(self) -> int:
        """Pid of the server's process, as it said; only while it is open."""
        assert self._conn is not None
        return self._conn.backend_pid

    @property
    def pending(self) -> int:
        """How many answers are still to come."""
        return len(self._pending)

    def overdue_at(self, connect_s: float, answer_s: float) -> float | None:
        """Tell when, by the monotonic clock, the other side has been silent for too long.

        A connection of which one end was cut off breaks by itself only after hours.

        Args:
            connect_s: How long connecting may take, in seconds.
            answer_s: How long an answer, or the next piece of one, may take; what is sent may take
                a second a megabyte more.

        Returns:
            None while nothing is outstanding.
        """
        if self.state is LinkState.CONNECTING:
            return self._heard_at + connect_s
        if not self._pending:
            return None
        return self._heard_at + answer_s + self._pending[0].size / _SLOWEST_BYTES_S

    def fileno(self) -> int:
        """Give the socket to select on; -1 when it is gone, which `advance` then tells."""
        assert self._conn is not None
        try:
            return self._conn.socket
        except psycopg.OperationalError:
            return -1

    @property
    def wants_write(self) -> bool:
        """Whether to select for writing too."""
        if self.state is LinkState.CONNECTING:
            return self._poll == pq.PollingStatus.WRITING
        return self._unflushed

    _unflushed = False

    def send(
        self,
        statement: Statement,
        params: Sequence[Param],
        on_rows: Callable[[Rows], None],
        on_error: Callable[[str, str], None],
        on_early: Callable[[Rows], None] | None = None,
    ) -> None:
        """Queue a statement; its transaction is its own.

        Args:
            statement: What to run.
            params: One a parameter; arrays in binary, the rest as text.
            on_rows: Called with the rows (cells in binary, None for null) once committed.
            on_error: Called with SQLSTATE and message when the server refused it.
            on_early: Called with the rows before they are committed, which then may still fail.

        Raises:
            DatabaseUnavailable: The connection broke.
        """
        try:
            prepares, size = self._send(statement, params, on_early is not None)
            if not self._pending:
                self._heard_at = time.monotonic()
            self._pending.append(
                _Request(statement.name, prepares, on_rows, on_error, size, on_early)
            )
            self._flush()
        except psycopg.Error:
            self._fail()

    def _send(self, statement: Statement, params: Sequence[Param], early: bool) -> tuple[bool, int]:
        """Hand it to libpq; whether that prepares it, and the bytes of its binary parameters."""
        assert self._conn is not None
        values: list[bytes | None] = []
        formats: list[int] = []
        size = 0
        for value in params:
            if isinstance(value, bytes):
                formats.append(1)
                values.append(value)
                size += len(value)
            else:
                formats.append(0)
                values.append(_text(value))
        prepares = False
        if self._config.listen:
            prepares = statement.name not in self._prepared
            if prepares:
                self._conn.send_prepare(statement.name, statement.text, statement.oids)
                self._prepared.add(statement.name)
            self._conn.send_query_prepared(
                statement.name, values, formats, result_format=pq.Format.BINARY
            )
        else:  # a transaction pooler may run the next one elsewhere
            self._conn.send_query_params(
                statement.text, values, statement.oids, formats, result_format=pq.Format.BINARY
            )
        if early:  # what the commit waits for, the rows do not
            self._conn.send_flush_request()
        self._conn.pipeline_sync()
        return prepares, size

    def advance(self) -> list[tuple[str, str]]:
        """Do what can be done without waiting; return (channel, payload) of notifications.

        Raises:
            DatabaseUnavailable: Connecting failed or the connection broke.
        """
        assert self._conn is not None
        if self.state is LinkState.CONNECTING:
            self._connect()
            return []
        try:
            self._note_input()
            self._conn.consume_input()
            self._flush()
            self._read()
            if self._conn.status == pq.ConnStatus.BAD:
                self._fail()
            heard = []
            while notice := self._conn.notifies():
                heard.append((notice.relname.decode(), notice.extra.decode()))
        except psycopg.Error:
            self._fail()
        return heard

    def _note_input(self) -> None:
        assert self._conn is not None
        if self._pending and (now := time.monotonic()) > self._heard_at + _HEARD_S:
            with suppress(OSError):
                there = fcntl.ioctl(self._conn.socket, termios.FIONREAD, b"\0\0\0\0")
                if struct.unpack("i", there)[0]:
                    self._heard_at = now

    def _connect(self) -> None:
        assert self._conn is not None
        self._poll = pq.PollingStatus(self._conn.connect_poll())
        if self._poll == pq.PollingStatus.FAILED:
            self._fail()
        if self._poll == pq.PollingStatus.OK:
            self._conn.enter_pipeline_mode()
            self.state = LinkState.OPEN

    def _flush(self) -> None:
        assert self._conn is not None
        self._unflushed = bool(self._conn.flush())

    def _read(self) -> None:
        conn = self._conn
        assert conn is not None
        ends = 0  # a statement's results end with one None; two mean that there is no more
        while self._pending and ends < 2 and not conn.is_busy():
            result = conn.get_result()
            if result is None:
                ends += 1
                continue
            ends = 0
            status = result.status
            if status == pq.ExecStatus.TUPLES_OK:
                self._rows = cells(result)
                if (on_early := self._pending[0].on_early) is not None:
                    on_early(self._rows)
            elif status == pq.ExecStatus.COMMAND_OK:
                self._accepted = True
            elif status == pq.ExecStatus.FATAL_ERROR:
                state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
                text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
                context = result.error_field(pq.DiagnosticField.CONTEXT) or b""
                where = context.partition(b"\n")[0]  # which statement of which function
                text = b"%s [%s]" % (text, where) if where else text
                self._error = self._error or (state.decode(), text.decode(errors="replace"))
            elif status == pq.ExecStatus.PIPELINE_SYNC:
                self._answer()

    def _answer(self) -> None:
        request = self._pending.popleft()
        rows, error, accepted = self._rows, self._error, self._accepted
        self._rows, self._error, self._accepted = [], None, False
        if error is not None:
            if (request.prepares and not accepted) or error[0] == _UNKNOWN_STATEMENT:
                self._prepared.discard(request.name)
            request.on_error(*error)
        else:
            request.on_rows(rows)

    def _fail(self) -> None:
        assert self._conn is not None
        message = self._conn.get_error_message().strip() or "connection to the server lost"
        self.close()
        raise DatabaseUnavailable(message)


@cache
def _where(config: EngineConfig) -> bytes:
    text = conninfo.make_conninfo(
        config.dsn, application_name=config.application_name, **tcp_options(config)
    )
    return text.encode()


def _text(value: str | int | float | bool | None) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return str(value).encode()


def cells(result: pq.abc.PGresult) -> Rows:
    """Read the rows of a result, as bytes."""
    get = result.get_value
    width = range(result.nfields)
    return [[get(row, column) for column in width] for row in range(result.ntuples)]
