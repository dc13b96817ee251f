"""Limits that are changed while jobs wait at them and workers run."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack, closing
from datetime import timedelta

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, Gate, InvalidJob, Job, LimitChange, Outcome, State
from pgcelery.engine.limits import LimitInfo, LimitValues
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for

HOUR = 3600.0


class Counting(Recorder):
    """Jobs end when they are let; how many run at once is kept, by their names."""

    def __init__(self) -> None:
        super().__init__(hold=self._hold)
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.started = 0
        self._lock = threading.Condition()
        self._tickets = 0
        self._open = False

    def _hold(self, job: Job) -> Outcome:
        with self._lock:
            self.started += 1
            self.now[job.name] += 1
            self.most[job.name] = max(self.most[job.name], self.now[job.name])
            assert self._lock.wait_for(lambda: self._tickets > 0 or self._open, 30)
            self._tickets -= 1
            self.now[job.name] -= 1
        return Outcome(job.id, job.token, State.COMPLETED)

    def let(self, many: int) -> None:
        with self._lock:
            self._tickets += many
            self._lock.notify_all()

    def let_all(self) -> None:
        with self._lock:
            self._open = True
            self._lock.notify_all()


@pytest.fixture
def handler():
    handler = Counting()
    yield handler
    handler.let_all()


def three_workers(stack: ExitStack, config: EngineConfig, handler: Recorder) -> None:
    for number in range(3):
        pool = ThreadPool(4)
        stack.enter_context(running(config, handler, name=f"w{number}", pool=pool))


@pytest.fixture
def workers(client: Client, handler: Counting):
    with ExitStack() as stack:
        three_workers(stack, client.config, handler)
        yield
        handler.let_all()


def slots(count: int | None, key: str = "k") -> tuple[Gate, ...]:
    return (Gate("mail", key, slots=count),)


def rated(rate: int = 1, period_s: float = HOUR, **options) -> tuple[Gate, ...]:
    return (Gate("api", "", rate=rate, period_s=period_s, **options),)


def send(client: Client, many: int, key: str = "k", count: int | None = 2) -> list[str]:
    jobs = [new_job(b"hold", name=key, gates=slots(count, key)) for _ in range(many)]
    client.enqueue(jobs)
    return [job.id for job in jobs]


def line(client: Client, key: str = "k", name: str = "mail") -> LimitInfo:
    (found,) = client.limits(name, key)
    return found


def waiting(client: Client, name: str, many: int) -> None:
    wait_for(lambda: (found := client.limits(name)) and found[0].waiting == many)


def settled(client: Client, handler: Counting, **wanted: int) -> None:
    """So many run, and a worker that has room has looked since and let nobody else through."""
    wait_for(
        lambda: {key: handler.now[key] for key in wanted} == wanted,
        message=lambda: f"{handler.now} run, not {wanted}",
    )
    probe = new_job(gates=(Gate("probe"),))
    client.enqueue([probe])
    assert client.wait([probe.id], 10)
    assert {key: handler.now[key] for key in wanted} == wanted


def test_a_raised_limit_lets_through_at_once_and_a_lowered_one_nobody(
    client: Client, workers, handler: Counting
):
    send(client, 12)
    settled(client, handler, k=2)
    assert client.set_limit("mail", key="k", slots=5) == LimitChange(1, 0, ())
    settled(client, handler, k=5)
    client.set_limit("mail", key="k", slots=1)
    found = line(client)
    assert (found.in_use, found.slots, found.waiting) == (5, 1, 7)
    handler.let(4)
    settled(client, handler, k=1)
    assert handler.started == 5
    wait_for(lambda: line(client).in_use == 1)
    handler.let(1)
    wait_for(lambda: handler.started == 6)
    settled(client, handler, k=1)
    assert handler.most == {"k": 5}


def test_what_is_set_for_a_name_holds_for_its_lines_but_those_with_their_own(
    client: Client, workers, handler: Counting
):
    for key in "abc":
        send(client, 4, key, 1)
    settled(client, handler, a=1, b=1, c=1)
    client.set_limit("mail", key="a", slots=3)
    settled(client, handler, a=3, b=1, c=1)
    assert client.set_limit("mail", slots=2) == LimitChange(3, 0, ())
    settled(client, handler, a=3, b=2, c=2)
    client.unset_limit("mail", "a")
    assert [line(client, key).slots for key in "abc"] == [2, 2, 2]
    client.unset_limit("mail")
    assert [line(client, key).slots for key in "abc"] == [1, 1, 1]


def test_it_holds_for_lines_that_come_later(client: Client, workers, handler: Counting):
    client.set_limit("mail", slots=1)
    send(client, 3, "new", 3)
    settled(client, handler, new=1)
    found = line(client, "new")
    assert (found.slots, found.said.slots, found.set) == (1, 3, None)
    assert found.name_set_at is not None


def test_jobs_that_say_something_else_do_not_overrule_it(
    client: Client, workers, handler: Counting
):
    client.set_limit("mail", key="k", slots=1)
    send(client, 2, count=2)
    settled(client, handler, k=1)
    send(client, 2, count=4)
    wait_for(lambda: line(client).said.slots == 4)
    settled(client, handler, k=1)
    client.unset_limit("mail", "k")
    settled(client, handler, k=4)


def test_a_limit_where_jobs_say_none(client: Client, workers, handler: Counting):
    client.set_limit("mail", slots=2)
    send(client, 5, count=None)
    settled(client, handler, k=2)
    assert client.unset_limit("mail") is True
    settled(client, handler, k=5)
    assert client.unset_limit("mail") is False


def test_it_survives_a_restart_of_everything(dsn: str, handler: Counting):
    config = EngineConfig(dsn=dsn)
    with closing(Client(config)) as first:
        first.set_limit("mail", key="k", slots=1)
        with ExitStack() as stack:
            three_workers(stack, config, handler)
            ids = send(first, 2)
            settled(first, handler, k=1)
            handler.let_all()
            for id in ids:
                assert first.wait([id], 10)
    with psycopg.connect(dsn, autocommit=True) as conn:  # nothing is left but what is set
        conn.execute("delete from pgcelery.lines")
    later = Counting()
    with closing(Client(config)) as second, ExitStack() as stack:
        three_workers(stack, config, later)
        stack.callback(later.let_all)
        send(second, 3)
        settled(second, later, k=1)
        second.unset_limit("mail", "k")
        settled(second, later, k=2)


def test_a_full_worker_takes_what_a_raised_limit_lets_through_when_it_has_room(
    client: Client, handler: Counting
):
    with running(client.config, handler, pool=ThreadPool(2)):
        send(client, 1, count=1)
        client.enqueue([new_job(b"hold", name="plain")])
        wait_for(lambda: handler.started == 2)
        send(client, 2, count=1)
        client.set_limit("mail", key="k", slots=2)
        handler.let(1)
        wait_for(lambda: handler.started == 3)
        handler.let_all()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_raised_rate_holds_at_once(client: Client, workers, fixed: bool):
    client.enqueue([new_job(id=f"j{number}", gates=rated(fixed=fixed)) for number in range(5)])
    waiting(client, "api", 4)
    assert line(client, "", "api").opens_at is not None
    assert client.set_limit("api", rate=1000, period_s=1.0) == LimitChange(0, 1, ())
    for number in range(5):
        assert client.wait([f"j{number}"], 10)


def test_a_rate_is_made_slower_and_restored(client: Client, workers):
    gates = rated(1000, 1.0)
    client.enqueue([new_job(id="a", gates=gates)])
    assert client.wait(["a"], 10)
    client.set_limit("api", rate=1, period_s=HOUR)
    client.enqueue([new_job(id="b", gates=gates)])
    client.enqueue([new_job(id="c", gates=gates)])
    found = wait_for(lambda: (x := client.why("c")).reason == "rate" and x)
    assert timedelta(minutes=59) < found.until - found.at <= timedelta(hours=2)
    assert found.line.set_at == line(client, "", "api").name_set_at
    client.unset_limit("api")
    assert client.wait(["c"], 10)


def test_a_burst_is_raised(client: Client, workers):
    client.enqueue([new_job(id=f"j{number}", gates=rated()) for number in range(4)])
    waiting(client, "api", 3)
    client.set_limit("api", burst=4)
    for number in range(4):
        assert client.wait([f"j{number}"], 10)


def test_only_what_fits_the_kind_of_a_line_holds_and_the_answer_says_so(
    client: Client, workers, handler: Counting
):
    send(client, 4)
    settled(client, handler, k=2)
    assert client.set_limit("mail", rate=1, period_s=HOUR) == LimitChange(1, 0, ("rate",))
    settled(client, handler, k=2)
    assert client.set_limit("mail", slots=3, burst=5, weight=2.0).unfit == ("burst",)
    settled(client, handler, k=3)
    client.enqueue([new_job(id="a", gates=rated())])
    assert client.wait(["a"], 10)
    assert client.set_limit("api", slots=1) == LimitChange(0, 1, ("slots",))
    assert line(client, "", "api").rate == 1
    assert client.set_limit("nobody's", slots=1, rate=1) == LimitChange(0, 0, ())


def test_limits_are_listed_those_with_most_waiting_first(
    client: Client, workers, handler: Counting
):
    client.set_limit("mail", key="many", slots=1, weight=3)
    client.set_limit("mail", weight=2)
    client.set_limit("other", key="quiet", rate=5, burst=2)
    send(client, 3, "few", 2)
    send(client, 6, "many", 2)
    settled(client, handler, few=2, many=1)
    found = [one for one in client.limits() if one.name != "probe"]
    assert [(one.name, one.key, one.waiting) for one in found] == [
        ("mail", "many", 5), ("mail", "few", 1), ("mail", None, 0), ("other", "quiet", 0),
    ]  # fmt: skip
    many, few, name, quiet = found
    assert (many.kind, many.slots, many.weight, many.said) == (
        "slots", 1, 3.0, LimitValues(2, 1.0, None, 1.0, 1),
    )  # fmt: skip
    assert (many.set, few.set) == (LimitValues(1, 3.0), None)
    assert few.weight == 2.0
    assert many.name_set_at == few.name_set_at == name.set_at
    assert (name.kind, name.set, name.in_use) == (None, LimitValues(weight=2.0), None)
    assert quiet.set == LimitValues(None, None, 5, 1.0, 2)
    assert [one.key for one in client.limits("mail", "few")] == ["few"]
    assert [one.key for one in client.limits(limit=1)] == ["many"]
    assert [one.key for one in client.limits("mail")] == [None, "many", "few"]
    assert client.limits("nul\0") == client.limits("nobody's") == []


def test_what_waits_is_counted_to_a_thousand(client: Client, workers, handler: Counting):
    send(client, 1200)
    wait_for(lambda: (found := client.limits("mail")) and found[0].in_use == 2)
    assert line(client).waiting == 1000
    client.purge(["q"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"slots": 0}, "slots must be a whole number, at least 1, not 0"),
        ({"slots": -3}, "slots must be"), ({"slots": True}, "not True"),
        ({"slots": 1.5}, "not 1.5"), ({"slots": "2"}, "not '2'"), ({"slots": 2**31}, "slots must"),
        ({"rate": 0}, "rate must be"), ({"rate": float("nan")}, "not nan"),
        ({"rate": 1, "period_s": 0}, "period_s must be a number above 0"),
        ({"rate": 1, "period_s": float("inf")}, "not inf"),
        ({"period_s": 5}, "nothing to set"), ({"slots": 1, "period_s": 5}, "none is given"),
        ({"burst": 0}, "burst must be"), ({"weight": 0}, "weight must be"),
        ({"weight": float("nan")}, "not nan"), ({"weight": True}, "not True"),
        ({"weight": -1.0}, "weight must"), ({"weight": "2"}, "not '2'"), ({}, "nothing to set"),
        ({"slots": 1, "name": ""}, "the name of a limit"), ({"slots": 1, "name": 5}, "not 5"),
        ({"slots": 1, "name": "x" * 256}, "256 characters long; at most 255"),
        ({"slots": 1, "key": "x" * 256}, "256 characters long; at most 255"),
        ({"slots": 1, "key": "nul\0"}, "contains a NUL"), ({"slots": 1, "key": 5}, "not 5"),
    ],
)  # fmt: skip
def test_what_no_limit_can_be_is_refused_and_nothing_is_changed(client: Client, values, said: str):
    values = {"name": "mail", **values}
    with pytest.raises(InvalidJob, match=said):
        client.set_limit(values.pop("name"), **values)
    assert client.limits() == []


def test_unset_refuses_names_that_cannot_be(client: Client):
    with pytest.raises(InvalidJob, match="NUL"):
        client.unset_limit("nul\0")


def test_a_line_with_the_empty_key_is_one_line_and_not_the_name(
    client: Client, workers, handler: Counting
):
    send(client, 2, "k", 1)
    client.enqueue([new_job(b"hold", name="empty", gates=slots(1, "")) for _ in range(2)])
    settled(client, handler, empty=1, k=1)
    client.set_limit("mail", key="", slots=2)
    settled(client, handler, empty=2, k=1)


def test_changes_at_the_same_time_are_made_one_after_the_other(client: Client, dsn: str):
    start = threading.Barrier(8)
    failed: list[BaseException] = []

    def change(number: int) -> None:
        with closing(Client(client.config)) as mine:
            mine.limits()  # connected
            start.wait(10)
            try:
                for turn in range(10):
                    key = None if number % 2 else f"k{turn}"
                    mine.set_limit("mail", key=key, slots=number + 1)
            except Exception as exc:
                failed.append(exc)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert len(client.limits()) == 11


def test_a_line_that_is_being_made_does_not_miss_a_limit(client: Client, dsn: str):
    def blocked() -> bool:
        with psycopg.connect(dsn) as conn:
            query = "select from pg_locks where not granted and relation = %s::regclass"
            return bool(conn.execute(query, ["pgcelery.limits"]).fetchall())

    gate = "array[row('mail', 'k', 5, 1, 0, null, 1, 1, false, 1)::pgcelery.gate]"
    with psycopg.connect(dsn) as step:
        step.execute(f"select pgcelery.lock_lines_v1({gate})")
        other = threading.Thread(target=client.set_limit, args=("mail",), kwargs={"slots": 1})
        other.start()
        wait_for(blocked)
        step.commit()
        other.join(10)
    assert line(client).slots == 1
