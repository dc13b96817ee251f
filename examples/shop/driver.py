"""Drives every task of the shop and prints what it saw, as JSON.

Start a worker first, then this, with the same environment:

    celery -A shop worker -Q shop,mail -c 2 -l INFO
    python driver.py
"""

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta

from celery import chain, chord, group, signature
from celery.exceptions import TimeoutError as ResultTimeout
from celery.result import AsyncResult, GroupResult
from celery.signals import after_task_publish, before_task_publish
from shop import mail, orders, reports
from shop.celery import app

WAIT = 30
labels = {}  # task id -> the name it has in the trace
published = []  # what the publishing signals said


def named(result, label):
    """Give a result, its parents and its members names that are equal in every run."""
    labels[result.id] = label
    if isinstance(result, GroupResult):
        for k, member in enumerate(result.results):
            named(member, f"{label}/{k}")
    if result.parent is not None and result.parent.id not in labels:
        named(result.parent, f"{label}^")
    return result


def seen(result, timeout=WAIT):
    """Wait for a result and say everything that can be observed of it."""
    try:
        found = {"value": result.get(timeout=timeout)}
    except Exception as exc:
        found = {"raised": type(exc).__name__, "module": type(exc).__module__, "with": exc.args}
        if exc.__cause__ is not None:
            found["cause"] = repr(exc.__cause__)
    return found | facts(result)


def facts(result):
    """What a finished result says without waiting."""
    return {
        "state": result.state,
        "status": result.status,
        "ready": result.ready(),
        "successful": result.successful(),
        "failed": result.failed(),
        "retries": result.retries,
        "name": result.name,
        "queue": result.queue,
        "args": result.args,
        "kwargs": result.kwargs,
        "worker_is_set": bool(result.worker),
        "date_done": type(result.date_done).__name__,
        "traceback": (result.traceback or "").strip().splitlines()[-1:],
        "children": [c.id for c in result.children or []],
        "parent": result.parent and result.parent.id,
    }


def until(condition):
    """Poll until a condition holds."""
    end = time.monotonic() + WAIT
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"gave up waiting for {condition}")
        time.sleep(0.02)
    return value


def raised(call, *args, **kwargs):
    """The exception a call raises here, in the caller."""
    try:
        call(*args, **kwargs)
    except Exception as exc:
        return [type(exc).__name__, str(exc)]
    return None


def plain_calls():
    direct = orders.price("tea", 2)
    delayed = named(orders.price.delay("tea", count=3), "delay")
    applied = named(orders.price.apply_async(("pot",), {"count": 2}), "apply_async")
    signed = named(orders.price.s(4).delay("cup"), "signature")
    own_id = named(orders.price.apply_async(("cup",), task_id="order-1001"), "own id")
    by_name = named(app.send_task("shop.orders.price", ("tea", 5)), "send_task")
    return [direct, *map(seen, (delayed, applied, signed, own_id, by_name))]


def errors_in_the_caller():
    return {
        "arguments": raised(orders.price.delay),
        "too many": raised(orders.price.delay, "tea", 1, 2),
        "not serializable": raised(orders.price.delay, {"tea"})[0],
        "unknown article, called directly": raised(orders.price, "gold"),
    }


def failures():
    stock = named(orders.reserve.delay("tea", 11), "out of stock")
    missing = named(orders.price.delay("gold"), "no such article")
    nobody = named(app.send_task("shop.orders.nobody", ("x",), queue="shop"), "unregistered")
    refused = named(orders.refuse.delay(7), "rejected")
    failed = {r.id: seen(r) for r in (stock, missing, nobody, refused)}
    failed["without propagation"] = repr(missing.get(propagate=False))
    return failed


def ignored():
    dropped = named(orders.drop.delay(8), "ignored")
    after = named(orders.price.delay("tea"), "after the ignored one")
    seen(after)
    quiet = named(mail.send.delay("a@example.org", "hello"), "ignore_result")
    stored = named(orders.price.apply_async(("tea",), ignore_result=True), "ignored by the call")
    started = until(lambda: dropped.state in ("STARTED", "PENDING") and dropped.state)
    return [
        started in ("STARTED", "PENDING"),
        raised(dropped.get, timeout=0.3)[0] == ResultTimeout.__name__,
        quiet.get(timeout=1),
        quiet.ignored,
        stored.get(timeout=1),
        AsyncResult("never-sent", app=app).state,
    ]


