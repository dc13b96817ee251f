from __future__ import annotations

import ast
import importlib
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import pgcelery
import pgcelery.compat
from pgcelery.compat import _alias

SOURCE = Path(pgcelery.__file__).parent


def run(program: str) -> str:
    """Run a program in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["result", "app.routes", "utils.log", "app", "exceptions"])
def test_a_module_is_the_same_object_under_both_names(name):
    short = importlib.import_module(f"pgcelery.{name}")
    assert short is importlib.import_module(f"pgcelery.compat.{name}")
    assert sys.modules[f"pgcelery.{name}"] is short
    assert short.__name__ == f"pgcelery.compat.{name}"
    assert short.__spec__.name == f"pgcelery.compat.{name}"


def test_whichever_name_is_imported_first_there_is_one_module():
    for first, second in (
        ("pgcelery.utils.text", "pgcelery.compat.utils.text"),
        ("pgcelery.compat.utils.text", "pgcelery.utils.text"),
    ):
        program = f"import {first} as a, {second} as b; print(a is b)"
        assert run(program) == "True"


def test_submodules_are_attributes_of_the_short_name_without_an_import():
    assert (
        run("import pgcelery; print(pgcelery.exceptions.__name__)") == "pgcelery.compat.exceptions"
    )


def test_what_is_not_there_is_reported_under_the_name_that_was_asked_for():
    with pytest.raises(ModuleNotFoundError, match=r"pgcelery\.nothing"):
        importlib.import_module("pgcelery.nothing")
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        importlib.import_module("pgcelery.utils.nothing")
    with pytest.raises(AttributeError, match="nothing"):
        _ = pgcelery.nothing
    with pytest.raises(ImportError, match="nothing"):
        exec("from pgcelery import nothing")


def test_our_own_packages_are_not_looked_for_in_compat():
    assert importlib.import_module("pgcelery.engine").__name__ == "pgcelery.engine"
    assert _alias.target_of("pgcelery.cli.main") is None
    assert _alias.target_of("pgcelery.compat.result") is None


@pytest.mark.parametrize(
    ("alias", "target"),
    [
        ("celery", "pgcelery.compat"),
        ("celery.app.trace", "pgcelery.compat.app.trace"),
        ("celery.bin", "pgcelery.cli"),
        ("celery.bin.worker", "pgcelery.cli.worker"),
        ("celeryextra", None),
        ("celery_once", None),
        ("pgcelery", None),
    ],
)
def test_names_are_translated(alias, target):
    assert _alias.target_of(alias) == target


def test_without_the_alias_celery_is_what_is_installed():
    assert not _alias.installed_as_celery()
    spec = importlib.util.find_spec("celery")
    assert spec is None or "pgcelery" not in (spec.origin or "")


def test_celery_becomes_pgcelery_in_every_way_a_module_is_imported():
    program = """
import pgcelery.compat
pgcelery.compat.install_as_celery()
import celery, importlib, pickle
import celery.result
from celery.app import routes
from celery.utils.log import get_task_logger
from celery import Celery, shared_task, states, registry
assert celery is pgcelery.compat
assert celery.result is pgcelery.result is pgcelery.compat.result
assert routes is importlib.import_module("celery.app.routes") is celery.app.routes
assert Celery is pgcelery.Celery
assert celery.bin is importlib.import_module("celery.bin")
assert importlib.import_module("celery.bin.celery").celery.name == "celery"
assert pickle.loads(b"ccelery.app.routes\\nMapRoute\\n.") is routes.MapRoute
assert "celery.add" not in registry.tasks
print(celery.__version__, pgcelery.__version__, pgcelery.compat.VERSION[:3])
"""
    assert run(program) == f"5.7.0 {pgcelery.__version__} (5, 7, 0)"


def test_what_a_library_patches_under_celery_is_patched_for_us():
    program = """
