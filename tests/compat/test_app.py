from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import threading
import warnings
import weakref

import pytest
from kombu.exceptions import OperationalError

from pgcelery import Celery, current_app, shared_task
from pgcelery.compat.app.backends import by_url
from pgcelery.compat.app.base import app_has_custom
from pgcelery.compat.app.task import Task
from pgcelery.compat.app.utils import find_app
from pgcelery.compat.exceptions import (
    DuplicateTaskNameWarning,
    ImproperlyConfigured,
    NotRegistered,
)
from pgcelery.compat.local import PromiseProxy, Proxy, class_property, maybe_evaluate

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
def app():
    with Celery("proj", broker=NOWHERE, set_as_current=False) as app:
        yield app


# -- tasks


def test_a_task_is_named_after_its_module_and_function(app):
    @app.task
    def add(x, y):
        return x + y

    assert add.name == f"{__name__}.add"
    assert add(2, 3) == 5
    assert app.tasks[add.name] == add


def test_a_task_of_the_main_module_is_named_after_the_app(app):
    assert app.gen_task_name("add", "__main__") == "proj.add"
    assert Celery(set_as_current=False).gen_task_name("add", "__main__") == "__main__.add"


def test_options_become_attributes_of_the_class(app):
    @app.task(name="named", rate_limit="10/m", custom="mine")
    def task():
        """What it does."""

    assert (task.name, task.rate_limit, task.custom) == ("named", "10/m", "mine")
    assert type(app.tasks["named"]).custom == "mine"
    assert task.__doc__ == "What it does."
    assert task.__module__ == __name__
    assert task.__wrapped__.__name__ == "task"


def test_a_bound_task_gets_itself(app):
    @app.task(bind=True)
    def who(self, suffix):
        return self.name + suffix

    assert who("!") == f"{__name__}.who!"


def test_a_base_class_is_used_for_the_task(app):
    class Base(Task):
        abstract = True

        def shout(self):
            return self.name.upper()

    @app.task(base=Base, name="x")
    def task():
        pass

    assert isinstance(task, Base)
    assert task.shout() == "X"


def test_a_filter_has_the_last_word(app):
    assert app.task(filter=lambda task: ("filtered", task), name="f")(len)[0] == "filtered"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("name",), "argument 1 to @task() must be a callable"),
        ((len, len), "@task() takes exactly 1 argument (2 given)"),
    ],
)
def test_arguments_that_make_no_sense_are_type_errors(app, args, message):
    with pytest.raises(TypeError) as caught:
        app.task(*args)
    assert str(caught.value) == message


def test_a_task_made_before_finalization_sees_what_is_set_after(app):
    @app.task
    def task():
        pass

    class Special(app.Task):
        special = True

    app.Task = Special
    app.conf.task_annotations = {task_name(task, "task"): {"rate_limit": "7/s"}}
    assert task.special
    assert task.rate_limit == "7/s"


def task_name(task, function):
    """Name a task without evaluating its proxy."""
    assert type(task) is PromiseProxy
    assert not object.__getattribute__(task, "__evaluated__")()
    return f"{__name__}.{function}"


def test_an_option_that_is_none_follows_the_setting_when_it_is_read(app):
    @app.task
    def task():
        pass

    assert task.acks_late is False
    app.conf.task_acks_late = True
    assert task.acks_late is True


def test_an_app_that_must_be_finalized_by_hand_says_so():
    app = Celery("manual", autofinalize=False, set_as_current=False)

    @app.task
    def task():
        pass

    with pytest.raises(RuntimeError, match="Contract breach: app not finalized"):
        _ = app.tasks
    with pytest.raises(RuntimeError, match="Contract breach: app not finalized"):
        task()
    app.finalize()
    assert task.name in app.tasks


def test_the_first_of_two_functions_keeps_the_name_and_the_second_is_warned_about(app):
    @app.task(name="same", lazy=False)
    def first():
        return 1

    with pytest.warns(DuplicateTaskNameWarning, match="'same' is already registered") as caught:

        @app.task(name="same", lazy=False)
        def second():
            return 2

    assert second() == 1
    assert caught[0].filename == __file__


