"""Helpers that applications import from ``celery.utils``.

Source: Celery 5.7, ``celery.utils``.
"""

from __future__ import annotations

from kombu.utils.objects import cached_property

from pgcelery.compat.utils.functional import chunks, memoize, noop
from pgcelery.compat.utils.ids import gen_unique_id, uuid
from pgcelery.compat.utils.imports import gen_task_name, import_from_cwd, instantiate
from pgcelery.compat.utils.imports import qualname as get_full_cls_name
from pgcelery.compat.utils.imports import symbol_by_name as get_cls_by_name
from pgcelery.compat.utils.log import LOG_LEVELS
from pgcelery.compat.utils.nodenames import nodename, nodesplit, worker_direct

__all__ = (
    "LOG_LEVELS",
    "cached_property",
    "chunks",
    "gen_task_name",
    "gen_unique_id",
    "get_cls_by_name",
    "get_full_cls_name",
    "import_from_cwd",
    "instantiate",
    "memoize",
    "nodename",
    "nodesplit",
    "noop",
    "uuid",
    "worker_direct",
)
