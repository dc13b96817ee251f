"""The application object: names, and what they delegate to.

Source: Celery 5.7, ``celery.app.base`` and userguide "Application".
"""

from __future__ import annotations

import importlib
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import cache, cached_property
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Literal,
    ParamSpec,
    TypeVar,
    overload,
)

from kombu.clocks import LamportClock

from pgcelery.compat import _state
from pgcelery.compat._state import connect_on_app_finalize
from pgcelery.compat.app import (
    autodiscover,
    configuration,
    pickling,
    programs,
    taskfactory,
)
from pgcelery.compat.app.annotations import prepare as prepare_annotations
from pgcelery.compat.app.brokerage import Brokerage
from pgcelery.compat.app.parts import Parts
from pgcelery.compat.app.registry import TaskRegistry
from pgcelery.compat.app.reporting import appstr, bugreport
from pgcelery.compat.app.settings import PendingConfiguration, Settings
from pgcelery.compat.local import maybe_evaluate
from pgcelery.compat.platforms import IS_WINDOWS, SYSTEM, IS_macOS
from pgcelery.compat.utils.dispatch import Signal
from pgcelery.compat.utils.functional import first, head_from_fun
from pgcelery.compat.utils.imports import gen_task_name, symbol_by_name
from pgcelery.compat.utils.objects import mro_lookup
from pgcelery.compat.utils.time import timezone

if TYPE_CHECKING:
    from pgcelery.compat.app.task import Task

__all__ = ("App", "Celery", "PendingConfiguration", "connect_on_app_finalize")

P = ParamSpec("P")
R = TypeVar("R")

BUILTIN_FIXUPS = frozenset({"pgcelery.compat.fixups.django:fixup"})


def app_has_custom(app: Any, attr: str) -> bool:
    """Whether the class of `app` overrides a method or attribute of `Celery`."""
    own = {Celery, Parts, Brokerage}
    modules = {cls.__module__ for cls in own}
    return bool(mro_lookup(type(app), attr, stop={*own, object}, monkey_patched=modules))


