"""The shop's tasks. It is an application like any other: nothing here is special to the demo.

An order is reserved, each of its articles is picked, the parcel is packed, paid and shipped. The
dock has two doors, however many workers there are::

    reserve -> [pick, pick, pick] -> pack -> charge -> ship
"""

from __future__ import annotations

import threading
import time
from typing import Any

from pgcelery import Celery, Concurrency, chain, group

STOCK = {"tea": (4, 500), "cup": (9, 200), "pot": (30, 40), "tray": (25, 0)}  #: price, left
DOORS = 2  #: parcels that can be loaded at once
QUEUES = ("pgcelery-demo", "pgcelery-demo-mail")

app = Celery("demo", backend="rpc://")
app.conf.update(
    task_default_queue=QUEUES[0],
    task_routes={"demo.mail.*": {"queue": QUEUES[1]}},
    task_track_started=True,
    result_expires=3600,
)


class OutOfStock(Exception):  # noqa: N818
    """An article that is not there."""


class GatewayBusy(Exception):  # noqa: N818
    """The payment gateway wants to be asked later."""


def _work(seconds: float) -> None:
    threading.Event().wait(seconds)


@app.task(name="demo.reserve", throws=(OutOfStock,))
def reserve(number: int, skus: list[str]) -> int:
    """Put an order's articles aside."""
    _work(0.05)
    for sku in skus:
        if not STOCK[sku][1]:
            raise OutOfStock(sku)
    return number


@app.task(name="demo.pick")
def pick(sku: str) -> list[Any]:
    """Fetch one article from its shelf."""
    _work(0.1)
    return [sku, STOCK[sku][0]]


@app.task(name="demo.pack")
def pack(lines: list[list[Any]]) -> dict[str, Any]:
    """Put what was picked into one parcel."""
    _work(0.05)
    return {"skus": [sku for sku, _ in lines], "amount": sum(price for _, price in lines)}


@app.task(name="demo.charge", bind=True, max_retries=5)
def charge(self: Any, parcel: dict[str, Any], busy: int) -> dict[str, Any]:
    """Take the money; the gateway turns the first `busy` attempts away."""
    if self.request.retries < busy:
        exc = GatewayBusy("come back later")
        raise self.retry(exc=exc, countdown=0.3 * 2**self.request.retries)
    return {**parcel, "attempts": self.request.retries + 1}


@app.task(name="demo.ship", concurrency=Concurrency(key="demo.dock", limit=DOORS))
def ship(parcel: dict[str, Any], number: int) -> dict[str, Any]:
    """Load the parcel, note from when to when, and promise a mail for a second later."""
    begin = time.monotonic()
    _work(0.1)
    thank.apply_async((number,), countdown=1)
    return {**parcel, "number": number, "at_the_dock": [begin, time.monotonic()]}


@app.task(name="demo.mail.thank", ignore_result=True)
def thank(number: int) -> None:
    """Mail the customer; nobody waits for the result."""


@app.task(name="demo.report")
def report(amounts: list[int]) -> dict[str, int]:
    """What a day brought in; the body of a chord."""
    return {"orders": len(amounts), "amount": sum(amounts)}


@app.task(name="demo.amount")
def amount(parcel: dict[str, Any]) -> int:
    """One order's share of the report."""
    return int(parcel["amount"])


@app.task(name="demo.stamp")
def stamp(number: int) -> int:
    """As little work as a task can do."""
    return number


def order(number: int, skus: list[str], busy: int) -> Any:
    """One order's workflow."""
    return chain(
        reserve.s(number, skus),
        group(pick.si(sku) for sku in skus),
        pack.s(),
        charge.s(busy),
        ship.s(number),
    )
