"""Two transactions that are open at the same time, and what they may have come to.

The first one's call is made, then the second one's; then they end, in either order, one of them
perhaps by a rollback. A second one that waits for the first's locks goes on once that has ended.
What they leave must be what one after the other would have left.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import psycopg

from tests.engine.model.database import Session
from tests.engine.model.model import Model
from tests.engine.model.ops import CancelWorkflow, Op, Replay
from tests.engine.model.tables import Disagreement, Seen, demand

_POLL_S = 0.0005


class Done(NamedTuple):
    """A call that was made, and is committed or not."""

    op: Op
    answer: Any
    seen: Seen
    kept: bool


class Pair:
    """Two sessions, a third one that watches them, and what has been seen of them."""

    def __init__(self, one: Session, two: Session, watch: Session) -> None:
        self.one, self.two, self.watch = one, two, watch
        self.counts: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(1)

    def close(self) -> None:
        self._thread.shutdown()

    def both(self, ops: tuple[Op, Op], kept: tuple[bool, bool], second_first: bool) -> list[Done]:
        """Do both at once; gives what was done in the order of the commits.

        Where nobody waited the other order may be what was seen as well. A call that the server
        refused, because another transaction was quicker, is made again by itself afterwards.
        """
        self.counts["pairs"] += 1
        waiting: list[Future[Any]] = []
        try:
            return self._both(ops, kept, second_first, waiting)
        finally:
            self.one.transaction("rollback")
            wait(waiting)
            self.two.transaction("rollback")

    def _both(
        self,
        ops: tuple[Op, Op],
        kept: tuple[bool, bool],
        second_first: bool,
        begun: list[Future[Any]],
    ) -> list[Done]:
        first = self._call(self.one, ops[0])
        if first is None:  # it is alone as yet
            raise Disagreement(f"refused: {ops[0]}")
        waiting: Future[tuple[Any, Seen] | None] = self._thread.submit(self._call, self.two, ops[1])
        begun.append(waiting)
        blocked = self._is_blocked(waiting)
        self.counts["blocked"] += blocked
        if second_first and not blocked:
            self._end(self.two, kept[1], waiting.result())
            self._end(self.one, kept[0], first)
        else:
            self._end(self.one, kept[0], first)
            self._end(self.two, kept[1], waiting.result(10))
        done = [Done(ops[0], *first, kept[0])]
        second = waiting.result()
        if second is not None:
            done.append(Done(ops[1], *second, kept[1]))
        if second_first and not blocked:
            done.reverse()
        if second is None:  # refused: once more, alone
            again = self._call(self.two, ops[1])
            if again is None:
                raise Disagreement(f"refused twice: {ops[1]}")
            self._end(self.two, True, again)
            done.append(Done(ops[1], *again, True))
        return [one for one in done if one.kept]

    def _call(self, session: Session, op: Op) -> tuple[Any, Seen] | None:
        session.transaction("begin")
        try:
            return op.run(session), session.seen()
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as exc:
            self.counts[f"refused {exc.sqlstate}"] += 1
            session.transaction("rollback")
            return None

    def _end(self, session: Session, kept: bool, called: object) -> None:
        if called is not None:
            session.transaction("commit" if kept else "rollback")

    def _is_blocked(self, waiting: Future[Any]) -> bool:
        done = threading.Event()
        waiting.add_done_callback(lambda _: done.set())
        while not done.wait(_POLL_S):
            row = self.watch.conn.execute(
                "select cardinality(pg_blocking_pids(%s)) > 0", [self.two.pid]
            ).fetchone()
            if row and row[0] and not done.is_set():
                return True
        return False


def settle(model: Model, done: list[Done], dump: Callable[[], dict[str, Any]]) -> Model:
    """Find the order in which the model comes to what the engine came to.

    Raises:
        Disagreement: There is none; what it says is of the order of the commits.
    """
    engine = dump()
    problems: list[str] = []
    for order in (done, done[::-1]):
        said = copy.deepcopy(model)
        try:
            for one in order:
                one.op.apply(said, one.answer, one.seen)
            forgive(said, engine, done)
            demand(engine == said.dump(), differences(engine, said.dump()))
        except Disagreement as exc:
            problems.append(str(exc))
        else:
            return said
    both = " and ".join(type(one.op).__name__ for one in done)
    raise Disagreement(f"{both} at once: {problems[0]}; the other way round: {problems[-1]}")


def forgive(model: Model, engine: dict[str, Any], done: list[Done]) -> None:
    """Take over what two that did not see each other may leave, and what does no harm.

    A wish to cancel what another transaction was just ending or purging is about nothing, and
    upkeep deletes it. A workflow that is cancelled while it is replayed may stay stopped: what it
    still comes to is cancelled.
    """
    if {type(one.op) for one in done} == {CancelWorkflow, Replay}:
        model.stopped = {**engine["stopped"], **model.stopped}
    for id, wish in engine["cancels"].items():
        ended = engine["results"].get(id)
        if id not in model.cancels and (id not in engine["jobs"] or (ended and ended[4])):
            model.cancels[id] = wish


def differences(engine: dict[str, Any], model: dict[str, Any]) -> str:
    """Say in which tables the two differ, and how."""
    said = []
    for table in model:
        ours, theirs = model[table], engine[table]
        if ours == theirs:
            continue
        if isinstance(ours, dict) and isinstance(theirs, dict):
            keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
            theirs = {key: theirs.get(key) for key in keys}
            ours = {key: ours.get(key) for key in keys}
        elif table in ("places", "edges", "late"):
            theirs = [row for row in engine[table] if row not in model[table]]
            ours = [row for row in model[table] if row not in engine[table]]
        said.append(f"{table}: the engine has {theirs}, the model {ours}")
    return "\n".join(said)
