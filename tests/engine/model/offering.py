"""What nodes with nothing to do say, each in one transaction; see `ops.py`."""

from __future__ import annotations

from dataclasses import dataclass

from tests.engine.model.database import Session
from tests.engine.model.model import Model
from tests.engine.model.ops import Op, Worker, same
from tests.engine.model.tables import Seen

Rows = list[tuple[int, str]]  #: tokens and queues


@dataclass
class Offer(Op):
    """`paused`: another queue is, while this is said."""

    worker: Worker
    queues: tuple[str, ...]
    many: int
    lives: int
    paused: bool = False

    def __post_init__(self) -> None:
        self.me, self.channel = self.worker.id, self.worker.ear.channel

    def run(self, session: Session) -> Rows:
        with session.pausing(self.paused):
            return session.offer(self.me, self.channel, self.queues, self.many, self.lives)

    def apply(self, model: Model, answer: Rows, seen: Seen | None) -> None:
        offer = self.me, self.channel, self.queues, self.many, self.lives, self.paused
        same("offered", sorted(answer), sorted(model.offer(*offer, answer, seen)))


@dataclass
class Withdraw(Op):
    worker: Worker

    def __post_init__(self) -> None:
        self.me = self.worker.id

    def run(self, session: Session) -> None:
        session.withdraw(self.me)

    def apply(self, model: Model, answer: None, seen: Seen | None) -> None:
        model.withdraw(self.me, seen)
