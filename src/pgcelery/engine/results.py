"""The part of a client that reads and awaits results."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import TupleRow

from pgcelery.engine.arrays import TextArray, moment
from pgcelery.engine.columns import check_name
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import Connections, load, outlived
from pgcelery.engine.ears import Ear, Ears
from pgcelery.engine.errors import DatabaseUnavailable
from pgcelery.engine.exchange import Request
from pgcelery.engine.job import STATES, State, StoredResult
from pgcelery.engine.link import Rows, Statement

_TEXT, _FLOAT8 = 25, 701
_LOOK_AGAIN_S = (0.01, 0.5)  # first and slowest look while waiting for a result
_MANY = 100  # with more ids than this, looking for all of them now and then is cheaper than hearing


class _Statements(NamedTuple):
    fetch: Statement
    wait: Statement


@cache
def _statements(schema: str) -> _Statements:
    return _Statements(
        Statement(b"fetch", load("results/fetch", schema), (TextArray.oid,)),
        Statement(b"await", load("results/await", schema), (TextArray.oid, _TEXT, _TEXT)),
    )


class Results:
    """What a client does with what jobs came to."""

    config: EngineConfig

    if TYPE_CHECKING:
        _connections: Connections
        _ears: Ears

        def _run(self, name: str, params: Any = None) -> list[TupleRow]:
            """See `Client`."""

    def results(self, ids: Collection[str]) -> dict[str, StoredResult]:
        """Read what is known of ids; those of which nothing is known are missing."""
        if not ids:
            return {}
        return _stored(self._connections.ask(self._fetch(ids)))

    def _fetch(self, ids: Collection[str]) -> Request:
        return _statements(self.config.schema).fetch, [TextArray.of(list(ids))]

    def failures(self, ids: Collection[str]) -> dict[str, StoredResult]:
        """Read the results of those that ended otherwise than completed."""
        rows = self._run("results/failures", {"ids": TextArray.of(list(ids))})
        return {row[0]: StoredResult(row[0], State(row[1]), row[2], row[3]) for row in rows}

    def late(self) -> dict[str, int]:
        """Count the outcomes that were refused in the last seven days, by reason."""
        return dict(self._run("results/late"))

    def inputs(
        self, id: str, ids: Collection[str]
    ) -> tuple[dict[str, StoredResult], dict[str, StoredResult | None]]:
        """Read the results of `ids`, and of those that joined what job `id` waited for, in order.

        Returns:
            As `results` does; and the same for the joiners, None where nothing is known.
        """
        rows = self._run("results/inputs", {"id": id, "ids": TextArray.of(list(ids))})
        found: dict[str, StoredResult] = {}
        joined: dict[str, StoredResult | None] = {}
        for one, beside, state, result, finished_at in rows:
            known = None if state is None else StoredResult(one, State(state), result, finished_at)
            if beside:
                joined[one] = known
            elif known is not None:
                found[one] = known
        return found, joined

    def wait(self, ids: Collection[str], timeout_s: float | None) -> dict[str, StoredResult]:
        """Block until at least one of ids is final, or the time is over.

        Returns:
            Those of ids that are final; empty when the time was over first.

        Raises:
            DatabaseUnavailable: At the first look, or when the time was over. An outage that comes
                while it waits is outlived.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        at_once = timeout_s is not None and timeout_s <= 0
        if at_once or not self._ears.open or len(ids) > _MANY:
            done = self._final(ids)
            if done or not ids or at_once:
                return done
        if len(ids) > _MANY:
            return outlived(lambda: self._look(ids, deadline), deadline)
        with self._ears.lend() as ear:
            done = self._listen(ear, ids, deadline)
            try:
                return done or self._hear(ear, ids, deadline)
            except DatabaseUnavailable:
                pass
        return outlived(lambda: self._hear_anew(ids, deadline), deadline)

    def _hear_anew(self, ids: Collection[str], deadline: float | None) -> dict[str, StoredResult]:
        with self._ears.lend() as ear:
            done = self._listen(ear, ids, deadline)
            return done or self._hear(ear, ids, deadline)

    def _listen(
        self, ear: Ear | None, ids: Collection[str], deadline: float | None
    ) -> dict[str, StoredResult]:
        """Look which are final; if none is, ask to be told, and look once more after that."""
        if ear is None:
            return self._final(ids)
        keep_s = 86400.0 if deadline is None else max(deadline - time.monotonic(), 0.0) + 60
        told = [TextArray.of(list(ids)), ear.channel.encode(), str(keep_s).encode()]
        asked = (_statements(self.config.schema).wait, told)
        done, since = self._connections.ask_both(asked, self._fetch(ids))
        return _final(_stored(done)) or _final(_stored(since))

    def _hear(
        self, ear: Ear | None, ids: Collection[str], deadline: float | None
    ) -> dict[str, StoredResult]:
        """Wait by being told, and by looking now and then."""
        pause, slowest = _LOOK_AGAIN_S
        done: dict[str, StoredResult] = {}
        while not done:
            left = slowest if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return {}
            named = _pause(ear, min(pause, left))
            pause = min(pause * 2, slowest)
            mine = [one for one in named or () if one in ids]
            done = self._final(mine or ids)
        return done

    def _look(self, ids: Collection[str], deadline: float | None) -> dict[str, StoredResult]:
        """Wait by looking for all of them, with pauses of which the database sees little."""
        pause, slowest = _LOOK_AGAIN_S
        while True:
            left = slowest if deadline is None else max(0.0, deadline - time.monotonic())
            _pause(None, min(pause, left))
            begun = time.monotonic()
            done = self._final(ids)
            if done or not left:
                return done
            pause = min(max(pause * 1.5, 3 * (time.monotonic() - begun)), slowest)

    def _final(self, ids: Collection[str]) -> dict[str, StoredResult]:
        return _final(self.results(ids))

    def put_result(
        self, id: str, state: State, result: bytes, *, ttl_s: float | None = None
    ) -> bool:
        """Write what is known of an id by hand; False, and nothing changed, if it is final."""
        rows = self._run(
            "results/put",
            {"id": check_name("id", id), "state": int(state), "result": result, "ttl_s": ttl_s},
        )
        return bool(rows[0][0])

    def keep(self, id: str, data: bytes, *, ttl_s: float | None = None) -> bool:
        """Keep bytes under an id that is no job's; False, and nothing kept, if it is one's."""
        params = {"id": check_name("id", id), "data": data, "ttl_s": ttl_s}
        return bool(self._run("results/keep", params)[0][0])

    def forget(self, ids: Sequence[str]) -> int:
        """Delete the results of ids, and the jobs among them that have ended; how many results."""
        return int(self._run("results/forget", {"ids": TextArray.of(list(ids))})[0][0])


def _stored(rows: Rows) -> dict[str, StoredResult]:
    found: dict[str, StoredResult] = {}
    for id, state, result, finished_at in rows:
        assert id is not None
        name = id.decode()
        found[name] = StoredResult(
            name,
            STATES[int.from_bytes(state or b"")],
            result,
            None if finished_at is None else moment(finished_at),
        )
    return found


def _final(found: dict[str, StoredResult]) -> dict[str, StoredResult]:
    return {one: row for one, row in found.items() if row.state.final}


def _pause(ear: Ear | None, seconds: float) -> list[str] | None:
    if ear is not None:
        return ear.hear(seconds)
    threading.Event().wait(seconds)
    return None