def test_the_same_function_again_is_no_duplicate(app):
    def function():
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = app.task(name="same", lazy=False)(function)
        assert app.task(name="same", lazy=False)(function) is first


def test_a_class_of_task_replaces_the_one_of_its_name(app):
    class One(Task):
        name = "class-based"

        def run(self):
            return 1

    class Two(Task):
        name = "class-based"

        def run(self):
            return 2

    app.register_task(One())
    with pytest.warns(DuplicateTaskNameWarning):
        app.register_task(Two)
    assert app.tasks["class-based"]() == 2


def test_a_class_of_task_without_a_name_gets_one(app):
    class Nameless(Task):
        def run(self):
            return self.name

    assert app.register_task(Nameless())() == f"{__name__}.Nameless"


def test_a_task_that_is_not_there_is_not_registered(app):
    with pytest.raises(NotRegistered):
        app.tasks["nothing"]
    with pytest.raises(NotRegistered):
        app.tasks.unregister("nothing")


def test_arguments_are_checked_without_calling(app):
    @app.task
    def add(x, y, *, scale=1):
        pass

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        add.delay(1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sclae'"):
        add.delay(1, 2, sclae=3)


# -- shared tasks and the current app


def test_a_shared_task_is_the_current_apps_own():
    @shared_task(name="shared.one")
    def task():
        return current_app.main

    one, two = Celery("one"), Celery("two")
    assert task.app is two
    assert task() == "two"
    one.set_current()
    assert task.app is one
    assert one.tasks["shared.one"] is not two.tasks["shared.one"]


def test_a_finalized_app_gets_a_shared_task_too(app):
    app.finalize()

    @shared_task(name="shared.late")
    def task():
        pass

    assert "shared.late" in app.tasks


def test_a_function_is_shared_once():
    @shared_task(name="shared.twice")
    def task():
        pass

    Celery("any")
    with pytest.raises(TypeError, match="applied more than once"):
        shared_task(task)


def test_a_task_of_one_app_is_in_the_others_unless_it_is_not_shared(app):
    @app.task(name="public")
    def public():
        pass

    @app.task(name="private", shared=False)
    def private():
        pass

    other = Celery("other", set_as_current=False)
    assert "public" in other.tasks
    assert "private" not in other.tasks
    assert "private" in app.tasks


def test_the_current_app_is_this_threads():
    mine = Celery("mine")
    seen = []

    def look():
        Celery("theirs")
        seen.append(current_app.main)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == ["theirs"]
    assert current_app._get_current_object() is mine


def test_set_default_serves_threads_that_have_no_app():
    app = Celery("fallback", set_as_current=False)
    app.set_default()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(current_app.main))
    thread.start()
    thread.join()
    assert seen == ["fallback"]


def test_the_current_task_is_the_one_that_runs(app):
    @app.task
    def outer():
        return app.current_task.name, app.current_worker_task

    assert outer() == (f"{__name__}.outer", None)
    assert app.current_task is None


# -- life


def test_finalizing_makes_the_pending_tasks_and_tells_who_listens(app):
    seen = []
    app.on_after_finalize.connect(lambda sender, **_: seen.append(set(sender.tasks)), weak=False)

    @app.task(name="pending")
    def task():
        pass

    app.finalize()
    app.finalize()
    assert len(seen) == 1
    assert {"pending", "celery.backend_cleanup", "celery.chord"} <= seen[0]


def test_a_subclass_hears_that_it_was_made():
    class Mine(Celery):
        def on_init(self):
            self.seen = self.main

    assert Mine("m", set_as_current=False).seen == "m"


def test_what_a_subclass_overrides_is_found():
    class Mine(Celery):
        task_cls = Task

    assert app_has_custom(Mine(set_as_current=False), "task_cls")
    assert not app_has_custom(Celery(set_as_current=False), "task_cls")
    assert Celery[Task] is not None


def test_a_dropped_app_goes_away():
    app = Celery("dropped", set_as_current=False)
    gone = weakref.ref(app)
    app.close()
    del app
    gc.collect()
    assert gone() is None