def retries():
    paid = named(orders.charge.delay(50, busy=2), "retry")
    hopeless = named(
        orders.charge.apply_async((50,), {"busy": 9}, link_error=mail.report_failure.s()),
        "retry for ever",
    )
    shipped = named(orders.ship.delay("Dover"), "autoretry")
    stranded = named(orders.ship.delay("Atlantis", failures=9), "autoretry for ever")
    refused = named(orders.ship.delay("Dover", refuse=True), "dont_autoretry_for")
    return list(map(seen, (paid, hopeless, shipped, stranded, refused)))


def requests():
    about = reports.about
    later = datetime.now(UTC) + timedelta(hours=1)
    one = named(about.delay(1, two=2), "request")
    options = named(
        about.apply_async(
            ("x",),
            queue="mail",
            priority=5,
            headers={"x-tenant": "acme"},
            expires=later,
            time_limit=50,
            soft_time_limit=40,
        ),
        "request with options",
    )
    soon = named(about.apply_async(countdown=0.5), "request with countdown")
    before = time.monotonic()
    found = [r.get(timeout=WAIT) for r in (one, options, soon)]
    found.append(["waited for its countdown", time.monotonic() - before > 0.3])
    found[1]["expires"] = found[1]["expires"] == later.isoformat()
    found[2]["eta"] = bool(found[2]["eta"])
    return found


def progress():
    with tempfile.TemporaryDirectory() as folder:
        go = os.path.join(folder, "go")
        result = named(reports.inventory.delay(4, go), "progress")
        until(lambda: result.state == "PROGRESS")
        during = [result.state, result.info, result.ready()]
        open(go, "w").close()
        return [during, result.get(timeout=WAIT), result.state]


def limits():
    abandoned = named(reports.slow.delay(20), "soft limit caught")
    ended = named(reports.slower.delay(20), "soft limit")
    found = [seen(abandoned), seen(ended)]
    killed = named(reports.slowest.delay(20), "hard limit")
    found.append(seen(killed))
    alive = named(orders.price.delay("tea"), "after the hard limit")
    found.append(seen(alive))
    return found


def expiry():
    late = named(orders.price.apply_async(("tea",), countdown=1, expires=0.5), "expired")
    revoked = orders.price.apply_async(("tea",), countdown=3600)
    revoked.revoke()
    until(lambda: revoked.state == "REVOKED")
    return [seen(late), raised(revoked.get, timeout=WAIT), revoked.ready(), revoked.failed()]


def callbacks():
    paid = named(orders.charge.apply_async((20,), link=mail.receipt.s(to="ann")), "linked")
    found = [seen(paid)]
    child = named(paid.children[0], "link")
    found.append(seen(child))
    bad = orders.reserve.apply_async(
        ("tea", 99), link_error=[mail.apologise.s(), mail.report_failure.s()]
    )
    found.append(seen(named(bad, "errbacks")))
    late = named(orders.price.delay("tea"), "after the errbacks")
    seen(late)
    return found


def chains():
    straight = named((orders.price.s("pot") | orders.discount.s(10)).delay(), "chain")
    deep = chain(orders.price.s("pot"), orders.discount.s(10), orders.charge.s(busy=1))
    retried = named(deep.apply_async(link=mail.receipt.s()), "chain with a retry")
    broken = named(
        chain(orders.price.s("pot"), orders.reserve.s(99), orders.total.s())(), "broken chain"
    )
    still = named(chain(orders.price.s("tea"), orders.price.si("pot"))(), "immutable")
    found = [seen(r) for r in (straight, straight.parent, retried, retried.parent)]
    found += [seen(broken.parent), facts(broken), seen(still)]
    found.append([list(map(str, still.as_list())) == [still.id, still.parent.id]])
    return found


