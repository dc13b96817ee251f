"""Reading an app's configuration.

Source: Celery 5.7, ``Celery.config_from_object``, ``_load_config`` and ``add_periodic_task``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from pgcelery.compat.app.settings import Settings, detect_settings
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.local import maybe_evaluate
from pgcelery.compat.utils.abstract import CallableSignature
from pgcelery.compat.utils.dispatch import Signal

logger = logging.getLogger("celery.app.base")


def prepare(app: Any, changes: Mapping[str, Any] | None, named: Mapping[str, Any]) -> None:
    """Give an app its settings, which are read when one is first needed."""
    given = {key: value for key, value in named.items() if value is not None}
    app._preconf = {**(changes or {}), **given}
    app._preconf_set_by_auto = set(given)
    app._conf = Settings(app._preconf, prefix=app.namespace, load=lambda: _load_once(app))


def _load_once(app: Any) -> None:
    # Of several threads that need a setting first, one reads the configuration.
    with app._lock:
        if app._conf.__dict__["_load"] is not None:
            load(app)


def load(app: Any) -> Settings:
    """Read the configuration now, and what waited for it."""
    if isinstance(app.on_configure, Signal):
        app.on_configure.send(sender=app)
    else:
        app.on_configure()
    if app._config_source:
        app.loader.config_from_object(app._config_source, silent=app._config_source_silent)
    source = app.prepare_config(app.loader.conf)
    found = detect_settings(
        source, app._preconf, ignore_keys=app._preconf_set_by_auto, prefix=app.namespace
    )
    app.configured = True
    conf: Settings = app._conf
    conf.fill(found)
    while app._pending_defaults:
        conf.add_defaults(maybe_evaluate(app._pending_defaults.popleft()()))
    while app._pending_periodic_tasks:
        add_periodic(app, *app._pending_periodic_tasks.popleft())
    app.on_after_configure.send(sender=app, source=conf)
    return conf


def from_object(
    app: Any, obj: Any, silent: bool, force: bool, namespace: str | None
) -> Settings | None:
    """Name the source of an app's configuration; read it if one has been read already."""
    app._config_source = obj
    app._config_source_silent = silent
    app.namespace = namespace or app.namespace
    if not (force or app.configured):
        app._conf.__dict__["prefix"] = app.namespace.rstrip("_") + "_" if app.namespace else None
        return None
    if not app.loader.config_from_object(obj, silent=silent):
        return None
    return load(app)


def from_envvar(app: Any, variable: str, silent: bool, force: bool) -> Any:
    """Name the module that an environment variable names as the source of configuration."""
    module = os.environ.get(variable)
    if module:
        return app.config_from_object(module, silent=silent, force=force)
    if silent:
        return False
    raise ImproperlyConfigured(
        f"The environment variable {variable!r} is not set,\n"
        "and as such the configuration could not be loaded.\n\n"
        "Please set this variable and make sure it points to\n"
        f"a valid configuration module, as {variable}=proj.celeryconfig"
    )


def add_defaults(app: Any, give: Callable[[], Any]) -> None:
    """Add default settings now, or when the configuration is read."""
    if app.configured:
        app._conf.add_defaults(give())
    else:
        app._pending_defaults.append(give)


def periodic_entry(
    app: Any, schedule: Any, sig: Any, args: Any, kwargs: Any, name: str | None, opts: Any
) -> tuple[str, dict[str, Any]]:
    """Give the key and the entry for `beat_schedule`."""
    kwargs = dict(kwargs or {})
    if issubclass(type(sig), CallableSignature):
        sig = sig.clone(args, kwargs)
    else:
        sig = app.signature(sig.name, args, kwargs)
    return name or repr(sig), {
        "schedule": schedule,
        "task": sig.name,
        "args": sig.args,
        "kwargs": sig.kwargs,
        "options": {**sig.options, **opts},
    }


def add_periodic(app: Any, key: str, entry: dict[str, Any], name: str | None) -> None:
    """Put an entry into `beat_schedule` now, or when the configuration is read."""
    if not app.configured:
        app._pending_periodic_tasks.append((key, entry, name))
        return
    schedule = app._conf.beat_schedule
    if name is None and key in schedule:
        logger.warning(
            "Periodic task key='%s' shadowed a previous unnamed periodic task. "
            "Pass a name kwarg to add_periodic_task to silence this warning.",
            key,
        )
    schedule[key] = entry


def refuse_security() -> NoReturn:
    """Refuse to sign messages."""
    raise ImproperlyConfigured(
        "pgcelery does not sign messages: who may send a task is decided by PostgreSQL's roles and "
        "TLS. Remove app.setup_security(), and task_serializer = 'auth' with it"
    )
