from __future__ import annotations

import os
import sys
import threading
import types
from typing import ClassVar
from unittest import mock

import pytest

from pgcelery import Celery
from pgcelery.compat.app import settings as settings_module
from pgcelery.compat.app.cmdline import parse_assignments
from pgcelery.compat.app.defaults import DEFAULTS, NAMESPACES, OPTIONS, find, flatten
from pgcelery.compat.app.defaults_own import OURS
from pgcelery.compat.app.reporting import sanitize_url
from pgcelery.compat.app.settings import detect_settings, engine_config
from pgcelery.compat.exceptions import CDeprecationWarning, ImproperlyConfigured


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("CELERY_", "PGCELERY_")):
            monkeypatch.delenv(name)


def make_app(**kwargs):
    return Celery("s", set_as_current=False, **kwargs)


# -- the table


def test_there_are_all_of_celerys_settings_with_their_defaults():
    theirs = pytest.importorskip("celery.app.defaults")
    ours = {row[0] for row in OURS}
    assert set(DEFAULTS) - ours == set(theirs.DEFAULTS)
    for name, default in theirs.DEFAULTS.items():
        assert DEFAULTS[name] == default, name
    old = {name: key for name, key in settings_module.TO_OLD_KEY.items() if name not in ours}
    assert old == theirs._TO_OLD_KEY
    assert {name: option.type for name, option in OPTIONS.items() if name not in ours} == {
        name: option.type if isinstance(option.type, str) else option.type.__name__
        for name, option in theirs._OPTIONS.items()
    }


def test_the_nested_table_is_the_flat_one():
    assert dict(flatten(NAMESPACES)) == OPTIONS
    assert find("acks_late", "task").namespace == "task"
    assert find("prefetch_multiplier")[:2] == ("worker", "prefetch_multiplier")
    assert find("timezone")[:2] == (None, "timezone")
    with pytest.raises(KeyError):
        find("nonsense")


# -- reading


@pytest.mark.parametrize("name", ["task_acks_late", "CELERY_ACKS_LATE"])
def test_a_setting_is_read_by_either_name_as_attribute_or_item(name):
    conf = make_app(changes={"task_acks_late": True}).conf
    assert conf[name] is True
    assert conf.get(name) is True
    assert name in conf
    assert conf.task_acks_late is True


def test_what_is_not_set_is_celerys_default():
    conf = make_app().conf
    assert conf.task_default_queue == "celery"
    assert conf.worker_prefetch_multiplier == 4
    assert conf.task_default_exchange == "celery"
    assert conf.task_default_routing_key == "celery"


def test_a_setting_nobody_knows_is_kept():
    conf = make_app().conf
    conf.mine = 1
    conf["other"] = 2
    assert (conf.mine, conf.other, conf.get("third", 3)) == (1, 2, 3)
    with pytest.raises(AttributeError, match="'Settings' object has no attribute 'third'"):
        _ = conf.third
    with pytest.raises(KeyError):
        conf["third"]


def test_arguments_of_the_app_are_settings():
    app = make_app(broker="postgresql://h/d", include=["tasks"], result_expires=60)
    assert (app.conf.broker_url, app.conf.include, app.conf.result_expires) == (
        "postgresql://h/d",
        ["tasks"],
        60,
    )


def test_defaults_of_one_app_are_not_anothers():
    make_app().conf.beat_schedule["x"] = {}
    assert make_app().conf.beat_schedule == {}


# -- sources


class Config:
    task_serializer = "pickle"
    task_default_queue = "from object"


def test_an_object_is_read_when_a_setting_is_first_needed():
    app = make_app()
    reads = []
    app.on_after_configure.connect(lambda **_: reads.append(1), weak=False)
    app.config_from_object(Config)
    app.conf.timezone = "Europe/Oslo"
    assert reads == []
    assert app.conf.task_serializer == "pickle"
    assert reads == [1]
    assert str(app.timezone) == "Europe/Oslo"


def test_what_is_set_in_code_wins_over_the_source():
    app = make_app(task_serializer="yaml")
    app.conf.task_default_queue = "set before"
    app.config_from_object(Config)
    assert (app.conf.task_serializer, app.conf.task_default_queue) == ("yaml", "set before")


