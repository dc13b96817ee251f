"""Modules and symbols by name.

Source: Celery 5.7, ``celery.utils.imports``.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module, reload
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from kombu.utils.imports import symbol_by_name as _kombu_symbol_by_name

__all__ = (
    "NotAPackage",
    "cwd_in_path",
    "find_module",
    "gen_task_name",
    "import_from_cwd",
    "instantiate",
    "module_file",
    "qualname",
    "reload_from_cwd",
    "symbol_by_name",
)


class NotAPackage(Exception):
    """A dotted name goes through something that is a module, not a package."""


def own_name(name: str) -> str:
    """Translate a module path that begins with ``celery`` to where that module is here.

    Names of classes in settings (``celery.beat:PersistentScheduler``) mean ours whether or not
    the alias is installed and whether or not the real Celery is there.
    """
    if name == "celery" or name.startswith(("celery.", "celery:")):
        rest = name[len("celery") :]
        if rest.startswith(".bin"):
            return "pgcelery.cli" + rest[len(".bin") :]
        return "pgcelery.compat" + rest
    return name


def symbol_by_name(
    name: Any,
    aliases: Mapping[str, str] | None = None,
    imp: Callable[..., Any] | None = None,
    package: str | None = None,
    sep: str = ".",
    default: Any = None,
    **kwargs: Any,
) -> Any:
    """Give the object that ``module.symbol`` or ``module:symbol`` names; an object is itself."""
    if isinstance(name, str):
        name = own_name((aliases or {}).get(name, name))
    return _kombu_symbol_by_name(
        name, None, imp=imp, package=package, sep=sep, default=default, **kwargs
    )


def instantiate(name: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the class that `name` names."""
    return symbol_by_name(name)(*args, **kwargs)


def qualname(obj: Any) -> str:
    """Give ``module.name`` of a class or function, or of the class of another object."""
    if not hasattr(obj, "__name__") and hasattr(obj, "__class__"):
        obj = obj.__class__
    name: str = getattr(obj, "__qualname__", obj.__name__)
    return name if "." in name else f"{obj.__module__}.{name}"


@contextmanager
def cwd_in_path() -> Iterator[str | None]:
    """Have the current directory first in ``sys.path`` for a while."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        cwd = ""
    if not cwd or cwd in sys.path:
        yield None
        return
    sys.path.insert(0, cwd)
    try:
        yield cwd
    finally:
        with suppress(ValueError):
            sys.path.remove(cwd)


def find_module(
    module: str, path: Any = None, imp: Callable[[str], ModuleType] | None = None
) -> ModuleType:
    """Import a module, looking in the current directory too.

    Raises:
        NotAPackage: A part of the dotted name before the last is not a package.
    """
    imp = imp or import_module
    with cwd_in_path():
        try:
            return imp(module)
        except ImportError:
            _check_packages(module, imp)
            raise


def _check_packages(module: str, imp: Callable[[str], ModuleType]) -> None:
    parts = module.split(".")
    for count in range(1, len(parts)):
        package = ".".join(parts[:count])
        try:
            found = imp(package)
        except ImportError:
            return
        if not hasattr(found, "__path__"):
            raise NotAPackage(package)


def import_from_cwd(
    module: str, imp: Callable[..., Any] | None = None, package: str | None = None
) -> Any:
    """Import a module, looking in the current directory first."""
    with cwd_in_path():
        return (imp or import_module)(module, package=package)


def reload_from_cwd(module: ModuleType, reloader: Callable[..., Any] | None = None) -> Any:
    """Import a module again, looking in the current directory first."""
    with cwd_in_path():
        return (reloader or reload)(module)


def module_file(module: ModuleType) -> str:
    """Give the path of a module's source."""
    name = module.__file__ or ""
    return name[:-1] if name.endswith(".pyc") else name


def gen_task_name(app: Any, name: str, module_name: str | None) -> str:
    """Name a task after its module and function; ``__main__`` becomes the app's `main`."""
    module_name = module_name or "__main__"
    module = sys.modules.get(module_name)
    if module is not None:
        module_name = module.__name__
    if module_name == "__main__" and app.main:
        return f"{app.main}.{name}"
    return ".".join(part for part in (module_name, name) if part)


@cache
def load_extension_class_names(namespace: str) -> tuple[tuple[str, str], ...]:
    """Give the (name, path) pairs that installed packages registered in an entry point group."""
    return tuple((point.name, point.value) for point in entry_points(group=namespace))


def load_extension_classes(namespace: str) -> Iterator[tuple[str, Any]]:
    """Give (name, class) of an entry point group; one that cannot be imported is warned about."""
    for name, path in load_extension_class_names(namespace):
        try:
            found = symbol_by_name(path)
        except (ImportError, SyntaxError) as exc:
            warnings.warn(f"Cannot load {namespace} extension {path!r}: {exc!r}", stacklevel=2)
        else:
            yield name, found
