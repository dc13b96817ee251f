"""The history checker finds what is wrong: each rule, by a history made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.suite.history import (
    Call,
    History,
    Recorded,
    Row,
    Run,
    Send,
    Strike,
    affected_until,
    check,
)


def run(id: str, token: int, begun: float, ended: float | None = None, **more: object) -> Run:
    made = Run(id, id, 0, token, 1, 50 + token, 1, begun, ended, given=1)
    return made._replace(**more)  # type: ignore[arg-type]


def good() -> History:
    """A task, and a chain of two; all as it should be."""
    sends = [
        Send(1, "quick", {"a": Call(1, 10)}, 0.0),
        Send(2, "chain", {"b": Call(1, 20), "c": Call(20, 30, after=("b",))}, 0.0),
    ]
    return History(
        sends,
        [run("a", 1, 1, 2), run("b", 2, 1, 2), run("c", 3, 3, 4, given=20)],
        [Recorded("a", 1, 2.1), Recorded("b", 2, 2.1), Recorded("c", 3, 4.1)],
        [Row("a", "a", "SUCCESS", 10), Row("b", "b", "SUCCESS", 20), Row("c", "c", "SUCCESS", 30)],
    )


def early() -> History:
    """A task of at most once, whose worker was killed."""
    return History(
        [Send(1, "early", {"a": Call(1, 10, early=True)}, 0.0)],
        [run("a", 1, 1)],
        [Recorded("a", 9, 5.0)],
        [Row("a", "a", "FAILURE", error="WorkerLostError")],
        [Strike("killed", 2, 2, groups=frozenset({1}))],
    )


def promises(history: History) -> set[str]:
    return {one.promise for one in check(history).violations}


def put(history: History, **lists: object) -> History:
    return replace(history, **lists)  # type: ignore[arg-type]


def test_a_good_history():
    verdict = check(good())
    assert verdict.violations == []
    assert (verdict.tasks, verdict.lost, verdict.twice, verdict.extra.total()) == (3, 0, 0, 0)


def test_a_task_of_at_most_once_may_be_given_up():
    assert check(early()).violations == []


def test_what_was_acknowledged_and_is_not_there_is_lost():
    history = good()
    verdict = check(put(history, rows=history.rows[1:], recorded=history.recorded[1:]))
    assert verdict.lost == 1
    assert {one.promise for one in verdict.violations} == {"P1/P5"}


def test_what_has_not_ended_is_lost():
    history = good()
    rows = [history.rows[0]._replace(state=None, value=None), *history.rows[1:]]
    assert check(put(history, rows=rows, recorded=history.recorded[1:])).lost == 1


def test_an_end_recorded_twice():
    history = good()
    verdict = check(put(history, recorded=[*history.recorded, Recorded("a", 1, 9.0)]))
    assert verdict.twice == 1
    assert "P7" in {one.promise for one in verdict.violations}


@pytest.mark.parametrize("change", [{"value": 11}, {"state": "FAILURE", "error": "ValueError"}])
def test_a_wrong_result(change: dict[str, object]):
    history = good()
    rows = [history.rows[0]._replace(**change), *history.rows[1:]]
    assert promises(put(history, rows=rows)) == {"P7"}


def test_a_success_that_never_ran():
    history = good()
    assert promises(put(history, runs=history.runs[1:])) == {"P7"}


def test_two_tasks_of_one_send():
    history = good()
    rows = [*history.rows, Row("z", "a", "SUCCESS", 10)]
    recorded = [*history.recorded, Recorded("z", 7, 2.0)]
    assert promises(put(history, rows=rows, recorded=recorded)) == {"P2"}


def test_a_canvas_that_raised_is_there_whole_or_not_at_all():
    history = good()
    sends = [history.sends[0], history.sends[1]._replace(acked=None)]
    assert promises(put(history, sends=sends)) == set()
    nothing = put(
        history,
        sends=sends,
        rows=history.rows[:1],
        runs=history.runs[:1],
        recorded=history.recorded[:1],
    )
    assert promises(nothing) == set()
    part = put(history, sends=sends, rows=history.rows[:2], recorded=history.recorded[:2])
    assert promises(put(part, runs=history.runs[:2])) == {"P4"}


class TestRuns:
    """A task that ran a second time."""

    twice = put(good(), runs=[*good().runs, run("a", 0, 0.1, 0.5)])

    def test_for_no_reason(self):
        assert promises(self.twice) == {"P5"}

    @pytest.mark.parametrize(
        "strike",
        [
            Strike("killed", 0.3, 0.3, groups=frozenset({1})),
            Strike("killed", 0.3, 0.3, pids=frozenset({50})),
            Strike("down", 0.3, 0.4, everyone=True),
            Strike("killed", 0.9, 0.9, groups=frozenset({1})),  # it may not have been recorded
        ],
    )
    def test_because_it_was_hit(self, strike: Strike):
        verdict = check(put(self.twice, strikes=[strike]))
        assert verdict.violations == []
        assert verdict.extra == {strike.kind: 1}

    @pytest.mark.parametrize(
        "strike",
        [
            Strike("killed", 0.3, 0.3, groups=frozenset({2})),
            Strike("killed", 0.3, 0.3, pids=frozenset({51})),
            Strike("killed", 1.6, 1.6, groups=frozenset({1})),  # long after it had ended
            Strike("killed", 0.0, 0.0, groups=frozenset({1})),  # before it began
            Strike("down", 0.3, 0.4, everyone=True, reruns=False),
        ],
    )
    def test_though_something_else_was_hit(self, strike: Strike):
        assert promises(put(self.twice, strikes=[strike])) == {"P5"}

    def test_after_it_had_ended(self):
        history = put(good(), runs=[*good().runs, run("a", 8, 6, 7)])
        strikes = [Strike("killed", 1.5, 1.5, groups=frozenset({1}))]
        assert promises(put(history, strikes=strikes)) == {"P8"}

    def test_a_stale_run_that_begins_after_the_end(self):
        history = put(good(), runs=[*good().runs, run("a", 0, 6, 7)])
        stopped = Strike("stopped", 5, 8, groups=frozenset({1}), overlaps=True)
        assert {"P8", "P9"} <= promises(history)
        assert promises(put(history, strikes=[stopped])) == set()

    def test_ended_by_a_run_that_was_not_current_any_more(self):
        history = good()
        runs = [*history.runs, run("a", 8, 1.9, 3)]
        strikes = [Strike("stopped", 1.5, 1.8, groups=frozenset({1}), overlaps=True)]
        assert promises(put(history, runs=runs, strikes=strikes)) == {"P7"}

    def test_two_at_a_time(self):
        history = put(good(), runs=[*good().runs, run("a", 0, 0.1, 1.5)])
        killed = Strike("killed", 0.3, 0.3, groups=frozenset({1}))
        stopped = killed._replace(overlaps=True)
        assert promises(put(history, strikes=[killed])) == {"P9"}
        assert promises(put(history, strikes=[stopped])) == set()

    def test_the_last_sign_of_life_of_a_killed_process_counts(self):
        history = put(good(), runs=[*good().runs, run("a", 0, 0.1)])
        killed = put(history, strikes=[Strike("killed", 0.3, 0.3, groups=frozenset({1}))])
        assert promises(put(killed, deaths={50: 0.9})) == set()
        assert promises(put(killed, deaths={50: 1.1})) == {"P9"}

    def test_of_at_most_once(self):
        history = early()
        assert "P10" in promises(put(history, runs=[*history.runs, run("a", 9, 4, 4.5)]))


def test_given_up_though_nothing_had_happened():
    assert promises(put(early(), strikes=[])) == {"P10"}


def test_a_step_that_begins_before_the_one_before_it_was_recorded():
    history = good()
    runs = [*history.runs[:2], history.runs[2]._replace(begun=2.0)]
    assert promises(put(history, runs=runs)) == {"P12"}


def test_a_step_with_another_input():
    history = good()
    runs = [*history.runs[:2], history.runs[2]._replace(given=21)]
    assert promises(put(history, runs=runs)) == {"P12"}


def test_more_attempts_than_it_asked_for():
    history = good()
    runs = [history.runs[0]._replace(attempt=1), *history.runs[1:]]
    assert promises(put(history, runs=runs)) == {"P13"}


def test_a_poison_pill_that_does_not_end():
    call = Call(1, state="FAILURE", error="WorkerLostError", most_runs=2)
    history = History(
        [Send(1, "bad", {"a": call}, 0.0)],
        [run("a", token, token) for token in (1, 2)],
        [Recorded("a", 2, 3)],
        [Row("a", "a", "FAILURE", error="WorkerLostError")],
        deaths={51: 1.5, 52: 2.5},
    )
    assert promises(history) == set()
    runs = [run("a", 0, 0.1), *history.runs]
    assert promises(put(history, runs=runs, deaths={50: 0.5, **history.deaths})) == {"P6"}


class TestCutOff:
    """A worker that cannot reach the server."""

    cut = put(good(), strikes=[Strike("cut", 0.5, 9, groups=frozenset({1}), fenced_s=2.0)])

    def test_stops_in_time(self):
        history = put(self.cut, runs=self.cut.runs[:2], rows=self.cut.rows[:2])
        assert not {one for one in promises(history) if one.startswith("P9")}

    def test_goes_on(self):
        runs = [*self.cut.runs[:2], self.cut.runs[2]._replace(begun=2.2, ended=4)]
        assert "P9 self-fencing" in promises(put(self.cut, runs=runs))

    def test_begins_something(self):
        assert "P9" in promises(self.cut)


def test_one_token_for_two():
    history = good()
    runs = [history.runs[0], history.runs[1]._replace(token=1), history.runs[2]]
    recorded = [history.recorded[0], Recorded("b", 1, 2.1), history.recorded[2]]
    assert promises(put(history, runs=runs, recorded=recorded)) == {"P7"}


def test_what_nobody_sent():
    assert promises(put(good(), runs=[*good().runs, run("x", 5, 1, 2)])) == {"P2"}


def test_how_long_it_takes_counts_from_the_healing():
    assert affected_until(good(), 3.0, ["a", "b", "c"]) == pytest.approx(1.1)
    assert affected_until(good(), 3.0, ["a"]) == 0
