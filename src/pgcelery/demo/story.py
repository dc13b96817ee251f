"""What happens in the demo, apart from how it is shown: orders, and whether they came right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pgcelery import chord
from pgcelery.demo.app import DOORS, STOCK, amount, order, report

STEPS = ("reserve", "pick", "pack", "charge", "ship")
_BASKETS = (["tea", "cup"], ["tea", "cup", "pot"], ["pot", "cup"], ["tea", "tea", "cup", "pot"])
_BUSY = (0, 1, 0, 2)  #: how often the gateway turns an order away
_HOPELESS = 5  #: every so many orders want what the shop has not got


@dataclass
class Order:
    """An order, the results of its steps, and how far it is."""

    number: int
    skus: list[str]
    busy: int
    results: list[Any] = field(default_factory=list)  #: one a step; a group for the picking
    done: int = 0  #: steps that are over
    state: str = "PENDING"  #: of the step it is at, or of the whole when it is over

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.done == len(STEPS) or self.state == "FAILURE"

    @property
    def retries(self) -> int:
        """How often its payment had to be tried again."""
        return int(self.results[-1].result["attempts"]) - 1 if self.state == "SUCCESS" else 0

    @property
    def tasks(self) -> int:
        """Tasks its workflow ran."""
        return 1 if self.hopeless else len(STEPS) + len(self.skus)

    @property
    def wanted_amount(self) -> int:
        """What it must come to."""
        return sum(STOCK[sku][0] for sku in self.skus)

    @property
    def hopeless(self) -> bool:
        """Whether it must fail, for something is out of stock."""
        return not all(STOCK[sku][1] for sku in self.skus)

    def send(self) -> None:
        """Enqueue the workflow, and find the results of its steps by their parents."""
        last = order(self.number, self.skus, self.busy).apply_async()
        self.results = [last]
        while (parent := self.results[0].parent) is not None:
            self.results.insert(0, parent)

    def look(self) -> bool:
        """Ask for the step it is at; whether anything changed."""
        before = (self.done, self.state, self.picked)
        while not self.over:
            step = self.results[self.done]
            if step.failed():
                self.state = "FAILURE"
            elif step.successful():
                self.done += 1
                self.state = "SUCCESS" if self.over else "PENDING"
                continue
            else:
                self.state = "STARTED" if STEPS[self.done] == "pick" else step.state
            break
        return before != (self.done, self.state, self.picked)

    @property
    def error(self) -> Any:
        """The exception of the step that failed; None if none did."""
        return self.results[self.done].result if self.state == "FAILURE" else None

    @property
    def picked(self) -> int:
        """Articles picked so far, while the order is there."""
        if self.over or STEPS[self.done] != "pick":
            return 0
        return int(self.results[self.done].completed_count())

    def wrong(self) -> str | None:
        """What is not as it must be, once it is over; None is fine."""
        if self.hopeless:
            fine = type(self.error).__name__ == "OutOfStock"
            return None if fine else f"order {self.number}: {self.error!r}, wanted OutOfStock"
        if self.state != "SUCCESS":
            return f"order {self.number} failed at {STEPS[self.done]}: {self.error!r}"
        found = {**self.results[-1].result}
        del found["at_the_dock"]
        wanted = {
            "skus": self.skus,
            "amount": self.wanted_amount,
            "attempts": self.busy + 1,
            "number": self.number,
        }
        return None if found == wanted else f"order {self.number}: {found} instead of {wanted}"


def orders(count: int) -> list[Order]:
    """So many orders; the same each time."""
    made = []
    for k in range(count):
        skus = ["tea", "tray"] if k % _HOPELESS == _HOPELESS - 1 else _BASKETS[k % len(_BASKETS)]
        made.append(Order(k + 1, list(skus), _BUSY[k % len(_BUSY)]))
    return made


def most_at_the_dock(done: list[Order]) -> int:
    """How many parcels were loaded at the same time, at most."""
    spans = [o.results[-1].result["at_the_dock"] for o in done if not o.hopeless]
    return max((sum(b <= begin < e for b, e in spans) for begin, _ in spans), default=0)


def wrong_dock(done: list[Order]) -> str | None:
    """Whether more parcels were loaded at once than there are doors; None is fine."""
    most = most_at_the_dock(done)
    return None if most <= DOORS else f"{most} parcels were at {DOORS} doors"


def daily_report(done: list[Order]) -> Any:
    """Send the chord that adds up the shipped orders."""
    shipped = [o.results[-1].result for o in done if not o.hopeless]
    return chord((amount.s(parcel) for parcel in shipped), report.s()).apply_async()


def wrong_report(done: list[Order], found: dict[str, int]) -> str | None:
    """What is not as it must be in the report; None is fine."""
    shipped = [o for o in done if not o.hopeless]
    wanted = {"orders": len(shipped), "amount": sum(o.wanted_amount for o in shipped)}
    return None if found == wanted else f"the report says {found}, wanted {wanted}"
