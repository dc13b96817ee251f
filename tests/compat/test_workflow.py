"""`app.workflow`: whole workflows looked at, cancelled and replayed, with a real worker."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.compat.canvas import chain, chord, group
from pgcelery.compat.contrib.testing.worker import start_worker
from pgcelery.compat.exceptions import TaskRevokedError, TimeoutError
from pgcelery.compat.workflow import WAITING, NotReplayable, WorkflowNotFound, newest
from tests.support.wait import wait_for

T = 20
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def app(dsn: str) -> Iterator[Any]:
    options = {"set_as_current": False, "result_cache_max": 100}
    with Celery("workflows", broker=dsn, backend=dsn, **options) as app:
        yield app


@pytest.fixture
def rules() -> Iterator[SimpleNamespace]:
    """What steps do, by their tags, and what they did."""
    rules = SimpleNamespace(ran=[], fails=set(), holds=set(), retries={}, becomes={}, adds={})
    rules.holding, rules.go_on = threading.Event(), threading.Event()
    yield rules
    rules.go_on.set()


@pytest.fixture
def step(app: Any, rules: SimpleNamespace) -> Any:
    """``step("a")``: the signature of a task that writes down what it was called with."""

    @app.task(shared=False, name="w.step", bind=True, max_retries=None)
    def run(self, *args, tag):
        rules.ran.append(tag)
        if tag in rules.holds:
            rules.holding.set()
            assert rules.go_on.wait(T)
        if tag in rules.fails:
            raise ValueError(f"{tag} is broken")
        if self.request.retries < rules.retries.get(tag, 0):
            raise self.retry(countdown=0)
        if tag in rules.adds:
            self.add_to_chord(rules.adds[tag].clone())
        if tag in rules.becomes:
            raise self.replace(rules.becomes[tag].clone(args))
        return f"{tag}({', '.join(map(said, args))})"

    def said(value):
        return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)

    return lambda tag, *args, **options: run.s(*args, tag=tag).set(**options)


@contextmanager
def working(app: Any, **options: Any) -> Iterator[None]:
    options = {"pool": "threads", "concurrency": 4, "perform_ping_check": False, **options}
    with start_worker(app, **options):
        yield


@pytest.fixture
def worker(app: Any, step: Any) -> Iterator[None]:
    with working(app):
        yield


def tags(workflow: Any) -> dict[str, str]:
    """The tags of a workflow's tasks, by id."""
    found = {}
    for id, node in workflow.nodes.items():
        tag = re.search(r"'tag': '([^']+)'", node.args)
        found[id] = tag[1] if tag else node.name
    return found


def ids(workflow: Any) -> dict[str, str]:
    return {tag: id for id, tag in tags(workflow).items()}


def shape(workflow: Any) -> set[str]:
    """Edges, as pairs of tags, and what has none."""
    tag = tags(workflow)
    tied = {id for edge in workflow.edges for id in edge}
    return {f"{tag[parent]}-{tag[child]}" for parent, child in workflow.edges} | {
        tag[id] for id in workflow.nodes if id not in tied
    }


def states(workflow: Any) -> dict[str, str]:
    tag = tags(workflow)
    return {tag[id]: node.state for id, node in workflow.nodes.items()}