def test_an_app_survives_pickling_with_its_settings():
    app = Celery("pickled", broker=NOWHERE, set_as_current=False, result_expires=60)
    app.conf.timezone = "Europe/Oslo"
    twin = pickle.loads(pickle.dumps(app))
    assert (twin.main, twin.conf.result_expires, str(twin.timezone)) == (
        "pickled",
        60,
        "Europe/Oslo",
    )
    assert twin.conf.broker_url == NOWHERE


def test_an_app_with_reduce_args_of_its_own_is_pickled_by_them():
    twin = pickle.loads(pickle.dumps(OldFashioned("old", set_as_current=False)))
    assert twin.main == "old?"


class OldFashioned(Celery):
    def __reduce_args__(self):
        main, *rest = super().__reduce_args__()
        return (f"{main}?", *rest)


def test_a_task_survives_pickling_as_the_current_apps():
    app = Celery("current")

    @app.task(name="picklable")
    def task():
        pass

    assert pickle.loads(pickle.dumps(app.tasks["picklable"])) is app.tasks["picklable"]


def test_classes_are_bound_to_the_app(app):
    assert app.AsyncResult("id").app is app
    assert app.GroupResult.app is app
    assert app.AsyncResult is app.AsyncResult
    assert app.signature("name").app is app


def test_a_report_of_the_app_holds_no_password():
    app = Celery(broker="postgresql://u:secret@h/d", set_as_current=False, my_api_key="hidden")
    text = app.bugreport()
    assert "secret" not in text
    assert "hidden" not in text
    assert "postgresql://u:********@h/d" in text


def test_worker_main_wants_to_be_told_to_be_a_worker(app):
    with pytest.raises(ValueError, match="worker sub-command must be specified"):
        app.worker_main(["--loglevel=info"])


def test_start_runs_a_command_for_this_app(app, capsys):
    app.start(["report"])
    assert "transport:postgresql" in capsys.readouterr().out


