"""Which database an app uses, from Celery's settings.

``broker_url``, in this order: the setting, over which CELERY_BROKER_URL wins as in Celery; with
no setting PGCELERY_DATABASE_URL, then CELERY_BROKER_URL; with none of these the embedded server of
this user. ``broker_read_url`` and ``broker_write_url`` (and their variables) win over it, and must
name the same database.

========================================  =======================================================
``postgresql://`` ``postgres://``         that database; ``+psycopg`` and the like are dropped
``pgcelery://``, ``host=... dbname=...``
``memory://``                             a private throw-away server, shared with forked children
anything else                             refused
========================================  =======================================================

``result_backend`` does not choose a database, for results are kept with the tasks. Accepted are:
unset or ``disabled://`` (no results), ``rpc://`` and ``cache+memory://`` (kept in the database like
any), and the broker's own database, as ``postgresql://`` or ``db+postgresql://``.

Source: Celery 5.7, ``celery.app.utils.Settings`` (variables win over settings); what the URLs
mean is pgcelery's own.
"""

from __future__ import annotations

import importlib
import os
import re
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgcelery.compat.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from pgcelery.engine.embedded import EphemeralServer

_EMBEDDED = "pgcelery.engine.embedded"  # imported where one is meant: few apps use it

_NATIVE = re.compile(r"^(?:postgres(?:ql)?(?:\+\w+)?|pgcelery)://", re.IGNORECASE)
_KEYWORDS = re.compile(r"^\s*\w+\s*=")
_RESULTS_WITH_TASKS = {"disabled", "rpc", "cache+memory"}
_USERINFO = re.compile(r"(://[^\s:/?#@]*):\S*@")
_PASSWORD = re.compile(r"\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:\\.|[^\s\\])+)", re.I)

#: py-amqp's and redis-py's names, and libpq's for the same
_TLS_FILES = {
    "ca_certs": "sslrootcert",
    "certfile": "sslcert",
    "keyfile": "sslkey",
}
_TLS_OTHERS = {"cert_reqs", "check_hostname"}
_UNVERIFIED = {ssl.CERT_NONE, "CERT_NONE", "none"}


@dataclass(frozen=True, slots=True)
class Target:
    """What the settings say, before anything is started."""

    kind: Literal["database", "embedded", "memory"]
    dsn: str | None  #: of a database; None for the other kinds
    origin: str  #: setting or variable that said so


def resolve(conf: Mapping[str, Any] | Any = None) -> str:
    """Return the DSN of an app's database, starting an embedded server where one is meant.

    Args:
        conf: Celery's settings, by item or attribute; None asks only the environment.

    Raises:
        ImproperlyConfigured: A setting names something that cannot be used; says what to do.
        pgcelery.engine.errors.EmbeddedServerError: The embedded server does not start.
    """
    found = target(conf)
    if found.kind == "memory":
        return _memory_dsn()
    return found.dsn or str(importlib.import_module(_EMBEDDED).ensure_server().dsn)


def target(conf: Mapping[str, Any] | Any = None) -> Target:
    """Tell which database the settings mean; starts nothing.

    Raises:
        ImproperlyConfigured: As `resolve`.
    """
    sides = [_side(conf, name) for name in ("broker_read_url", "broker_write_url")]
    targets = [_target(*side, conf) for side in sides if side]
    found = targets[0] if targets else Target("embedded", None, "no broker_url is set")
    for other in targets[1:]:
        if (other.kind, other.dsn) != (found.kind, found.dsn):
            raise ImproperlyConfigured(
                f"{found.origin} and {other.origin} name two databases: pgcelery reads and writes "
                "one, so leave only broker_url"
            )
    _check_backend(conf, found)
    return found


def mask(text: str) -> str:
    """Hide the passwords of URLs and DSNs in a text, for banners, logs and errors.

    Source: kombu, ``maybe_sanitize_url`` (the ``**``); this one also knows keyword DSNs, query
    parameters and passwords with an ``@`` in them.
    """
    return _PASSWORD.sub(r"\1**", _USERINFO.sub(r"\1:**@", text))


def _get(conf: Any, name: str) -> Any:
    return conf.get(name) if isinstance(conf, Mapping) else getattr(conf, name, None)


def _side(conf: Any, name: str) -> tuple[str, Any] | None:
    """What readers or writers are told: (where it says so, the URL)."""
    specific = _from_environment(name) or _setting(conf, name)
    if specific:
        return specific
    shared = _setting(conf, "broker_url")
    variable = _from_environment("broker_url")
    # The settings object may itself put the variable in the setting's place.
    if shared and not (variable and shared[1] == variable[1]):
        return variable or shared
    database = os.environ.get("PGCELERY_DATABASE_URL")
    return ("PGCELERY_DATABASE_URL", database) if database else variable


def _from_environment(setting: str) -> tuple[str, str] | None:
    name = f"CELERY_{setting.upper()}"
    value = os.environ.get(name)
    return (name, value) if value else None


def _setting(conf: Any, name: str) -> tuple[str, Any] | None:
    value = _get(conf, name)
    return (name, value) if value else None


