from __future__ import annotations

import pytest

from pgcelery import Celery, Concurrency
from pgcelery.engine import Client


@pytest.fixture
def app(dsn: str):
    app = Celery("limits", broker=dsn, backend=dsn, set_as_current=False)
    yield app
    app.close()


def tenant_of(order: dict) -> str:
    return f"tenant:{order['tenant']}"


def keys(client: Client, ids: list[str]) -> list[tuple[str | None, int | None]]:
    rows = client._connections.run(
        b"select id, key, key_limit from pgcelery.jobs where id = any (%s)", [ids]
    )
    found = {row[0]: (row[1], row[2]) for row in rows}
    return [found[id] for id in ids]


def test_the_key_comes_from_a_string_the_arguments_or_the_call(app, client: Client):
    @app.task(concurrency=Concurrency(key="everybody", limit=3))
    def plain(): ...

    @app.task(concurrency=Concurrency(key=tenant_of, limit=2))
    def by_tenant(order): ...

    @app.task
    def free(): ...

    sent = [
        plain.delay(),
        by_tenant.delay({"tenant": 7}),
        by_tenant.apply_async(({"tenant": 7},), concurrency_key="special"),
        free.delay(),
        by_tenant.s({"tenant": "ü"}).apply_async(),
    ]
    assert keys(client, [result.id for result in sent]) == [
        ("everybody", 3),
        ("tenant:7", 2),
        ("special", 2),
        (None, None),
        ("tenant:ü", 2),
    ]


@pytest.mark.parametrize(
    ("key", "limit", "error"),
    [(None, 1, TypeError), (5, 1, TypeError), ("", 1, ValueError), ("k", 0, ValueError),
     ("k", -1, ValueError), ("k", 1.5, TypeError), ("k", True, TypeError)],
)  # fmt: skip
def test_a_bad_limit_is_refused_at_definition(key, limit, error):
    with pytest.raises(error, match="concurrency"):
        Concurrency(key=key, limit=limit)


@pytest.mark.parametrize("key", [lambda: None, lambda: 5, lambda: "", lambda: "x" * 300])
def test_a_bad_key_is_told_to_the_caller_and_nothing_is_sent(app, client: Client, key):
    @app.task(concurrency=Concurrency(key=key))
    def task(): ...

    with pytest.raises((TypeError, ValueError), match="key"):
        task.delay()
    assert client.counts() == {} or sum(client.counts()["celery"]) == 0


def test_a_key_function_that_raises_is_the_callers_error(app, client: Client):
    @app.task(concurrency=Concurrency(key=tenant_of))
    def task(order): ...

    with pytest.raises(KeyError, match="tenant"):
        task.delay({})
    with pytest.raises(TypeError, match="concurrency_key needs a task"):
        app.task(lambda: None, name="free").apply_async(concurrency_key="k")