def test_the_app_that_a_name_means_is_found(tmp_path, monkeypatch):
    (tmp_path / "projx").mkdir()
    (tmp_path / "projx" / "__init__.py").write_text("")
    (tmp_path / "projx" / "celery.py").write_text(
        "from pgcelery import Celery\napp = Celery('projx', set_as_current=False)\n"
    )
    (tmp_path / "single.py").write_text(
        "from pgcelery import Celery\nmine = Celery('single', set_as_current=False)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert find_app("projx").main == "projx"
    assert find_app("projx.celery").main == "projx"
    assert find_app("projx.celery:app").main == "projx"
    assert find_app("single").main == "single"
    with pytest.raises(AttributeError):
        find_app("json")


# -- the database


def test_a_connection_says_what_it_is_without_connecting():
    app = Celery(broker="postgresql://u:secret@db.example:5433/tasks", set_as_current=False)
    with app.connection() as connection:
        assert connection.transport.driver_type == "postgresql"
        assert connection.as_uri() == "postgresql://u:**@db.example:5433/tasks"
        assert (connection.hostname, connection.port, connection.userid) == (
            "db.example",
            5433,
            "u",
        )
        assert not connection.connected
    with app.producer_or_acquire() as producer, app.connection_or_acquire(connection) as same:
        assert producer.connection.transport.driver_type == "postgresql"
        assert same is connection


def test_ensure_connection_fails_as_kombus_does(app):
    app.conf.broker_connection_timeout = 1
    with pytest.raises(OperationalError):
        app.connection().ensure_connection(max_retries=1)


def test_ensure_connection_asks_the_database(dsn):
    with Celery(broker=dsn, set_as_current=False) as app:
        assert app.connection_for_read().ensure_connection().connected


def test_what_a_channel_is_for_is_refused_with_what_to_do_instead(app):
    with pytest.raises(ImproperlyConfigured, match="inspect"):
        app.connection().channel()
    with pytest.raises(ImproperlyConfigured, match="send_task"):
        app.producer_pool.acquire().publish({})


def test_the_engine_is_made_once_and_again_after_it_is_closed(dsn):
    with Celery(broker=dsn, set_as_current=False) as app:
        first = app.engine
        assert app.engine is first
        app.close_engine()
        assert app.engine is not first


def test_a_server_of_our_own_making_gets_its_schema_at_once():
    with Celery(broker="memory://", set_as_current=False) as app:
        assert app.engine.workers() == []


def test_a_forked_process_hears_of_it_once_the_database_was_used():
    program = f"""
import os
from pgcelery import Celery
app = Celery(broker="{NOWHERE}")
app.on_after_fork.connect(lambda sender, **_: os.write(1, b"forked "), weak=False)
os.fork() or os._exit(0)
os.wait()
app.engine
os.fork() or os._exit(0)
os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"forked "


def test_another_broker_is_refused_where_it_is_used():
    app = Celery(broker="redis://localhost/0", set_as_current=False)
    with pytest.raises(ImproperlyConfigured, match="redis://localhost/0"):
        _ = app.engine


@pytest.mark.parametrize("url", [None, "rpc://", "cache+memory://", "db+postgresql://h/d"])
def test_results_are_kept_in_the_database_by_default(url):
    assert by_url(url)[0].__name__ == "Backend"


def test_results_can_be_switched_off():
    assert by_url("disabled://")[0].__name__ == "DisabledBackend"


@pytest.mark.parametrize("url", ["redis://localhost", "mongodb://h", "nonsense", "json:"])
def test_other_result_stores_are_refused(url):
    with pytest.raises(ImproperlyConfigured):
        by_url(url)


def test_security_is_refused_with_a_reason(app):
    with pytest.raises(ImproperlyConfigured, match="PostgreSQL's roles"):
        app.setup_security()


# -- periodic tasks


def test_a_periodic_task_waits_for_the_configuration(app):
    key = app.add_periodic_task(10.0, app.signature("job", args=(1,)), name="every ten", expires=5)
    assert key == "every ten"
    entry = app.conf.beat_schedule["every ten"]
    assert entry == {
        "schedule": 10.0,
        "task": "job",
        "args": (1,),
        "kwargs": {},
        "options": {"expires": 5},
    }


def test_a_periodic_task_without_a_name_is_known_by_its_signature(app, caplog):
    caplog.set_level("WARNING")
    caplog.set_level("WARNING", "celery")
    signature = app.signature("job", args=(1,))
    assert app.conf.beat_schedule == {}
    assert app.add_periodic_task(1, signature) == repr(signature)
    app.add_periodic_task(2, signature)
    assert "shadowed a previous unnamed periodic task" in caplog.text
    assert app.conf.beat_schedule[repr(signature)]["schedule"] == 2


# -- proxies


def test_a_proxy_is_in_all_things_its_object():
    items = [1, 2]
    proxy = Proxy(lambda: items)
    assert isinstance(proxy, list)
    assert (proxy * 2, len(proxy), proxy[0], 2 in proxy, list(proxy)) == (
        [1, 2, 1, 2],
        2,
        1,
        True,
        [1, 2],
    )
    proxy[0] = 9
    assert items == [9, 2]
    assert proxy == items
    assert repr(proxy) == "[9, 2]"
    assert Proxy.__module__ == "pgcelery.compat.local"
    assert "Proxy" in repr(Proxy)
    assert Proxy.__doc__.startswith("Forwards")


def test_a_promise_is_kept_once():
    calls = []
    proxy = PromiseProxy(lambda: calls.append(1) or len)
    told = []
    object.__getattribute__(proxy, "__then__")(told.append, "done")
    assert (calls, told) == ([], [])
    assert proxy([1, 2]) == 2
    assert proxy.__name__ == "len"
    assert (calls, told) == ([1], ["done"])
    assert maybe_evaluate(proxy) is len
    assert maybe_evaluate(3) == 3


def test_a_class_property_is_read_on_the_class():
    class Thing:
        name = class_property(lambda cls: cls.__name__)

    assert Thing.name == Thing().name == "Thing"