def test_a_reference_to_the_settings_stays_good():
    app = make_app()
    conf = app.conf
    app.config_from_object(Config)
    conf.update(task_ignore_result=True)
    assert conf.task_serializer == "pickle"
    app.config_from_object(type("Other", (), {"task_serializer": "msgpack"}))
    assert conf is app.conf
    assert conf.task_serializer == "msgpack"


@pytest.mark.parametrize("form", ["module", "module:attribute", "module.attribute", "dict"])
def test_a_source_is_a_module_an_attribute_of_one_or_a_mapping(form, monkeypatch):
    module = types.ModuleType("settings_of_this_test")
    module.task_serializer = "pickle"
    module.Inner = Config
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = {
        "module": module.__name__,
        "module:attribute": f"{module.__name__}:Inner",
        "module.attribute": f"{module.__name__}.Inner",
        "dict": {"task_serializer": "pickle"},
    }[form]
    app = make_app()
    app.config_from_object(source)
    assert app.conf.task_serializer == "pickle"


def test_a_source_that_is_not_there_is_an_error_unless_silent():
    app = make_app()
    app.config_from_object("no_such_module_at_all")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        _ = app.conf.task_serializer
    quiet = make_app()
    quiet.config_from_object("no_such_module_at_all", silent=True)
    assert quiet.conf.task_serializer == "json"


def test_an_attribute_error_in_the_source_is_not_taken_for_a_missing_setting():
    app = make_app()
    app.config_from_object("json:no_such_attribute")
    with pytest.raises(ModuleNotFoundError, match="no_such_attribute"):
        _ = app.conf.task_serializer


def test_a_variable_names_the_module(monkeypatch):
    app = make_app()
    with pytest.raises(ImproperlyConfigured, match="MY_CONFIG"):
        app.config_from_envvar("MY_CONFIG")
    assert app.config_from_envvar("MY_CONFIG", silent=True) is False
    monkeypatch.setenv("MY_CONFIG", f"{__name__}:Config")
    app.config_from_envvar("MY_CONFIG")
    assert app.conf.task_serializer == "pickle"


