"""Messages that no `apply_async` wrote: each a recorded failure, and the worker goes on."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kombu.exceptions import ContentDisallowed

from pgcelery.compat.exceptions import InvalidTaskError
from pgcelery.compat.message import Message, encode
from pgcelery.engine import InvalidJob, NewJob
from tests.support.wait import wait_for
from tests.worker.bad_input.world import World, running_world

ECHO = "tests.worker.bad_input.app.echo"
BODY = json.dumps([[1], {}, {}]).encode()


class Trap:
    def __reduce__(self) -> Any:
        return (Path("pickle-was-opened").touch, ())


def framed(head: bytes, body: bytes = BODY, version: int = 2) -> bytes:
    return struct.pack(">BI", version, len(head)) + head + body


def message(body: bytes = BODY, *, headers: Any = None, **fields: Any) -> bytes:
    given = {"id": "x", "task": ECHO, **(headers or {})}
    return encode(Message(given, fields.pop("properties", {}), body, **fields))


NESTED = b"[" * 100_000 + b"]" * 100_000

PAYLOADS: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"\x00\xff garbage \x80",
    "text": b"hello",
    "other-version": framed(b"[{},{},null,null]", version=9),
    "length-beyond-the-end": struct.pack(">BI", 2, 2**32 - 1) + b"{}",
    "head-is-no-list": framed(b"{}"),
    "head-is-short": framed(b"[{}]"),
    "head-of-numbers": framed(b"[1,2,3,4]"),
    "head-truncated": framed(b'[{"id": "x", "ta'),
    "head-nested": framed(NESTED),
    "head-no-utf8": framed(b'[{"id": "\xff"},{},"application/json","utf-8"]'),
    "head-null-content-type": framed(b"[{},{},null,null]"),
    "head-number-content-type": framed(b"[{},{},7,8]"),
    "body-empty": message(b""),
    "body-truncated": message(BODY[:-3]),
    "body-no-list": message(b'{"a": 1}'),
    "body-short": message(b"[[1], {}]"),
    "body-number": message(b"7"),
    "body-null": message(b"null"),
    "body-args-number": message(b"[7, {}, {}]"),
    "body-kwargs-list": message(b"[[], [1], {}]"),
    "body-embed-number": message(b"[[1], {}, 7]"),
    "body-callbacks-number": message(b'[[1], {}, {"callbacks": 7}]'),
    "body-callbacks-of-numbers": message(b'[[1], {}, {"callbacks": [7]}]'),
    "body-callbacks-unknown": message(b'[[1], {}, {"callbacks": [{"subtask_type": "no"}]}]'),
    "body-chain-of-text": message(b'[[1], {}, {"chain": ["a", "b"]}]'),
    "body-nested": message(NESTED),
    "body-no-utf8": message(b'[["\xff"], {}, {}]'),
    "body-unknown-type": message(b'[[{"__type__": "os.system", "__value__": 3}], {}, {}, {}]'),
    "pickle": message(
        pickle.dumps([(), {}, Trap()]),
        content_type="application/x-python-serialize",
        content_encoding="binary",
    ),
    "pickle-said-to-be-json": message(pickle.dumps([(), {}, Trap()])),
    "pickle-compressed": message(
        gzip.compress(pickle.dumps([(), {}, Trap()])),
        content_type="application/x-python-serialize",
        content_encoding="binary",
        headers={"compression": "application/x-gzip"},
    ),
    "yaml": message(
        b"!!python/object/apply:os.system ['touch pickle-was-opened']",
        content_type="application/x-yaml",
    ),
    "unknown-content-type": message(content_type="application/x-nobody"),
    "wrong-compression": message(headers={"compression": "application/x-gzip"}),
    "unknown-compression": message(headers={"compression": "application/x-nobody"}),
    "unknown-task": message(headers={"task": "nobody"}),
    "missing-arguments": message(b"[[], {}, {}]", headers={"task": ECHO.replace("echo", "two")}),
    "timelimit-of-text": message(headers={"timelimit": ["a", "b"]}),
    "retries-of-text": message(headers={"retries": "x"}),
    "chain-link-junk": message(headers={"chain_link": {"head": 7}}),
    "chord-parents-junk": message(headers={"chord_parents": [[7]]}),
    "properties-junk": message(properties={"delivery_info": 7, "priority": "high"}),
    "properties-reply-junk": message(properties={"reply_to": [1], "correlation_id": {}}),
}

#: Odd, and good enough to run.
RUN: dict[str, bytes] = {
    "no-headers": framed(b'[{},{},"application/json","utf-8"]'),
    "encoding-unknown": message(content_encoding="no-such"),
    "shadows-methods": message(headers={"get": 1, "update": 2, "clear": 3, "children": 4}),
    "stamps-junk-values": message(headers={"stamps": {"a": {}}, "stamped_headers": ["a", "b"]}),
}


def send(world: World, payload: bytes) -> Any:
    """As another producer does, through the engine's client."""
    task_id = str(uuid.uuid4())
    world.app.engine.enqueue([NewJob(task_id, "celery", ECHO, payload)])
    return world.app.AsyncResult(task_id)


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_message_that_is_none_is_a_recorded_failure(kind: str, world: World) -> None:
    letter, task_id = world.outcome(lambda: send(world, PAYLOADS[kind]))
    assert letter == "F"
    world.check(task_id)
    assert not Path("pickle-was-opened").exists()


