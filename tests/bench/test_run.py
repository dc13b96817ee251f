"""A small run with real processes and a real server."""

from __future__ import annotations

import json

import psycopg
import pytest
from bench.__main__ import main
from bench.marks import Marks, mark
from bench.run import options_of

from bench import backlog
from pgcelery.engine import Client, EngineConfig, NewJob


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_quick_drain_gives_sane_figures(tmp_path, capsys):
    found = tmp_path / "found.json"
    options = ["--quick", "--no-venvs", "--peers", "pgcelery", "--only", "drain", "--json", found]
    assert main(["run", *map(str, options)]) == 0
    data = json.loads(found.read_text())
    assert data["failures"] == []
    [rate], [cpu] = data["rounds"]["drain"]["pgcelery"], data["rounds"]["drain_cpu"]["pgcelery"]
    assert 50 < rate < 500_000
    assert 10 < cpu < 20_000
    assert len(data["others_cores"]["drain"]["pgcelery"]) == 1
    assert "fsync on, synchronous_commit on" in data["about"]["servers"]["postgresql"]
    assert "drain, results stored" in capsys.readouterr().out


def test_options_that_name_nothing_are_refused(capsys):
    with pytest.raises(SystemExit):
        options_of(["--only", "dance"])
    assert "no 'dance'" in capsys.readouterr().err
    assert options_of(["--quick"]).rounds == 1
    assert options_of([]).rounds == 3


def test_a_backlog_is_what_an_enqueue_of_each_would_have_left(fresh_dsn):
    client = Client(EngineConfig(dsn=fresh_dsn))
    client.migrate()
    queues = sorted(client.intern(["q", "a", "b"]).values())
    client.enqueue([NewJob("one", "q", "noop", b"\x02\x00 one [123456] %", priority=3)])
    backlog.keep_template(fresh_dsn)
    assert client.counts(["q"])["q"].ready == 0

    backlog.fill(fresh_dsn, 4, queues[:2])
    with psycopg.connect(fresh_dsn) as conn:
        rows = conn.execute(
            "select j.id, j.payload, j.queue_id, r.queue_id, r.priority, j.priority, j.name"
            " from pgcelery.ready r join pgcelery.jobs j on j.id = r.job_id and j.seq = r.seq"
            " order by j.seq"
        ).fetchall()
    assert [row[1] for row in rows] == [
        b"\x02\x00 %s [%d] %%" % (row[0].encode(), backlog.FIRST + i) for i, row in enumerate(rows)
    ]
    assert [row[2] for row in rows] == [row[3] for row in rows] == 2 * queues[:2]
    assert {row[4:] for row in rows} == {(3, 3, "noop")}
    assert len({row[0] for row in rows}) == 4
    client.close()


def test_marks_are_emptied_while_they_are_mapped(tmp_path, monkeypatch):
    marks = Marks(tmp_path / "marks")
    monkeypatch.setenv("BENCH_MARKS", str(marks.path))
    monkeypatch.setattr("bench.marks._map", None)
    assert [mark(i) for i in range(3)] == [0, 1, 2]
    assert len(marks.wait(0, 4, 1, lambda: True, enough=3)) == 4
    marks.zero(1, 2)
    assert [bool(at) for at in marks.read(0, 3)] == [True, False, False]
    with pytest.raises(RuntimeError, match="1 of 3 tasks ran before the worker died"):
        marks.wait(0, 3, 1, lambda: False)
