from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgcelery.engine import Client, DatabaseUnavailable, EngineConfig, InvalidJob, State
from pgcelery.engine.ears import packed
from tests.support.jobs import Recorder, new_job, running


def test_a_job_that_was_enqueued_waits_in_its_queue(client: Client):
    job = new_job(b"\x00payload", queue="crème brûlée 🍮", id="order/7 'quoted\"")
    assert client.enqueue([job]) == {}
    found = client.job(job.id)
    assert found is not None
    assert (found.state, found.queue, found.payload) == (State.AVAILABLE, job.queue, b"\x00payload")
    assert client.counts([job.queue])[job.queue].ready == 1


def test_what_waits_in_queues_is_counted_up_to_a_number(client: Client):
    later = datetime.now(UTC) + timedelta(hours=1)
    client.enqueue([new_job() for _ in range(3)] + [new_job(queue="other"), new_job(due_at=later)])
    assert client.waiting(["q"], 10) == 3
    assert client.waiting(["q", "other", "never used"], 10) == 4
    assert client.waiting(["q"], 2) == 2


def test_a_second_enqueue_of_an_id_creates_nothing(client: Client):
    first, second = new_job(b"1", id="same"), new_job(b"2", id="same")
    assert client.enqueue([first]) == {}
    assert client.enqueue([second, new_job(id="other")]) == {"same": "same"}
    assert client.job("same").payload == b"1"
    assert client.counts(["q"])["q"].ready == 2


def test_jobs_in_the_callers_transaction_appear_with_its_commit_only(client: Client, dsn: str):
    with psycopg.connect(dsn) as conn:
        client.enqueue([new_job(id="rolled back")], conn=conn)
        conn.rollback()
        client.enqueue([new_job(id="committed")], conn=conn)
        assert client.job("committed") is None
        conn.commit()
    assert client.job("committed") is not None
    assert client.job("rolled back") is None


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along(client: Client, dsn: str):
    with psycopg.connect(dsn) as conn, conn.transaction():
        client.enqueue([new_job(id="kept")], conn=conn)
        with conn.transaction() as inner:
            client.enqueue([new_job(id="dropped")], conn=conn)
            raise psycopg.Rollback(inner)
    assert client.job("kept") is not None
    assert client.job("dropped") is None


def test_many_jobs_are_enqueued_all_or_none(client: Client):
    jobs = [new_job() for _ in range(2500)]
    client.enqueue(jobs)
    assert client.counts(["q"])["q"].ready == 2500
    bad = [*(new_job() for _ in range(1500)), new_job(id="x\0y")]
    with pytest.raises(InvalidJob, match="NUL"):
        client.enqueue(bad)
    assert client.counts(["q"])["q"].ready == 2500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "x" * 256}, "256 characters"),
        ({"id": "\ud800"}, "surrogate"),
        ({"queue": ""}, "queue must be a non-empty string"),
        ({"queue": 5}, "queue must be a non-empty string"),
        ({"name": "a\0b"}, "NUL"),
        ({"priority": -1}, "priority"),
        ({"max_deliveries": 0}, "max_deliveries"),
        ({"due_at": datetime(2030, 1, 1)}, "no time zone"),
    ],
)
def test_a_job_that_the_database_could_not_hold_is_refused(client: Client, change, message):
    with pytest.raises(InvalidJob, match=message):
        client.enqueue([new_job(), new_job()._replace(**change)])
    assert client.counts() == {} or client.counts()["q"].ready == 0


def test_a_payload_over_the_limit_is_refused(dsn: str):
    client = Client(EngineConfig(dsn=dsn, max_payload_bytes=10))
    with pytest.raises(InvalidJob, match="11 bytes"):
        client.enqueue([new_job(b"x" * 11)])
    client.close()


@pytest.mark.timeout(30)
def test_a_payload_that_no_socket_buffer_holds_is_enqueued(client: Client):
    job = new_job(b"x" * 8_000_000)
    client.enqueue([job])
    assert len(client.job(job.id).payload) == 8_000_000


def test_a_job_for_later_is_scheduled(client: Client):
    client.enqueue(
        [
            new_job(delay_s=3600.0),
            new_job(due_at=datetime.now(UTC) + timedelta(hours=1)),
            new_job(due_at=datetime.now(UTC) - timedelta(hours=1)),
        ]
    )
    counts = client.counts(["q"])["q"]
    assert (counts.scheduled, counts.ready) == (2, 1)


def test_cancel_ends_what_waits_and_remembers_the_unknown(client: Client):
    ready, later = new_job(), new_job(delay_s=60.0)
    client.enqueue([ready, later])
    states = client.cancel([ready.id, later.id, "unknown"], result=lambda id: id.encode())
    assert states == {ready.id: State.CANCELLED, later.id: State.CANCELLED, "unknown": None}
    assert client.results([ready.id])[ready.id].result == ready.id.encode()
    counts = client.counts(["q"])["q"]
    assert (counts.ready, counts.scheduled) == (0, 0)