@pytest.mark.parametrize("kind", RUN)
def test_a_message_that_lacks_what_is_not_needed_runs(kind: str, world: World) -> None:
    letter, task_id = world.outcome(lambda: send(world, RUN[kind]))
    assert letter in ("S", "F")
    world.check(task_id)


def test_content_that_is_not_accepted_is_refused_by_name(world: World) -> None:
    result = send(world, PAYLOADS["pickle"])
    with pytest.raises(ContentDisallowed, match="pickle"):
        result.get(timeout=10)
    result = send(world, PAYLOADS["garbage"])
    with pytest.raises(InvalidTaskError, match="no task message"):
        result.get(timeout=10)


def test_a_row_written_into_the_tables_by_hand_ends_too(world: World) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        (queue,) = conn.execute("select id from pgcelery.queues where name = 'celery'").fetchone()
        with conn.transaction():
            (seq,) = conn.execute(
                "insert into pgcelery.jobs (id, queue_id, priority, name, payload,"
                " max_deliveries, flags, parents)"
                " values ('by-hand', %s, 0, 'a\u2028b', 'junk', 1, 0, 0) returning seq",
                [queue],
            ).fetchone()
            conn.execute(
                "insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)"
                " values (%s, 0, %s, 'by-hand', 0, 0)",
                [queue, seq],
            )
    result = world.app.AsyncResult("by-hand")
    wait_for(result.ready, 10, lambda: f"no end: {result.state}")
    assert result.state == "FAILURE"
    world.check("by-hand")


def test_a_place_that_nobody_can_read_ends_no_worker(world: World) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into pgcelery.places (queue_id, wants)"
            " select id, 'junk' from pgcelery.queues where name = 'celery'"
        )
        conn.execute("select pg_notify('pgcelery', 'p')")
    world.check()
    with pytest.raises(InvalidJob, match="placement"):
        world.app.engine.enqueue([NewJob("odd-place", "celery", ECHO, b"", placement="junk")])
    world.check()


@pytest.fixture(scope="module")
def threads(server_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("threads")
    with running_world(server_dsn, folder, pool="threads") as world:
        yield world


@pytest.mark.parametrize(
    "kind", ["garbage", "body-nested", "pickle", "retries-of-text", "chain-link-junk"]
)
def test_threads_outlive_bad_messages_too(kind: str, threads: World) -> None:
    letter, task_id = threads.outcome(lambda: send(threads, PAYLOADS[kind]))
    assert letter == "F"
    threads.check(task_id)


@pytest.mark.parametrize("kind", ["mute", "picky", "system-exit", "keyboard-interrupt", "base"])
def test_threads_outlive_what_tasks_raise_too(kind: str, threads: World) -> None:
    letter, task_id = threads.outcome(lambda: threads.module.fail.delay(kind))
    assert letter == "F"
    threads.check(task_id)


def test_the_others_of_a_batch_run_between_bad_messages(world: World) -> None:
    good = []
    for kind in ("garbage", "chain-link-junk", "body-nested", "retries-of-text"):
        send(world, PAYLOADS[kind])
        good.append(world.module.two.delay(kind, 1))
    assert [one.get(timeout=10) for one in good] == [
        [kind, 1] for kind in ("garbage", "chain-link-junk", "body-nested", "retries-of-text")
    ]
    world.check()
