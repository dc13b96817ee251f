"""Which result backend the settings name.

Source: Celery 5.7, ``celery.app.backends``. Differs: with none named, results are kept in the
database with the tasks; ``disabled://`` keeps none.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.imports import load_extension_class_names, symbol_by_name

__all__ = ("by_name", "by_url")

_ENGINE = "pgcelery.compat.backends.base:Backend"

#: Names and schemes. The database itself is checked where the broker's is, in ``dsn``.
BACKEND_ALIASES = {
    "disabled": "pgcelery.compat.backends.base:DisabledBackend",
    **dict.fromkeys(
        ("pgcelery", "postgresql", "postgres", "db", "rpc", "cache", "memory"), _ENGINE
    ),
}

#: Celery's own, which have their storage elsewhere.
_ELSEWHERE = frozenset(
    (
        *("redis", "rediss", "sentinel", "valkey", "mongodb", "couchbase", "couchdb", "cassandra"),
        *("elasticsearch", "riak", "consul", "dynamodb", "azureblockblob", "arangodb", "s3", "gs"),
        *("cosmosdbsql", "file", "filesystem", "amqp", "database"),
    )
)


def by_name(
    backend: Any = None, loader: Any = None, extension_namespace: str = "celery.result_backends"
) -> Any:
    """Give a backend class by name, alias or entry point.

    Raises:
        ImproperlyConfigured: It keeps its results where pgcelery does not, or there is no such.
    """
    if isinstance(backend, type):
        return backend
    name = backend or "pgcelery"
    aliases = {
        **BACKEND_ALIASES,
        **dict(load_extension_class_names(extension_namespace)),
        **(getattr(loader, "override_backends", None) or {}),
    }
    if name in _ELSEWHERE and name not in aliases:
        raise ImproperlyConfigured(
            f"result_backend {name!r} is another result store: pgcelery keeps results in "
            "PostgreSQL with the tasks, so remove the setting or set it to the URL of the broker"
        )
    try:
        found = symbol_by_name(name, aliases)
    except (ValueError, ModuleNotFoundError) as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name != name:
            raise  # a class path, whose module is missing or imports one that is
        raise _unknown(name, exc) from exc
    if isinstance(found, ModuleType):
        raise _unknown(name, "is a Python module, not a backend class.")
    return found


def _unknown(name: Any, why: Any) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"Unknown result backend: {name!r}.  Did you spell that correctly? ({why!r})"
    )


def by_url(backend: Any = None, loader: Any = None) -> tuple[Any, str | None]:
    """Give a backend class by URL or name, and the URL for it.

    Raises:
        ImproperlyConfigured: As `by_name`.
    """
    url = None
    if isinstance(backend, str) and "://" in backend:
        url = backend
        scheme = url.partition("://")[0]
        backend = scheme
        if "+" in scheme:
            backend, url = url.split("+", 1)
    return by_name(backend, loader), url
