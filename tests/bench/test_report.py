"""The arithmetic of the bench, on results made by hand."""

from __future__ import annotations

import json

import pytest
from bench.results import Results
from bench.targets import GOAL, MET, MISSED, OPEN, TARGETS, Target, verdict
from bench.titles import TITLES, full_title

from bench import report


@pytest.fixture
def results() -> Results:
    made = Results(
        ["pgcelery", "celery+redis", "skeleton"],
        {
            "machine": "2 cores",
            "python": "3.11",
            "concurrency": 2,
            "rounds": 3,
            "began": "2026-01-01",
            "servers": {"redis": "Redis 7"},
            "durable": {"pgcelery": "all of it"},
        },
    )
    for number, (ours, theirs, ceiling) in enumerate(
        [(1000.0, 100.0, 2000.0), (3000.0, 200.0, 3000.0), (2000.0, 400.0, 8000.0)]
    ):
        made.add("pgcelery", number, {"drain": ours, "drain_cpu": 120.0}, ("drain", 0.5))
        made.add("celery+redis", number, {"drain": theirs}, ("drain", 0.1))
        made.add("skeleton", number, {"drain": ceiling}, None)
        made.add("machine", number, {"limit_loop500": 4000.0}, None)
    return made


def test_a_ratio_is_the_median_of_the_rounds_own(results):
    assert results.ratio("drain", "pgcelery", "celery+redis") == 10
    assert results.ratio("drain", "pgcelery", "skeleton") == 0.5  # of 0.5, 1 and 0.25
    assert results.median("drain", "pgcelery") / results.median("drain", "skeleton") > 0.6


def test_a_round_that_one_of_them_missed_does_not_count(results):
    results.add("pgcelery", 0, {"chain": 10.0}, None)
    results.add("pgcelery", 1, {"chain": 12.0}, None)
    results.add("celery+redis", 1, {"chain": 24.0}, None)
    assert results.rounds("chain", "celery+redis") == [None, 24.0]
    assert results.ratio("chain", "pgcelery", "celery+redis") == 0.5
    assert results.median("chain", "pgcelery") == 11
    assert results.ratio("chain", "pgcelery", "skeleton") is None


@pytest.mark.parametrize(
    ("value", "more", "less"),
    [
        (None, OPEN, OPEN),
        (1.9, MISSED, GOAL),
        (2.0, MET, GOAL),
        (3.0, GOAL, MET),
        (3.1, GOAL, MISSED),
    ],
)
def test_verdicts(value, more, less):
    assert verdict(Target("drain", None, 2, 3), value) == more
    assert verdict(Target("lat20", None, 3, 2, more=False), value) == less


def test_without_a_least_bar_only_the_goal_counts():
    assert verdict(Target("bulk", "pgqueuer", None, 1.5), 1.4) == MISSED


def test_only_what_was_measured_is_judged(results):
    judged = {(row.target.measure, row.target.versus): row for row in report.judged(results)}
    assert set(judged) == {
        ("drain", "celery+redis"),
        ("drain", "skeleton"),
        ("drain_cpu", None),
    }
    assert judged["drain", "celery+redis"].verdict == MET
    assert judged["drain", "skeleton"].value == 0.5
    assert judged["drain_cpu", None].verdict == MET


def test_every_target_has_a_title_and_its_bars_in_order():
    for target in TARGETS:
        assert full_title(target.measure)
        if target.at_least is not None:
            assert (target.goal > target.at_least) == target.more


def test_tables(results):
    values = report.values_table(results)
    assert values[0][-1] == "x celery+redis"
    assert values[1][1:] == [
        "/s",
        "2,000 (1,000-3,000)",
        "200 (100-400)",
        "3,000 (2,000-8,000)",
        "10.0",
    ]
    assert report.distances_table(results)[1][2:] == ["0.50", "0.05", "0.75"]
    assert all(len(row) == len(values[0]) for row in values)
    assert "busy with other work: median 0.50, at most 0.50" in "\n".join(report.facts(results))


def test_a_file_holds_all_of_it(results, tmp_path):
    results.fail("chord", "skeleton", 1, "no such thing\nat all")
    results.write(tmp_path / "r.json")
    read = Results.read(tmp_path / "r.json")
    assert report.whole(read) == report.whole(results)
    assert "failed: chord of skeleton, no such thing" in report.whole(read)
    assert json.loads((tmp_path / "r.json").read_text())["median"]["drain"]["pgcelery"] == 2000


def test_a_later_run_adds_to_a_file(results, tmp_path):
    results.fail("chain", "skeleton", 0, "slow")
    results.fail("chain", "celery+redis", 0, "slow")
    results.write(tmp_path / "r.json")
    read = Results.read(tmp_path / "r.json")
    read.renew(["pgcelery", "potatoq", "skeleton"], ["chain"])
    read.add("potatoq", 0, {"drain": 500.0}, None)
    assert read.peers == ["pgcelery", "celery+redis", "skeleton", "potatoq"]
    assert [one["peer"] for one in read.failures] == ["celery+redis"]
    assert read.ratio("drain", "pgcelery", "potatoq") == 2
    assert read.ratio("drain", "pgcelery", "celery+redis") == 10


def test_the_page_keeps_what_is_around_its_markers(results, tmp_path):
    text = "before\n<!-- bench: begin -->old<!-- bench: end -->\nafter\n"
    filled = report.put_between(text, "bench", report.page(results, ["throughput.svg"]))
    assert filled.startswith("before\n<!-- bench: begin -->\n\n* 2 cores")
    assert filled.endswith("<!-- bench: end -->\nafter\n")
    assert "old" not in filled
    assert "![throughput](img/throughput.svg)" in filled
    assert report.put_between(filled, "bench", "x") == text.replace("old", "\n\nx\n\n")
    with pytest.raises(ValueError, match="no <!-- growth: begin -->"):
        report.put_between(text, "growth", "x")


def test_growth_is_told_apart(tmp_path, capsys):
    rows = [{"waiting": 0, "rate": 1234.5}, {"waiting": 1_000_000, "rate": 99.0, "kept": 0.9}]
    about = {"machine": "2 cores", "scale": 1.0, "began": "2026-01-01"}
    (tmp_path / "g.json").write_text(json.dumps({"about": about, "growth": {"waiting": rows}}))
    assert report.main([str(tmp_path / "g.json")]) == 0
    printed = capsys.readouterr().out
    assert "| 0 | 1,234 |  |" in printed
    assert "| 1,000,000 | 99.0 | 0.90 |" in printed


def test_titles_that_are_indented_say_what_they_belong_to():
    assert full_title("lat500_p95") == "500/s: send to start: p95"
    assert full_title("drain") == TITLES["drain"].title
