from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError, OperationalError

from pgcelery.compat import signals
from pgcelery.compat.app import sending
from pgcelery.compat.app.base import Celery
from pgcelery.compat.exceptions import QueueNotFound
from pgcelery.compat.message import decode
from pgcelery.engine import Client, DatabaseUnavailable, State
from tests.support.tasks import Offline, body, celery_log, headers


@pytest.fixture
def app() -> Offline:
    return Offline("sending")


def test_the_message_is_that_of_protocol_2(app: Offline) -> None:
    result = app.send_task("t", (1, "two"), {"three": 3}, app_id="mine", priority=3)
    job = app.sent()
    message = decode(job.payload)
    assert (job.id, job.name, job.queue, job.priority) == (result.id, "t", "celery", 6)
    origin = message.headers.pop("origin")
    assert origin.startswith("gen")
    assert message.headers == {
        "lang": "py",
        "task": "t",
        "id": job.id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": job.id,
        "parent_id": None,
        "argsrepr": "(1, 'two')",
        "kwargsrepr": "{'three': 3}",
        "ignore_result": None,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    expected = {"correlation_id": job.id, "app_id": "mine", "priority": 3, "delivery_mode": 2}
    assert message.properties.items() >= expected.items()
    assert message.properties["delivery_info"] == {"exchange": "", "routing_key": "celery"}
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert body(job) == [[1, "two"], {"three": 3}, embed]


def test_time_options(app: Offline) -> None:
    app.send_task("t", countdown=60, eta=datetime(2000, 1, 1, tzinfo=UTC), expires=90)
    job = app.sent()
    assert job.delay_s == 60
    eta = datetime.fromisoformat(headers(job)["eta"])
    assert abs(eta - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=5)
    assert job.expires_at is not None
    assert headers(job)["expires"] == job.expires_at.isoformat()

    naive = datetime(2999, 1, 1)
    app.send_task("t", eta=naive, expires="2999-01-02T00:00:00+01:00", countdown=0)
    job = app.sent()
    assert (job.delay_s, job.due_at) == (None, naive.replace(tzinfo=UTC))
    assert headers(job)["eta"] == naive.isoformat()
    assert headers(job)["expires"] == "2999-01-02T00:00:00+01:00"


def test_an_expiry_in_the_past_is_sent_and_logged(
    app: Offline, caplog: pytest.LogCaptureFixture
) -> None:
    with celery_log(caplog):
        app.send_task("t", task_id="late", expires=-5)
    assert "late has an expiration date in the past" in caplog.text
    assert app.sent().expires_at is not None


def test_time_limits_are_hard_then_soft_on_the_wire(app: Offline) -> None:
    app.send_task("t", time_limit=9, soft_time_limit=5)
    assert headers(app.sent())["timelimit"] == [9, 5]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"args": "text"}, TypeError),
        ({"args": {"a": 1}}, TypeError),
        ({"kwargs": [1]}, TypeError),
        ({"task_id": 5}, TypeError),
        ({"task_id": "x" * 300}, ValueError),
        ({"task_id": "nul\0"}, ValueError),
        ({"task_id": "lone\ud800"}, ValueError),
        ({"name": ""}, ValueError),
        ({"name": "n" * 300}, ValueError),
        ({"countdown": "soon"}, TypeError),
        ({"countdown": -3e9}, ValueError),
        ({"countdown": 1e300}, ValueError),
        ({"eta": "tomorrow"}, ValueError),
        ({"eta": 5}, TypeError),
        ({"expires": object()}, TypeError),
        ({"priority": "high"}, TypeError),
        ({"queue": "q" * 300}, ValueError),
        ({"queue": "q\0"}, ValueError),
        ({"queue": 5}, TypeError),
        ({"args": [object()]}, EncodeError),
        ({"headers": {"h": object()}}, EncodeError),
        ({"app_id": object()}, EncodeError),
        ({"serializer": "none-such"}, Exception),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_bad_input_is_refused_in_the_caller_and_nothing_sent(
    app: Offline, options: dict[str, Any], error: type[Exception]
) -> None:
    options = {"name": "t", **options}
    with pytest.raises(error) as caught:
        app.send_task(options.pop("name"), **options)
    assert not isinstance(caught.value, psycopg.Error)
    assert app.engine.jobs == []


