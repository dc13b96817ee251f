"""The application. Broker and result backend come from the environment: CELERY_BROKER_URL, ..."""

from celery import Celery

app = Celery("shop", include=["shop.orders", "shop.mail", "shop.reports", "shop.audit"])
app.config_from_object("shop.celeryconfig")