def test_the_module_that_celery_config_module_names_is_read(monkeypatch, tmp_path):
    (tmp_path / "my_celeryconfig.py").write_text("task_serializer = 'pickle'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "my_celeryconfig")
    assert make_app().conf.task_serializer == "pickle"
    assert make_app(loader="default").conf.task_serializer == "pickle"


def test_a_config_module_with_a_suffix_is_told_how_to_spell_it(monkeypatch, tmp_path):
    (tmp_path / "named_with.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "named_with.py")
    with pytest.raises(Exception, match="Did you mean 'named_with'"):
        _ = make_app().conf.task_serializer


def test_add_defaults_counts_only_where_nothing_is_set():
    app = make_app(changes={"task_serializer": "yaml"})
    app.add_defaults({"task_serializer": "pickle", "task_default_queue": "mine"})
    app.add_defaults(lambda: {"result_serializer": "pickle"})
    assert app.conf.task_serializer == "yaml"
    assert app.conf.task_default_queue == "mine"
    assert app.conf.result_serializer == "pickle"
    app.add_defaults({"result_serializer": "yaml"})
    assert app.conf.result_serializer == "yaml"


def test_a_subclass_may_configure_in_a_method():
    class Mine(Celery):
        def on_configure(self):
            self._conf.task_serializer = "pickle"

    assert Mine(set_as_current=False).conf.task_serializer == "pickle"


# -- namespaces and old names


def test_of_many_threads_one_reads_the_configuration():
    app = make_app()
    reads = []
    barrier = threading.Barrier(8)

    def configure(**_):
        reads.append(1)
        threading.Event().wait(0.05)

    app.on_configure.connect(configure, weak=False)

    def read():
        barrier.wait()
        assert app.conf.task_serializer == "json"

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [1]


class DjangoLike:
    CELERY_BROKER_URL = "postgresql://h/d"
    CELERY_TASK_ALWAYS_EAGER = True
    CELERY_BEAT_SCHEDULE: ClassVar = {"x": {}}
    TIME_ZONE = "Europe/Oslo"
    OTHER = 1


def test_a_namespace_is_put_before_the_names():
    app = make_app()
    app.config_from_object(DjangoLike, namespace="CELERY")
    assert app.conf.broker_url == "postgresql://h/d"
    assert app.conf.task_always_eager is True
    assert app.conf.beat_schedule == {"x": {}}
    assert app.conf["CELERY_TASK_ALWAYS_EAGER"] is True
    assert app.conf.OTHER == 1
    assert str(app.timezone) == "Europe/Oslo"
    assert app.conf.value_set_for("task_always_eager")
    assert not app.conf.value_set_for("task_acks_late")


def test_a_source_may_change_afterwards_as_django_settings_in_tests():
    app = make_app()
    app.config_from_object(DjangoLike, namespace="CELERY")
    assert app.conf.task_always_eager is True
    with mock.patch.object(DjangoLike, "CELERY_TASK_ALWAYS_EAGER", False):
        assert app.conf.task_always_eager is False
    assert app.conf.task_always_eager is True


def test_old_names_are_understood():
    app = make_app()
    app.config_from_object({"CELERY_ALWAYS_EAGER": True, "CELERYBEAT_SCHEDULE": {"x": {}}})
    assert app.conf.task_always_eager is True
    assert app.conf.beat_schedule == {"x": {}}
    with pytest.warns(CDeprecationWarning) as caught:
        assert app.conf.maybe_warn_deprecated_settings()
    assert [str(warning.message).split("'")[1] for warning in caught] == [
        "CELERYBEAT_SCHEDULE",
        "CELERY_ALWAYS_EAGER",
    ]


@pytest.mark.parametrize(
    ("source", "rename"),
    [
        (
            {"task_serializer": "json", "task_acks_late": True, "CELERY_ALWAYS_EAGER": True},
            "CELERY_ALWAYS_EAGER +-> task_always_eager",
        ),
        (
            {"CELERY_ALWAYS_EAGER": 1, "CELERY_ACKS_LATE": 1, "task_serializer": "json"},
            "task_serializer +-> CELERY_TASK_SERIALIZER",
        ),
    ],
)
def test_old_and_new_names_are_not_mixed(source, rename):
    with pytest.raises(ImproperlyConfigured, match=rename):
        detect_settings(source)


def test_both_names_of_one_setting_may_be_there():
    both = {"result_expires": 1, "CELERY_TASK_RESULT_EXPIRES": 2, "task_serializer": "json"}
    assert detect_settings(both).result_expires == 1


def test_mixing_is_judged_as_celery_judges_it():
    theirs = pytest.importorskip("celery.app.utils")
    their_error = pytest.importorskip("celery.exceptions").ImproperlyConfigured
    new, old = ["task_serializer", "task_acks_late"], ["CELERY_ALWAYS_EAGER", "CELERY_ACKS_LATE"]
    for new_count in range(3):
        for old_count in range(3):
            source = dict.fromkeys(new[:new_count] + old[:old_count], 1)
            assert raises(detect_settings, source, ImproperlyConfigured) == raises(
                theirs.detect_settings, source, their_error
            ), source


def raises(function, source, error):
    try:
        function(source)
    except error:
        return True
    return False


# -- environment


@pytest.mark.parametrize(
    ("variable", "setting"),
    [
        ("CELERY_BROKER_URL", "broker_url"),
        ("CELERY_BROKER_URL", "broker_write_url"),
        ("CELERY_BROKER_READ_URL", "broker_read_url"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
    ],
)
def test_the_environment_wins_over_the_settings(variable, setting, monkeypatch):
    app = make_app(broker="postgresql://h/configured", backend="rpc://")
    monkeypatch.setenv(variable, "postgresql://h/variable")
    assert getattr(app.conf, setting) == "postgresql://h/variable"


# -- changing and looking


def test_changes_are_heard_of():
    conf = make_app().conf
    heard = []
    conf.bind_to(heard.append)
    conf.update({"task_routes": 1}, timezone="UTC")
    conf.task_serializer = "yaml"
    assert heard == [{"task_routes": 1, "timezone": "UTC"}, {"task_serializer": "yaml"}]


def test_a_copy_is_independent():
    conf = make_app(changes={"mine": 1}).conf
    copied = conf.copy()
    copied.mine = 2
    assert (conf.mine, copied.mine, copied.task_serializer) == (1, 2, "json")


def test_setdefault_does_not_override():
    app = make_app(changes={"mine": 1})
    assert app.conf.setdefault("mine", 2) == 1
    assert app.conf.setdefault("other", 3) == 3
    assert app.conf.mine == 1
    assert app.conf.setdefault("task_serializer", "yaml") == "json"


def test_the_table_shows_what_was_set_without_secrets():
    app = make_app(broker="postgresql://u:pw@h/d", changes={"my_secret": "x", "plain": 1})
    assert app.conf.table() == {
        "broker_url": "postgresql://u:********@h/d",
        "deprecated_settings": None,  # Celery shows it too
        "my_secret": "********",
        "plain": 1,
    }
    assert app.conf.table(censored=False)["my_secret"] == "x"
    assert app.conf.table(with_defaults=True)["task_serializer"] == "json"
    assert "plain: 1" in app.conf.humanize()
    assert app.conf.find_value_for_key("serializer", "task") == "json"
    assert app.conf.get_by_parts("task", "serializer") == "json"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:6379/0", "redis://:**@h:6379/0"),
        ("postgresql://u:p@ss@h/d", "postgresql://u:**@h/d"),
        ("postgresql://h/d?user=u&password=pw", "postgresql://h/d?user=u&password=**"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("redis://u:p,a;@ss@h:6379/0", "redis://u:**@h:6379/0"),
        ("sentinel://:a@h1;sentinel://:b@h2", "sentinel://:**@h1;sentinel://:**@h2"),
        ("disabled", "disabled"),
        (None, None),
    ],
)
def test_passwords_in_urls_are_masked(url, shown):
    assert sanitize_url(url, mask="**") == shown


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("worker.prefetch_multiplier=1", {"worker_prefetch_multiplier": 1}),
        ("worker_prefetch_multiplier=1", {"worker_prefetch_multiplier": 1}),
        (".prefetch_multiplier=2", {"worker_prefetch_multiplier": 2}),
        ("task.acks_late=yes", {"task_acks_late": True}),
        ("my.own=(int)3", {"my_own": 3}),
        ('task.routes=(dict){"a": 1}', {"task_routes": {"a": 1}}),
    ],
)
def test_settings_are_read_from_a_command_line(argument, expected):
    assert parse_assignments([argument], "worker") == expected


