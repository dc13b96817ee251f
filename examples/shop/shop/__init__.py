"""A small shop: orders are priced, paid, packed and mailed by Celery tasks."""
