"""Pickling apps and the classes that are bound to them.

Source: Celery 5.7, ``Celery.__reduce__`` and ``subclass_with_self``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from pgcelery.compat import _state
from pgcelery.compat.utils.imports import symbol_by_name

__all__ = ("AppPickler", "subclass_with_app")


class AppPickler:
    """Makes apps anew whose class overrides ``__reduce_args__``."""

    def __call__(self, cls: Any, *args: Any) -> Any:
        """Make one from what ``__reduce_args__`` gave."""
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def prepare(self, app: Any, **kwargs: Any) -> None:
        """Set its settings."""
        app.conf.update(kwargs["changes"])

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        """Turn positional arguments into keywords."""
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(
        self,
        main: Any,
        changes: Any,
        loader: Any,
        backend: Any,
        amqp: Any,
        events: Any,
        log: Any,
        control: Any,
        accept_magic_kwargs: Any,
        config_source: Any = None,
        config_source_silent: bool = False,
    ) -> dict[str, Any]:
        """Name the arguments that ``__reduce_args__`` gives."""
        kwargs = dict(locals())
        del kwargs["self"], kwargs["accept_magic_kwargs"]
        return {**kwargs, "set_as_current": False}

    def construct(self, cls: Any, **kwargs: Any) -> Any:
        """Make the app."""
        return cls(**kwargs)


def get_path(obj: Any, path: str) -> Any:
    """Give an attribute of an attribute."""
    return attrgetter(path)(obj)


def _unpickle_appattr(reverse_name: str, args: Any) -> Any:
    return get_path(_state.get_current_app(), reverse_name)(*args)


def _unpickle_app(cls: Any, pickler: Any, *args: Any) -> Any:
    return pickler()(cls, *args)


def _unpickle_app_v2(cls: Any, kwargs: dict[str, Any]) -> Any:
    return cls(**{**kwargs, "set_as_current": False})


def reduce_app(app: Any) -> Any:
    """Give what pickle wants of an app."""
    if app._using_v1_reduce:
        return _unpickle_app, (type(app), app.Pickler, *app.__reduce_args__())
    return _unpickle_app_v2, (type(app), app.__reduce_keys__())


def _changes(app: Any) -> dict[str, Any]:
    return dict(app._conf.changes if app.configured else app._preconf)


def reduce_keys(app: Any) -> dict[str, Any]:
    """Give the keyword arguments that make an app anew."""
    return {
        "main": app.main,
        "changes": _changes(app),
        "loader": app.loader_cls,
        "backend": app.backend_cls,
        "amqp": app.amqp_cls,
        "events": app.events_cls,
        "log": app.log_cls,
        "control": app.control_cls,
        "fixups": app.fixups,
        "config_source": app._config_source,
        "config_source_silent": app._config_source_silent,
        "task_cls": app.task_cls,
        "namespace": app.namespace,
    }


def reduce_args(app: Any) -> tuple[Any, ...]:
    """Give the same as positional arguments, in the order of Celery 3.0."""
    keys = reduce_keys(app)
    names = ("main", "changes", "loader", "backend", "amqp", "events", "log", "control")
    changes = _changes(app) if app.configured else {}
    values = {**keys, "changes": changes}
    source = (app._config_source, app._config_source_silent)
    return (*(values[name] for name in names), False, *source)


def subclass_with_app(
    app: Any,
    cls: Any,
    name: str | None,
    attribute: str,
    reverse: str | None,
    keep_reduce: bool,
    attributes: dict[str, Any],
) -> Any:
    """Make a subclass that has the app as an attribute.

    Args:
        app: The app.
        cls: The class, or its name.
        name: Of the subclass.
        attribute: Under which it has the app.
        reverse: Path from the app to the subclass, by which its instances are pickled.
        keep_reduce: Whether the class pickles its instances itself.
        attributes: More of the subclass.
    """
    cls = symbol_by_name(cls)
    path = reverse or cls.__name__

    def reduce(self: Any) -> Any:
        return _unpickle_appattr, (path, self.__reduce_args__())

    if not keep_reduce:
        attributes = {"__reduce__": reduce, **attributes}
    own = {attribute: app, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(name or cls.__name__, (cls,), own | attributes)
