"""What a node with nothing to do offers to run, and the jobs that it is handed for that.

Whoever sends a plain job to a queue where such an offer stands claims it for the node in the very
transaction that inserts it. The node hears of it on a channel that only its connection listens on
and whose name nobody can guess, with all that it needs to begin: so a lone job is on the disk once
before it begins, and not twice. Offers are for single queues and taken one by one. A queue with a
backlog has none, nor has a worker that is full; there, steps claim in batches.

What a worker that vanishes was handed is in the same place as what it had claimed. One that was
killed is handed nothing: its connection has ended, and with that a lock that whoever takes an offer
looks at.

Promises P7, P10 of docs/guarantees.md.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial

from pgcelery.engine.arrays import IntegerArray
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.link import Param, Rows, Statement
from pgcelery.engine.statements import Kind, Row, Statements
from pgcelery.engine.territory import Territory
from pgcelery.engine.withholding import Send

_MOST_QUEUES = 16  # that a worker may serve: each has offers of its own, more of them than slots
_MOST_EACH = 8  # offers of one queue
_BEATS = 2.5  # how many of its pauses an offer outlasts


class Offers:
    """Of one node.

    Args:
        config: How often the lease is renewed.
        territory: The node's.
        sql: Its statements.
        send: Sends one of them.
        flying: Names of those that were sent and not answered.
        room: Counts the jobs that the pool would take now.
        idle: Counts the slots that nothing runs in.
    """

    def __init__(
        self,
        config: EngineConfig,
        territory: Territory,
        sql: Statements,
        send: Send,
        flying: set[str],
        room: Callable[[], int],
        idle: Callable[[], int],
    ) -> None:
        self.room = room
        self._territory = territory
        self._sql = sql
        self._send = send
        self._flying = flying
        self._idle = idle
        self._allowed = config.offers
        self._lives_s = config.heartbeat_s * _BEATS
        self._channel = ""
        self._stands = False  # it is known to others that this connection lives
        self._made: dict[int, int] = {}  # queues of offers that may be there, by token
        self._renew = False

    def connected(self) -> None:
        """Listen on a new connection. A reclaim takes back what was offered on the one before."""
        self._made.clear()
        self._stands = self._renew = False
        self._channel = f"pgcelery.{uuid.uuid4().hex}"
        if not self._allowed:
            return
        listen = Statement(b"hear", f'listen "{self._channel}"'.encode(), ())
        self._send("hear", listen, [], lambda rows: None)
        self._send("stand", self._sql.stand, [self._channel], self._stood)

    def _stood(self, rows: Rows) -> None:
        self._stands = rows[0][0] == b"\1"

    def beat(self) -> None:
        """Renew what is offered, with the next offer."""
        self._renew = bool(self._made)

    def look(self, me: int, *, free: bool, calm: bool) -> None:
        """Offer more, or take everything back, as the pool is.

        Args:
            me: The node's id.
            free: It may begin whatever comes.
            calm: Nothing is known to wait in its queues.
        """
        if not self._stands or not (calm or self._made) or self._flying & {"offer", "withdraw"}:
            return
        if not free or self.room() <= 0:
            if self._made:
                self.withdraw(me)
            return
        queues = self._territory.queues.values()
        if not (calm and 0 < len(queues) <= _MOST_QUEUES):
            return
        idle = min(self._idle(), _MOST_EACH)
        made = Counter(self._made.values())
        short = [queue_id for queue_id in queues if made[queue_id] < idle]
        if not short and not self._renew:
            return
        more = max((idle - made[queue_id] for queue_id in short), default=0)
        ids = list(queues) if self._renew else short
        self._renew = False
        params: list[Param] = [me, self._channel, IntegerArray.of(ids), more, self._lives_s]
        self._send("offer", self._sql.offer, params, partial(self._offered, set(ids)))

    def _offered(self, queue_ids: set[int], rows: Rows) -> None:
        kept = {token: one for token, one in self._made.items() if one not in queue_ids}
        self._made = kept | {_int(token): _int(queue_id) for token, queue_id in rows}

    def withdraw(self, me: int) -> None:
        """Take back what was offered; jobs that were handed over may still arrive after that."""
        self._made.clear()
        self._send("withdraw", self._sql.withdraw, [me], lambda rows: None)

    def heard(self, channel: str, payload: str) -> Row | None:
        """Read a notification; the job that was handed over if it is one of those."""
        if channel != self._channel:
            return None
        token, job_id, queue_id, name, encoded, priority, flags = json.loads(payload)
        self._made.pop(token, None)
        body = base64.b64decode(encoded)
        return Row(Kind.CLAIM, job_id, token, queue_id, name, body, priority, 1, flags)


def _int(cell: bytes | None) -> int:
    return int.from_bytes(cell or b"", "big")
