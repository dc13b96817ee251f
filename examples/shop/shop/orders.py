"""Tasks of an order, from its price to its parcel."""

from celery import chain, shared_task
from celery.exceptions import Ignore, Reject

from .base import ShopTask
from .celery import app
from .errors import GatewayBusy, OutOfStock

PRICES = {"tea": 4, "cup": 9, "pot": 30}


@app.task(base=ShopTask)
def price(sku, count=1):
    """What so many of an article cost."""
    return PRICES[sku] * count


@app.task(base=ShopTask)
def total(prices):
    """The sum of an order's lines; the body of a chord."""
    return sum(prices)


@shared_task
def discount(amount, percent):
    """An amount less some percent."""
    return amount - amount * percent // 100


@app.task(base=ShopTask, bind=True, max_retries=3)
def charge(self, amount, busy=0):
    """Take the money; the gateway is busy for the first `busy` attempts."""
    if self.request.retries < busy:
        raise self.retry(exc=GatewayBusy("come back later"), countdown=0.1)
    return {"charged": amount, "attempt": self.request.retries + 1}


@app.task(
    base=ShopTask,
    bind=True,
    autoretry_for=(ConnectionError,),
    dont_autoretry_for=(ConnectionRefusedError,),
    retry_backoff=True,
    retry_jitter=False,
    max_retries=1,
)
def ship(self, address, failures=1, refuse=False):
    """Call the carrier, who is not always there."""
    if refuse:
        raise ConnectionRefusedError(address)
    if self.request.retries < failures:
        raise ConnectionError(f"no carrier for {address}")
    return f"shipped to {address}"


@app.task(base=ShopTask, throws=(OutOfStock,))
def reserve(sku, count, stock=10):
    """Put articles aside; running out is expected, not an error to log loudly."""
    if count > stock:
        raise OutOfStock(sku, count)
    return [sku, count]


@app.task(bind=True, name="shop.pack", priority=3)
def pack(self, parcels):
    """A task under a name of its own, which sends others from its body."""
    sent = [price.delay("cup", n) for n in range(1, parcels + 1)]
    self.update_state(state="PACKED", meta={"parcels": len(sent)})
    return len(sent)


@app.task(bind=True)
def fulfil(self, skus):
    """Replace itself with the real work."""
    return self.replace(chain(price.s(skus[0]), discount.s(50)))


@app.task
def drop(order):
    """Nobody is interested in this order any more."""
    raise Ignore


@app.task(acks_late=True)
def refuse(order):
    """Refused for good."""
    raise Reject("not for us", requeue=False)
