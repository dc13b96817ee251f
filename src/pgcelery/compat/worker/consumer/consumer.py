"""`Consumer`: the side of a worker that takes tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pgcelery.compat import signals
from pgcelery.compat.worker import rates, state
from pgcelery.compat.worker.heartbeat import Heart
from pgcelery.engine import EngineError

__all__ = ("Consumer", "TaskConsumer")

logger = logging.getLogger("celery.worker.consumer.consumer")

_LAST_EVENTS_S = 1.0  # what the worker's end waits for


class TaskConsumer:
    """The queues that are consumed.

    Attributes:
        queues: `kombu.Queue` objects.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    @property
    def queues(self) -> list[Any]:
        """Queues, as declared in the app."""
        return list(self._app.amqp.queues.consume_from.values())

    def consuming_from(self, queue: Any) -> bool:
        """Whether a queue, or one of its name, is consumed."""
        return getattr(queue, "name", queue) in self._app.amqp.queues.consume_from


class Consumer:
    """What a worker shows of itself to commands and steps.

    Attributes:
        controller: The `WorkController`.
        timer: Calls functions later.
        event_dispatcher: Sends the worker's events.
        heart: Sends its heartbeats; None with ``--without-heartbeat``.
        on_task_message: Called with each request that is taken.
        gossip: None: workers do not talk among themselves.
    """

    connection_errors: tuple[type[BaseException], ...] = ()
    channel_errors: tuple[type[BaseException], ...] = ()
    gossip = None

    def __init__(self, controller: Any) -> None:
        self.controller = controller
        self.app = controller.app
        self.hostname: str = controller.hostname
        self.timer = controller.timer
        self.task_consumer = TaskConsumer(self.app)
        self.event_dispatcher: Any = self.app.events.Dispatcher(
            hostname=self.hostname, groups=None if controller.task_events else ["worker"]
        )
        self.heart: Heart | None = None
        if not controller.options.get("without_heartbeat"):
            self.heart = Heart(
                self.timer,
                self.event_dispatcher,
                controller.heartbeat_interval,
                active=self._count_active,
            )
        self._registration: int | None = None
        self.on_task_message: set[Callable[..., Any]] = set()
        self.disable_rate_limits: bool = controller.disable_rate_limits
        self.initial_prefetch_count: int = controller.prefetch_count

    def _count_active(self) -> int:
        # From any thread; what is taken is begun within milliseconds.
        size = self.pool.size if self.pool is not None else 0
        return min(len(state.reserved_requests), size)

    def start(self) -> None:
        """Say that the worker is there."""
        if self.heart is not None:
            self.heart.start()

    def stop(self) -> None:
        """Say that it goes."""
        if self.heart is not None:
            self.heart.stop()
        self.app.event_writer.flush(_LAST_EVENTS_S)

    def on_beat(self) -> None:
        """Tell the receivers of ``heartbeat_sent`` that the worker's lease was renewed.

        The first beat after the worker has made itself known comes before its first tasks: what
        was said to workers before that is heard now.
        """
        registration = self.controller.node.registration
        if registration != self._registration and self.controller.pidbox is not None:
            try:
                self.controller.pidbox.catch_up()
                self._registration = registration
            except EngineError as exc:
                logger.error("Cannot read what workers were told before: %s", exc)
        if signals.heartbeat_sent.receivers:
            signals.heartbeat_sent.send(sender=self.heart)

    @property
    def pool(self) -> Any:
        """The engine's pool; None before the worker starts."""
        return self.controller.pool

    def call_soon(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call now: commands run in the thread of the worker."""
        return fun(*args, **kwargs)

    def reset_rate_limits(self) -> None:
        """Read the rate limits of tasks anew; they hold at once, also for what waits."""
        self.controller.node.set_rates(self.rates())

    def rates(self) -> dict[str, float]:
        """Give the tasks that this worker limits, by name, with starts a second."""
        return {} if self.disable_rate_limits else rates.of_tasks(self.app)

    def add_task_queue(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str | None = None,
        routing_key: str | None = None,
        **options: Any,
    ) -> None:
        """Take tasks from a queue too, declaring it if the app does not know it."""
        queues = self.app.amqp.queues
        if queue in queues.consume_from:
            found = queues[queue]
        else:
            found = queues.select_add(
                queue,
                exchange=queue if exchange is None else exchange,
                exchange_type="direct" if exchange_type is None else exchange_type,
                routing_key=queue if routing_key is None else routing_key,
                **options,
            )
        self.controller.node.add_queue(found.name)
        logger.info("Started consuming from %s", queue)

    def cancel_task_queue(self, queue: Any) -> None:
        """Take no more tasks from a queue."""
        name = getattr(queue, "name", queue)
        logger.info("Canceling queue %s", name)
        self.app.amqp.queues.deselect(name)
        self.controller.node.cancel_queue(name)
