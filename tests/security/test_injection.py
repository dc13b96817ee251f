"""Names, ids, queues, keys and stamps are values, whatever is written in them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.security.conftest import shop_of
from tests.support.process import Process

SRC = Path(__file__).parents[2] / "src" / "pgcelery"
EVIL = (
    "'; drop schema pgcelery cascade; --",
    "%s %(id)s %",
    "{} {0} {id}",
    "$1 $$ $x$",
    "back\\slash \\' \\x00",
    '"quoted" `ticks`',
    "/* */ -- #",
)


def _executes(path: Path) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("execute", "executemany", "copy", "stream")
        and node.args
    ]


def _is_made(node: ast.expr) -> bool:
    """Whether a text is put together: an f-string, ``%``, ``+`` or ``.format``."""
    if isinstance(node, ast.JoinedStr):
        return True
    if isinstance(node, ast.BinOp):
        return True
    called = node.func if isinstance(node, ast.Call) else None
    if not isinstance(called, ast.Attribute) or called.attr not in ("format", "join", "replace"):
        return False
    # `psycopg.sql` quotes what it formats.
    return "SQL(" not in ast.unparse(called)


def test_no_statement_is_put_together_from_text() -> None:
    made = [
        f"{path.relative_to(SRC)}:{call.lineno}"
        for path in SRC.rglob("*.py")
        for call in _executes(path)
        if _is_made(call.args[0])
    ]
    assert made == []


def test_the_rule_finds_what_it_is_for() -> None:
    calls = ["f'x {y}'", "'x %s' % y", "'x' + y", "'x {}'.format(y)", "' '.join(y)"]
    assert all(_is_made(ast.parse(call, mode="eval").body) for call in calls)
    assert not _is_made(ast.parse("SQL('x {}').format(y)", mode="eval").body)


def test_a_worker_takes_them_all_as_they_are(
    dsn: str, pgcelery: Callable[..., Process], project: Path
) -> None:
    queues = ",".join(f"q{n}{one}" for n, one in enumerate(EVIL) if "," not in one)
    worker = pgcelery(
        dsn, "worker", "-c", "2", "-n", "w'; --@here", "-l", "info", "-Q", queues, wait=False
    )
    worker.wait_for_output(r"ready\.$")
    shop = shop_of(project, dsn)
    with closing(shop["app"]):
        sent = [
            shop["echo"].apply_async(
                (one,),
                {one: one},
                task_id=f"id{n}{one}",
                queue=f"q{n}{one}",
                headers={one: one},
                shadow=one,
                argsrepr=one,
                stamped_headers=[f"stamp{n}{one}"],
                **{f"stamp{n}{one}": one},
            )
            for n, one in enumerate(EVIL)
        ]
        for result, one in zip(sent, EVIL, strict=True):
            assert result.get(timeout=20) == [[one], {one: one}]
        keyed = [shop["keyed"].apply_async((one,), queue=f"q1{EVIL[1]}") for one in EVIL]
        assert [result.get(timeout=20) for result in keyed] == list(EVIL)
        unknown = shop["app"].send_task(EVIL[0], queue=f"q0{EVIL[0]}")
        with pytest.raises(Exception, match="drop schema"):
            unknown.get(timeout=10)
        for one in EVIL:
            shop["app"].control.revoke(f"not-sent {one}")
            assert shop["app"].AsyncResult(one).state == "PENDING"
        stopped = [shop["echo"].apply_async((one,), countdown=600, task_id=one) for one in EVIL]
        for result in stopped:
            result.revoke()
            assert result.state == "REVOKED"
    with psycopg.connect(dsn) as conn:
        names = {name for (name,) in conn.execute("select name from pgcelery.queues").fetchall()}
    assert {f"q{n}{one}" for n, one in enumerate(EVIL)} <= names


@pytest.mark.parametrize("one", EVIL[:5])
def test_the_command_line_takes_them_as_they_are(
    dsn: str, pgcelery: Callable[..., Process], project: Path, one: str
) -> None:
    called = pgcelery(dsn, "call", "shop.add", "-a", json.dumps([one, one]), "--queue", f"q {one}")
    assert called.popen.returncode == 0, called.output()
    task_id = called.output().strip()
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "select q.name from pgcelery.jobs j join pgcelery.queues q on q.id = j.queue_id"
            " where j.id = %s",
            [task_id],
        ).fetchone()
    assert found == (f"q {one}",)
    for command in (("why", one), ("limits", "set", one, "--slots", "3"), ("queues", "pause", one)):
        process = pgcelery(dsn, *command)
        assert "Traceback" not in process.output(), process.output()
        assert "syntax error" not in process.output()


def test_what_is_shown_of_arguments_is_what_the_sender_said(
    dsn: str, pgcelery: Callable[..., Process], project: Path
) -> None:
    """`argsrepr` and `kwargsrepr` stand in logs and events in place of the values."""
    worker = pgcelery(dsn, "worker", "-c", "1", "-n", "w@here", "-l", "debug", "-E", wait=False)
    worker.wait_for_output(r"w@here ready\.$")
    shop = shop_of(project, dsn)
    seen: list[dict[str, object]] = []
    with closing(shop["app"]) as app, app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        capture = receiver.itercapture(limit=None, timeout=5, wakeup=True)
        next(capture)
        result = shop["secret"].apply_async(
            ("hunter2",), {"note": "hunter2"}, argsrepr="('***',)", kwargsrepr="{***}"
        )
        assert result.get(timeout=10) == 7
        for _ in capture:
            if any(event["type"] == "task-succeeded" for event in seen):
                break
    received = [event for event in seen if event["type"] == "task-received"]
    assert [event["args"] for event in received] == ["('***',)"]
    assert "hunter2" not in str(seen)
    assert "hunter2" not in worker.output()
