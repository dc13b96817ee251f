"""Result backends, under the names that Celery has them.

Source: Celery 5.7, `celery.backends.base`.
"""

from __future__ import annotations

from pgcelery.compat.backends.codec import (
    COMPRESSED_PAYLOAD_MAGIC,
    compress_payload,
    decompress_payload,
)
from pgcelery.compat.backends.engine import Backend, unpickle_backend
from pgcelery.compat.backends.failing import _create_chord_error_with_cause
from pgcelery.compat.backends.polling import (
    BaseBackend,
    BaseDictBackend,
    DisabledBackend,
    KeyValueStoreBackend,
)
from pgcelery.compat.backends.storing import EXCEPTION_ABLE_CODECS
from pgcelery.compat.backends.waiting import Waiting as SyncBackendMixin

#: Celery's name for what its key-value backends share; ours share it with `KeyValueStoreBackend`.
BaseKeyValueStoreBackend = KeyValueStoreBackend

__all__ = (
    "COMPRESSED_PAYLOAD_MAGIC",
    "EXCEPTION_ABLE_CODECS",
    "Backend",
    "BaseBackend",
    "BaseDictBackend",
    "BaseKeyValueStoreBackend",
    "DisabledBackend",
    "KeyValueStoreBackend",
    "SyncBackendMixin",
    "_create_chord_error_with_cause",
    "compress_payload",
    "decompress_payload",
    "unpickle_backend",
)