import pgcelery; pgcelery.install_as_celery()
import celery.app.routes as theirs
theirs.prepare = "patched"
from pgcelery.compat.app import routes
print(routes.prepare)
"""
    assert run(program) == "patched"


def test_installing_twice_changes_nothing():
    program = """
import sys
from pgcelery.compat import install_as_celery
install_as_celery(); before = list(sys.meta_path), sys.modules["celery"]
install_as_celery()
print(before == (sys.meta_path, sys.modules["celery"]))
"""
    assert run(program) == "True"


def test_installing_after_the_real_celery_is_refused():
    program = """
import sys, types
sys.modules["celery"] = types.ModuleType("celery")
import pgcelery
try:
    pgcelery.install_as_celery()
except RuntimeError as exc:
    print(exc)
"""
    assert "celery has been imported already" in run(program)


def test_python_m_celery_would_run_our_command_line():
    program = """
import pgcelery; pgcelery.install_as_celery()
import importlib.util
print(importlib.util.find_spec("celery.__main__").origin)
"""
    assert run(program) == str(SOURCE / "__main__.py")


def test_importing_the_package_is_cheap():
    program = """
import sys, pgcelery
heavy = {"click", "psycopg", "kombu", "billiard", "pgcelery.engine", "pgcelery.compat.app"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run(program) == "[]"


def test_making_an_app_and_a_task_opens_no_connection():
    program = """
import socket
def refuse(*args): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
import psycopg
psycopg.Connection.connect = refuse
from pgcelery import Celery
app = Celery("t", broker="postgresql://nobody@nowhere.invalid/none")
@app.task
def add(x, y): return x + y
print(add(1, 2), add.name)
"""
    assert run(program) == "3 t.add"


def test_every_name_of_the_front_is_there():
    for name in pgcelery.__all__:
        assert getattr(pgcelery, name) is not None, name
    for name in pgcelery.compat.__all__:
        assert hasattr(pgcelery.compat, name), name


def test_the_default_app_is_made_when_it_is_first_needed():
    program = "import pgcelery; print(pgcelery.current_app.main, bool(pgcelery.current_task))"
    assert run(program) == "default False"


def test_a_proxy_pickles_as_what_it_stands_for():
    program = """
import pickle
from pgcelery import Celery, current_app
app = Celery("t", set_as_current=True)
print(pickle.loads(pickle.dumps(current_app)).main)
"""
    assert run(program) == "t"
    assert pickle.loads(pickle.dumps(pgcelery.Celery)) is pgcelery.Celery


def stubs() -> list[Path]:
    return sorted(
        path
        for path in SOURCE.rglob("*.pyi")
        if path.relative_to(SOURCE).parts[0] not in _alias.OWN_MODULES
    )


def test_there_are_stubs_for_type_checkers():
    assert {SOURCE / "exceptions.pyi", SOURCE / "app" / "task.pyi"} <= set(stubs())


@pytest.mark.parametrize("stub", stubs(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_stub_names_the_module_that_it_stands_for(stub):
    place = stub.relative_to(SOURCE).with_suffix("")
    parts = place.parts[:-1] if place.name == "__init__" else place.parts
    (imported,) = [
        node.module for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    assert imported == ".".join(("pgcelery", "compat", *parts))
    assert importlib.util.find_spec(imported) is not None


@pytest.mark.parametrize("package", ["", "app", "utils", "contrib", "worker"])
def test_each_documented_module_has_a_stub(package):
    folder = SOURCE / "compat" / package
    for module in sorted(folder.glob("[a-z]*.py")):
        documented = importlib.util.find_spec("celery") is not None and _in_celery(package, module)
        if documented:
            stub = SOURCE / package / f"{module.stem}.pyi"
            name = ".".join(part for part in ("pgcelery.compat", package, module.stem) if part)
            assert stub.exists(), f"it would say: from {name} import *  # noqa: F403"


def _in_celery(package: str, module: Path) -> bool:
    celery = importlib.util.find_spec("celery")
    assert celery is not None
    assert celery.origin is not None
    return (Path(celery.origin).parent / package / module.name).exists()
