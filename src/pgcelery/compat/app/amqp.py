"""Queues, and which of them a task goes to.

Exchanges and bindings exist here only as definitions: where a message goes is decided when it is
sent, from the sender's own `task_queues`.

Source: Celery 5.7, ``celery.app.amqp`` and userguide "Routing Tasks".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from kombu.common import Broadcast
from kombu.entity import Exchange, Queue

from pgcelery.compat.app import routes as _routes
from pgcelery.compat.app.broker import Connection, Producer, ProducerPool
from pgcelery.compat.exceptions import ImproperlyConfigured, QueueNotFound
from pgcelery.compat.utils.functional import maybe_list
from pgcelery.compat.utils.nodenames import (
    WORKER_DIRECT_EXCHANGE,
    WORKER_DIRECT_QUEUE_FORMAT,
)
from pgcelery.compat.utils.text import indent as textindent

__all__ = ("AMQP", "Queues", "broadcast_queue_name")

QUEUE_FORMAT = ".> {0.name:<16} exchange={0.exchange.name}({0.exchange.type}) key={0.routing_key}"


class Destination(NamedTuple):
    """Where a message goes."""

    queues: tuple[str, ...]  #: none only for a broadcast that no live worker listens to
    exchange: str  #: empty when it goes straight to a queue
    routing_key: str
    declare: list[Any]  #: the queue that was named, for `before_task_publish`


def broadcast_queue_name(exchange: str, nodename: str) -> str:
    """Name the queue in which one worker gets its copy of what is sent to a fanout exchange."""
    return f"{_broadcast_prefix(exchange)}{nodename}"


def _broadcast_prefix(exchange: str) -> str:
    return f"bcast.{exchange}/"


class Queues(dict[str, Any]):
    """The app's queues by name; a missing one is made, if that is allowed.

    Args:
        queues: Queues, or a mapping of names to queues or to Celery 2's dicts.
        default_exchange: For queues that name none.
        create_missing: Whether a missing queue is made; else it is a ``KeyError``.
        create_missing_queue_type: ``classic`` or ``quorum``; only the name is checked.
        create_missing_queue_exchange_type: Of the exchange of a queue that is made.
        autoexchange: Makes that exchange from the name of the queue.
        max_priority: Written into the queues' arguments; it has no other effect.
        default_routing_key: For queues that name none.
    """

    _consume_from: dict[str, Any] | None = None

    def __init__(
        self,
        queues: Any = None,
        default_exchange: Any = None,
        create_missing: bool = True,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Any = None,
        max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        super().__init__()
        self.aliases: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = Exchange if autoexchange is None else autoexchange
        self.max_priority = max_priority
        if queues is not None and not isinstance(queues, Mapping):
            queues = {queue.name: queue for queue in queues}
        for name, queue in (queues or {}).items():
            self.add(queue) if isinstance(queue, Queue) else self.add_compat(name, **queue)
        self._default_consume_from: dict[str, Any] = {**self}

    def __getitem__(self, name: str) -> Any:
        found = self.aliases.get(name)
        return super().__getitem__(name) if found is None else found

    def __setitem__(self, name: str, queue: Any) -> None:
        if self.default_exchange and not queue.exchange:
            queue.exchange = self.default_exchange
        if not queue.routing_key:
            queue.routing_key = self.default_routing_key
        if self.max_priority is not None:
            queue.queue_arguments = queue.queue_arguments or {}
            queue.queue_arguments.setdefault("x-max-priority", self.max_priority)
        super().__setitem__(name, queue)
        if queue.alias:
            self.aliases[queue.alias] = queue

    def __missing__(self, name: str) -> Any:
        if self.create_missing:
            return self.add(self.new_missing(name))
        raise KeyError(name)

    def add(self, queue: Any, **kwargs: Any) -> Any:
        """Add a queue, or one of this name with `exchange`, `routing_key`, `exchange_type`."""
        if not isinstance(queue, Queue):
            return self.add_compat(queue, **kwargs)
        if self.default_exchange and (queue.exchange is None or queue.exchange.name == ""):
            queue.exchange = self.default_exchange
        self[queue.name] = queue
        return queue

    def add_compat(self, name: str, **options: Any) -> Any:
        """Add a queue described by a dict."""
        options.setdefault("routing_key", options.get("binding_key"))
        if options["routing_key"] is None:
            options["routing_key"] = name
        return self.add(Queue.from_dict(name, **options))

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """Describe the queues that are consumed from, one a line."""
        lines = [QUEUE_FORMAT.format(queue) for _, queue in sorted(self.consume_from.items())]
        if indent_first or not lines:
            return textindent("\n".join(lines), indent) if lines else ""
        return "\n".join([lines[0], *(textindent(line, indent) for line in lines[1:])])

    def select_add(self, queue: Any, **kwargs: Any) -> Any:
        """Add a queue and consume from it, whatever has been selected."""
        added = self.add(queue, **kwargs)
        self.consume_from[added.name] = added
        return added

    def select(self, include: Any) -> None:
        """Consume from these queues only; the others serve routing."""
        if include:
            chosen = [self[name] for name in maybe_list(include)]
            self._consume_from = {queue.name: queue for queue in chosen}

    def deselect(self, exclude: Any) -> None:
        """Do not consume from these queues."""
        for name in maybe_list(exclude) or ():
            alias = self.aliases.get(name)
            self.consume_from.pop(name if alias is None else alias.name, None)

    def new_missing(self, name: str) -> Any:
        """Make a queue that is missing, without adding it.

        Raises:
            ValueError: `create_missing_queue_type` is not a type of queue.
        """
        kind = self.create_missing_queue_type
        if kind not in (None, "classic", "quorum"):
            raise ValueError(
                f"Invalid queue type '{kind}'. Valid types are 'classic' and 'quorum'."
            )
        if self.create_missing_queue_exchange_type:
            exchange = Exchange(name, self.create_missing_queue_exchange_type)
        else:
            exchange = self.autoexchange(name)
        arguments = {"x-queue-type": kind} if kind == "quorum" else None
        return Queue(name, exchange, name, queue_arguments=arguments)

    add_missing = __missing__

    @property
    def consume_from(self) -> dict[str, Any]:
        """The queues that a worker serves."""
        return self._default_consume_from if self._consume_from is None else self._consume_from


class AMQP:
    """What ``app.amqp`` is: the queues and the router."""

    Connection = BrokerConnection = Connection
    Producer = Producer
    queues_cls = Queues

    #: Makes the exchange of a queue that was missing.
    autoexchange: Any = None

    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024

    _rtable: list[Any] | None = None

    def __init__(self, app: Any) -> None:
        self.app = app
        app._conf.bind_to(self._on_conf_update)

    def _on_conf_update(self, new: Mapping[str, Any]) -> None:
        if any(key in new for key in self.app._conf._to_keys("task_routes")):
            self._rtable = None
            self.__dict__.pop("router", None)

    def Queues(self, queues: Any, **options: Any) -> Any:
        """Make a set of queues with the app's defaults."""
        conf = self.app.conf
        if not queues and conf.task_default_queue:
            kind = conf.task_default_queue_type
            queues = [
                Queue(
                    conf.task_default_queue,
                    exchange=self.default_exchange,
                    routing_key=conf.task_default_routing_key,
                    queue_arguments={"x-queue-type": kind} if kind == "quorum" else None,
                )
            ]
        defaults = {
            "create_missing": conf.task_create_missing_queues,
            "create_missing_queue_type": conf.task_create_missing_queue_type,
            "create_missing_queue_exchange_type": conf.task_create_missing_queue_exchange_type,
            "autoexchange": self.autoexchange,
            "max_priority": conf.task_queue_max_priority,
        }
        given = {key: value for key, value in options.items() if value is not None}
        return self.queues_cls(
            queues,
            default_exchange=self.default_exchange,
            default_routing_key=conf.task_default_routing_key,
            **{**defaults, **given},
        )

    def Router(self, queues: Any = None, create_missing: bool | None = None) -> _routes.Router:
        """Make a router for some queues, by default the app's."""
        return _routes.Router(
            self.routes,
            queues or self.queues,
            self.app.either("task_create_missing_queues", create_missing),
            app=self.app,
        )

    def flush_routes(self) -> None:
        """Read `task_routes` again."""
        self._rtable = _routes.prepare(self.app.conf.task_routes)

    @property
    def routes(self) -> list[Any]:
        """The routers of `task_routes`."""
        if self._rtable is None:
            self.flush_routes()
        assert self._rtable is not None
        return self._rtable

    @cached_property
    def router(self) -> _routes.Router:
        """The router of the app's queues."""
        return self.Router()

    @cached_property
    def queues(self) -> Any:
        """The app's queues by name."""
        return self.Queues(self.app.conf.task_queues)

    @property
    def default_queue(self) -> Any:
        """The queue of tasks that are routed nowhere else."""
        return self.queues[self.app.conf.task_default_queue]

    @cached_property
    def default_exchange(self) -> Any:
        """The exchange of queues that name none."""
        conf = self.app.conf
        return Exchange(conf.task_default_exchange, conf.task_default_exchange_type)

    @property
    def utc(self) -> bool:
        """Whether messages say their times are UTC."""
        return bool(self.app.conf.enable_utc)

    @property
    def producer_pool(self) -> ProducerPool:
        """Something to acquire a producer from."""
        return ProducerPool(self.app)

    publisher_pool = producer_pool

    # -- where a message goes

    def resolve(
        self,
        queue: Any = None,
        exchange: Any = None,
        routing_key: str | None = None,
        exchange_type: str | None = None,
    ) -> Destination:
        """Give the queues that a message with these options goes to.

        Args:
            queue: A queue or its name, as `router.route` gives it.
            exchange: An exchange or its name.
            routing_key: The key.
            exchange_type: Its type, if that is not known otherwise.

        Raises:
            QueueNotFound: No queue is bound so that the message would reach it.
            ImproperlyConfigured: The exchange is of type ``headers``.
        """
        if queue is None and exchange is None:
            queue = self.default_queue
        elif isinstance(queue, str):
            queue = self.queues[queue]
        declare = [] if queue is None or isinstance(queue, Broadcast) else [queue]
        name = exchange.name if isinstance(exchange, Exchange) else exchange
        actual = _kind(exchange) or self._known_kind(name)
        kind = exchange_type or (actual if queue is None else _kind(queue.exchange)) or "direct"
        # Celery looks at the queue's exchange here, even if another one is named.
        if kind == "direct" and not (name and routing_key):
            target = queue.name if queue is not None else routing_key or self.default_queue.name
            return Destination((target,), "", target, declare)
        if queue is not None:
            name = name or queue.exchange.name
            routing_key = routing_key or queue.routing_key
        key = routing_key or ""
        kind = actual or self._known_kind(name) or kind
        return Destination(tuple(self._lookup(name, kind, key, queue)), name, key, declare)

    def resolve_queue(self, options: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """Give (queue, delivery info) of each queue that `resolve` finds for these options."""
        get = options.get
        queue, exchange, routing_key = get("queue"), get("exchange"), get("routing_key")
        kind = get("exchange_type")
        if (  # nearly always
            type(queue) is Queue
            and not (exchange or routing_key or kind)
            and (_kind(queue.exchange) or "direct") == "direct"
        ):
            return [(queue.name, {"exchange": "", "routing_key": queue.name})]
        found = self.resolve(queue, exchange, routing_key, kind)
        info = {"exchange": found.exchange, "routing_key": found.routing_key}
        return [(name, dict(info)) for name in found.queues]

    def _known_kind(self, exchange: Any) -> str | None:
        if not exchange:
            return None
        return next(
            (_kind(bound) for bound, _, _ in self._bindings() if bound.name == exchange), None
        )

    def _bindings(self, extra: Any = None) -> Iterable[tuple[Any, str, Any]]:
        """Give (exchange, key, queue) of every binding that is known."""
        queues = dict.fromkeys(self.queues.values())
        if extra is not None:
            queues[extra] = None
        for queue in queues:
            if queue.exchange is not None:
                yield queue.exchange, queue.routing_key or "", queue
            for binding in queue.bindings or ():
                yield binding.exchange, binding.routing_key or "", queue

    def _lookup(self, exchange: str, kind: str, key: str, queue: Any) -> list[str]:
        if kind == "headers":
            raise ImproperlyConfigured(
                f"exchange {exchange!r} is of type headers, which pgcelery does not have: route by "
                "queue name, or with a direct or topic exchange"
            )
        if exchange == WORKER_DIRECT_EXCHANGE.name:
            return [WORKER_DIRECT_QUEUE_FORMAT.format(hostname=key)]
        bound = [(k, q) for each, k, q in self._bindings(queue) if each.name == exchange]
        matching = [q for pattern, q in bound if _matches(kind, pattern, key)]
        if not matching and kind != "fanout":
            raise QueueNotFound(
                f"no queue in task_queues is bound to exchange {exchange!r} ({kind}) "
                f"for routing key {key!r}"
            )
        names = [q.name for q in matching if not isinstance(q, Broadcast)]
        if len(names) < len(matching) or not matching:
            names += self._broadcast_names(exchange)
        return list(dict.fromkeys(names))

    def _broadcast_names(self, exchange: str) -> list[str]:
        prefix = _broadcast_prefix(exchange)
        workers = self.app.engine.workers()
        return [name for worker in workers for name in worker.queues if name.startswith(prefix)]


def _kind(exchange: Any) -> str | None:
    return getattr(exchange, "type", None) or None


def _matches(kind: str, pattern: str, key: str) -> bool:
    if kind == "fanout":
        return True
    if kind != "topic":
        return pattern == key
    return (
        _topic(pattern).fullmatch("".join(f".{word}" for word in key.split(".") if word))
        is not None
    )


@cache
def _topic(pattern: str) -> re.Pattern[str]:
    """Translate AMQP's wildcards for a key with a dot before each word.

    ``*`` is one word, ``#`` any number of words.
    """
    wildcards = {"*": r"\.[^.]+", "#": r"(?:\.[^.]+)*"}
    words = pattern.split(".")
    return re.compile("".join(wildcards.get(word, re.escape(f".{word}")) for word in words))