def groups():
    job = group(orders.price.s(sku) for sku in ("tea", "cup", "pot"))
    result = named(job.apply_async(), "group")
    values = result.get(timeout=WAIT)
    result.save()
    again = GroupResult.restore(result.id, app=app)
    mixed = named(group(orders.price.s("tea"), orders.reserve.s("tea", 99))(), "mixed group")
    return {
        "values": values,
        "counts": [len(result), result.completed_count(), result.successful(), result.failed()],
        "restored": [r.id for r in again.results],
        "mixed": seen_group(mixed),
        "empty": group([])().results,
        "nested": group(orders.price.s("tea"), group(orders.price.s("cup")))
        .apply_async()
        .get(timeout=WAIT),
        "members": [facts(r) for r in result.results],
    }


def seen_group(result):
    values = [repr(v) for v in result.join(timeout=WAIT, propagate=False)]
    return [values, result.successful(), result.failed(), result.ready()]


def chords():
    lines = [orders.price.s("tea", 2), orders.price.s("cup"), orders.price.s("pot")]
    summed = named(chord(lines)(orders.total.s()), "chord")
    piped = named((group(lines) | orders.total.s() | orders.discount.s(50)).delay(), "piped")
    broken = chord([orders.price.s("tea"), orders.price.s("gold")], orders.total.s())
    failed = named(broken.apply_async(link_error=mail.report_failure.s()), "broken chord")
    found = [seen(summed), seen(piped), facts_of_parents(piped)]
    until(failed.ready)
    error = failed.result
    found.append([failed.state, type(error).__name__, str(error)])
    found.append(raised(AsyncResult(failed.id, app=app).get, timeout=WAIT)[0])
    return found


def facts_of_parents(result):
    chain_of = []
    while (result := result.parent) is not None:
        chain_of.append([type(result).__name__, result.id])
    return chain_of


def from_inside():
    packed = named(orders.pack.delay(2), "pack")
    found = [seen(packed)]
    for k, child in enumerate(sorted(packed.children, key=lambda c: c.get(timeout=WAIT))):
        found.append(seen(named(child, f"packed {k}")))
    replaced = named(orders.fulfil.delay(["pot", "tea"]), "replaced")
    found.append([replaced.get(timeout=WAIT), replaced.state])
    starmap = named(orders.price.starmap([("tea", 1), ("cup", 2)]).delay(), "starmap")
    chunks = orders.price.chunks([("tea", 1), ("cup", 2), ("pot", 3)], 2).apply_async()
    found.append([starmap.get(timeout=WAIT), chunks.get(timeout=WAIT)])
    return found


def wire():
    """Signatures are dictionaries; the publishing signals saw every message."""
    sig = orders.charge.s(5, busy=1).set(queue="mail", link=mail.receipt.s())
    copy = signature(json.loads(json.dumps(sig)), app=app)
    forgotten = named(orders.price.delay("tea"), "forgotten")
    seen(forgotten)
    forgotten.forget()
    return {
        "signature": sig,
        "equal": copy == sig,
        "repr": repr(sig),
        "forgotten": AsyncResult(forgotten.id, app=app).state,
        "eager": orders.price.apply(("tea",)).get(),
        "eager retries": orders.charge.apply((5,), {"busy": 2}).get(),
        "registered": sorted(name for name in app.tasks if name.startswith("shop.")),
    }


@before_task_publish.connect
def before_publish(sender, headers, body, exchange, routing_key, **kwargs):
    published.append(["before", sender, headers["id"], routing_key, headers["retries"]])


@after_task_publish.connect
def after_publish(sender, headers, body, exchange, routing_key, **kwargs):
    published.append(["after", sender, headers["id"], routing_key, headers["retries"]])


STEPS = [
    plain_calls,
    errors_in_the_caller,
    failures,
    ignored,
    retries,
    requests,
    progress,
    limits,
    expiry,
    callbacks,
    chains,
    groups,
    chords,
    from_inside,
    wire,
]


def main(only):
    trace = {}
    for step in STEPS:
        if only and step.__name__ not in only:
            continue
        first = len(published)
        try:
            trace[step.__name__] = step()
        except Exception as exc:
            if only:
                raise
            trace[step.__name__] = f"{type(exc).__name__}: {exc}"
        trace[step.__name__ + " published"] = published[first:]
        print(step.__name__, file=sys.stderr)
    json.dump({"labels": labels, "trace": trace}, sys.stdout, indent=1, default=repr)


if __name__ == "__main__":
    main(sys.argv[1:])
