"""`WorkController`: a worker that some thread runs; ``apps.worker`` makes a program of it.

Source: Celery 5.7, ``celery.worker.worker``: the order of hooks and signals, `stats`, exit codes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kombu.common import Broadcast

from pgcelery.compat import bootsteps, concurrency, signals
from pgcelery.compat.app.amqp import broadcast_queue_name
from pgcelery.compat.concurrency.base import BasePool, PoolOptions
from pgcelery.compat.exceptions import ImproperlyConfigured, WorkerTerminate
from pgcelery.compat.platforms import EX_FAILURE, Pidfile, create_pidlock
from pgcelery.compat.utils.imports import instantiate, reload_from_cwd
from pgcelery.compat.utils.log import mlevel
from pgcelery.compat.utils.nodenames import default_nodename, worker_direct
from pgcelery.compat.utils.sysinfo import available_cpu_count, cpu_budget, is_auto_concurrency
from pgcelery.compat.utils.timer2 import Timer
from pgcelery.compat.worker import state, statistics
from pgcelery.compat.worker.autoscale import WorkerComponent, bounds
from pgcelery.compat.worker.consumer import Consumer
from pgcelery.compat.worker.pidbox import Pidbox
from pgcelery.compat.worker.steering import read_labels
from pgcelery.compat.worker.strategy import NodeHandler
from pgcelery.compat.worker.taskevents import TaskEvents
from pgcelery.engine import EngineConfig, EngineError, Worker
from pgcelery.engine.pool import SoloPool

__all__ = ("WorkController",)

logger = logging.getLogger("celery.worker.worker")


class WorkController:
    """One worker: handler, pool and engine node, and the application's own steps.

    Args:
        app: The app whose tasks it runs.
        hostname: Name of the node; completed to ``celery@host``.
        kwargs: As the options of ``pgcelery worker``, in Python names.

    Attributes:
        node: The engine's worker; None before the start.
        pool: The engine's pool; None before the start.
        consumer: What remote control commands reach.
        exitcode: Set once it ends by a signal, a command or an error.
    """

    app: Any = None
    node: Worker | None = None
    pool: Any = None
    pidbox: Pidbox | None = None
    pidlock: Pidfile | None = None
    blueprint: bootsteps.Blueprint
    exitcode: int | None = None
    #: the process that sends periodic tasks, of ``-B``
    beat: Any = None
    #: resizes the pool, from its start on; None unless asked for
    autoscaler: Any = None
    #: bounds of the pool's size; without autoscaling the first is None
    max_concurrency: int | None
    min_concurrency: int
    #: whether it was asked to end
    closing = False

    def __init__(self, app: Any = None, hostname: str | None = None, **kwargs: Any) -> None:
        self.app = app or self.app
        self.hostname: str = default_nodename(hostname)
        self.startup_time = datetime.now(UTC)
        self.app.loader.init_worker()
        self.on_before_init(**kwargs)
        self.setup_defaults(**kwargs)
        self.on_after_init(**kwargs)
        self.setup_instance(**self.prepare_args(**kwargs))

    # Hooks of subclasses, in the order in which they are called.

    def on_before_init(self, **kwargs: Any) -> None:
        """Called first."""

    def on_after_init(self, **kwargs: Any) -> None:
        """Called when the options are known."""

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Change the options of `setup_instance`."""
        return kwargs

    def on_init_blueprint(self) -> None:
        """Called before steps are created; logging is set up here."""

    def on_start(self) -> None:
        """Called when the worker starts, before the pool does."""
        if self.pidfile:
            self.pidlock = create_pidlock(self.pidfile)

    def on_consumer_ready(self, consumer: Consumer) -> None:
        """Called when tasks are taken."""

    def on_close(self) -> None:
        """Called when no task runs any more."""
        self.app.loader.shutdown_worker()

    def on_stopped(self) -> None:
        """Called when the steps have stopped."""
        self.timer.stop()
        if self.pidlock:
            self.pidlock.release()

    # Setting up.

    def setup_defaults(
        self,
        concurrency: int | str | None = None,
        loglevel: int | str | None = "WARN",
        logfile: Any = None,
        task_events: bool | None = None,
        pool: Any = None,
        pool_cls: Any = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        prefetch_multiplier: int | None = None,
        disable_rate_limits: bool | None = None,
        heartbeat_interval: float | None = None,
        autoscaler_cls: Any = None,
        labels: Iterable[str] | None = None,
        **_kw: Any,
    ) -> None:
        """Read options, falling back to the app's settings."""
        either = self.app.either
        self.loglevel = loglevel
        self.logfile = logfile
        self.concurrency = either("worker_concurrency", concurrency)
        self.task_events = either("worker_send_task_events", task_events)
        self.pool_cls = either("worker_pool", pool, pool_cls)
        self.max_tasks_per_child = either("worker_max_tasks_per_child", max_tasks_per_child)
        self.max_memory_per_child = either("worker_max_memory_per_child", max_memory_per_child)
        self.prefetch_multiplier = int(either("worker_prefetch_multiplier", prefetch_multiplier))
        self.disable_rate_limits = bool(either("worker_disable_rate_limits", disable_rate_limits))
        self.heartbeat_interval = heartbeat_interval
        self.labels = read_labels(self.app.conf.get("worker_labels"), labels)
        self.autoscaler_cls = either("worker_autoscaler", autoscaler_cls)
        for name, limit in (("time_limit", time_limit), ("soft_time_limit", soft_time_limit)):
            setattr(self, name, either(f"task_{name}", limit))
            if limit is not None:
                # Runs read the setting where the task runs, which is after the fork.
                self.app.conf[f"task_{name}"] = limit

    def setup_instance(
        self,
        queues: Any = None,
        ready_callback: Callable[[Any], Any] | None = None,
        pidfile: str | None = None,
        include: Any = None,
        exclude_queues: Any = None,
        beat: bool = False,
        schedule_filename: str | None = None,
        scheduler: Any = None,
        autoscale: Any = None,
        **kwargs: Any,
    ) -> None:
        """Choose queues, import modules, size the pool, create the steps."""
        self.pidfile = pidfile
        if beat:
            self.beat = instantiate(
                "pgcelery.compat.beat:EmbeddedService",
                self.app,
                schedule_filename=schedule_filename,
                scheduler_cls=self.app.either("beat_scheduler", scheduler),
            )
        self.setup_queues(queues, exclude_queues)
        self.setup_includes(_as_list(include))
        self.loglevel = mlevel(self.loglevel)
        self.ready_callback = ready_callback or self.on_consumer_ready
        self.options = kwargs
        signals.worker_init.send(sender=self)
        self.pool_cls = concurrency.get_implementation(self.pool_cls)
        self._concurrency_note: tuple[Any, ...] | None = None
        self.concurrency = self._resolve_concurrency()
        self._setup_autoscale(autoscale)
        self.on_init_blueprint()
        self.timer = Timer()
        self.consumer = Consumer(self)
        self.steps: list[Any] = []
        for step in self.app.steps["consumer"]:
            raise ImproperlyConfigured(bootsteps.consumer_step_refusal(step))
        steps = [WorkerComponent, *self.app.steps["worker"]]
        self.blueprint = bootsteps.Blueprint(steps).apply(self, **kwargs)

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Choose the queues to consume.

        Raises:
            ImproperlyConfigured: One is unknown, and ``task_create_missing_queues`` is off.
        """
        queues = self.app.amqp.queues
        for choose, names in ((queues.select, include), (queues.deselect, exclude)):
            try:
                choose(_as_list(names))
            except KeyError as exc:
                raise ImproperlyConfigured(
                    f"Queue {exc} of {names!r} is not in the `task_queues` setting, and "
                    "`task_create_missing_queues` is off."
                ) from exc
        if self.app.conf.worker_direct:
            queues.select_add(worker_direct(self.hostname))

    def setup_includes(self, includes: Iterable[str]) -> None:
        """Import modules of tasks."""
        self.include = list(includes)
        for module in self.include:
            self.app.loader.import_task_module(module)
        known = {type(task).__module__ for task in self.app.tasks.values()}
        self.app.conf.include = tuple({*(self.app.conf.include or ()), *self.include, *known})

    def _resolve_concurrency(self) -> int:
        wanted = self.concurrency
        if is_auto_concurrency(wanted):
            bound = isinstance(self.pool_cls, type) and issubclass(self.pool_cls, BasePool)
            budget = cpu_budget(use_cgroup_quota=bound and self.pool_cls.is_cpu_bound)
            kind = self.pool_cls.__module__.split(".")[-1]
            note = "worker_concurrency='auto' resolved to %d (pool=%s)."
            self._concurrency_note = (note, budget.count, kind)
            return int(budget.count)
        try:
            return int(wanted or 0) or available_cpu_count()
        except (TypeError, ValueError):
            self._concurrency_note = ("worker_concurrency=%r is not a number or 'auto'.", wanted)
            return available_cpu_count()

    def _setup_autoscale(self, wanted: Any) -> None:
        self.autoscale = bounds(wanted)
        self.max_concurrency, self.min_concurrency = self.autoscale or (None, self.concurrency)
        if self.autoscale and not getattr(self.pool_cls, "can_grow", True):
            raise ImproperlyConfigured(
                "A solo pool cannot grow; use --autoscale with --pool prefork or threads."
            )

    @property
    def prefetch_count(self) -> int:
        """Tasks it may hold, the running ones included; 0 is no bound."""
        size = int(self.concurrency if self.pool is None else self.pool.size)
        return size if self.app.conf.worker_disable_prefetch else size * self.prefetch_multiplier

    def queue_names(self) -> list[str]:
        """Names of the engine's queues it consumes."""
        return [
            broadcast_queue_name(queue.exchange.name, self.hostname)
            if isinstance(queue, Broadcast)
            else queue.name
            for queue in self.app.amqp.queues.consume_from.values()
        ]

    # Running.

    def start(self) -> None:
        """Run until stopped. `exitcode` says how it ended.

        Raises:
            EngineError: The database cannot be used; nothing was started.
        """
        self._prepare_schema()
        try:
            self._run()
        except WorkerTerminate:
            self.exitcode = EX_FAILURE
        except SystemExit as exc:
            self.exitcode = exc.code if isinstance(exc.code, int) else EX_FAILURE
        except KeyboardInterrupt:
            self.exitcode = EX_FAILURE
        except Exception as exc:
            # The last line of defence: steps, hooks and receivers are the application's.
            logger.critical("Unrecoverable error: %r", exc, exc_info=True)
            self.exitcode = EX_FAILURE
        finally:
            self._finish()

    def _prepare_schema(self) -> None:
        try:
            host = self.app.engine.exposed_host()  # by a connection that the next one uses too
            if self.app.conf.get("worker_auto_migrate", True):
                self.app.engine.migrate()
            else:
                self.app.engine.check_schema()
            if host:
                logger.warning(
                    "The connection to %s has no TLS: passwords and tasks can be read on the way. "
                    "Put sslmode=verify-full into the URL.",
                    host,
                )
        except EngineError as exc:
            if self.logfile:
                logger.critical("%s", exc)
            raise

    def _run(self) -> None:
        self.on_start()
        if self.beat is not None:
            self.beat.start()
        if self._concurrency_note:
            logger.info(*self._concurrency_note)
        handler = NodeHandler(self.app, hostname=self.hostname)
        handler.consumer = self.consumer
        handler.prepare()
        handler.events = TaskEvents(self)
        self.handler = handler
        self.pool = self.pool_cls.build(
            PoolOptions(
                size=max(1, self.min_concurrency),
                max_tasks_per_child=self.max_tasks_per_child,
                max_memory_per_child_kib=self.max_memory_per_child,
                prefetch=self._prefetch(),
            )
        )
        if self.app.conf.worker_enable_remote_control:
            self.pidbox = Pidbox(self)
        self.node = Worker(
            self._engine_config(),
            handler,
            self.pool,
            name=self.hostname,
            queues=self.queue_names(),
            labels=self.labels,
            rates=self.consumer.rates(),
            info={"pool": self.pool_cls.__module__.split(".")[-1], "size": self.pool.size},
            on_control=None if self.pidbox is None else self.pidbox.on_message,
            on_beat=self.consumer.on_beat,
            client=self.app.engine,
        )
        self.node.ready = _Announced(self._ready)
        if isinstance(self.pool, SoloPool):
            self._serve(self.node, self.pool)
        else:
            self.node.run()

    def _serve(self, node: Worker, pool: SoloPool) -> None:
        """Run tasks in this thread, which Celery's solo pool does, and the node in another."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                node.run()
            except BaseException as exc:
                # Raised below, in the thread that started the worker.
                failures.append(exc)

        thread = threading.Thread(target=run, name="node", daemon=True)
        thread.start()
        pool.serve(until=lambda: not thread.is_alive())
        thread.join()
        if failures:
            raise failures[0]

    def _prefetch(self) -> int | None:
        """None unless asked for: Celery's default is a guess at what is measured here."""
        if self.app.conf.worker_disable_prefetch:
            return 1
        return None if self.prefetch_multiplier in (0, 4) else self.prefetch_multiplier

    def _engine_config(self) -> EngineConfig:
        config: EngineConfig = self.app.engine_config
        beat_s = self.heartbeat_interval
        if not beat_s:
            return config
        return replace(config, heartbeat_s=beat_s, lease_s=max(config.lease_s, 2.0 * beat_s))

    def _ready(self) -> None:
        self.blueprint.start(self)
        self.consumer.start()
        self.ready_callback(self.consumer)

    def _finish(self) -> None:
        steps = (self._stop_beat, self.on_close, self._stop_steps)
        for stop in (*steps, self.consumer.stop, self.on_stopped):
            try:
                stop()
            except Exception:
                # The shutdown goes on whatever a hook raises.
                logger.exception("Error in %s", stop.__name__)
        state.active_requests.clear()
        state.reserved_requests.clear()
        state.requests.clear()
        signals.worker_shutdown.send(sender=self)

    def _stop_beat(self) -> None:
        if self.beat is not None:
            self.beat.stop()

    def _stop_steps(self) -> None:
        self.blueprint.close(self)
        self.blueprint.stop(self, terminate=state.should_terminate not in (None, False))

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Ask for a warm shutdown; from any thread or signal handler, does not wait."""
        if exitcode is not None:
            self.exitcode = exitcode
        self.closing = True
        if self.node is not None:
            self.node.stop("warm")

    def terminate(self, in_sighandler: bool = False, timeout_s: float | None = None) -> None:
        """Ask for a cold shutdown; running tasks are given `timeout_s` seconds. Does not wait."""
        self.closing = True
        if self.node is not None and timeout_s:
            self.node.stop("warm", timeout_s=timeout_s)
        elif self.node is not None:
            self.node.stop("cold")

    # What remote control asks for.

    def info(self) -> dict[str, Any]:
        """Totals, pid, clock, uptime in seconds."""
        uptime = datetime.now(UTC) - self.startup_time
        return {
            "total": dict(state.total_count),
            **({"late": dict(state.late_count)} if state.late_count else {}),
            "pid": os.getpid(),
            "clock": str(self.app.clock),
            "uptime": round(uptime.total_seconds()),
        }

    def rusage(self) -> dict[str, float]:
        """What the main process has used."""
        return statistics.rusage()

    def stats(self) -> dict[str, Any]:
        """What ``inspect stats`` answers."""
        return {**self.info(), **self.blueprint.info(self), **statistics.of(self)}

    def renew_pool(self) -> None:
        """Make new time limits of tasks known to processes that were forked before."""
        self.handler.time_limits = {
            name: (task.time_limit, task.soft_time_limit)
            for name, task in self.app.tasks.items()
            if task.time_limit is not None or task.soft_time_limit is not None
        }

    def reload(self, modules: Any = None, reload: bool = False, reloader: Any = None) -> None:
        """Import modules, again if `reload`, and replace the processes of the pool.

        Without `modules` they are those that the app loads. Pools without processes go on.
        """
        for module in self.app.loader.task_modules if modules is None else modules:
            if module not in sys.modules:
                self.app.loader.import_from_cwd(module)
            elif reload:
                reload_from_cwd(sys.modules[module], reloader)
        self.consumer.reset_rate_limits()
        restart = getattr(self.pool, "restart", None)
        if restart is not None and self.node is not None:
            self.node.call(restart)

    @property
    def state(self) -> Any:
        """`pgcelery.compat.worker.state`."""
        return state

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.blueprint.human_state()})>"

    def __str__(self) -> str:
        return self.hostname


class _Announced(threading.Event):
    """An event that calls a function, in the thread that sets it, before it is set."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self._announce = announce

    def set(self) -> None:
        self._announce()
        super().set()


def _as_list(value: Any) -> list[str]:
    if not value:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return list(value)