SHAPES = {
    "a chain": (lambda s: s("a") | s("b") | s("c"), "a-b b-c"),
    "a group": (lambda s: group(s("a"), s("b")), "a b"),
    "a group of one": (lambda s: group([s("a")]), "a"),
    "a chord": (lambda s: chord([s("a"), s("b")], s("c")), "a-c b-c"),
    "a chord in a chain": (
        lambda s: s("a") | group(s("b"), s("c")) | s("d") | s("e"),
        "a-b a-c b-d c-d d-e",
    ),
    "chains in a header": (
        lambda s: chord([s("a") | s("b"), s("c") | s("d")], s("e")),
        "a-b c-d b-e d-e",
    ),
    "a chain that ends wide": (lambda s: s("a") | group(s("b"), s("c")), "a-b a-c"),
    "a chord in a chord": (
        lambda s: chord([chord([s("a"), s("b")], s("c")), s("d")], s("e")),
        "a-c b-c c-e d-e",
    ),
    "a wide body": (
        lambda s: chord([s("a"), s("b")], group(s("c"), s("d"))),
        "a-c b-c a-d b-d",
    ),
    "immutable steps": (lambda s: s("a") | s("b").set(immutable=True) | s("c"), "a-b b-c"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_waits_for_what_is_told_before_and_after_it_has_run(app, step, name):
    make, edges = SHAPES[name]
    result = make(step).apply_async()
    before = app.workflow(result.id)
    assert shape(before) == set(edges.split())
    assert (before.state, before.done) == ("PENDING", False)
    firsts = {tags(before)[id] for id in before.starts}
    assert {tag for tag, state in states(before).items() if state == "PENDING"} == firsts
    assert {tag for tag, state in states(before).items() if state == WAITING} == (
        set(states(before)) - firsts
    )
    with working(app):
        after = before.wait(T)
    assert after is before
    assert shape(after) == set(edges.split())
    assert set(states(after).values()) == {"SUCCESS"}
    assert (after.state, after.done) == ("SUCCESS", True)
    assert after.counts == {"SUCCESS": len(after.nodes)}


def test_a_workflow_is_found_by_every_id_and_result_of_it(app, step):
    result = (step("a") | group(step("b"), step("c")) | step("d")).apply_async()
    header = result.parent
    for given in (result, result.id, header, header[0], header[1].id, header.parent):
        found = app.workflow(given)
        assert found.id == result.id
        assert len(found.nodes) == 4
    wide = (step("a") | group(step("b"), step("c"))).apply_async()
    assert app.workflow(wide).id == app.workflow(wide[1]).id == wide.id
    alone = group([step("a") | group(step("b"), step("c"))]).apply_async()
    assert len(app.workflow(alone).nodes) == 3


def test_a_task_by_itself_is_a_workflow_of_one(app, step, worker):
    result = step("a", 1).apply_async()
    workflow = app.workflow(result).wait(T)
    assert (workflow.id, list(workflow.nodes), workflow.edges) == (result.id, [result.id], [])
    node = workflow.nodes[result.id]
    assert (node.name, node.args, node.queue) == ("w.step", "1, **{'tag': 'a'}", "celery")
    assert node.result == result
    assert node.result.get(timeout=T) == "a(1)"
    assert node.created_at <= node.finished_at
    assert node.started_at is None


def test_what_is_not_known_is_a_lookup_error(app, step, worker):
    with pytest.raises(LookupError, match="no workflow or task 'nobody' is known"):
        app.workflow("nobody")
    with pytest.raises(WorkflowNotFound):
        app.workflow(app.AsyncResult("nobody"))
    with pytest.raises(WorkflowNotFound):
        app.workflow("no\0body")
    with pytest.raises(TypeError, match="an id or a result, not int"):
        app.workflow(7)
    workflow = app.workflow(step("a").apply_async()).wait(T)
    next(iter(workflow.nodes.values())).result.forget()
    with pytest.raises(WorkflowNotFound):
        workflow.refresh()


def test_states_are_told_while_it_runs(app, step, rules, worker):
    rules.holds, rules.fails = {"b"}, {"c"}
    sig = step("a") | group(step("b"), step("c"), step("d").set(countdown=60)) | step("e")
    workflow = app.workflow(sig.apply_async())
    wait_for(lambda: states(workflow.refresh())["c"] == "FAILURE" and rules.holding.is_set())
    wait_for(lambda: states(workflow.refresh())["b"] == "STARTED")
    assert states(workflow) == {
        "a": "SUCCESS", "b": "STARTED", "c": "FAILURE", "d": "PENDING", "e": WAITING
    }  # fmt: skip
    assert list(workflow.counts) == ["SUCCESS", "FAILURE", "STARTED", "PENDING", WAITING]
    assert (workflow.state, workflow.done) == ("STARTED", False)
    held = workflow.nodes[ids(workflow)["b"]]
    assert held.started_at >= held.created_at
    assert held.finished_at is None
    assert held.group == workflow.nodes[ids(workflow)["c"]].group
    assert held.group is not None
    assert workflow.nodes[ids(workflow)["e"]].args == "..., **{'tag': 'e'}"
    with pytest.raises(TimeoutError, match=workflow.id):
        workflow.wait(0.05)


def test_links_come_after_what_calls_them(app, step, rules, worker):
    rules.fails = {"c"}
    links = {"link": [step("l1"), step("l2") | step("l3")], "link_error": step("e")}
    sig = step("a") | step("b").set(**links) | step("c").set(**links)
    workflow = app.workflow(sig.apply_async())
    wait_for(lambda: {"l3", "e"} <= set(tags(workflow.refresh()).values()))
    workflow.wait(T)
    assert shape(workflow) == {"a-b", "b-l1", "b-l2", "l2-l3", "b-c", "c-e"}
    assert tags(workflow)[workflow.failed[0]] == "c"
    assert workflow.state == "FAILURE"


def test_the_parts_of_a_replacement_stand_in_its_place(app, step, rules, worker):
    inner = step("i") | step("j")
    rules.becomes = {"b": step("x") | group(step("y"), step("z")) | step("w"), "x": inner}
    workflow = app.workflow((step("a") | step("b") | step("c")).apply_async()).wait(T)
    assert shape(workflow) == {"a-i", "i-j", "j-y", "j-z", "y-w", "z-w", "w-c"}
    assert workflow.starts == [ids(workflow)["a"]]


def test_a_retried_task_keeps_its_place(app, step, rules, worker):
    rules.retries = {"b": 2, "d": 1}
    sig = step("a") | group(step("b"), step("c")) | step("d")
    workflow = app.workflow(sig.apply_async()).wait(T)
    assert shape(workflow) == {"a-b", "a-c", "b-d", "c-d"}
    assert [workflow.nodes[ids(workflow)[tag]].retries for tag in "abd"] == [0, 2, 1]


def test_what_joins_a_chord_comes_between_it_and_the_body(app, step, rules, worker):
    rules.adds = {"a": step("x")}
    result = chord([step("a"), step("b")], step("c")).apply_async()
    workflow = app.workflow(result).wait(T)
    assert shape(workflow) == {"a-c", "b-c", "a-x", "x-c"}
    assert result.get(timeout=T) == "c([a(), b(), x()])"


# -- cancel ------------------------------------------------------------------------------------


def test_a_cancelled_workflow_comes_to_its_end_and_nothing_begins(app, step, rules, worker):
    rules.holds = {"b"}
    sig = step("a") | step("b").set(link=step("link")) | group(step("c"), step("d")) | step("e")
    result = sig.apply_async()
    assert rules.holding.wait(T)
    workflow = app.workflow(result)
    assert workflow.cancel() is workflow
    assert states(workflow) == {
        "a": "SUCCESS", "b": "STARTED", "c": "REVOKED", "d": "REVOKED", "e": "REVOKED"
    }  # fmt: skip
    rules.go_on.set()
    workflow.wait(T)
    assert states(workflow) == {
        "a": "SUCCESS", "b": "SUCCESS", "c": "REVOKED", "d": "REVOKED", "e": "REVOKED",
        "link": "REVOKED",
    }  # fmt: skip
    assert workflow.state == "REVOKED"
    assert rules.ran == ["a", "b"]
    with pytest.raises(TaskRevokedError):
        result.get(timeout=T)


def test_a_task_that_is_to_be_replaced_in_a_cancelled_workflow_is_revoked(app, step, rules, worker):
    rules.holds, rules.becomes = {"b"}, {"b": step("x") | step("y")}
    result = (step("a") | step("b") | step("c")).apply_async()
    assert rules.holding.wait(T)
    workflow = app.workflow(result).cancel()
    rules.go_on.set()
    assert workflow.wait(T).counts == {"SUCCESS": 1, "REVOKED": 3}
    assert rules.ran == ["a", "b"]


def test_a_chord_that_is_cancelled_while_it_is_drawn_is_revoked_whole(app, step, rules):
    def header():
        for tag in "abcd":
            if tag == "c":
                (one,) = newest(app, 1)
                assert app.workflow(one.id).cancel().counts["REVOKED"] >= 1
            yield step(tag)
            threading.Event().wait(0.06)

    result = chord(header(), step("end")).apply_async()
    with working(app):
        assert app.workflow(result).wait(T).counts == {"REVOKED": 5}
    assert rules.ran == []


def test_cancel_can_kill_what_runs(app, dsn, tmp_path):
    begun = tmp_path / "begun"

    @app.task(shared=False, name="w.sleep")
    def sleep(*args):
        begun.touch()
        threading.Event().wait(60)

    with working(app, pool="prefork", concurrency=1):
        result = (sleep.s() | sleep.s()).apply_async()
        wait_for(begun.exists)
        begin = time.monotonic()
        app.workflow(result).cancel(terminate=True)
        assert app.workflow(result).wait(T).counts == {"REVOKED": 2}
        assert time.monotonic() - begin < T


# -- replay ------------------------------------------------------------------------------------


def test_a_chain_goes_on_from_the_step_that_failed(app, step, rules, worker):
    rules.fails = {"b"}
    sig = step("a") | step("b").set(link_error=step("error")) | step("c") | step("d")
    result = sig.apply_async()
    with pytest.raises(ValueError, match="b is broken"):
        result.get(timeout=T)
    workflow = app.workflow(result).wait(T)
    assert states(workflow) == {
        "a": "SUCCESS", "b": "FAILURE", "c": "FAILURE", "d": "FAILURE", "error": "SUCCESS"
    }  # fmt: skip
    assert [tags(workflow)[id] for id in workflow.failed] == ["b"]
    rules.fails.clear()
    assert workflow.replay().wait(T).counts == {"SUCCESS": 4}
    assert rules.ran == ["a", "b", "error", "b", "c", "d"]
    assert app.AsyncResult(result.id).get(timeout=T) == "d(c(b(a())))"


def test_a_member_of_a_chord_is_replayed_and_the_body_gets_the_new_list(app, step, rules, worker):
    rules.fails = {"b"}
    result = chord([step("a"), step("b"), step("c")], step("d") | step("e")).apply_async()
    workflow = app.workflow(result).wait(T)
    rules.fails.clear()
    workflow.replay(ids(workflow)["b"]).wait(T)
    assert app.AsyncResult(result.id).get(timeout=T) == "e(d([a(), b(), c()]))"
    assert sorted(rules.ran) == ["a", "b", "b", "c", "d", "e"]


def test_a_body_can_be_replayed_by_itself_and_a_workflow_as_a_whole(app, step, rules, worker):
    result = chord([step("a"), step("b")], step("c")).apply_async()
    workflow = app.workflow(result).wait(T)
    workflow.replay(result.id).wait(T)
    assert sorted(rules.ran) == ["a", "b", "c", "c"]
    workflow.replay(workflow.starts).wait(T)
    assert sorted(rules.ran) == ["a", "a", "b", "b", "c", "c", "c"]
    assert app.AsyncResult(result.id).get(timeout=T) == "c([a(), b()])"


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_runs_the_same_again(app, step, rules, worker, name):
    result = SHAPES[name][0](step).apply_async()
    workflow = app.workflow(result).wait(T)
    values = {id: node.result.get(timeout=T) for id, node in workflow.nodes.items()}
    before = shape(workflow)
    workflow.replay(workflow.starts).wait(T)
    assert {id: node.result.get(timeout=T) for id, node in workflow.nodes.items()} == values
    assert shape(workflow) == before
    assert sorted(rules.ran) == sorted([*states(workflow)] * 2)


def test_what_was_sent_by_replayed_tasks_is_sent_anew(app, step, rules, worker):
    rules.becomes = {"b": step("x") | step("y")}
    rules.adds = {"m": step("added")}
    header = group(step("m").set(link=step("link") | step("link2")), step("n"))
    result = (step("a") | step("b") | header | step("end")).apply_async()
    workflow = app.workflow(result)
    wait_for(lambda: "link2" in states(workflow.refresh()))
    workflow.wait(T)
    before, was = shape(workflow), ids(workflow)
    assert before == {
        "a-x", "x-y", "y-m", "y-n", "m-end", "n-end", "m-added", "added-end", "m-link", "link-link2"
    }  # fmt: skip
    value = app.AsyncResult(result.id).get(timeout=T)
    workflow.replay(was["a"])
    wait_for(lambda: "link2" in states(workflow.refresh()))
    workflow.wait(T)
    assert shape(workflow) == before
    now = ids(workflow)
    changed = {tag for tag in now if now[tag] != was[tag]}
    assert changed == {"x", "added", "link", "link2"}
    assert app.AsyncResult(result.id).get(timeout=T) == value
    # The replacement alone: what it replaced stays replaced.
    rules.ran.clear()
    workflow.replay(now["x"]).wait(T)
    assert "b" not in rules.ran
    assert {"x", "y", "m", "n", "added", "end"} <= set(rules.ran)
    assert ids(workflow)["x"] == now["x"]
    assert app.AsyncResult(result.id).get(timeout=T) == value


def test_a_chord_that_others_have_joined_keeps_those_that_are_not_replayed(
    app, step, rules, worker
):
    rules.adds = {"a": step("x"), "b": step("y")}
    result = chord([step("a"), step("b"), step("c")], step("end")).apply_async()
    workflow = app.workflow(result).wait(T)
    assert sorted(rules.ran) == ["a", "b", "c", "end", "x", "y"]
    was = ids(workflow)
    workflow.replay(was["b"]).wait(T)
    assert ids(workflow)["x"] == was["x"]
    assert ids(workflow)["y"] != was["y"]
    value = app.AsyncResult(result.id).get(timeout=T)
    assert value == "end([a(), b(), c(), x(), y()])"
    workflow.replay(was["x"]).wait(T)
    assert sorted(app.AsyncResult(result.id).get(timeout=T)) == sorted(value)


def test_what_a_replayed_task_adds_to_its_chord_by_itself_is_in_it_once(app, step, rules, worker):
    @app.task(shared=False, name="w.grow", bind=True)
    def grow(self):
        self.add_to_chord(step("x"), lazy=True).delay()
        return "grown"

    result = chord([grow.s(), step("b")], step("end")).apply_async()
    workflow = app.workflow(result).wait(T)
    workflow.replay(ids(workflow)["w.grow"]).wait(T)
    assert app.AsyncResult(result.id).get(timeout=T) == "end([grown, b(), x()])"
    assert sorted(rules.ran) == ["b", "end", "end", "x", "x"]


def test_a_retried_task_gets_its_new_argument_when_it_is_replayed(app, step, rules, worker):
    rules.retries = {"b": 1}
    tasks = SimpleNamespace(number=0)

    @app.task(shared=False, name="w.count")
    def count():
        tasks.number += 1
        return tasks.number

    result = (count.s() | step("b") | step("c")).apply_async()
    assert result.get(timeout=T) == app.AsyncResult(result.id).result == "c(b(1))"
    workflow = app.workflow(result).wait(T)
    workflow.replay(workflow.starts).wait(T)
    assert app.AsyncResult(result.id).result == "c(b(2))"
    assert rules.ran == ["b", "b", "c"] * 2


def test_a_task_by_itself_that_used_its_retries_up_gets_them_anew(app, worker):
    runs = []

    @app.task(shared=False, name="w.flaky", bind=True, max_retries=1)
    def flaky(self):
        runs.append(self.request.retries)
        if len(runs) < 4:
            raise self.retry(countdown=0, exc=ValueError("not yet"))
        return "there"

    result = flaky.delay()
    workflow = app.workflow(result).wait(T)
    assert (workflow.state, runs) == ("FAILURE", [0, 1])
    workflow.replay().wait(T)
    assert runs == [0, 1, 0, 1]
    assert app.AsyncResult(result.id).get(timeout=T) == "there"


def test_a_cancelled_workflow_can_be_replayed(app, step, rules):
    result = (step("a").set(countdown=60, expires=0.001) | step("b")).apply_async()
    workflow = app.workflow(result).cancel()
    assert workflow.counts == {"REVOKED": 2}
    with working(app):
        assert workflow.replay().wait(T).counts == {"SUCCESS": 2}
    assert rules.ran == ["a", "b"]


def test_what_goes_on_is_not_replayed(app, step, rules, worker):
    rules.holds, rules.fails = {"b"}, {"c"}
    result = (step("a") | group(step("b"), step("c")) | step("d")).apply_async()
    assert rules.holding.wait(T)
    workflow = app.workflow(result)
    wait_for(lambda: states(workflow.refresh())["c"] == "FAILURE")
    for begin in (None, ids(workflow)["c"], workflow.starts):
        with pytest.raises(NotReplayable, match="has not ended"):
            workflow.replay(begin)
    rules.go_on.set()
    assert workflow.wait(T).counts == {"SUCCESS": 2, "FAILURE": 2}
    assert sorted(rules.ran) == ["a", "b", "c"]


def test_a_link_that_goes_on_keeps_its_caller_from_being_replayed(app, step, rules, worker):
    rules.holds = {"link"}
    result = step("a").set(link=step("link")).apply_async()
    assert rules.holding.wait(T)
    workflow = app.workflow(result)
    with pytest.raises(NotReplayable, match=f"task {ids(workflow)['link']} has not ended"):
        workflow.replay(result.id)
    assert rules.ran == ["a", "link"]


def test_a_second_replay_is_refused_while_the_first_one_goes_on(app, step, rules, worker):
    result = (step("a") | step("b")).apply_async()
    workflow = app.workflow(result).wait(T)
    rules.holds = {"b"}
    workflow.replay(result.id)
    assert rules.holding.wait(T)
    with pytest.raises(NotReplayable):
        workflow.replay(result.id)
    rules.go_on.set()
    workflow.wait(T)
    workflow.replay(result.id).wait(T)
    assert rules.ran == ["a", "b", "b", "b"]


def test_a_replay_that_cannot_be_is_refused_with_the_reason(app, step, rules, worker):
    result = (step("a") | step("b")).apply_async()
    workflow = app.workflow(result).wait(T)
    with pytest.raises(NotReplayable, match="nothing failed"):
        workflow.replay()
    with pytest.raises(NotReplayable, match=f"task nobody is not in workflow {result.id}"):
        workflow.replay("nobody")
    small = app.workflow(result, limit=1)
    assert (small.truncated, len(small.nodes), small.total) == (True, 1, 2)
    with pytest.raises(NotReplayable, match=r"has 2 tasks, and 1 were read; .*limit=2"):
        small.replay(small.starts)
    app.AsyncResult(ids(workflow)["a"]).forget()
    with pytest.raises(NotReplayable, match=r"the result of .* is gone"):
        workflow.replay(result.id)
    assert rules.ran == ["a", "b"]


# -- drawings ----------------------------------------------------------------------------------


def plain(workflow: Any) -> list[str]:
    """The lines of a tree below the first, without ids."""
    lines = workflow.draw().splitlines()[1:]
    return [re.sub(r"  [0-9a-f-]{36}|w\.", "", line) for line in lines]


def test_a_tree_shows_series_branches_and_what_waits_for_them(app, step):
    add = app.task(shared=False, name="w.add")(lambda *args: None)
    sig = (
        add.s(1)
        | group(add.s(2) | add.s(3), *(add.si(number) for number in range(10)))
        | add.si(4)
        | add.si(5)
    )
    assert plain(app.workflow(sig.apply_async())) == [
        "○ add(1)  PENDING",
        "├─ … add(..., 2)  WAITING",
        "│  … add(..., 3)  WAITING",
        "└─ … add x 10 (10 waiting)",
        "… add(4)  WAITING",
        "… add(5)  WAITING",
    ]


def test_branches_that_look_alike_are_taken_together_to_their_depth(app, step, worker):
    header = [step("a") | group(step("b") for _ in range(7)) | step("c") for _ in range(9)]
    workflow = app.workflow(chord(header, step("d")).apply_async()).wait(T)
    assert plain(workflow) == [
        "└─ ✓ step x 9 (9 done)",
        "   └─ ✓ step x 63 (63 done)",
        "   ✓ step x 9 (9 done)",
        "✓ step(..., **{'tag': 'd'})  SUCCESS",
    ]
    assert workflow.outline().edges == [(0, 1), (1, 2), (2, 3)]


def test_what_waits_for_some_branches_only_says_for_which(app, step):
    sig = group(chord([step("a"), step("b")], step("c")), step("d"))
    lines = plain(app.workflow(sig.apply_async()))
    assert lines[:3] == [
        "├─ ○ step(**{'tag': 'a'})  PENDING",
        "├─ ○ step(**{'tag': 'b'})  PENDING",
        "└─ ○ step(**{'tag': 'd'})  PENDING",
    ]
    assert lines[3].endswith("WAITING  after step(**{'tag': 'a'}), step(**{'tag': 'b'})")


def test_names_and_arguments_in_any_language_are_shown_and_mean_nothing(app, step):
    name = "ünïcode.<b>&\"'`;\x1b[31m任务"
    task = app.task(shared=False, name=name)(lambda *args: None)
    result = (task.s("<i>&#\n\u202e") | task.s()).apply_async()
    workflow = app.workflow(result)
    assert {node.name for node in workflow.nodes.values()} == {name}
    tree, mermaid, svg = (workflow.draw(form) for form in ("tree", "mermaid", "svg"))
    assert "ünïcode.<b>&\"'`;\\x1b[31m任务(" in tree
    assert not set(tree) & {"\x1b", "\u202e"}
    assert mermaid.startswith("graph TD\n")
    assert "n0 --> n1" in mermaid
    labels = re.findall(r'n\d\["(.*?)"\]', mermaid)
    assert len(labels) == 2
    assert not set("".join(labels).replace("<br/>", "")) & set("<>&\"'`[]\x1b")
    picture = ElementTree.fromstring(svg)
    words = "".join(picture.itertext())
    assert "ünïcode.<b>&\"'`;\\x1b" in words
    assert not [tag for tag in picture.iter() if tag.tag.endswith(("script", "image", "b", "i"))]


@pytest.mark.parametrize("form", ["tree", "mermaid", "svg"])
def test_a_workflow_of_2000_members_is_shown_at_once(app, step, form):
    members = [step("m", number) for number in range(1999)]
    result = chord(members, step("end")).apply_async()
    begin = time.monotonic()
    workflow = app.workflow(result)
    drawn = workflow.draw(form)
    assert time.monotonic() - begin < 5
    assert (len(workflow.nodes), len(workflow.edges)) == (2000, 1999)
    assert "x 1,999" in drawn.replace("#44;", ",")
    assert len(drawn.splitlines()) < 30


def test_a_chain_of_2000_steps_and_its_links_are_shown(app, step, worker):
    sig = chain(*(step("s", link=[step("l")] if number < 10 else []) for number in range(2000)))
    workflow = app.workflow(sig.apply_async())
    assert workflow.starts == [next(iter(workflow.nodes))]
    assert len(workflow.draw().splitlines()) >= 2001
    workflow.cancel().wait(T)


def test_of_a_workflow_that_is_cut_all_is_counted(app, step):
    body = app.task(shared=False, name="w.tsum")(lambda numbers: None)
    result = chord([step("m") for _ in range(30)], body.s()).apply_async()
    workflow = app.workflow(result, limit=10)
    assert (workflow.total, len(workflow.nodes), workflow.truncated) == (31, 10, True)
    assert workflow.counts == {"PENDING": 30, WAITING: 1}
    assert plain(workflow) == ["└─ ○ step x 30 (30 pending)", "… tsum(...)  WAITING"]
    assert workflow.to_dict()["truncated"]
    assert "not drawn" not in workflow.draw()
    mixed = (step("a") | group(step("m") for _ in range(20))).apply_async()
    assert plain(app.workflow(mixed, limit=8)) == [
        "○ step(**{'tag': 'a'})  PENDING",
        "└─ … step x 7 (7 waiting)",
        "not drawn: step x 13",
    ]


def test_a_format_that_is_not_known_is_refused(app, step):
    workflow = app.workflow(step("a").apply_async())
    with pytest.raises(ValueError, match="no such format: 'png'; there are tree, mermaid, svg"):
        workflow.draw("png")


def test_a_workflow_is_given_as_plain_values(app, step):
    result = (step("a") | step("b")).apply_async()
    given = app.workflow(result).to_dict()
    nodes = given.pop("nodes")
    assert given == {
        "id": result.id, "state": "PENDING", "done": False, "total": 2, "truncated": False,
        "counts": {"PENDING": 1, WAITING: 1}, "edges": [[result.parent.id, result.id]],
    }  # fmt: skip
    assert nodes[1]["id"] == result.id
    assert nodes[1]["args"] == "..., **{'tag': 'b'}"
    assert repr(app.workflow(result)) == f"<Workflow {result.id}: PENDING, 2 tasks>"


def test_the_newest_workflows_are_listed_by_state(app, step, rules, worker):
    rules.fails = {"bad"}
    good = [group([step("a")]).apply_async() for _ in range(3)]
    bad = (step("b") | step("bad")).apply_async()
    for one in (*good, bad):
        app.workflow(one).wait(T)
    assert [one.id for one in newest(app, 2)] == [bad.id, good[2].id]
    assert [one.id for one in newest(app, 2, ["SUCCESS"])] == [good[2].id, good[1].id]
    (failed,) = newest(app, 5, ["FAILURE"])
    assert (failed.id, failed.name, failed.counts) == (
        bad.id, "w.step", {"SUCCESS": 1, "FAILURE": 1}
    )  # fmt: skip
    assert failed.finished_at >= failed.created_at
    assert failed.to_dict()["created_at"] == failed.created_at.isoformat()


def test_the_example_of_the_documentation_does_what_it_says(dsn):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "workflows.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"DATABASE": dsn}
    first, *others = blocks
    exec(compile(first, "workflows.md", "exec"), names)
    with names["app"] as app, working(app, pool="solo"):
        for block in others:
            exec(compile(block, "workflows.md", "exec"), names)
