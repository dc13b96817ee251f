"""The part of a client that says why a job waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import TupleRow

from pgcelery.engine.reasons import explain
from pgcelery.engine.why import Why


class Waiting:
    """What a client knows of where a job is."""

    if TYPE_CHECKING:

        def _run(self, name: str, params: Any = None) -> list[TupleRow]:
            """See `Client`."""

    def why(self, id: str) -> Why | None:
        """Say where a job is and what keeps it there; None when nothing is known of it.

        One statement, which sees one moment. It looks rows up by their indexes, and reads through
        what is in flight: runs, workers, the heads of lines and queues.
        """
        if "\0" in id:
            return None  # which the database cannot even be asked
        rows = self._run("waiting/why", {"id": id})
        return explain(id, *rows[0]) if rows and rows[0][0] is not None else None