def test_a_value_that_does_not_fit_names_its_setting():
    with pytest.raises(ValueError, match="worker_prefetch_multiplier"):
        parse_assignments(["worker.prefetch_multiplier=many"])


# -- the engine's configuration


def test_settings_become_the_engines():
    app = make_app(
        broker="postgresql://u@h/d",
        broker_pool_limit=3,
        broker_connection_timeout=2,
        broker_pool_acquire_timeout=7.5,
        broker_transport_options={"schema": "queue", "listen": False, "visibility_timeout": 3600},
    )
    config = engine_config(app.conf)
    assert config.dsn == "postgresql://u@h/d"
    assert (config.pool_size, config.connect_timeout_s, config.pool_timeout_s) == (3, 2.0, 7.5)
    assert (config.schema, config.listen) == ("queue", False)
    # A lease is kept up by heartbeats, so Redis' timeout must not make it long.
    assert config.lease_s < 3600


def test_a_value_that_the_engine_refuses_is_a_mistake_in_the_configuration():
    app = make_app(broker="postgresql://u@h/d", broker_transport_options={"lease_s": -1})
    with pytest.raises(ImproperlyConfigured, match="lease_s"):
        engine_config(app.conf)


def test_settings_without_effect_are_mentioned_once(caplog):
    caplog.set_level("WARNING")
    with mock.patch.object(settings_module, "_mentioned", set()):
        options = {"redis_max_connections": 5, "mongodb_backend_settings": None}
        app = make_app(broker="postgresql://u@h/d", changes=options)
        for _ in range(2):
            _ = app.engine_config
            app.close_engine()
    assert caplog.text.count("redis_max_connections") == 1
    assert "mongodb" not in caplog.text


def test_what_a_worker_does_about_a_lost_lease_is_a_setting() -> None:
    with Celery("proj", broker="postgresql://nowhere.invalid/db", set_as_current=False) as app:
        assert app.engine_config.lease_lost == "kill"
    with Celery("proj", broker="postgresql://nowhere.invalid/db", set_as_current=False) as app:
        app.conf.worker_lease_lost = "finish"
        assert app.engine_config.lease_lost == "finish"
    with Celery("proj", broker="postgresql://nowhere.invalid/db", set_as_current=False) as app:
        app.conf.worker_lease_lost = "ignore"
        with pytest.raises(ImproperlyConfigured, match="kill or finish"):
            _ = app.engine_config
