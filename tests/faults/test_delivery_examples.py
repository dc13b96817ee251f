"""docs/delivery.md: every example in it, run by a worker that is killed at `power_cut()`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, LiteralString

import psycopg
import pytest

from pgcelery.compat.exceptions import TimeoutError, WorkerLostError
from tests.support.process import PGCELERY, ROOT, Process

pytestmark = [pytest.mark.fault, pytest.mark.slow]

#: What the page's examples stand in: an application whose world is a file.
AROUND = """
import os
from pathlib import Path
from types import SimpleNamespace

import psycopg

from pgcelery import Celery

HERE = Path(__file__).parent
app = Celery("delivery", broker=os.environ["DELIVERY_DSN"])
app.conf.broker_transport_options = {"lease_s": 3.0, "heartbeat_s": 0.5, "maintain_s": 0.5}
app.conf.result_backend = os.environ["DELIVERY_DSN"]


def note(what, order, key=None):
    line = f"{what} {order}"
    log = HERE / "world.log"
    if key is not None and f"{line} {key}" in log.read_text().splitlines():
        return
    with log.open("a") as file:
        file.write(line + (f" {key}" if key else "") + "\\n")


def power_cut():
    try:
        (HERE / "cut").touch(exist_ok=False)  # the first time only
    except FileExistsError:
        return
    os.kill(os.getpid(), 9)


def exists(number):
    with psycopg.connect(os.environ["DELIVERY_DSN"]) as conn:
        return conn.execute("select from orders where number = %s", [number]).fetchone() is not None


bank = SimpleNamespace(charge=lambda order, key=None: note("charged", order, key))
orders = SimpleNamespace(mark_paid=lambda order: note("paid", order), exists=exists)
courier = SimpleNamespace(call=lambda order: note("called", order))
"""


class Page:
    """The examples as a module, a worker that has them, and what they did to the world."""

    def __init__(self, module: ModuleType, folder: Path, dsn: str) -> None:
        self.examples: Any = module
        self.dsn = dsn
        self._log = folder / "world.log"

    def world(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self._log.read_text().splitlines()]

    def rows(self, table: LiteralString) -> list[int]:
        with psycopg.connect(self.dsn) as conn:
            return [row[0] for row in conn.execute("table " + table)]


@pytest.fixture
def page(
    dsn: str, tmp_path: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    text = (ROOT / "docs" / "delivery.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "delivery_examples.py").write_text("\n\n".join([AROUND, *examples]))
    (tmp_path / "world.log").touch()
    with psycopg.connect(dsn) as conn:
        conn.execute("drop table if exists parcels, orders")
        conn.execute("create table parcels (number integer)")
        conn.execute("create table orders (number integer)")
    monkeypatch.setenv("DELIVERY_DSN", dsn)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("delivery_examples", None)
    import delivery_examples  # type: ignore[import-not-found]  # noqa: PLC0415

    args = ["-A", "delivery_examples", "worker", "-l", "INFO", "-c", "1"]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    worker = spawn([*PGCELERY, *args], env={"DELIVERY_DSN": dsn, "PYTHONPATH": paths})
    worker.wait_for_output(r" ready\.$", timeout_s=30)
    yield Page(delivery_examples, tmp_path, dsn)
    delivery_examples.app.close()


def test_at_most_once_leaves_half_of_the_work(page: Page):
    result = page.examples.charge.delay(1)
    with pytest.raises(WorkerLostError):
        result.get(timeout=20)
    assert page.world() == ["charged 1"]


def test_at_least_once_does_some_of_it_twice(page: Page):
    page.examples.charge_surely.delay(1).get(timeout=20)
    assert page.world() == ["charged 1", "charged 1", "paid 1"]


def test_at_least_once_with_a_key_changes_nothing_the_second_time(page: Page):
    page.examples.charge_once.delay(1).get(timeout=20)
    assert page.world() == ["charged 1", "paid 1"]


def test_late_alone_takes_a_lost_process_for_the_tasks_fault(page: Page):
    with pytest.raises(WorkerLostError):
        page.examples.resize.delay("p").get(timeout=20)


def test_effectively_once_holds_for_the_database_and_not_for_the_world(page: Page):
    page.examples.ship.delay(1).get(timeout=20)
    assert page.rows("parcels") == [1]
    assert page.world() == ["called 1", "called 1"]


def test_what_a_transactional_task_sends_is_sent_once(page: Page):
    page.examples.ship_and_tell.delay(1).get(timeout=20)
    page.examples.look_at.delay(0).get(timeout=20)  # one process: the courier's task has ended
    assert page.rows("parcels") == [1]
    assert page.world() == ["called 1"]


def test_sending_beside_a_transaction_and_in_it(page: Page):
    with psycopg.connect(page.dsn, autocommit=True) as conn:
        assert page.examples.order_early(conn, 1).get(timeout=20) is False
        assert page.examples.order(conn, 2).get(timeout=20) is True
        with pytest.raises(TimeoutError):
            page.examples.order_and_wait(conn, 3)
    assert page.rows("orders") == [1, 2]
