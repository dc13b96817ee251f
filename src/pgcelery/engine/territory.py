"""Which queues a node claims from: those it serves, and their places for labels of its own."""

from __future__ import annotations

from pgcelery.engine.arrays import Array, DoubleArray, IntegerArray


class Territory:
    """What a node may claim. Used from one thread.

    Attributes:
        queues: Id of each queue that is served, by name.
        places: Name of the queue of each place that this node suits, by the place's id.
        late: Seconds after which it may claim from places that others would suit better, by id.
        stuck: For a queue's id, its places for what should, and what must, run on this very node.
    """

    def __init__(self) -> None:
        self.queues: dict[str, int] = {}
        self.places: dict[int, str] = {}
        self.late: dict[int, float] = {}
        self.stuck: dict[int, tuple[int, int]] = {}

    def __contains__(self, queue_id: object) -> bool:
        return queue_id in self.queues.values() or queue_id in self.places or queue_id in self.late

    def name_of(self, queue_id: int) -> str:
        """Name the queue of an id; empty for one that is not served."""
        for name, number in self.queues.items():
            if number == queue_id:
                return name
        return self.places.get(queue_id, "")

    def params(self, turn: int) -> list[Array]:
        """Build the arguments of ``step_v3`` from the queues to the places of its own."""
        ids = [*self.places, *self.queues.values()]
        pivot = turn % len(ids) if ids else 0
        return [
            IntegerArray.of(ids[pivot:] + ids[:pivot]),
            IntegerArray.of(list(self.late)),
            DoubleArray.of(list(self.late.values())),
            IntegerArray.of(list(self.stuck)),
            IntegerArray.of([soft for soft, _ in self.stuck.values()]),
            IntegerArray.of([hard for _, hard in self.stuck.values()]),
        ]
