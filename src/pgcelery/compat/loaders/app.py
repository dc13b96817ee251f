"""The loader of an app that is configured by its own code.

Source: Celery 5.7, ``celery.loaders.app``.
"""

from __future__ import annotations

from pgcelery.compat.loaders.base import BaseLoader

__all__ = ("AppLoader",)


class AppLoader(BaseLoader):
    """Reads ``CELERY_CONFIG_MODULE`` unless the app says where its configuration is."""
