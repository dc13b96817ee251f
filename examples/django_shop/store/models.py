"""One model: an order and what became of it."""

from django.db import models


class Order(models.Model):
    """An order; tasks move it from new to paid to shipped."""

    sku = models.CharField(max_length=20)
    count = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=20, default="new")
    due = models.DateTimeField(null=True)
