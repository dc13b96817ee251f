"""The version of Celery that this package behaves as."""

from __future__ import annotations

from typing import NamedTuple


class version_info_t(NamedTuple):
    """A version in parts."""

    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: str


__version__ = "5.7.0"
SERIES = "pgcelery"
VERSION = version_info = version_info_t(5, 7, 0, "", "")
VERSION_BANNER = f"{__version__} ({SERIES})"