@pytest.mark.parametrize(("given", "stored"), [(None, 9), (0, 9), (9, 0), (99, 0), (-5, 9)])
def test_nine_is_the_highest_priority(app: Offline, given: Any, stored: int) -> None:
    app.send_task("t", priority=given)
    assert app.sent().priority == stored


def test_late_acknowledgement_decides_how_often_it_may_be_delivered(app: Offline) -> None:
    @app.task(name="early")
    def early() -> None: ...

    @app.task(name="late", acks_late=True)
    def late() -> None: ...

    early.delay()
    late.delay()
    app.finalize()
    app.send_task("late")
    assert [job.max_deliveries for job in app.engine.jobs] == [1, 5, 5]


def test_a_call_by_name_takes_the_options_of_the_task_registered_here(app: Offline) -> None:
    @app.task(name="known", expires=50, serializer="pickle", time_limit=8, ignore_result=True)
    def known() -> None: ...

    app.finalize()
    app.send_task("known")
    message = decode(app.sent().payload)
    assert message.content_type == "application/x-python-serialize"
    assert message.headers["timelimit"] == [8, None]
    assert message.headers["expires"]
    assert message.headers["ignore_result"] is None
    app.send_task("known", expires=None, time_limit=None)
    assert headers(app.sent())["expires"] is None


def test_results_are_kept_as_long_as_the_setting_says(app: Offline) -> None:
    app.conf.result_expires = timedelta(minutes=2)
    app.send_task("t")
    assert app.sent().ttl_s == 120
    app.conf.result_expires = None
    app.send_task("t")
    assert app.sent().ttl_s is None


def test_receivers_of_before_task_publish_may_change_everything(app: Offline) -> None:
    published: list[Any] = []

    def before(
        sender: str, body: Any, headers: Any, properties: Any, routing_key: str, **kw: Any
    ) -> None:
        headers["trace"] = f"{sender}@{routing_key}"
        properties["priority"] = 9
        body[0].append("added")

    def after(sender: str, headers: Any, body: Any, **kwargs: Any) -> None:
        published.append((sender, headers["trace"], body[0]))

    signals.before_task_publish.connect(before, sender="t")
    signals.after_task_publish.connect(after, sender="t")
    app.send_task("t", ["given"], queue="q")
    job = app.sent()
    assert (headers(job)["trace"], job.priority) == ("t@q", 0)
    assert body(job)[0] == ["given", "added"]
    assert published == [("t", "t@q", ["given", "added"])]


def test_routes_decide_unless_the_caller_does(app: Offline) -> None:
    app.conf.task_routes = {"a.*": {"queue": "routed", "priority": 2}}
    app.send_task("a.b")
    app.send_task("a.b", queue="given")
    app.send_task("c")
    assert [(j.queue, j.priority) for j in app.engine.jobs] == [
        ("routed", 7), ("given", 7), ("celery", 9),
    ]  # fmt: skip


def test_a_missing_queue_may_be_an_error(app: Offline) -> None:
    app.conf.task_create_missing_queues = False
    with pytest.raises(QueueNotFound):
        app.send_task("t", queue="none")
    assert app.engine.jobs == []


def test_a_topic_reaches_every_queue_bound_to_it(app: Offline) -> None:
    topic = Exchange("news", type="topic")
    app.conf.task_queues = [
        Queue("all", topic, routing_key="#"),
        Queue("sport", topic, routing_key="sport.*"),
    ]
    result = app.send_task("t", exchange="news", routing_key="sport.chess")
    jobs = app.engine.jobs
    assert [job.queue for job in jobs] == ["all", "sport"]
    assert len({job.id for job in jobs}) == 2
    assert jobs[0].id == result.id
    assert {headers(job)["id"] for job in jobs} == {result.id}


