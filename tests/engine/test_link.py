"""The asynchronous connection, when it breaks: always the engine's error, never a hang."""

from __future__ import annotations

import selectors
import time

import psycopg
import pytest

from pgcelery.engine import DatabaseUnavailable, EngineConfig
from pgcelery.engine.link import Link, LinkState, Rows, Statement

SLEEP = Statement(b"sleep", b"select pg_sleep($1)", (701,))
ONE = Statement(b"one", b"select $1", (25,))


def turn(link: Link, timeout_s: float = 5) -> None:
    with selectors.PollSelector() as selector:
        wanted = selectors.EVENT_WRITE if link.wants_write else selectors.EVENT_READ
        if link.fileno() >= 0:
            selector.register(link.fileno(), wanted)
            selector.select(timeout_s)
    link.advance()


def turn_until_told(link: Link) -> None:
    """Go on until the break is told; the test's time-out ends a hang."""
    while True:
        turn(link)


def flood(link: Link) -> None:
    for _ in range(100):
        link.send(ONE, ["x"], lambda rows: None, refused)
    turn_until_told(link)


def connect_and_turn(link: Link) -> None:
    link.open()
    turn_until_told(link)


def opened(dsn: str, **options) -> Link:
    link = Link(EngineConfig(dsn=dsn, application_name="link-test", **options))
    link.open()
    while link.state is not LinkState.OPEN:
        turn(link)
    return link


def kill(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        killed = admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where application_name = 'link-test'"
        ).fetchall()
    assert killed == [(True,)]


def refused(state: str, message: str) -> None:
    raise AssertionError(f"refused: {state} {message}")


@pytest.mark.parametrize("listen", [True, False])
def test_answers_come_in_the_order_of_the_statements(server_dsn: str, listen: bool):
    link = opened(server_dsn, listen=listen)
    got: list[bytes | None] = []
    for number in range(5):
        link.send(ONE, [str(number)], lambda rows: got.append(rows[0][0]), refused)
    while link.pending:
        turn(link)
    assert got == [b"0", b"1", b"2", b"3", b"4"]
    link.close()


def test_a_refused_statement_fails_alone(server_dsn: str):
    link = opened(server_dsn)
    got: list[object] = []
    bad = Statement(b"bad", b"select 1 / $1", (23,))

    def note(rows: Rows) -> None:
        got.append(rows[0][0])

    for statement, value in ((ONE, "a"), (bad, 0), (ONE, "b"), (bad, 0)):
        link.send(statement, [value], note, lambda state, text: got.append(state))
    while link.pending:
        turn(link)
    assert got == [b"a", "22012", b"b", "22012"]
    link.close()


def test_a_connection_killed_while_it_waits_for_an_answer_is_told(server_dsn: str):
    link = opened(server_dsn)
    link.send(SLEEP, [30.0], lambda rows: None, refused)
    kill(server_dsn)
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        turn_until_told(link)
    assert time.monotonic() - begun < 5
    assert link.state is LinkState.CLOSED


def test_a_connection_killed_while_idle_is_told_by_send_or_advance(server_dsn: str):
    link = opened(server_dsn)
    kill(server_dsn)
    with pytest.raises(DatabaseUnavailable):
        flood(link)
    assert link.state is LinkState.CLOSED
    assert link.pending == 0


def test_it_can_be_opened_again(server_dsn: str):
    link = opened(server_dsn)
    kill(server_dsn)
    with pytest.raises(DatabaseUnavailable):
        turn_until_told(link)
    link.open()
    while link.state is not LinkState.OPEN:
        turn(link)
    got: list[Rows] = []
    link.send(ONE, ["again"], got.append, refused)
    while link.pending:
        turn(link)
    assert got == [[[b"again"]]]
    link.close()


def test_a_server_that_is_not_there_is_told():
    link = Link(EngineConfig(dsn="postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(DatabaseUnavailable):
        connect_and_turn(link)
