"""Every setting of Celery: its default, its type, its old name and what becomes of it here.

Source: Celery 5.7, ``celery.app.defaults``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, ClassVar, NamedTuple

from pgcelery.compat.app import defaults_foreign, defaults_own
from pgcelery.compat.app.defaults_own import (
    DEFAULT_PROCESS_LOG_FMT,
    DEFAULT_TASK_LOG_FMT,
    Judgement,
)
from pgcelery.compat.utils.serialization import strtobool

__all__ = (
    "DEFAULTS",
    "DEFAULT_PROCESS_LOG_FMT",
    "DEFAULT_SECURITY_DIGEST",
    "DEFAULT_TASK_LOG_FMT",
    "NAMESPACES",
    "OPTIONS",
    "SETTING_KEYS",
    "Option",
    "find",
    "flatten",
)

DEFAULT_SECURITY_DIGEST = "sha256"


class Option:
    """One setting."""

    typemap: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "string": str,
        "int": int,
        "float": float,
        "any": lambda value: value,
        "bool": strtobool,
        "dict": dict,
        "tuple": tuple,
        "list": list,
    }

    def __init__(
        self,
        default: Any = None,
        *args: Any,
        type: str = "string",
        name: str = "",
        old_name: str | None = None,
        judgement: Judgement = "implement",
        **kwargs: Any,
    ) -> None:
        self.default = default
        self.type = type
        self.name = name
        self.old_name = old_name or name.upper()
        self.old = {self.old_name}
        self.judgement = judgement

    def to_python(self, value: Any) -> Any:
        """Convert text from a command line.

        Raises:
            ValueError: It cannot be.
        """
        return self.typemap[self.type](value)

    def __repr__(self) -> str:
        return f"<Option: type->{self.type} default->{self.default!r}>"


def _options() -> Iterator[Option]:
    for name, default, kind, judgement, *old in [
        *defaults_own.SETTINGS,
        *defaults_own.OURS,
        *defaults_foreign.SETTINGS,
    ]:
        yield Option(
            default, type=kind, name=name, judgement=judgement, old_name=old[0] if old else None
        )


#: Settings by name.
OPTIONS = {option.name: option for option in _options()}
DEFAULTS = {name: option.default for name, option in OPTIONS.items()}
SETTING_KEYS = set(DEFAULTS)

TO_OLD_KEY = {name: option.old_name for name, option in OPTIONS.items()}
TO_NEW_KEY = {old: name for name, old in TO_OLD_KEY.items()}
OLD_SETTING_KEYS = set(TO_NEW_KEY)

#: Prefixes that group settings; a setting under none of them stands for itself.
_PREFIXES = (
    *("beat", "broker", "cache", "cassandra", "s3", "azureblockblob", "gcs", "control"),
    *("couchbase", "arangodb", "mongodb", "cosmosdbsql", "event", "redis", "result"),
    *("elasticsearch", "security", "database", "task", "worker"),
)
_BY_THEMSELVES = {"accept_content", "result_accept_content", "enable_utc"}


def _namespaces() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        prefix, _, rest = name.partition("_")
        if name in _BY_THEMSELVES or prefix not in _PREFIXES:
            found[name] = option
        else:
            found.setdefault(prefix, {})[rest] = option
    return found


#: The same options, nested by prefix: ``NAMESPACES["task"]["acks_late"]``.
NAMESPACES = _namespaces()


def flatten(
    d: dict[str, Any], root: str = "", keyfilter: Callable[..., Any] | None = None
) -> Iterator[Any]:
    """Give (name, option) of a nested mapping like `NAMESPACES`."""
    for key, option in d.items():
        if isinstance(option, dict):
            yield from flatten(option, f"{root}{key}_", keyfilter)
        elif keyfilter is None:
            yield root + key, option
        else:
            yield from keyfilter(root, key, option)


class searchresult(NamedTuple):
    """Where a setting was found."""

    namespace: str | None
    key: str
    type: Any  #: the option, or a whole namespace


@cache
def find(name: str, namespace: str = "celery") -> searchresult:
    """Find a setting by its name with or without the prefix, first in `namespace`.

    Raises:
        KeyError: There is none.
    """
    name, namespace = name.lower(), namespace.lower()
    if name in NAMESPACES.get(namespace, {}):
        return searchresult(namespace, name, NAMESPACES[namespace][name])
    for prefix, options in NAMESPACES.items():
        if prefix == name:
            return searchresult(None, prefix, options)
        if isinstance(options, dict) and name in options:
            return searchresult(prefix, name, options[name])
    return searchresult(None, name, OPTIONS[name])
