"""``app.conf``: what is set, where it comes from, and what the engine makes of it.

Source: Celery 5.7, ``celery.app.utils.Settings`` and userguide "Configuration and defaults".
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, cast

from pgcelery.compat import dsn
from pgcelery.compat.app.defaults import (
    DEFAULTS,
    OLD_SETTING_KEYS,
    OPTIONS,
    SETTING_KEYS,
    TO_NEW_KEY,
    TO_OLD_KEY,
    find,
    searchresult,
)
from pgcelery.compat.app.defaults_own import PROFILES
from pgcelery.compat.app.reporting import filter_hidden_settings
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils import deprecated
from pgcelery.compat.utils.collections import AttributeDictMixin, force_mapping
from pgcelery.compat.utils.functional import uniq
from pgcelery.compat.utils.text import match_case, pretty
from pgcelery.engine import EngineConfig

__all__ = ("PendingConfiguration", "Settings", "detect_settings", "engine_config")

logger = logging.getLogger(__name__)

_ENV = {
    "broker_url": "CELERY_BROKER_URL",
    "broker_read_url": "CELERY_BROKER_READ_URL",
    "broker_write_url": "CELERY_BROKER_WRITE_URL",
    "result_backend": "CELERY_RESULT_BACKEND",
}


_NOT_SET = object()


@lru_cache(4096)
def _names_of(key: str, prefix: str | None) -> tuple[str, ...]:
    """Give the names under which a setting may be found, the likeliest first."""
    names = [key, TO_NEW_KEY.get(key, key), TO_OLD_KEY.get(key, key)]
    if prefix:
        full = key if key.startswith(prefix) else prefix + key
        names.insert(0, match_case(full, prefix))
    return tuple(dict.fromkeys(names))


@lru_cache(64)
def _names_of_all(
    keys: tuple[str, ...], prefix: str | None
) -> tuple[list[tuple[str, ...]], frozenset[str], itemgetter[tuple[Any, ...]]]:
    """Give their names, the same in one set, and what reads all of them by the likeliest name."""
    each = [_names_of(key, prefix) for key in keys]
    return each, frozenset(chain(*each)), itemgetter(*(names[0] for names in each))


class Settings(AttributeDictMixin, MutableMapping[str, Any]):
    """Settings, read as attributes or items, by new or old name, with or without the prefix.

    What was set on it wins over the source of configuration, that over `add_defaults`, that over
    the defaults. The source is read when a setting is first read; what is set before then waits.

    Args:
        changes: What is set; kept and changed, not copied.
        defaults: Mappings to look in after it, the first one first.
        prefix: The namespace, ``CELERY``; None for none.
        load: Called once before the first reading; it calls `fill`.
    """

    def __init__(
        self,
        changes: MutableMapping[str, Any] | None = None,
        defaults: list[Mapping[str, Any]] | None = None,
        prefix: str | None = None,
        load: Callable[[], Any] | None = None,
        deprecated_settings: set[str] | None = None,
    ) -> None:
        self.__dict__.update(
            changes={} if changes is None else changes,
            defaults=defaults or [],
            prefix=prefix.rstrip("_") + "_" if prefix else None,
            deprecated_settings=deprecated_settings,
            _load=load,
            _observers=[],
        )

    # -- where it comes from

    def fill(self, other: Settings) -> None:
        """Take over the contents of another one, which are now loaded."""
        names = ("changes", "defaults", "prefix", "deprecated_settings")
        other._apply_profile()
        self.__dict__.update({name: other.__dict__[name] for name in names}, _load=None)

    swap_with = fill

    def finalize(self) -> Settings:
        """Load the configuration if it is not yet.

        Raises:
            ModuleNotFoundError: Also for an ``AttributeError`` from the source, which would look
                as if a setting were missing.
        """
        load = self.__dict__["_load"]
        if load is not None:
            try:
                load()
            except AttributeError as exc:
                raise ModuleNotFoundError(*exc.args) from exc
        return self

    @property
    def maps(self) -> list[Mapping[str, Any]]:
        """Where a setting is looked for, in order."""
        return [self.__dict__["changes"], *self.__dict__["defaults"]]

    def add_defaults(self, d: Any) -> None:
        """Look in a mapping, or an object, before the defaults known so far."""
        self.__dict__["defaults"].insert(0, force_mapping(d))
        self._apply_profile()

    def _apply_profile(self) -> None:
        """Make the defaults those of ``task_profile``."""
        maps = self.__dict__["defaults"]
        if self.__dict__["_load"] is not None or not maps or "task_profile" not in maps[-1]:
            return  # not loaded yet, or a part of settings without the defaults
        name = self["task_profile"] or "celery"
        if name not in PROFILES:
            known = ", ".join(map(repr, PROFILES))
            raise ImproperlyConfigured(f"task_profile is {name!r}; it can be {known}")
        celerys = {key: DEFAULTS[key] for profile in PROFILES.values() for key in profile}
        cast(dict[str, Any], maps[-1]).update(celerys | PROFILES[name])

    def bind_to(self, callback: Callable[..., Any]) -> None:
        """Call `callback` with a dict of what is set, each time something is."""
        self.__dict__["_observers"].append(callback)

    # -- mapping

    def _to_keys(self, key: str) -> tuple[str, ...]:
        return _names_of(key, self.__dict__["prefix"])

    def __getitem__(self, key: str) -> Any:
        found = self._find(key)
        if found is not _NOT_SET:
            return found
        prefix = self.__dict__["prefix"]
        if prefix:
            first = _names_of(key, prefix)[0]
            raise KeyError(f"Key not found: {key!r} (with prefix: {first!r})")
        raise KeyError(key)

    def __getattr__(self, k: str) -> Any:
        found = self._find(k)
        return super().__getattr__(k) if found is _NOT_SET else found

    def _find(self, key: str) -> Any:
        # Read a dozen times for each call that is sent. Nothing is cached but the names: the
        # sources may change, as Django's settings do under override_settings.
        state = self.__dict__
        if state["_load"] is not None:
            self.finalize()
        keys = _names_of(key, state["prefix"])
        changes = state["changes"]
        for each in keys:
            found = changes.get(each, _NOT_SET)
            if found is not _NOT_SET:
                return found
        for mapping in state["defaults"]:
            for each in keys:
                found = mapping.get(each, _NOT_SET)
                if found is not _NOT_SET:
                    return found
        return _NOT_SET

    def several(self, keys: tuple[str, ...]) -> list[Any]:
        """Read two or more settings at once, each as ``self.get(key)`` does."""
        state = self.__dict__
        if state["_load"] is not None:
            self.finalize()
        every, all_names, read = _names_of_all(keys, state["prefix"])
        maps = [
            each
            for each in (state["changes"], *state["defaults"])
            if type(each) is not dict or not each.keys().isdisjoint(all_names)
        ]
        if len(maps) == 1 and type(maps[0]) is dict:  # none of them is set, mostly
            try:
                return list(read(maps[0]))
            except KeyError:
                pass  # it has some by another name
        found = []
        for names in every:
            value = _NOT_SET
            for mapping in maps:
                for name in names:
                    value = mapping.get(name, _NOT_SET)
                    if value is not _NOT_SET:
                        break
                else:
                    continue
                break
            found.append(None if value is _NOT_SET else value)
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        del self.__dict__["changes"][key]

    def __contains__(self, key: object) -> bool:
        self.finalize()
        return any(
            each in mapping for each in self._to_keys(cast(str, key)) for mapping in self.maps
        )

    def __iter__(self) -> Iterator[str]:
        self.finalize()
        return cast(Iterator[str], uniq(key for mapping in reversed(self.maps) for key in mapping))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        # Without secrets: it ends up in tracebacks and error trackers.
        shown = [repr(filter_hidden_settings(dict(part))) for part in self.maps]
        return f"{type(self).__name__}({', '.join(shown)})"

    __hash__ = object.__hash__

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several."""
        new = dict(*args, **kwargs)
        self.__dict__["changes"].update(new)
        if "task_profile" in new:
            self._apply_profile()
        for callback in self.__dict__["_observers"]:
            callback(new)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set one unless it is set; before the configuration is loaded this does not load it."""
        if self.__dict__["_load"] is None:
            if key not in self:
                self[key] = default
            return self[key]
        return self.__dict__["changes"].setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Take back what was set; only that."""
        return self.__dict__["changes"].pop(key, *default)

    def clear(self) -> None:
        """Take back all that was set."""
        self.__dict__["changes"].clear()

    def copy(self) -> Settings:
        """Give an independent copy."""
        self.finalize()
        return type(self)(
            dict(self.__dict__["changes"]),
            list(self.__dict__["defaults"]),
            self.__dict__["prefix"],
            deprecated_settings=self.__dict__["deprecated_settings"],
        )

    __copy__ = copy

    def __reduce__(self) -> Any:
        self.finalize()
        return type(self), (self.__dict__["changes"], self.__dict__["defaults"], self.prefix)

    # -- settings with more than one source

    def first(self, *keys: str) -> Any:
        """Give the first of these settings that is not None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    @property
    def broker_url(self) -> Any:
        """The URL; the environment wins."""
        return os.environ.get(_ENV["broker_url"]) or self.first("broker_url", "broker_host")

    @property
    def broker_read_url(self) -> Any:
        """The URL for workers."""
        env = os.environ.get(_ENV["broker_read_url"])
        return env or self.get("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """The URL for who sends tasks."""
        env = os.environ.get(_ENV["broker_write_url"])
        return env or self.get("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        """The URL or name; the environment wins."""
        return os.environ.get(_ENV["result_backend"]) or self.get("result_backend")

    @property
    def task_default_exchange(self) -> Any:
        """Its name; by default the queue's."""
        return self.first("task_default_exchange", "task_default_queue")

    @property
    def task_default_routing_key(self) -> Any:
        """The key; by default the queue's name."""
        return self.first("task_default_routing_key", "task_default_queue")

    @property
    def timezone(self) -> Any:
        """The zone; Django's TIME_ZONE counts."""
        return self.first("timezone", "TIME_ZONE")

    # -- looking at it

    def without_defaults(self) -> Settings:
        """Give the settings without the defaults of Celery."""
        self.finalize()
        return type(self)({}, cast(Any, self.maps[:-1]))

    def value_set_for(self, key: str) -> bool:
        """Whether a setting has been set, under whichever of its names."""
        self.finalize()
        return key in type(self)({}, cast(Any, self.maps[:-1]), self.__dict__["prefix"])

    def find_option(self, name: str, namespace: str = "") -> searchresult:
        """Find a setting by its name without the prefix: (namespace, key, option)."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Read a setting by its name without the prefix."""
        return self.get_by_parts(*self.find_option(name, namespace)[:-1])

    def get_by_parts(self, *parts: str | None) -> Any:
        """Read the setting whose name these parts make."""
        return self["_".join(part for part in parts if part)]

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Give the settings as a dict, by default without secrets.

        As in Celery, ``deprecated_settings`` is among them: the old names in use, with defaults.
        """
        self.finalize()
        settings = self if with_defaults else self.without_defaults()
        shown = {
            key: value
            for key, value in settings.items()
            if not key.startswith("_") and not hasattr(dict, key)
        }
        shown["deprecated_settings"] = settings.__dict__["deprecated_settings"]
        return filter_hidden_settings(shown) if censored else shown

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Give the settings as text, one a line."""
        table = self.table(with_defaults, censored)
        return "\n".join(f"{key}: {pretty(value, width=50)}" for key, value in table.items())

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn of each setting that is set by its old name; tell whether there is one."""
        found = self.__dict__["deprecated_settings"] or set()
        for name in sorted(found):
            deprecated.warn(
                description=f"The {name!r} setting",
                removal="6.0.0",
                alternative=f"Use the {TO_NEW_KEY[name]} instead",
            )
        return bool(found)


#: Celery has a class of its own for settings that are not loaded yet.
PendingConfiguration = Settings


def detect_settings(
    conf: Mapping[str, Any] | None,
    preconf: Mapping[str, Any] | None = None,
    ignore_keys: set[str] | None = None,
    prefix: str | None = None,
) -> Settings:
    """Put settings together.

    Args:
        conf: The source of configuration; None if there is none.
        preconf: What was set before it was read; it wins.
        ignore_keys: Keys of `preconf` whose name says nothing about the style of names.
        prefix: The namespace; with one, old names are not looked for.

    Raises:
        ImproperlyConfigured: Old and new names are mixed.
    """
    preconf = dict(preconf or {})
    have = set(preconf if conf is None else conf) - (ignore_keys or set())
    is_old = have & OLD_SETTING_KEYS
    if not prefix:
        _refuse_mixture(have, have & SETTING_KEYS, is_old)
    changes = {TO_NEW_KEY.get(key, key): value for key, value in preconf.items()}
    defaults: list[Mapping[str, Any]] = [{} if conf is None else conf, copy.deepcopy(DEFAULTS)]
    return Settings(changes, defaults, prefix, deprecated_settings=is_old)


def _refuse_mixture(have: set[str], is_new: set[str], is_old: set[str]) -> None:
    """Both names of one setting are fine, and so is a single style."""
    old_wins = len(is_old) > len(is_new)
    odd, other_name = (is_new, TO_OLD_KEY) if old_wins else (is_old, TO_NEW_KEY)
    odd = {key for key in odd if other_name[key] not in have}
    if not (is_old and odd and (is_new or old_wins)):
        return
    renames = "\n".join(f"{key:<36} -> {other_name[key]}" for key in sorted(odd))
    if old_wins:
        raise ImproperlyConfigured(
            "\n\nCannot mix new setting names with old setting names, please\n"
            f"rename the following settings to use the old format:\n\n{renames}\n\n"
            "Or change all of the settings to use the new format :)\n\n"
        )
    raise ImproperlyConfigured(
        "\n\nCannot mix new and old setting keys, please rename the\n"
        f"following settings to the new format:\n\n{renames}\n\n"
    )


_mentioned: set[str] = set()


def mention_ignored(conf: Settings) -> None:
    """Log, once a process, which settings are set that have no effect here."""
    judged = {name for name, option in OPTIONS.items() if option.judgement in ("warn", "refuse")}
    found = {
        name
        for name in judged - _mentioned
        if conf.value_set_for(name) and conf[name] != OPTIONS[name].default
    }
    if found:
        _mentioned.update(found)
        logger.warning(
            "These settings belong to another broker or result backend and have no effect here: %s",
            ", ".join(sorted(found)),
            extra={"action": "settings.ignored"},
        )


#: settings that Celery has not, by the field of `EngineConfig` that they set
_OWN = {
    "worker_lease_lost": "lease_lost",
    "worker_priority_patience": "patience_s",
    "worker_placement_grace": "placement_grace_s",
}
_ENGINE_FIELDS = {field.name for field in dataclasses.fields(EngineConfig)} - {"dsn"}


def engine_config(conf: Settings) -> EngineConfig:
    """Make the engine's configuration.

    Keys of `broker_transport_options` that are fields of `EngineConfig` (``schema``, ``lease_s``,
    ``listen``, ...) set these; so do the settings in `_OWN`.

    Raises:
        ImproperlyConfigured: The broker is not one that pgcelery can use, or a value does not fit.
    """
    options = {
        "connect_timeout_s": float(conf.broker_connection_timeout or 4.0),
        "pool_size": int(conf.broker_pool_limit or DEFAULTS["broker_pool_limit"]),
        "pool_timeout_s": conf.broker_pool_acquire_timeout,
    }
    for name, field in _OWN.items():
        if (value := conf.get(name)) is not None:
            options[field] = value
    transport = conf.broker_transport_options or {}
    options.update({key: value for key, value in transport.items() if key in _ENGINE_FIELDS})
    try:
        return EngineConfig(dsn=dsn.resolve(conf), **options)
    except ValueError as exc:
        raise ImproperlyConfigured(f"broker settings: {exc}") from exc
