"""Measures pgcelery beside real Celery on Redis: `python -m bench`."""
