from __future__ import annotations

import re

import pytest
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from pgcelery import Celery
from pgcelery.compat.app.amqp import Queues, broadcast_queue_name
from pgcelery.compat.app.routes import MapRoute, prepare
from pgcelery.compat.exceptions import ImproperlyConfigured, QueueNotFound
from pgcelery.compat.utils.nodenames import worker_direct


def make_app(**settings):
    return Celery("r", broker="postgresql://u@h/d", set_as_current=False, **settings)


def routed(app, name="job", args=(), kwargs=None, **options):
    """Give the queue names that a task goes to."""
    options = app.amqp.router.route(options, name, args, kwargs or {})
    return [queue for queue, _ in app.amqp.resolve_queue(options)]


# -- task_routes


@pytest.mark.parametrize(
    "routes",
    [
        {"feed.import": "feeds"},
        {"feed.*": "feeds"},
        {re.compile(r"feed\..+"): {"queue": "feeds"}},
        {"feed.import": {"queue": "feeds"}, "feed.*": "others"},
        [("feed.*", {"queue": "feeds"})],
        ([("feed.*", "feeds"), ("*", "others")],),
        [{"x": "y"}, {"feed.*": "feeds"}],
        lambda name, args, kwargs, options, task=None, **kw: (
            "feeds" if name.startswith("feed.") else None
        ),
        [f"{__name__}.route_feeds"],
        f"{__name__}:OldRouter",
    ],
)
def test_every_kind_of_route_leads_to_its_queue(routes):
    app = make_app(task_routes=routes)
    assert routed(app, "feed.import") == ["feeds"]


def route_feeds(name, args, kwargs, options, task=None, **kw):
    return {"queue": "feeds"}


class OldRouter:
    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": "feeds"} if task == "feed.import" else None


def test_a_function_is_given_the_call():
    seen = {}

    def route(name, args, kwargs, options, task=None, **kw):
        seen.update(name=name, args=args, kwargs=kwargs, options=options, task=task)

    app = make_app(task_routes=[route])
    options = app.amqp.router.route({"priority": 3}, "job", (1,), {"a": 2}, task_type="the task")
    assert seen == {
        "name": "job",
        "args": (1,),
        "kwargs": {"a": 2},
        "options": {"priority": 3},
        "task": "the task",
    }
    assert options["queue"].name == "celery"


def test_the_callers_options_win_over_the_route():
    app = make_app(task_routes={"job": {"queue": "routed", "priority": 1, "expires": 9}})
    options = app.amqp.router.route({"queue": "asked", "priority": 5, "expires": None}, "job")
    assert (options["queue"].name, options["priority"], options["expires"]) == ("asked", 5, 9)


def test_the_first_route_that_is_something_counts():
    app = make_app(task_routes=[lambda *a, **k: None, {"job": "second"}, {"job": "third"}])
    assert routed(app) == ["second"]


def test_changing_the_routes_takes_effect_at_once():
    app = make_app()
    assert routed(app) == ["celery"]
    app.conf.update(task_routes={"job": "new"})
    assert routed(app) == ["new"]
    app.conf.task_routes = None
    assert routed(app) == ["celery"]


def test_no_routes_are_no_routes():
    assert prepare(None) == []
    assert MapRoute({"a": "b"})("other") is None


def test_the_default_queue_may_have_another_name():
    assert routed(make_app(task_default_queue="mine")) == ["mine"]


def test_a_queue_that_is_missing_is_made_unless_that_is_forbidden():
    assert routed(make_app(), queue="new") == ["new"]
    strict = make_app(task_create_missing_queues=False, task_queues=[Queue("known")])
    assert routed(strict, queue="known") == ["known"]
    with pytest.raises(QueueNotFound, match="'new' missing from task_queues"):
        routed(strict, queue="new")
    with pytest.raises(KeyError):
        strict.amqp.queues["new"]


def test_routing_decides_as_celery_decides():
    celery = pytest.importorskip("celery")
    routes = [{"a.*": {"queue": "q1", "priority": 2}}, {"b": "q2", re.compile("c.d"): "q3"}]
    theirs = celery.Celery(set_as_current=False, task_routes=routes)
    ours = make_app(task_routes=routes)
    for name in ("a.x", "b", "c-d", "z"):
        for options in ({}, {"queue": "own"}, {"priority": 7}, {"exchange": "e"}):
            assert flat(ours.amqp.router.route(dict(options), name)) == flat(
                theirs.amqp.router.route(dict(options), name)
            )


def flat(options):
    return {**options, "queue": options["queue"].name} if "queue" in options else options


# -- where a message goes


def test_a_task_goes_to_the_queue_by_the_nameless_exchange():
    app = make_app()
    assert app.amqp.resolve_queue({}) == [("celery", {"exchange": "", "routing_key": "celery"})]
    found = app.amqp.resolve(queue="other")
    assert (found.queues, found.exchange, found.routing_key) == (("other",), "", "other")
    assert [queue.name for queue in found.declare] == ["other"]


@pytest.fixture
def media():
    exchange = Exchange("media", type="direct")
    return make_app(
        task_queues=[
            Queue("videos", exchange, routing_key="media.video"),
            Queue("images", exchange, routing_key="media.image"),
            Queue("both", bindings=[binding(exchange, routing_key="media.video")]),
        ],
        task_default_queue="videos",
    )


