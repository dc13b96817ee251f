"""Celery's user guide, "Routing Tasks": where a task goes, by name, pattern and function."""

from __future__ import annotations

import re

from celery import Celery
from celery.exceptions import QueueNotFound
from kombu import Exchange, Queue
from observed import attempt, run


def routed(routes, options=None, name="feed.tasks.update", queues=None, **conf):
    app = Celery("routing", set_as_current=False)
    if queues:
        app.conf.task_queues = queues
    app.conf.update(task_routes=routes, **conf)
    route = app.amqp.router.route(options or {}, name, (1,), {"k": 2})
    queue = route.pop("queue", None)
    return [queue and [queue.name, queue.exchange.name, queue.routing_key], route]


def by_function(name, args, kwargs, options, task=None, **kw):
    return {"queue": "functional", "priority": len(args)} if name.startswith("feed") else None


def case_default():
    return routed(None)


def case_by_name():
    return routed({"feed.tasks.update": {"queue": "feeds", "routing_key": "feed.update"}})


def case_by_glob():
    return routed({"feed.*": {"queue": "feeds"}}), routed({"feed.*": "text"}), routed({"x.*": "no"})


def case_by_regex():
    return routed(([(re.compile(r"feed\..+\.update"), {"queue": "matched"})],))


def case_in_order():
    return routed(([("feed.tasks.*", {"queue": "first"}), ("feed.*", {"queue": "second"})],))


def case_by_function():
    return routed((by_function,)), routed((by_function,), name="other")


def case_options_win():
    return (
        routed({"feed.*": {"queue": "feeds", "priority": 3}}, {"queue": "mine"}),
        routed({"feed.*": {"queue": "feeds"}}, {"priority": 9, "routing_key": "rk"}),
        routed(None, {"exchange": "media", "routing_key": "video"}),
    )


def case_declared_queues():
    queues = [
        Queue("default", Exchange("default"), routing_key="default"),
        Queue("videos", Exchange("media"), routing_key="media.video"),
    ]
    return (
        routed({"feed.*": {"queue": "videos"}}, queues=queues, task_default_queue="default"),
        routed(None, queues=queues, task_default_queue="default"),
    )


def case_missing_queue():
    found = attempt(
        routed,
        {"feed.*": {"queue": "nowhere"}},
        queues=[Queue("default")],
        task_create_missing_queues=False,
    )
    return [str(found).split(":")[0], issubclass(QueueNotFound, Exception)]


def case_queues():
    app = Celery("routing", set_as_current=False)
    app.conf.task_queues = {"a": {"exchange": "ex", "routing_key": "rk"}, "b": {}}
    queues = app.amqp.queues
    queues.select(["a", "new"])
    return [
        sorted(queues),
        sorted(queues.consume_from),
        queues["a"].routing_key,
        [app.amqp.default_queue.name, app.amqp.default_exchange.name],
    ]


run(globals())
