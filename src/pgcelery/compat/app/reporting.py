"""Describing an app to a person, without its secrets.

Source: Celery 5.7, ``celery.app.utils``.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pgcelery._version import __version__
from pgcelery.compat._version import VERSION_BANNER
from pgcelery.compat.utils.imports import qualname

__all__ = ("appstr", "bugreport", "filter_hidden_settings", "sanitize_url")

MASK = "*" * 8

HIDDEN_SETTINGS = re.compile(
    "API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE
)

BUGREPORT = """
software -> celery:{celery} pgcelery:{pgcelery} kombu:{kombu} py:{py}
            billiard:{billiard} psycopg:{psycopg}
platform -> system:{system} arch:{arch}
            kernel version:{kernel} imp:{imp}
loader   -> {loader}
settings -> transport:postgresql results:{results}

{settings}
"""


def appstr(app: Any) -> str:
    """Say which app it is, in a ``repr``."""
    return f"{app.main or '__main__'} at {id(app):#x}"


#: user:password@ in the authority of a URL. A password may hold @, / and a comma, so the last @
#: before another URL begins is taken: better to mask too much.
_PASSWORD = re.compile(r"(?<=://)([^:@/\s;,]*):((?:(?![;,][\w+.-]+://)\S)*)@")
_SECRET_PARAMETER = re.compile(r"((?:password|secret|token|sig)[\w-]*=)[^&;#\s]*", re.IGNORECASE)


def sanitize_url(url: Any, mask: str = MASK) -> Any:
    """Give a URL with its passwords masked; what is not text comes back unchanged."""
    if not url or not isinstance(url, str):
        return url
    return _SECRET_PARAMETER.sub(rf"\g<1>{mask}", _PASSWORD.sub(rf"\g<1>:{mask}@", url))


def filter_hidden_settings(conf: Mapping[str, Any]) -> dict[str, Any]:
    """Mask what the name of a setting says is secret, and passwords in URLs."""

    def censor(key: Any, value: Any) -> Any:
        if isinstance(value, Mapping):
            return filter_hidden_settings(value)
        if isinstance(key, str) and HIDDEN_SETTINGS.search(key):
            return MASK
        return sanitize_url(value)

    return {key: censor(key, value) for key, value in conf.items()}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def bugreport(app: Any) -> str:
    """Say what software and which settings an app runs with."""
    return BUGREPORT.format(
        celery=VERSION_BANNER,
        pgcelery=__version__,
        kombu=_installed("kombu"),
        py=platform.python_version(),
        billiard=_installed("billiard"),
        psycopg=_installed("psycopg"),
        system=platform.system(),
        arch=", ".join(part for part in platform.architecture() if part),
        kernel=platform.release(),
        imp=platform.python_implementation(),
        loader=qualname(type(app.loader)),
        results=sanitize_url(app.conf.result_backend or "postgresql"),
        settings=app.conf.humanize(),
    )
