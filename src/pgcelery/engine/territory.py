"""Which queues a node claims from: those it serves, and the places of them that its labels suit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pgcelery.engine import placement
from pgcelery.engine.arrays import Array, DoubleArray, IntegerArray
from pgcelery.engine.placement import split_rate

Cells = list[bytes | None]

OWN = "worker"  #: the label that tells one worker from all others
_UNKNOWN = -1  # a mark that the database never has
_AFRESH = 12  # beats after which all is read again: work may have come to a dead worker's place


class Territory:
    """What a node may claim. Used from one thread.

    Attributes:
        labels: What the node says of itself; `OWN` is among them.
        queues: Id of each queue that is served, by name.
        served: The same as (id, name).
        places: Ids of those that this node suits as well as any.
        late: Seconds after which it may claim from places that others would suit better, by id.
        throttled: Names of jobs that rates keep waiting, by the place where they are.
        unsure: There may be places that it has not heard of: ask `nodes/places`.
    """

    def __init__(self, labels: Mapping[str, str], grace_s: float) -> None:
        self.labels = dict(labels)
        self.queues: dict[str, int] = {}
        self.served: tuple[tuple[int, str], ...] = ()
        self.places: list[int] = []
        self.late: dict[int, float] = {}
        self.throttled: dict[int, str] = {}
        self.unsure = True
        self._grace_s = grace_s
        # Places: id, queue, what it asks of a worker; where jobs of a throttled one came from.
        self._known: list[tuple[int, int, str, int | None]] = []
        self._hopes: list[int] = []  # throttled places in which there may be something
        self._names: dict[int, str] = {}  # of what is served, by id
        self._foreign: set[int] = set()  # ids that were looked up, and are not
        self._params: dict[int, list[Array | str]] = {}  # of steps, by the place that comes first
        self._mark = _UNKNOWN  # what the answer was made from
        self._beats = 0

    def __contains__(self, queue_id: object) -> bool:
        return queue_id in self._names

    @property
    def ids(self) -> list[int]:
        """Ids of all that it may claim from."""
        return list(self._names)

    @property
    def plain(self) -> bool:
        """Whether all that it may claim is in the queues themselves."""
        return not (self.places or self.late or self.throttled)

    def name_of(self, queue_id: int) -> str:
        """Name the queue of an id; empty for one that is not served."""
        return self._names.get(queue_id, "")

    def serve(self, queues: Mapping[str, int]) -> None:
        """Serve more queues."""
        self.queues.update(queues)
        self._ask_anew()

    def abandon(self, name: str) -> None:
        """Serve a queue no longer, nor its places."""
        self.queues.pop(name, None)
        self._ask_anew()

    def relabel(self, labels: Mapping[str, str]) -> None:
        """Suit other places from now on."""
        self.labels = dict(labels)
        self._ask_anew()

    def doubt(self) -> None:
        """Ask when there is a moment: there may be new places."""
        self.unsure = True

    def _ask_anew(self) -> None:
        self._mark, self.unsure = _UNKNOWN, True
        self._draw()

    def heard(self, queue_id: int) -> bool:
        """Tell whether work in a queue is for its steps; an unknown id is to be looked up."""
        if queue_id in self._names:
            return True
        if queue_id in self.throttled:
            self.hope([queue_id])
            return False
        if queue_id not in self._foreign:
            self._foreign.add(queue_id)
            self._mark, self.unsure = _UNKNOWN, True
        return False

    def question(self, *, beat: bool) -> list[int | str | Array]:
        """Build the arguments of ``nodes/places``; `beat` once in a while."""
        self.unsure = False
        self._beats += beat
        if beat and self._beats % _AFRESH == 0:
            self._mark = _UNKNOWN
        return [IntegerArray.of(list(self.queues.values())), self.labels[OWN], self._mark]

    def learn(self, rows: list[Cells]) -> bool:
        """Take the answer; whether there is more to claim from now.

        The first row has a number that changes when the places do. The others, which are missing
        if that number was known, are (id, queue, what it asks of a worker).
        """
        mark = _int(rows[0][3])
        if mark == self._mark:
            return False
        if not self.unsure:  # else it was asked before something changed, and is asked again
            self._mark = mark
        self._known = [
            (_int(place), _int(queue), (wants or b"").decode(), _int(plain) if plain else None)
            for place, queue, wants, _, plain in rows[1:]
        ]
        before = self.places, self.late
        self._draw()
        self.hope()
        return (self.places, self.late) != before

    def _draw(self) -> None:
        self._params.clear()
        self.served = tuple((number, name) for name, number in self.queues.items())
        self._names = dict(self.served)
        self.places, self.late = [], {}
        for place, queue, wants, plain in self._known:
            if plain is not None:
                continue
            fit = self._fit(wants) if queue in self._names else None
            if fit is None:
                continue
            self._names[place] = self._names[queue]
            if fit >= 1:
                self.places.append(place)
            else:
                self.late[place] = self._grace_s * (1 - fit)
        self.throttled = {
            place: split_rate(wants)[1] or ""
            for place, _, wants, plain in self._known
            if plain in self._names
        }
        self._hopes = [place for place in self._hopes if place in self.throttled]

    # -- throttled places -----------------------------------------------------------------------

    def hope(self, places: Iterable[int] | None = None) -> None:
        """Note that there may be something in throttled places, or in any of them."""
        hoped = [*self._hopes, *(self.throttled if places is None else places)]
        self._hopes = [place for place in dict.fromkeys(hoped) if place in self.throttled]

    @property
    def awaiting(self) -> set[str]:
        """Names of which some may wait in throttled places."""
        return {self.throttled[place] for place in self._hopes}

    def hopes(self) -> list[tuple[str, int]]:
        """List what may wait: each name with one place, which was not looked at for longest."""
        if not self._hopes:
            return []
        return list({self.throttled[place]: place for place in reversed(self._hopes)}.items())

    def looked(self, place: int, *, more: bool) -> None:
        """Note that a throttled place was drawn from, and whether there may be more."""
        self._hopes = [one for one in self._hopes if one != place] + [place] * more

    # -- steps ----------------------------------------------------------------------------------

    def _fit(self, wants: str) -> float | None:
        try:
            return placement.score(wants, self.labels)
        except ValueError:  # somebody else's writing: no worker suits it
            return None

    def params(self, turn: int) -> list[Array | str]:
        """Build the arguments of ``step_v4`` from the queues to the node's own label."""
        ids = [*self.places, *self.queues.values()]
        pivot = turn % len(ids) if ids else 0
        if pivot not in self._params:
            self._params[pivot] = [
                IntegerArray.of(ids[pivot:] + ids[:pivot]),
                IntegerArray.of(list(self.late)),
                DoubleArray.of(list(self.late.values())),
                self.labels[OWN],
            ]
        return self._params[pivot]


def _int(cell: bytes | None) -> int:
    return int.from_bytes(cell or b"", "big", signed=True)
