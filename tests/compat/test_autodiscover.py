from __future__ import annotations

import sys

import pytest

from pgcelery import Celery, signals


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Write packages into a folder of the path; what is imported from it is forgotten after."""

    def write(**files):
        for dotted, source in files.items():
            path = tmp_path.joinpath(*dotted.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.parents:
                if folder == tmp_path:
                    break
                (folder / "__init__.py").touch()
            path.write_text(source)

    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def app():
    return Celery("discovery", broker="postgresql://u@h/d", set_as_current=False)


TASKS = "from pgcelery import shared_task\n@shared_task(name='{0}')\ndef task(): pass\n"


def test_nothing_is_imported_until_the_apps_modules_are(app, packages):
    packages(disco_a__tasks=TASKS.format("disco.a"))
    app.autodiscover_tasks(["disco_a"])
    assert "disco_a.tasks" not in sys.modules
    app.loader.import_default_modules()
    assert "disco.a" in app.tasks
    assert app.loader.task_modules == {"disco_a.tasks"}


def test_packages_may_be_named_when_they_are_needed(app, packages):
    packages(disco_b__jobs=TASKS.format("disco.b"))
    app.autodiscover_tasks(lambda: ["disco_b"], related_name="jobs")
    app.loader.import_default_modules()
    assert "disco.b" in app.tasks


def test_force_imports_at_once(app, packages):
    packages(disco_c__tasks="")
    app.autodiscover_tasks(["disco_c"], force=True)
    assert "disco_c.tasks" in sys.modules


def test_a_package_without_tasks_is_passed_over(app, packages):
    packages(disco_d__models="")
    app.autodiscover_tasks(["disco_d"], force=True)
    assert app.loader.task_modules == set()


def test_without_a_related_name_the_package_itself_is_imported(app, packages):
    packages(disco_e__other="")
    app.autodiscover_tasks(["disco_e"], related_name=None, force=True)
    assert app.loader.task_modules == {"disco_e"}


def test_a_class_in_a_package_stands_for_the_package(app, packages):
    packages(disco_f__apps="class Config: pass\n", disco_f__tasks="")
    app.autodiscover_tasks(["disco_f.Config"], force=True)
    assert app.loader.task_modules == {"disco_f.tasks"}


def test_a_package_that_is_not_there_is_an_error(app):
    with pytest.raises(ModuleNotFoundError):
        app.autodiscover_tasks(["disco_no_such_package"], force=True)


@pytest.mark.parametrize("source", ["import no_such_module_x", "raise ImportError('no_such')"])
def test_what_fails_inside_the_tasks_is_raised(app, packages, source):
    packages(disco_g__tasks=source)
    app.autodiscover_tasks(["disco_g"])
    with pytest.raises(ImportError, match="no_such"):
        app.loader.import_default_modules()


def test_imports_and_include_are_imported_in_this_order(app, packages):
    packages(disco_h="", disco_i="")
    app.conf.update(imports=("disco_h",), include=["disco_i"])
    assert [module.__name__ for module in app.loader.import_default_modules()] == [
        "disco_h",
        "disco_i",
    ]


def test_only_the_apps_own_discovery_runs(app, packages):
    packages(disco_j__tasks="")
    app.autodiscover_tasks(["disco_j"])
    signals.import_modules.send(sender=Celery("another", set_as_current=False))
    assert "disco_j.tasks" not in sys.modules


def test_a_loader_is_prepared_once(app):
    calls = []
    app.loader.on_worker_init = lambda: calls.append(1)
    app.loader.init_worker()
    app.loader.init_worker()
    assert calls == [1]
