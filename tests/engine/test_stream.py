from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, EventReader, EventWriter
from tests.support.wait import wait_for

MISSING = EngineConfig(dsn="postgresql://nobody@127.0.0.1:1/none", connect_timeout_s=1)


@pytest.fixture
def write(client: Client) -> Iterator[EventWriter]:
    writer = EventWriter(lambda: client, list, flush_s=0.01)
    yield writer
    writer.close()


def rows(dsn: str, table: str) -> int:
    with psycopg.connect(dsn) as conn:
        return conn.execute(f"select count(*) from pgcelery.{table}").fetchone()[0]  # noqa: S608


def read(reader: EventReader, count: int) -> list[bytes]:
    found: list[bytes] = []
    wait_for(lambda: found.extend(reader.read(0.5)) or len(found) >= count)
    return found


def test_without_a_listener_nothing_is_written(dsn: str, write: EventWriter) -> None:
    write.put(b"1")
    assert write.flush(5)
    assert not write.heard
    assert rows(dsn, "events") == 0


def test_every_listener_hears_everything_once_and_in_order(
    dsn: str, client: Client, write: EventWriter
) -> None:
    sent = [b"%d" % number for number in range(250)]
    with closing(EventReader(client.config)) as one, closing(EventReader(client.config)) as other:
        for body in sent:
            write.put(body)
        assert read(one, 250) == sent
        assert read(other, 250) == sent
        assert one.read(0) == other.read(0) == []
        assert rows(dsn, "listeners") == 2
    assert rows(dsn, "listeners") == 0


def test_what_came_before_is_not_heard(client: Client, write: EventWriter) -> None:
    with closing(EventReader(client.config)):
        write.put(b"before")
        assert write.flush(5)
        with closing(EventReader(client.config)) as late:
            write.put(b"after")
            assert read(late, 1) == [b"after"]


def test_a_batch_that_commits_after_a_later_one_is_heard(
    client: Client, dsn: str, write: EventWriter
) -> None:
    with closing(EventReader(client.config)) as reader, psycopg.connect(dsn) as slow:
        slow.execute("insert into pgcelery.events (body) values ('slow')")
        write.put(b"quick")
        assert read(reader, 1) == [b"quick"]
        slow.commit()
        assert read(reader, 1) == [b"slow"]


def test_a_listener_that_died_is_not_written_for(
    client: Client, dsn: str, write: EventWriter
) -> None:
    EventReader(client.config)._conn.close()
    with psycopg.connect(dsn) as conn:
        conn.execute("update pgcelery.listeners set until = now()")
    write.put(b"1")
    assert write.flush(5)
    assert rows(dsn, "events") == 0


def test_old_batches_are_deleted_by_who_writes(client: Client, dsn: str) -> None:
    writer = EventWriter(lambda: client, list, flush_s=0.01, keep_s=30)
    with closing(EventReader(client.config)), closing(writer):
        with psycopg.connect(dsn) as conn:
            conn.execute(
                "insert into pgcelery.events (at, body)"
                " values (now() - interval '31 s', 'old'), (now() - interval '29 s', 'new')"
            )
        writer.put(b"now")
        assert writer.flush(5)
        wait_for(lambda: rows(dsn, "events") == 2)


def test_while_the_database_is_away_the_newest_are_kept(client: Client) -> None:
    away = Client(MISSING)
    clients = [away]
    writer = EventWriter(lambda: clients[-1], list, flush_s=0.01, most=3)
    with closing(writer), closing(EventReader(client.config)) as reader:
        for number in range(5):
            writer.put(b"%d" % number)
        assert not writer.flush(0.3)
        clients.append(client)
        assert read(reader, 3) == [b"2", b"3", b"4"]


def test_what_cannot_be_encoded_does_not_stop_the_stream(client: Client) -> None:
    def encode(items: list[bytes]) -> list[bytes]:
        assert b"bad" not in items
        return items

    writer = EventWriter(lambda: client, encode, flush_s=0.01)
    with closing(writer), closing(EventReader(client.config)) as reader:
        writer.put(b"bad")
        assert writer.flush(5)
        writer.put(b"good")
        assert read(reader, 1) == [b"good"]


def test_a_forked_child_sends_what_is_its_own(client: Client, write: EventWriter) -> None:
    with closing(EventReader(client.config)) as reader:
        write.put(b"parent")
        assert read(reader, 1) == [b"parent"]
        pid = os.fork()
        if not pid:
            write.put(b"child")
            os._exit(0 if write.flush(10) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        write.put(b"again")
        assert sorted(read(reader, 2)) == [b"again", b"child"]


def test_without_listen_it_is_looked_for(dsn: str, write: EventWriter) -> None:
    with closing(EventReader(EngineConfig(dsn=dsn, listen=False))) as reader:
        write.put(b"1")
        assert read(reader, 1) == [b"1"]


def test_putting_waits_for_nothing() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def stuck() -> Client:
        entered.set()
        go_on.wait(10)
        return Client(MISSING)

    writer = EventWriter(stuck, list, flush_s=0.01)
    writer.put(b"1")
    assert entered.wait(5)
    for _ in range(1000):
        writer.put(b"2")
    go_on.set()
    writer.close(0)
