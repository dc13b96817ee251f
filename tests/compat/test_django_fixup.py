from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("django")

PROJECT = {
    "shop/__init__.py": "",
    "shop/settings.py": """
        SECRET_KEY = "x"
        INSTALLED_APPS = ["orders.apps.OrdersConfig", "plain"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        USE_TZ = True
        TIME_ZONE = "Europe/Oslo"
        CELERY_BROKER_URL = "postgresql://nobody@127.0.0.1:1/none"
        CELERY_TASK_ALWAYS_EAGER = True
        CELERY_TASK_DEFAULT_QUEUE = "shop"
    """,
    "shop/celery.py": """
        import os
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
        from pgcelery import Celery
        app = Celery("shop")
        app.config_from_object("django.conf:settings", namespace="CELERY")
        app.autodiscover_tasks()
    """,
    "orders/__init__.py": "",
    "orders/apps.py": """
        from django.apps import AppConfig
        class OrdersConfig(AppConfig):
            name = "orders"
    """,
    "orders/tasks.py": """
        from pgcelery import shared_task
        from django.contrib.contenttypes import __name__ as _
        @shared_task
        def pay(order):
            return order * 2
    """,
    "plain/__init__.py": "",
}


@pytest.fixture
def run(tmp_path):
    """Run a program in a Django project of its own."""
    for name, source in PROJECT.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def run(program, **env):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_the_settings_are_djangos_under_their_prefix(run):
    out = run("""
        from shop.celery import app
        print(app.conf.task_default_queue, app.conf.broker_url, app.timezone, app.namespace)
    """)
    assert out == "shop postgresql://nobody@127.0.0.1:1/none Europe/Oslo CELERY"


def test_djangos_apps_are_searched_for_tasks_and_django_is_set_up_first(run):
    out = run("""
        from shop.celery import app
        app.loader.import_default_modules()
        from django.apps import apps
        from orders.tasks import pay
        print("orders.tasks.pay" in app.tasks, apps.ready, pay.delay(21).get())
    """)
    assert out == "True True 42"


def test_tasks_can_be_sent_when_the_transaction_commits(run):
    out = run("""
        from shop.celery import app
        from pgcelery.contrib.django.task import DjangoTask
        @app.task
        def f(): pass
        print(isinstance(f, DjangoTask), hasattr(f, "delay_on_commit"))
    """)
    assert out == "True True"


def test_a_task_class_of_the_applications_own_is_left_alone(run):
    out = run("""
        import os
        os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
        from pgcelery import Celery, Task
        class Mine(Task):
            pass
        class Sub(Celery):
            pass
        print(Celery(task_cls=Mine).Task.__mro__[1] is Mine, Sub().Task.__mro__[1].__name__)
    """)
    assert out == "True DjangoTask"


def test_the_clock_is_djangos(run):
    out = run("""
        from shop.celery import app
        now = app.loader.now()
        print(now.tzinfo, app.loader.now(utc=True).utcoffset())
    """)
    assert out == "UTC 0:00:00"


def test_a_failing_check_of_django_stops_the_worker_unless_it_is_skipped(run):
    program = """
        from django.core import checks
        @checks.register()
        def complain(**kwargs):
            raise RuntimeError("checked")
        from shop.celery import app
        try:
            app.loader.import_default_modules()
        except RuntimeError as exc:
            print(exc)
    """
    assert run(program) == "checked"
    assert run(program, CELERY_SKIP_CHECKS="1") == ""


def test_connections_are_closed_around_each_task(run):
    out = run("""
        from shop.celery import app
        from types import SimpleNamespace as Namespace
        from pgcelery import signals
        from django.db import connection
        app.loader.import_default_modules()
        worker = Namespace(app=app, pool_cls="solo")
        signals.worker_init.send(sender=worker)
        task = Namespace(request=Namespace(is_eager=False))
        closed = []
        connection.close = lambda: closed.append(1)
        connection.ensure_connection()
        signals.task_prerun.send(sender=task)
        signals.task_postrun.send(sender=task)
        task.request.is_eager = True
        signals.task_postrun.send(sender=task)
        print(len(closed))
    """)
    assert out == "2"


def test_another_apps_worker_is_not_this_apps_business(run):
    out = run("""
        from shop.celery import app
        from types import SimpleNamespace as Namespace
        from pgcelery import Celery, signals
        (fixup,) = app._fixups
        signals.worker_init.send(sender=Namespace(app=Celery("other"), pool_cls="solo"))
        before = fixup._worker_fixup
        signals.worker_init.send(sender=Namespace(app=app, pool_cls="solo"))
        print(before, fixup.worker_fixup.worker.pool_cls)
    """)
    assert out == "None solo"


def test_without_djangos_variable_nothing_happens(run):
    out = run("""
        from pgcelery import Celery
        print(Celery()._fixups, Celery().Task.__mro__[1].__name__)
    """)
    assert out == "[None] Task"