def _target(origin: str, url: Any, conf: Any) -> Target:
    url = _only(origin, url)
    if _scheme(url) == "memory":
        return Target("memory", None, origin)
    dsn = _native(origin, url)
    if dsn is None:
        raise ImproperlyConfigured(
            f"{origin} is {mask(url)!r}, another broker: pgcelery keeps tasks in PostgreSQL, so "
            "set it (or the variable CELERY_BROKER_URL) to postgresql://user@host/database, or "
            "leave it unset for the embedded server"
        )
    return Target("database", _with_tls(dsn, _get(conf, "broker_use_ssl")), origin)


def _only(origin: str, value: Any) -> str:
    """Celery takes several URLs to fail over to; libpq takes several hosts in one."""
    parts = value.split(";") if isinstance(value, str) and "://" in value else value
    urls = [parts] if isinstance(parts, str) else [str(part) for part in parts if part]
    if len(set(urls)) != 1:
        raise ImproperlyConfigured(
            f"{origin} names {len(urls)} URLs: to fail over, put the hosts into one, as "
            "postgresql://user@first,second/database?target_session_attrs=read-write"
        )
    return urls[0]


def _scheme(url: str) -> str:
    return url.partition("://")[0].strip().lower()


def _native(origin: str, url: str) -> str | None:
    """Return what libpq takes, or None for a URL of something else."""
    if not (_NATIVE.match(url) or ("://" not in url and _KEYWORDS.match(url))):
        return None
    dsn = _NATIVE.sub("postgresql://", url.strip())
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as exc:
        reason = str(exc).strip()
        if "percent-encoded" in reason:  # it quotes the password
            reason = "a % in it must be written %25"
        raise ImproperlyConfigured(f"{origin} is {mask(url)!r}: {mask(reason)}") from None
    return dsn


def _with_tls(dsn: str, use_ssl: Any) -> str:
    """Add what ``broker_use_ssl`` asks for; what the URL itself says wins."""
    known = conninfo_to_dict(dsn)
    wanted = {key: value for key, value in _tls(use_ssl).items() if key not in known}
    if not wanted:
        return dsn
    if "://" not in dsn:
        return make_conninfo(dsn, **wanted)
    return f"{dsn}{'&' if '?' in dsn else '?'}{urlencode(wanted, quote_via=quote)}"


def _tls(use_ssl: Any) -> dict[str, str]:
    if not use_ssl:
        return {}
    if not isinstance(use_ssl, Mapping):
        return {"sslmode": "require"}
    options = {str(key).removeprefix("ssl_"): value for key, value in use_ssl.items()}
    unknown = sorted(options.keys() - _TLS_FILES.keys() - _TLS_OTHERS)
    if unknown:
        raise ImproperlyConfigured(
            f"broker_use_ssl has {', '.join(unknown)}, which PostgreSQL connections do not know: "
            "give ca_certs, certfile, keyfile, cert_reqs or check_hostname, or put libpq's ssl "
            "parameters into the URL"
        )
    params = {_TLS_FILES[key]: str(options[key]) for key in _TLS_FILES if options.get(key)}
    verified = options.get("cert_reqs", ssl.CERT_REQUIRED if "sslrootcert" in params else None)
    if verified is None or verified in _UNVERIFIED:
        params.pop("sslrootcert", None)  # libpq would verify against it even so
        return {"sslmode": "require"} | params
    sslmode = "verify-full" if options.get("check_hostname", True) else "verify-ca"
    return {"sslmode": sslmode} | params


def _check_backend(conf: Any, broker: Target) -> None:
    origin, backend = (
        _from_environment("result_backend") or _setting(conf, "result_backend") or ("", None)
    )
    if not backend or (isinstance(backend, str) and _scheme(backend) in _RESULTS_WITH_TASKS):
        return
    dsn = _native(origin, backend.removeprefix("db+")) if isinstance(backend, str) else None
    if dsn is None:
        raise ImproperlyConfigured(
            f"{origin} is {mask(str(backend))!r}, another result store: pgcelery keeps results in "
            "PostgreSQL with the tasks, so remove it or set it to the URL of the broker"
        )
    if broker.dsn is None or _place(dsn) != _place(broker.dsn):
        raise ImproperlyConfigured(
            f"{origin} is {mask(backend)!r}, which is not the database of the tasks "
            f"({mask(broker.dsn) if broker.dsn else broker.origin}): results are kept with the "
            "tasks, so remove it or set it to the URL of the broker"
        )


def _place(dsn: str) -> tuple[str, ...]:
    """Host, port and name of a database, as far as they tell two apart."""
    known = conninfo_to_dict(dsn)
    host = str(known.get("host") or known.get("hostaddr") or "")
    if host in ("127.0.0.1", "::1"):
        host = "localhost"
    return host, str(known.get("port") or 5432), str(known.get("dbname") or known.get("user") or "")


_memory_lock = threading.Lock()
_memory: EphemeralServer | None = None


def _memory_dsn() -> str:
    global _memory
    with _memory_lock:
        if _memory is None:
            _memory = importlib.import_module(_EMBEDDED).ephemeral_server()
        return _memory.dsn


def _after_fork() -> None:
    """Another thread of the parent may have held the lock; the server itself is shared."""
    global _memory_lock
    _memory_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
