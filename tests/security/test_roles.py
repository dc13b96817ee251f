"""`pgcelery db roles`, and then everything as the roles that it makes: send, work, look."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery import chain, chord, group
from pgcelery.engine import NotPermitted
from tests.security.conftest import Roles, shop_of
from tests.support.process import Process
from tests.support.wait import wait_for


def test_producers_send_workers_work_and_viewers_look(
    roles: Roles, pgcelery: Callable[..., Process], project: Path
) -> None:
    worker = pgcelery(
        roles.dsn_of("worker"), "worker", "-c", "2", "-n", "w@here", "-l", "info", "-B", wait=False
    )
    worker.wait_for_output(r"w@here ready\.$")
    shop = shop_of(project, roles.dsn_of("producer"))
    add, total = shop["add"], shop["total"]
    with closing(shop["app"]):
        assert add.delay(1, 2).get(timeout=10) == 3
        assert chain(add.s(1, 2), add.s(3)).delay().get(timeout=10) == 6
        assert chord((add.s(n, n) for n in range(5)), total.s()).delay().get(timeout=10) == 20
        assert group(add.s(n, 1) for n in range(3)).delay().get(timeout=10) == [1, 2, 3]
        assert shop["flaky"].delay().get(timeout=10) == "done"
        with psycopg.connect(roles.dsn_of("producer")) as conn:
            inside = add.apply_async((4, 5), conn=conn)
            conn.commit()
        assert inside.get(timeout=10) == 9
        later = add.apply_async((1, 1), countdown=600)
        later.revoke()
        assert later.state == "REVOKED"
        once = [add.apply_async((7, 1), unique=True, countdown=600) for _ in range(2)]
        assert once[0].id == once[1].id
        _saved_groups_come_back(shop)
        for forbidden in (
            lambda: shop["app"].backend.store_result("some-id", 1, "SUCCESS"),
            lambda: shop["app"].control.shutdown(),
            lambda: shop["app"].control.purge(),
            lambda: shop["app"].control.rate_limit("shop.add", "1/s"),
        ):
            with pytest.raises(NotPermitted):
                forbidden()
    wait_for(lambda: "Task shop.tick[" in worker.output(), 20, "beat sends nothing")

    looked = {
        command: pgcelery(roles.dsn_of("viewer"), *command.split())
        for command in (
            "queues", f"why {inside.id}", "result " + inside.id,
            "db status",
        )
    }  # fmt: skip
    for command, process in looked.items():
        assert process.popen.returncode == 0, (command, process.output())
    assert "9" in looked["result " + inside.id].output()
    assert "cover all functions" in looked["db status"].output()
    for command in ("purge -f", "call shop.add -a [1,2]"):
        refused = pgcelery(roles.dsn_of("viewer"), *command.split())
        assert refused.popen.returncode != 0, command
        assert "permission denied" in refused.output()
        assert "Traceback" not in refused.output()
    pinged = pgcelery(roles.dsn_of("worker"), "inspect", "ping")
    assert "pong" in pinged.output()
    assert pgcelery(roles.dsn_of("worker"), "control", "shutdown").popen.returncode == 0
    assert worker.wait(15) == 0
    assert "permission denied" not in worker.output()


def _saved_groups_come_back(shop: dict[str, Any]) -> None:
    add, restore = shop["add"], shop["app"].GroupResult.restore
    result = group(add.s(n, 2) for n in range(3)).delay()
    result.save()
    assert restore(result.id).get(timeout=10) == [2, 3, 4]
    result.forget()
    assert {one.state for one in result.results} == {"PENDING"}
    result.delete()
    assert restore(result.id) is None


def test_the_sql_is_printed_and_does_the_same(
    roles: Roles, pgcelery: Callable[..., Process]
) -> None:
    printed = pgcelery(roles.dsn, "db", "roles", "--prefix", roles.prefix, "--print")
    assert printed.popen.returncode == 0
    text = printed.output()
    assert "create role" not in text  # they are there
    assert "security definer" not in text
    with psycopg.connect(roles.dsn, autocommit=True) as conn:
        conn.execute(text.encode())
    shop = pgcelery(roles.dsn, "db", "roles", "--prefix", "other", "--print").output()
    assert "create role other_owner nologin;" in shop
    assert "grant select, insert, update, delete on all tables in schema pgcelery" in shop
    again = pgcelery(roles.dsn, "db", "roles", "--prefix", roles.prefix)
    assert again.popen.returncode == 0
    assert f"{roles.prefix}_producer\n" in again.output()


def test_a_role_that_may_not_make_roles_is_told(
    roles: Roles, pgcelery: Callable[..., Process], fresh_dsn: str
) -> None:
    refused = pgcelery(roles.dsn_of("viewer"), "db", "roles", "--prefix", "x")
    assert refused.popen.returncode != 0
    assert "permission denied" in refused.output()
    assert "Traceback" not in refused.output()
    nothing = pgcelery(fresh_dsn, "db", "roles")
    assert nothing.popen.returncode == 1
    assert "pgcelery db migrate" in nothing.output()
    for prefix in ("", "x" * 51):
        unnamed = pgcelery(roles.dsn, "db", "roles", "--prefix", prefix)
        assert unnamed.popen.returncode == 2
        assert "--prefix" in unnamed.output()
        assert "Traceback" not in unnamed.output()
