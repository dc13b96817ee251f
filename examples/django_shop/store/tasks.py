"""The store's tasks: shared, so that they belong to whatever application loads them."""

from datetime import timedelta

from celery import shared_task
from django.db import transaction
from django.utils import timezone

from .models import Order


@shared_task
def pay(order_id):
    """Mark an order as paid; it must be there, so it is sent after the commit."""
    order = Order.objects.get(pk=order_id)
    order.status = "paid"
    order.save(update_fields=["status"])
    return order.status


@shared_task(bind=True, autoretry_for=(Order.DoesNotExist,), retry_backoff=1, max_retries=1)
def ship(self, order_id):
    """Ship an order and, once that is committed, tell the customer."""
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        order.status = "shipped"
        order.due = timezone.now() + timedelta(days=2)
        order.save()
        notify.delay_on_commit(order_id)
    return {"status": order.status, "due": order.due}


@shared_task(ignore_result=True)
def notify(order_id):
    """Mail the customer; here: note it."""
    Order.objects.filter(pk=order_id).update(status="notified")


@shared_task(throws=(Order.DoesNotExist,))
def count_of(order_id):
    """How many were ordered; an unknown order is the caller's mistake."""
    return Order.objects.get(pk=order_id).count