def test_an_id_cancelled_before_it_was_sent_never_runs(client: Client):
    client.cancel(["early"])
    handler = Recorder()
    with running(client.config, handler):
        client.enqueue([new_job(id="early")])
        assert client.wait(["early"], 10)["early"].state is State.FAILED  # as the handler said
    assert handler.ran == []
    assert [why.kind for _, why in handler.lost_jobs] == ["cancelled"]


def test_cancel_leaves_a_final_job_as_it_is(client: Client):
    client.put_result("done", State.COMPLETED, b"value")
    assert client.cancel(["done"]) == {"done": State.COMPLETED}
    assert client.results(["done"])["done"].result == b"value"


def test_a_final_result_is_never_overwritten(client: Client):
    assert client.put_result("x", State.RUNNING, b"half")
    assert client.put_result("x", State.COMPLETED, b"all")
    assert not client.put_result("x", State.FAILED, b"no")
    assert client.results(["x"])["x"].result == b"all"


def test_wait_returns_empty_when_the_time_is_over(client: Client):
    assert client.wait(["nobody"], 0.05) == {}
    assert client.wait(["nobody"], 0) == {}


def test_wait_is_woken_by_a_result_that_comes_later(client: Client):
    other = Client(client.config)
    timer = threading.Timer(0.2, lambda: other.put_result("x", State.COMPLETED, b"1"))
    timer.start()
    assert client.wait(["x"], 10)["x"].result == b"1"
    timer.join()
    other.close()


def test_wait_works_without_listening(dsn: str):
    client = Client(EngineConfig(dsn=dsn, listen=False))
    timer = threading.Timer(0.1, lambda: client.put_result("x", State.COMPLETED, b"1"))
    timer.start()
    assert client.wait(["x"], 10)["x"].state is State.COMPLETED
    timer.join()
    client.close()


def test_purge_deletes_what_waits_in_the_named_queues(client: Client):
    client.enqueue([new_job(queue="a"), new_job(queue="a", delay_s=60.0), new_job(queue="b")])
    assert client.purge(["a"]) == 2
    assert client.counts()["b"].ready == 1
    assert client.purge() == 1


def test_forget_deletes_a_result(client: Client):
    client.put_result("x", State.COMPLETED, b"1")
    assert client.forget(["x", "unknown"]) == 1
    assert client.results(["x"]) == {}


def test_what_is_kept_is_never_a_jobs_result(client: Client):
    job = new_job()
    client.enqueue([job])
    assert not client.keep(job.id, b"not its result")
    assert client.keep("of-none", b"1")
    assert client.keep("of-none", b"2")
    assert {id: row.result for id, row in client.results([job.id, "of-none"]).items()} == {
        "of-none": b"2"
    }


def test_an_unreachable_server_is_told_at_once():
    client = Client(EngineConfig(dsn="postgresql://nobody@127.0.0.1:1/none", connect_timeout_s=2))
    with pytest.raises(DatabaseUnavailable):
        client.enqueue([new_job()])


def test_connections_killed_by_the_server_are_replaced(client: Client, dsn: str):
    client.enqueue([new_job()])
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    assert client.enqueue([new_job()]) == {}
    assert client.counts(["q"])["q"].ready == 2


def test_a_forked_child_uses_connections_of_its_own(client: Client):
    client.enqueue([new_job(id="parent 1")])
    pid = os.fork()
    if pid == 0:
        try:
            client.enqueue([new_job(id="child")])
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.enqueue([new_job(id="parent 2")])
    assert client.counts(["q"])["q"].ready == 3


def test_threads_share_a_client(client: Client):
    def send() -> None:
        for _ in range(20):
            client.enqueue([new_job()])

    threads = [threading.Thread(target=send) for _ in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.counts(["q"])["q"].ready == 300


def test_broadcast_reaches_live_workers_and_their_answers_come_back(client: Client):
    got: list[tuple[bytes, str | None]] = []
    handler = Recorder()

    def on_control(body: bytes, reply_to: str | None) -> None:
        got.append((body, reply_to))
        client.reply(reply_to or "", "w", b"pong")

    with running(client.config, handler, on_control=on_control):
        assert client.broadcast(b"ping", reply_to="me") == 1
        assert list(client.replies("me", timeout_s=10, limit=1)) == [("w", b"pong")]
        assert client.broadcast(b"ping", destination=["nobody"]) == 0
    assert got == [(b"ping", "me")]


def test_ids_are_packed_below_the_limit_of_a_notification():
    ids = [f"{number:0200d}" for number in range(100)]
    payloads = packed(ids)
    assert len(payloads) > 1
    assert all(len(payload.encode()) < 8000 for payload in payloads)
