from __future__ import annotations

import signal
from collections.abc import Callable

from click.testing import CliRunner

from pgcelery.cli.main import celery
from pgcelery.compat.app.base import Celery
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for


def test_the_curses_monitor_is_refused_in_a_sentence(dsn: str) -> None:
    done = CliRunner().invoke(celery, ["-b", dsn, "events"])
    assert done.exit_code == 2
    assert "There is no curses monitor; use --dump, --camera" in done.output


def test_dump_writes_events_until_it_is_interrupted(
    dsn: str, spawn: Callable[..., Process]
) -> None:
    dump = spawn([*PGCELERY, "-b", dsn, "events", "--dump"])
    dump.wait_for_output("-> evdump: starting capture...", 20)
    with Celery("sender", broker=dsn, set_as_current=False) as app:

        def said() -> bool:
            app.events.Dispatcher(hostname="n@h").send("custom-thing", value=3)
            app.event_writer.flush(1)
            return "n@h [" in dump.output()

        wait_for(said)
    assert "custom thing: clock=" in dump.output()
    dump.send(signal.SIGINT)
    assert dump.wait(10) == 0
