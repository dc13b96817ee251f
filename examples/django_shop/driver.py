"""Drives the store's tasks as its views would, and prints what it saw, as JSON.

python manage.py migrate
celery -A config worker -Q store,mail -l INFO
python driver.py
"""

import json
import os
import sys
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from celery import chain, current_app, group  # noqa: E402
from django.db import transaction  # noqa: E402
from store import tasks  # noqa: E402
from store.models import Order  # noqa: E402

WAIT = 30


def seen(result):
    """Wait for a result and say what it was."""
    try:
        return ["ok", result.get(timeout=WAIT)]
    except Exception as exc:
        return [type(exc).__module__, type(exc).__name__, str(exc), result.state]


def until(condition):
    """Poll until a condition holds."""
    end = time.monotonic() + WAIT
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit("gave up waiting")
        time.sleep(0.02)
    return value


class UndoError(Exception):
    """Rolls a transaction back."""


def main():
    trace = {"app": current_app.main}
    with transaction.atomic():
        order = Order.objects.create(sku="tea", count=3)
        trace["on commit"] = repr(tasks.pay.delay_on_commit(order.pk))
        time.sleep(0.2)
        trace["before the commit"] = Order.objects.get(pk=order.pk).status
    until(lambda: Order.objects.get(pk=order.pk).status == "paid")
    trace["paid"] = Order.objects.get(pk=order.pk).status
    try:
        with transaction.atomic():
            lost = Order.objects.create(sku="cup")
            tasks.pay.apply_async_on_commit(args=(lost.pk,))
            raise UndoError
    except UndoError:
        trace["rolled back"] = Order.objects.filter(sku="cup").exists()
    shipped = tasks.ship.delay(order.pk)
    value = shipped.get(timeout=WAIT)
    trace["shipped"] = [value["status"], type(value["due"]).__name__, shipped.name]
    trace["notified"] = until(lambda: Order.objects.get(pk=order.pk).status == "notified")
    trace["unknown"] = seen(tasks.ship.delay(4711))
    trace["thrown"] = seen(tasks.count_of.delay(4711))
    trace["group"] = seen(group(tasks.count_of.s(order.pk), tasks.pay.si(order.pk))())
    trace["chain"] = seen(chain(tasks.pay.si(order.pk), tasks.count_of.si(order.pk))())
    trace["registered"] = sorted(n for n in current_app.tasks if n.startswith("store."))
    trace["settings"] = [current_app.conf.timezone, current_app.conf.task_time_limit]
    json.dump({"labels": {}, "trace": trace}, sys.stdout, indent=1, default=repr)


if __name__ == "__main__":
    main()
