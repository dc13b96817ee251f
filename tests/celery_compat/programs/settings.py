"""Celery's user guide, "Application" and "Configuration"."""

from __future__ import annotations

import os
import pickle
import types

from celery import Celery
from observed import attempt, run

DEFAULTS = [
    "accept_content",
    "enable_utc",
    "timezone",
    "task_serializer",
    "result_serializer",
    "task_default_queue",
    "task_default_exchange",
    "task_default_routing_key",
    "task_default_exchange_type",
    "task_acks_late",
    "task_reject_on_worker_lost",
    "task_track_started",
    "task_ignore_result",
    "task_always_eager",
    "task_publish_retry",
    "task_publish_retry_policy",
    "worker_prefetch_multiplier",
    "worker_concurrency",
    "worker_pool",
    "result_expires",
    "task_soft_time_limit",
    "task_time_limit",
    "task_default_priority",
    "task_create_missing_queues",
    "task_protocol",
    "worker_max_tasks_per_child",
    "worker_hijack_root_logger",
    "worker_redirect_stdouts_level",
    "task_send_sent_event",
    "result_extended",
    "task_store_errors_even_if_ignored",
    "task_acks_on_failure_or_timeout",
    "imports",
    "include",
    "worker_log_format",
    "worker_task_log_format",
    "task_routes",
    "task_queues",
    "broker_connection_timeout",
    "result_chord_join_timeout",
    "task_default_delivery_mode",
    "worker_enable_remote_control",
]


def fresh(**kwargs):
    return Celery("settings", set_as_current=False, **kwargs)


def values(app, names):
    return {name: attempt(getattr, app.conf, name) for name in names}


def case_defaults():
    return values(fresh(), DEFAULTS)


def case_from_object():
    config = types.SimpleNamespace(
        task_default_queue="q", unknown_thing=1, timezone="Europe/Madrid"
    )
    app = fresh()
    app.config_from_object(config)
    return [app.conf.task_default_queue, app.conf.unknown_thing, str(app.timezone)]


def case_old_names():
    app = fresh()
    app.config_from_object(
        types.SimpleNamespace(
            CELERY_DEFAULT_QUEUE="old", CELERYD_CONCURRENCY=3, CELERY_ACKS_LATE=True
        )
    )
    return values(app, ["task_default_queue", "worker_concurrency", "task_acks_late"])


def case_mixed_names():
    app = fresh()
    app.config_from_object(types.SimpleNamespace(CELERY_DEFAULT_QUEUE="old", task_acks_late=True))
    return type(attempt(lambda: app.conf.task_acks_late)).__name__, attempt(
        lambda: app.conf.task_acks_late
    ).split(":")[0]


def case_namespace():
    config = types.SimpleNamespace(
        CELERY_TASK_DEFAULT_QUEUE="spaced", CELERY_WORKER_CONCURRENCY=5, OTHER="x"
    )
    app = fresh()
    app.config_from_object(config, namespace="CELERY")
    return values(app, ["task_default_queue", "worker_concurrency"]), attempt(
        lambda: app.conf.other
    ).split(":")[0]


def case_update_and_items():
    app = fresh()
    app.conf.task_default_queue = "one"
    app.conf["task_time_limit"] = 5
    app.conf.update(task_soft_time_limit=4, my_own="mine")
    return [
        app.conf["task_default_queue"],
        app.conf.task_time_limit,
        app.conf.get("task_soft_time_limit"),
        app.conf.my_own,
        "my_own" in app.conf,
        app.conf.get("nothing", "default"),
        attempt(lambda: app.conf.nothing).split(":")[0],
        sorted(app.conf.humanize().splitlines()),
    ]


def case_pending():
    app = fresh()
    app.conf.task_default_queue = "early"
    before = app.configured
    name = app.conf.task_default_queue
    return [before, name, app.configured]


def case_add_defaults():
    app = fresh()
    app.add_defaults({"task_default_queue": "fallback", "mine": 1})
    first = app.conf.task_default_queue
    app.conf.task_default_queue = "set"
    return [first, app.conf.task_default_queue, app.conf.mine]


def case_environment():
    os.environ["CONFIG_OF_MINE"] = "config_module"
    app = fresh()
    return [
        app.config_from_envvar("NOT_THERE", silent=True),
        attempt(app.config_from_envvar, "NOT_THERE").split(":")[0],
    ]


def case_app():
    app = fresh(task_cls=None, include=["json"], autofinalize=True)
    return [
        app.main,
        repr(app).split(" at ")[0].split(" 0x")[0],
        app.finalized,
        sorted(n for n in app.tasks if n.startswith("celery."))[:12],
        app.finalized,
        app.gen_task_name("run", "some.module"),
        app.conf.include,
        app.set_current() is None,
    ]


def case_pickled():
    app = Celery("pickled", set_as_current=False)
    app.conf.task_default_queue = "kept"
    return pickle.loads(pickle.dumps(app)).conf.task_default_queue


run(globals())