def test_a_direct_exchange_goes_to_every_queue_with_the_key(media):
    assert routed(media, exchange="media", routing_key="media.image") == ["images"]
    assert sorted(routed(media, exchange="media", routing_key="media.video")) == ["both", "videos"]


def test_a_key_that_leads_nowhere_is_an_error_and_not_a_lost_task(media):
    with pytest.raises(QueueNotFound, match=r"'media' \(direct\) for routing key 'media.text'"):
        media.amqp.resolve(exchange="media", routing_key="media.text")


def test_a_route_to_a_queue_with_a_key_uses_the_queues_exchange():
    app = make_app(task_queues=[Queue("feeds", Exchange("feed", type="topic"), "feed.#")])
    found = app.amqp.resolve(queue="feeds", routing_key="feed.import")
    assert (found.queues, found.exchange, found.routing_key) == (("feeds",), "feed", "feed.import")


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("*.b", "a.b", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("a.#", "ab", False),
        ("#", "", True),
        ("#", "a.b", True),
        ("#.c", "c", True),
        ("#.c", "a.b.c", True),
        ("#.c", "a.bc", False),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
    ],
)
def test_topics_have_amqps_wildcards(pattern, key, matches):
    app = make_app(task_queues=[Queue("q", Exchange("t", type="topic"), pattern)])
    if matches and key:
        assert routed(app, exchange="t", routing_key=key) == ["q"]
    if matches:
        assert app.amqp.resolve(exchange="t", routing_key=key).queues == ("q",)
    else:
        with pytest.raises(QueueNotFound):
            app.amqp.resolve(exchange="t", routing_key=key)


def test_a_fanout_exchange_goes_to_all_its_queues():
    fan = Exchange("fan", type="fanout")
    app = make_app(task_queues=[Queue("a", fan), Queue("b", fan), Queue("c")])
    assert sorted(routed(app, exchange="fan", routing_key="any")) == ["a", "b"]
    assert app.amqp.resolve(exchange="fan").queues == ("a", "b")


def test_an_exchange_without_a_key_leaves_the_default_queue_as_in_celery(media):
    assert routed(media, exchange="media") == ["videos"]


class Workers:
    """Stands where the engine is, to say which workers are alive."""

    def __init__(self, *queues):
        self.queues = queues

    def workers(self):
        return [self]


def test_a_broadcast_goes_to_each_live_worker():
    app = make_app(task_queues=[Broadcast("bcast")], task_routes={"job": "bcast"})
    app._engine = Workers(
        broadcast_queue_name("bcast", "w1@h"), broadcast_queue_name("bcast", "w2@h"), "celery"
    )
    assert routed(app) == ["bcast.bcast/w1@h", "bcast.bcast/w2@h"]
    assert app.amqp.resolve(queue="bcast").declare == []
    app._engine = Workers()
    assert routed(app) == []


def test_a_workers_own_queue_is_found_by_queue_and_by_exchange():
    app = make_app()
    queue = worker_direct("w1@h")
    assert routed(app, queue=queue) == ["w1@h.dq2"]
    assert routed(app, exchange="C.dq2", routing_key="w1@h") == ["w1@h.dq2"]


def test_headers_exchanges_are_refused():
    app = make_app(task_queues=[Queue("q", Exchange("h", type="headers"), "x")])
    with pytest.raises(ImproperlyConfigured, match="type headers"):
        app.amqp.resolve(exchange="h", routing_key="x")


# -- app.amqp.queues


def test_there_is_one_queue_by_default():
    app = make_app()
    assert set(app.amqp.queues) == {"celery"}
    queue = app.amqp.default_queue
    assert (queue.exchange.name, queue.exchange.type, queue.routing_key) == (
        "celery",
        "direct",
        "celery",
    )
    assert app.amqp.default_exchange.name == "celery"


def test_queues_of_celery_2_are_understood():
    app = make_app(
        task_queues={
            "default": {"exchange": "default", "binding_key": "default"},
            "videos": {"exchange": "media", "exchange_type": "topic", "routing_key": "media.#"},
        }
    )
    assert app.amqp.queues["default"].routing_key == "default"
    assert app.amqp.queues["videos"].exchange.type == "topic"


def test_a_worker_serves_what_is_selected():
    app = make_app(task_queues=[Queue("a"), Queue("b"), Queue("c")])
    queues = app.amqp.queues
    assert set(queues.consume_from) == {"a", "b", "c"}
    queues.deselect("c")
    assert set(queues.consume_from) == {"a", "b"}
    app.select_queues(["a", "new"])
    assert set(queues.consume_from) == {"a", "new"}
    queues.deselect(["new"])
    queues.select_add("late", exchange="late", exchange_type="direct", routing_key="late")
    assert set(queues.consume_from) == {"a", "late"}
    assert "late" in queues
    assert ".> a " in queues.format()


def test_queues_without_exchange_or_key_get_the_defaults():
    queues = Queues(
        [Queue("q")], default_exchange=Exchange("d"), default_routing_key="k", max_priority=10
    )
    assert (queues["q"].exchange.name, queues["q"].routing_key) == ("d", "k")
    assert queues["q"].queue_arguments == {"x-max-priority": 10}


def test_a_type_of_queue_that_is_none_is_an_error():
    app = make_app(task_create_missing_queue_type="classy")
    with pytest.raises(ValueError, match="Valid types are 'classic' and 'quorum'"):
        app.amqp.queues["new"]
