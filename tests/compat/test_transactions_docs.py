"""docs/transactional-tasks.md and docs/sending-in-a-transaction.md: their examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import orm, text

from pgcelery import Celery, chain
from pgcelery.engine import Client
from tests.support.commits import fetch

DOCS = Path(__file__).parents[2] / "docs"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def app(client: Client) -> Iterator[Celery]:
    app = Celery("docs", broker=client.config.dsn, set_as_current=False)
    yield app
    app.close()
    app.close_engine()


@pytest.fixture
def tables(dsn: str) -> Iterator[None]:
    with psycopg.connect(dsn) as conn:
        conn.execute("create table orders (id integer)")
        conn.execute("create table bookings (order_id integer, amount integer)")
    yield
    with psycopg.connect(dsn) as conn:
        conn.execute("drop table orders, bookings")


@pytest.mark.usefixtures("tables")
def test_transactional_tasks(app: Celery, dsn: str) -> None:
    notify = app.task(lambda order: None, name="notify", shared=False)
    names: dict[str, Any] = {"app": app, "notify": notify, "__name__": "docs"}
    (block,) = examples("transactional-tasks.md")
    exec(block, names)
    assert names["book"].apply((15, 3)).get() == 3
    assert fetch(dsn, "select * from bookings") == [(15, 3)]
    assert fetch(dsn, "select name from pgcelery.jobs") == [("notify",)]
    assert names["book"].apply((16, "none")).state == "FAILURE"
    assert len(fetch(dsn, "select name from pgcelery.jobs")) == 1


@pytest.mark.usefixtures("tables")
def test_sending_in_a_transaction(app: Celery, dsn: str) -> None:
    url = sqlalchemy.make_url(dsn).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url)
    names: dict[str, Any] = {
        "psycopg": psycopg, "dsn": dsn, "Session": orm.Session, "engine": engine, "text": text,
        "chain": chain, "fulfil": app.task(lambda order: None, name="fulfil", shared=False),
        "mail": app.task(lambda order: None, name="mail", shared=False),
    }  # fmt: skip
    (block,) = examples("sending-in-a-transaction.md")
    exec(block, names)
    engine.dispose()
    assert fetch(dsn, "select id from orders order by 1") == [(15,), (16,)]
    sent = fetch(dsn, "select name from pgcelery.jobs order by seq")
    assert sent == [("fulfil",), ("fulfil",), ("mail",)]
    assert fetch(dsn, "select id from pgcelery.jobs order by seq limit 1") == [
        (names["result"].id,)
    ]
