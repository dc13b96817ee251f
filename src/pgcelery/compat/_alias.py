"""One set of modules under three names.

``pgcelery.compat.result``, ``pgcelery.result`` and, after `install_as_celery`, ``celery.result``
are the same module object: a finder, asked before all others, answers the second and the third
name with the first.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType

__all__ = ("install", "install_as_celery", "installed_as_celery")

#: What is a module of ``pgcelery`` itself and not of Celery.
OWN_MODULES = frozenset({"compat", "engine", "cli", "demo", "_version", "__main__"})


def target_of(fullname: str, celery: bool = True) -> str | None:
    """Give the name under which a module really is; None if that is its name, or it is not ours."""
    root, _, rest = fullname.partition(".")
    first = rest.partition(".")[0]
    if root == "celery" and celery:
        if first == "bin":
            return f"pgcelery.cli{rest[len('bin') :]}"
        return f"pgcelery.compat.{rest}" if rest else "pgcelery.compat"
    if root == "pgcelery" and rest and first not in OWN_MODULES:
        return f"pgcelery.compat.{rest}"
    return None


class _SameModule(Loader):
    """Loads a module by giving the one that has another name."""

    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.target)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's spec into it.
        module.__spec__ = self.own_spec


class _Finder(MetaPathFinder):
    celery = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "celery.__main__" and self.celery:
            main = Path(__file__).parent.parent / "__main__.py"
            return importlib.util.spec_from_file_location(fullname, main)
        name = target_of(fullname, self.celery)
        if name is None or not _exists(name):
            return None
        return importlib.machinery.ModuleSpec(fullname, _SameModule(name))


def _exists(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as exc:
        # A parent that is no package, or that is not there; but not what a parent fails to import.
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            return False
        raise


_finder = _Finder()


def install() -> None:
    """Make ``pgcelery.X`` mean ``pgcelery.compat.X``."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def installed_as_celery() -> bool:
    """Whether ``celery`` is pgcelery in this process."""
    return _finder.celery


def install_as_celery() -> None:
    """Make ``import celery`` give pgcelery, in this process and from now on.

    Libraries that hook into Celery then hook into pgcelery. Call it before anything imports
    ``celery``; a second call does nothing.

    Raises:
        RuntimeError: The real Celery has been imported already: half the program would use it.
    """
    install()
    compat = importlib.import_module("pgcelery.compat")
    present = sys.modules.get("celery")
    if present is not None and present is not compat:
        raise RuntimeError(
            f"celery has been imported already, from {getattr(present, '__file__', 'nowhere')}, so "
            "it cannot become pgcelery: call pgcelery.compat.install_as_celery() first thing in "
            "the program, before a library imports celery"
        )
    _finder.celery = True
    sys.modules["celery"] = compat