def test_calls_that_are_collected_are_not_sent(app: Offline) -> None:
    with sending.collecting() as jobs:
        app.send_task("a")
        app.send_task("b")
    assert [job.name for job in jobs] == ["a", "b"]
    assert app.engine.jobs == []
    sending.insert(app, jobs)
    assert app.engine.jobs == jobs


class Away:
    """A database that is away for some calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def enqueue(self, jobs: Any, *, conn: Any = None) -> set[str]:
        self.calls += 1
        if self.calls <= self.failures:
            raise DatabaseUnavailable("it is away")
        return set()


POLICY = {"max_retries": 2, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def test_sending_is_tried_again_as_the_policy_says(app: Offline) -> None:
    app.engine = Away(2)
    app.send_task("t", retry_policy=POLICY)
    assert app.engine.calls == 3


@pytest.mark.parametrize(("options", "calls"), [({}, 3), ({"retry": False}, 1)])
def test_a_lost_database_is_an_operational_error(
    app: Offline, options: dict[str, Any], calls: int
) -> None:
    app.engine = Away(99)
    with pytest.raises(OperationalError, match="it is away"):
        app.send_task("t", retry_policy=POLICY, **options)
    assert app.engine.calls == calls


def test_argument_representations_are_those_of_celery(app: Offline) -> None:
    app.send_task("t", (1,), argsrepr="hidden", kwargsrepr="{hidden}")
    assert (headers(app.sent())["argsrepr"], headers(app.sent())["kwargsrepr"]) == (
        "hidden", "{hidden}",
    )  # fmt: skip
    app.send_task("t", ["x" * 5000, {"a": [1]}])
    assert len(headers(app.sent())["argsrepr"]) < 1100


# -- with a database


@pytest.fixture
def real(client: Client) -> Iterator[Celery]:
    app = Celery("real", broker=client.config.dsn, set_as_current=False)
    yield app
    app.engine.close()


def test_the_same_id_is_sent_once(
    real: Celery, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    first = real.send_task("t", (1,), task_id="once")
    with celery_log(caplog):
        again = real.send_task("t", (2,), task_id="once")
    assert first == again
    assert client.counts(["celery"])["celery"].ready == 1
    assert "once was sent before" in caplog.text
    kept = client.job("once")
    assert kept is not None
    assert decode(kept.payload).headers["argsrepr"] == "(1,)"


def test_a_call_in_a_transaction_is_sent_if_it_commits(real: Celery, client: Client) -> None:
    with psycopg.connect(client.config.dsn) as conn:
        real.send_task("t", task_id="rolled-back", conn=conn)
        conn.rollback()
        real.send_task("t", task_id="committed", conn=conn)
        assert client.job("committed") is None
        conn.commit()
    assert client.job("rolled-back") is None
    assert client.job("committed") is not None


def test_a_sqlalchemy_session_is_a_transaction_too(real: Celery, client: Client) -> None:
    orm = pytest.importorskip("sqlalchemy.orm")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    url = sqlalchemy.make_url(client.config.dsn).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url)
    with orm.Session(engine) as session:
        real.send_task("t", task_id="session", conn=session)
        assert client.job("session") is None
        session.commit()
    engine.dispose()
    assert client.job("session") is not None


def test_other_connections_are_refused(real: Celery) -> None:
    with pytest.raises(TypeError, match="conn must be a psycopg connection"):
        real.send_task("t", conn=object())


def test_a_revoked_call_is_not_run(real: Celery, client: Client) -> None:
    result = real.send_task("t", countdown=60)
    result.revoke()
    assert client.results([result.id])[result.id].state is State.CANCELLED