class Celery(Parts, Brokerage):
    """An application.

    Args:
        main: Name to give to the module ``__main__`` in the names of tasks.
        loader: Class, name or alias of the loader.
        backend: URL, name or class of the result backend.
        amqp: Class of ``app.amqp``, or its name; as `events`, `log` and `control`.
        events: Class of ``app.events``.
        log: Class of ``app.log``.
        control: Class of ``app.control``.
        set_as_current: Whether it becomes this thread's current app.
        tasks: A registry, or tasks by name.
        broker: URL of the database; see ``pgcelery.compat.dsn``.
        include: Modules that a worker imports.
        changes: Settings.
        config_source: Object, or name of a module, with settings.
        fixups: Names of fix-ups; by default Django's, which does nothing without Django.
        task_cls: Class of tasks, or its name.
        autofinalize: Whether the app may be finalized by its first use.
        namespace: Prefix of settings.
        strict_typing: Whether arguments are checked when a task is called.
        config_source_silent: Whether a `config_source` that cannot be imported is none.
        **kwargs: More settings.
    """

    Pickler = pickling.AppPickler
    SYSTEM = SYSTEM
    IS_macOS, IS_WINDOWS = IS_macOS, IS_WINDOWS

    builtin_fixups: ClassVar[Any] = BUILTIN_FIXUPS

    registry_cls: Any = TaskRegistry
    task_cls: Any = "pgcelery.compat.app.task:Task"

    on_configure: Any = None
    on_after_configure: Any = None
    on_after_finalize: Any = None
    on_after_fork: Any = None

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: Any = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        broker: Any = None,
        include: Any = None,
        changes: Any = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **kwargs: Any,
    ) -> None:
        self.main = main
        self.clock = LamportClock()
        self.amqp_cls = amqp or self.amqp_cls
        self.events_cls = events or self.events_cls
        self.log_cls = log or self.log_cls
        self.control_cls = control or self.control_cls
        self.loader_cls = loader or self._get_default_loader()
        self._custom_task_cls_used = bool(task_cls) or app_has_custom(self, "task_cls")
        self.task_cls = task_cls or self.task_cls
        self.backend_cls, backend = _split_backend(backend, self.backend_cls)
        self.set_as_current = set_as_current
        self.autofinalize = autofinalize
        self.namespace = namespace
        self.strict_typing = strict_typing
        self.user_options: defaultdict[str, set[Any]] = defaultdict(set)
        self.steps: defaultdict[str, set[Any]] = defaultdict(set)
        self._config_source = config_source
        self._config_source_silent = config_source_silent
        self._init_state(tasks)
        named = {"broker_url": broker, "result_backend": backend, "include": include, **kwargs}
        configuration.prepare(self, changes, named)
        self.fixups = set(self.builtin_fixups) if fixups is None else fixups
        self._init_signals()
        # The instances are kept: the signals that they listen to know them weakly.
        self._fixups = [symbol_by_name(fixup)(self) for fixup in self.fixups]
        if set_as_current:
            self.set_current()
        self.on_init()
        _state._register_app(self)

    def _init_state(self, tasks: Any) -> None:
        self._local = threading.local()
        self._lock = threading.RLock()
        self._engine: Any = None
        self.configured = False
        self.finalized = False
        self._finalize_mutex = threading.RLock()
        self._pending: deque[Any] = deque()
        self._pending_defaults: deque[Any] = deque()
        self._pending_periodic_tasks: deque[Any] = deque()
        self._duplicate_task_names_warned: set[str] = set()
        self.registry_cls = symbol_by_name(self.registry_cls)
        own = isinstance(tasks, TaskRegistry)
        self._tasks = tasks if own else self.registry_cls(tasks or {})
        self._using_v1_reduce = app_has_custom(self, "__reduce_args__")
        self.use_fast_trace_task = False

    def _init_signals(self) -> None:
        if self.on_configure is None:  # a subclass may have a method of this name
            self.on_configure = Signal(name="app.on_configure")
        self.on_after_configure = Signal(name="app.on_after_configure", providing_args={"source"})
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")

    def _get_default_loader(self) -> Any:
        env = os.environ.get("CELERY_LOADER")
        return env or self.loader_cls or "pgcelery.compat.loaders.app:AppLoader"

    def on_init(self) -> None:
        """Hear, in a subclass, that the app has been made."""

    # -- life

    def set_current(self) -> None:
        """Make this the current app of this thread."""
        _state._set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of all threads that have none."""
        _state.set_default_app(self)

    def close(self) -> None:
        """Close the connections; only needed for apps that are made and dropped."""
        self.close_engine()
        _state._deregister_app(self)

    def __enter__(self) -> Celery:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def finalize(self, auto: bool = False) -> None:
        """Make the tasks that are still pending, the built-in and the shared ones; once.

        Raises:
            RuntimeError: `auto`, and the app was made with ``autofinalize=False``.
        """
        with self._finalize_mutex:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized")
            self.finalized = True
            self._make_tasks()
            self.on_after_finalize.send(sender=self)

    def _make_tasks(self) -> None:
        self._part("pgcelery.compat.app.builtins")  # announces itself to every app
        _state._announce_app_finalized(self)
        while self._pending:
            maybe_evaluate(self._pending.popleft())
        for task in list(self._tasks.values()):
            task.bind(self)

    # -- tasks

    @overload
    def task(self, fun: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, *, bind: Literal[True], **options: Any
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...

    @overload
    def task(
        self, *, bind: Literal[False] = False, **options: Any
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, *args: Any, **opts: Any) -> Any:
        """Make a function a task; a decorator, with or without options.

        Options: `name`, `base`, `bind`, `shared`, `filter`, `lazy`, the pydantic ones; any other
        becomes an attribute of the task.

        Raises:
            TypeError: A positional argument that is no function.
        """
        if len(args) > 1:
            count = len(args) + len(opts)
            raise TypeError(f"@task() takes exactly 1 argument ({count} given)")
        if args and not callable(args[0]):
            raise TypeError("argument 1 to @task() must be a callable")
        if args:
            return taskfactory.decorate(self, args[0], **opts)
        return lambda fun: taskfactory.decorate(self, fun, **opts)

    def _task_from_fun(self, fun: Callable[..., Any], **options: Any) -> Any:
        return taskfactory.task_from_function(self, fun, **options)

    def register_task(self, task: Any, **options: Any) -> Any:
        """Add a task, or an instance of a class of task; it replaces one of its name."""
        return taskfactory.register_task(self, task, **options)

    def gen_task_name(self, name: str, module: str) -> str:
        """Give the name of a task that has none."""
        return gen_task_name(self, name, module)

    def type_checker(self, fun: Callable[..., Any], bound: bool = False) -> Any:
        """Give a function that only checks the arguments of `fun`."""
        return staticmethod(head_from_fun(fun, bound=bound))

    @property
    def tasks(self) -> Any:
        """The tasks by name; reading it finalizes the app."""
        self.finalize(auto=True)
        return self._tasks

    @cached_property
    def Task(self) -> Any:
        """The class of this app's tasks."""
        return self.create_task_cls()

    def create_task_cls(self) -> Any:
        """Make the class of this app's tasks."""
        return self.subclass_with_self(
            self.task_cls, name="Task", attribute="_app", keep_reduce=True, abstract=True
        )

    @cached_property
    def annotations(self) -> Any:
        """The `task_annotations` setting, ready to use."""
        return prepare_annotations(self.conf.task_annotations)

    @property
    def current_task(self) -> Any:
        """The task that runs in this thread, or None."""
        return _state.get_current_task()

    @property
    def current_worker_task(self) -> Any:
        """The task that a worker runs in this thread, or None."""
        return _state.get_current_worker_task()

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Call a task by name; the options are those of ``Task.apply_async``."""
        return self._part("pgcelery.compat.app.sending").send_task(
            self, name, args, kwargs, **options
        )

    _send_task = send_task  # to tell whether it is overridden

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """Make a signature that is bound to this app."""
        return self._canvas.signature(*args, **{**kwargs, "app": self})

    @property
    def _canvas(self) -> Any:
        return self._part("pgcelery.compat.canvas")

    @staticmethod
    @cache
    def _part(name: str) -> Any:
        # By name, as the classes of an app's parts are: loaded when they are needed.
        return importlib.import_module(name)

    # -- configuration

    @property
    def conf(self) -> Settings:
        """The settings."""
        conf: Settings = self._conf
        return conf

    @conf.setter
    def conf(self, value: Any) -> None:
        self._conf = value
        vars(self).pop("_rulebook", None)  # it has read the other

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> Any:
        """Read settings from an object or the module it names, when a setting is first needed.

        Args:
            obj: The object or name.
            silent: Whether one that cannot be imported is none.
            force: Read it now.
            namespace: Prefix of the settings: ``CELERY`` for ``CELERY_BROKER_URL``.
        """
        return configuration.from_object(self, obj, silent, force, namespace)

    def config_from_envvar(
        self, variable_name: str, silent: bool = False, force: bool = False
    ) -> Any:
        """Read settings from the module that an environment variable names.

        Raises:
            ImproperlyConfigured: It is not set.
        """
        return configuration.from_envvar(self, variable_name, silent, force)

    def config_from_cmdline(self, argv: Any, namespace: str = "celery") -> None:
        """Read settings written as ``worker.prefetch_multiplier=1``."""
        self._conf.update(self.loader.cmdline_config_parser(argv, namespace))

    def add_defaults(self, fun: Any) -> None:
        """Add settings that count only where nothing is set; a mapping or what gives one."""
        configuration.add_defaults(self, fun if callable(fun) else lambda: fun)

    def prepare_config(self, c: Any) -> Any:
        """Change, in a subclass, the settings as they were read."""
        return c

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Give the first that is not None, or the setting."""
        found = first(None, defaults)
        return self.conf.get(default_key) if found is None else found

    def setup_security(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to sign messages.

        Raises:
            ImproperlyConfigured: Always.
        """
        configuration.refuse_security()

    def add_periodic_task(
        self,
        schedule: Any,
        sig: Any,
        args: Any = (),
        kwargs: Any = (),
        name: str | None = None,
        **opts: Any,
    ) -> str:
        """Add to `beat_schedule`; gives the key: the name, or what the signature looks like."""
        key, entry = configuration.periodic_entry(self, schedule, sig, args, kwargs, name, opts)
        configuration.add_periodic(self, key, entry, name)
        return key

    def now(self) -> datetime:
        """Give the time, in the app's zone."""
        return datetime.now(self.timezone)

    @cached_property
    def timezone(self) -> tzinfo:
        """The app's time zone."""
        if self.conf.timezone:
            return timezone.get_timezone(self.conf.timezone)
        return timezone.utc if self.conf.enable_utc else timezone.local

    def uses_utc_timezone(self) -> bool:
        """Whether the app's time zone is UTC."""
        return self.timezone == timezone.utc

    # -- modules of tasks

    def autodiscover_tasks(
        self, packages: Any = None, related_name: str | None = "tasks", force: bool = False
    ) -> Any:
        """Import the ``tasks`` modules of packages, when a worker imports the app's modules.

        Args:
            packages: Names, or a function that gives them; None asks the fix-ups (Django's apps).
            related_name: Of the modules; None imports the packages themselves.
            force: Import them now.
        """
        if force:
            return self._autodiscover_tasks(packages, related_name)
        return autodiscover.connect(self, packages, related_name)

    def _autodiscover_tasks(self, packages: Any, related_name: str | None, **kwargs: Any) -> Any:
        return autodiscover.discover(self, packages, related_name)

    # -- command line and description

    def start(self, argv: list[str] | None = None) -> Any:
        """Run the command line with this app; by default the process's own arguments."""
        return programs.start(self, argv)

    def worker_main(self, argv: list[str] | None = None) -> Any:
        """Run the command line, which must be that of a worker.

        Raises:
            ValueError: It is not.
        """
        return programs.worker_main(self, argv)

    def bugreport(self) -> str:
        """Say what software and which settings this app runs with."""
        return bugreport(self)

    def _rgetattr(self, path: str) -> Any:
        return pickling.get_path(self, path)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {appstr(self)}>"

    def __reduce__(self) -> Any:
        return pickling.reduce_app(self)

    def __reduce_keys__(self) -> dict[str, Any]:
        """The arguments with which unpickling makes the app anew."""
        return pickling.reduce_keys(self)

    def __reduce_args__(self) -> tuple[Any, ...]:
        """The same for subclasses that override this one."""
        return pickling.reduce_args(self)


App = Celery


def _split_backend(backend: Any, default: Any) -> tuple[Any, Any]:
    """A class of backend is that; anything else is the setting."""
    return (backend, None) if isinstance(backend, type) else (default, backend)


def _make_default_app() -> Celery:
    loader = os.environ.get("CELERY_LOADER") or "default"
    return Celery("default", fixups=[], set_as_current=False, loader=loader)


_state.set_default_app_factory(_make_default_app)
