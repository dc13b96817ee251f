"""The loader of the app that exists when no other does.

Source: Celery 5.7, ``celery.loaders.default``.
"""

from __future__ import annotations

import os
from typing import Any

from pgcelery.compat.loaders.base import BaseLoader
from pgcelery.compat.utils.collections import DictAttribute

__all__ = ("DEFAULT_CONFIG_MODULE", "Loader")

DEFAULT_CONFIG_MODULE = "celeryconfig"


class Loader(BaseLoader):
    """Reads ``celeryconfig.py``, or the module that ``CELERY_CONFIG_MODULE`` names."""

    def setup_settings(self, settingsdict: Any) -> Any:
        """Make a module readable as a mapping."""
        return DictAttribute(settingsdict)

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Any:
        """Give the module's settings; none if there is no such module."""
        name = os.environ.get(env) or DEFAULT_CONFIG_MODULE
        try:
            found = self._import_config_module(name)
        except ImportError:
            return {}
        self.configured = True
        return self.setup_settings(found)
