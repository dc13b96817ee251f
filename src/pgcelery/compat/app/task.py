"""Task: what `@app.task` makes of a function, and the base of tasks written as classes.

Source: Celery 5.7, `celery.app.task.Task`. The methods delegate; what they do is told in `sending`,
`eager`, `retrying`, `replacing` and `hooks`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from kombu.exceptions import OperationalError

from pgcelery.compat._state import current_app
from pgcelery.compat.app import eager, replacing, retrying, transactional
from pgcelery.compat.app.annotations import resolve_all
from pgcelery.compat.app.hooks import TaskHooks
from pgcelery.compat.app.options import (
    EXEC_OPTIONS,
    FROM_CONFIG,
    Setting,
    check_task_rules,
    inherit_settings,
    warn_deprecated,
)
from pgcelery.compat.app.registry import _unpickle_task_v2
from pgcelery.compat.app.reporting import appstr
from pgcelery.compat.app.request import Context, get_actual_ignore_result
from pgcelery.compat.canvas import chunks, signature, xmap, xstarmap
from pgcelery.compat.exceptions import MaxRetriesExceededError, Retry
from pgcelery.compat.local import class_property
from pgcelery.compat.utils.abstract import CallableTask
from pgcelery.compat.utils.imports import instantiate
from pgcelery.compat.utils.threads import LocalStack

if TYPE_CHECKING:
    import psycopg

    from pgcelery.compat.result import AsyncResult, EagerResult

__all__ = ("BaseTask", "Context", "Setting", "Task", "TaskType", "get_actual_ignore_result")

P = ParamSpec("P")
R = TypeVar("R")

#: Tasks have no metaclass any more.
TaskType = type

if TYPE_CHECKING:

    class _Typed(TaskHooks, Generic[P, R]):
        """Tasks are generic in their parameters and their result."""

else:

    class _Typed(TaskHooks):
        """At run time any subscript will do, as in Celery."""

        __class_getitem__ = classmethod(types.GenericAlias)


@CallableTask.register
class Task(_Typed[P, R]):
    """A function that workers run.

    The options below are class attributes, and arguments of `@app.task`. None, of those listed in
    `options.FROM_CONFIG`, means what the setting says each time the option is read.
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError

    #: Dotted names of the classes that Celery's worker would use.
    Strategy: Any = "celery.worker.strategy:default"
    Request: Any = "celery.worker.request:Request"

    name: str = None  # type: ignore[assignment]  # set by the decorator, or by the class
    typing: bool | None = None  #: check arguments when called; default ``app.strict_typing``
    max_retries: int | None = 3  #: None for no end
    default_retry_delay: float = 3 * 60  #: seconds
    rate_limit: Any = None  #: ``"100/s"``, ``"100/m"``, ``"100/h"``
    ignore_result: bool | None = None
    trail: bool = True  #: list the calls made while it runs as its children
    send_events: bool = True
    store_errors_even_if_ignored: bool | None = None
    serializer: str | None = None
    time_limit: float | None = None  #: seconds
    soft_time_limit: float | None = None  #: seconds
    track_started: bool | None = None
    acks_late: bool | None = None  #: at least once rather than at most once
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool | None = None
    throws: Any = ()  #: exceptions that are logged without fuss
    expires: Any = None  #: seconds, or a datetime
    priority: int | None = None  #: 0 to 9; see ``task_priority_direction``
    concurrency: Any = None  #: `Concurrency`, or a list; ours, as the next four
    rate_limits: Any = None  #: `RateLimit`, or a list
    unique: Any = None  #: `Unique`, or True
    placement: Any = None  #: `Placement`
    transactional: bool = False  #: its SQL on `connection` commits with its completion; ours
    rate_limit_scope: str | None = None  #: ``worker`` or ``global``; what `rate_limit` is about
    resultrepr_maxsize: int = 1024
    store_eager_result: bool | None = None
    abstract: ClassVar[bool] = True

    __trace__: Any = None
    __v2_compat__ = False
    __bound__ = False
    _app: Any = None
    _backend: Any = None
    _exec_options: dict[str, Any] | None = None
    _call_form: Any = None
    _dump_pydantic_arguments: Any = None

    from_config: Any = FROM_CONFIG

    # -- binding

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Connect the class to an app, whose settings its options follow from now on."""
        was_bound, cls.__bound__ = cls.__bound__, True
        cls._app = app
        cls._exec_options = None
        if not was_bound:
            warn_deprecated(cls)
        if cls.typing is None:
            cls.typing = app.strict_typing
        inherit_settings(cls)
        if not was_bound:
            cls.annotate()
            cls.request_stack = LocalStack()
        check_task_rules(cls)
        transactional.settle(cls)
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Hook: the class was bound to an app."""

    @classmethod
    def _get_app(cls) -> Any:
        if cls._app is None:
            cls._app = current_app
        if not cls.__bound__:
            cls.bind(cls._app)
        return cls._app

    app = class_property(_get_app, bind)

    @classmethod
    def annotate(cls) -> None:
        """Apply ``task_annotations``; a key ``@name`` wraps the method of that name."""
        for found in resolve_all(cls.app.annotations, cls):
            for key, value in found.items():
                if key.startswith("@"):
                    cls.add_around(key[1:], value)
                else:
                    setattr(cls, key, value)

    @classmethod
    def add_around(cls, attr: str, around: Any) -> None:
        """Replace a method by ``around(method)``."""
        original = getattr(cls, attr)
        original = getattr(original, "__wrapped__", None) or original
        method = around(original)
        method.__wrapped__ = original
        setattr(cls, attr, method)

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Make the strategy; Celery's worker would call it."""
        return instantiate(self.Strategy, self, app, consumer, **kwargs)

    # -- calling

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Call the task here and now, as a function."""

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send a call.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            task_id: Its id; a second call with the same id is not sent.
            producer: Not used: there is no broker.
            link: Signature or signatures to call with the result.
            link_error: Signature or signatures to call if it fails.
            shadow: Name for logs.
            **options: ``countdown`` in seconds, ``eta``, ``expires``, ``queue``, ``priority``,
                ``headers``, ``serializer``, ``compression``, ``time_limit``, ``soft_time_limit``,
                ``ignore_result``, ``retry``, ``retry_policy``, ``add_to_parent``; ``conn`` (or
                ``using``) to send it inside that connection's transaction; ``concurrency_key``,
                ``concurrency_limit``, ``rate_key``, ``rate_units``, ``unique``, ``unique_key`` and
                ``placement`` for what the task says of these. Others become properties of the
                message.

        Raises:
            TypeError: The arguments do not fit the function, unless ``typing`` is off.
            ValueError: The soft time limit is longer than the hard one.
            kombu.exceptions.OperationalError: The database cannot be reached.
        """
        app = self._get_app()
        if not options and task_id is link is link_error is shadow is None:
            sent = app._part("pgcelery.compat.app.forms").send(self, app, args, kwargs)
            if sent is not None:
                return sent  # type: ignore[no-any-return]
        own = self._get_exec_options()
        soft, hard = own["soft_time_limit"], own["time_limit"]
        if soft and hard and soft > hard:
            raise ValueError("soft_time_limit must be less than or equal to time_limit")
        self._check_call(args, kwargs)
        shadow = shadow or self.shadow_name(args, kwargs, options)
        options = {**own, **options}
        if self._dump_pydantic_arguments is not None and options.get("serializer") != "pickle":
            args, kwargs = self._dump_pydantic_arguments(args, kwargs)
        options.setdefault("ignore_result", self.ignore_result)
        links = {"task_id": task_id, "link": link, "link_error": link_error, "producer": producer}
        if app.conf["task_always_eager"]:
            return eager.apply_always(self, args, kwargs, **links, **options)  # type: ignore[no-any-return]
        return app.send_task(  # type: ignore[no-any-return]
            self.name,
            args,
            kwargs,
            result_cls=self.AsyncResult,
            shadow=shadow,
            task_type=self,
            **links,
            **options,
        )

    def apply(self, *args: Any, **options: Any) -> EagerResult[R]:
        """Run a call here and now as a worker would; the arguments are those of `eager.apply`."""
        return eager.apply(self, *args, **options)  # type: ignore[no-any-return]

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Run the current call again later, under the same id.

        A retry that was asked for happens, also if the `Retry` it raises is caught: until then the
        state is RETRY whatever the body returns. (Celery stores that, and retries as well.)

        Args:
            args: New positional arguments.
            kwargs: New keyword arguments.
            exc: Why; raised instead when there have been enough retries.
            throw: Whether to raise the `Retry` rather than to return it.
            eta: When.
            countdown: In how many seconds; default ``default_retry_delay``.
            max_retries: Overrides the task's, for this run; None leaves it.
            **options: More options of `apply_async`.

        Raises:
            celery.exceptions.Retry: Always, unless `throw` is off.
            celery.exceptions.MaxRetriesExceededError: There have been enough, without an `exc`.
            celery.exceptions.Reject: The retry could not be sent.
        """
        return retrying.retry(
            self, args, kwargs, exc, throw, eta, countdown, max_retries, **options
        )

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """Give the signature that repeats a call; see `retrying.signature_from_request`."""
        return retrying.signature_from_request(self, request, *args, **options)

    subtask_from_request = signature_from_request

    def replace(self, sig: Any) -> Any:
        """Let `sig` take the place of the current call: its id, its links, the rest of its chain.

        Raises:
            celery.exceptions.Ignore: Always, in a worker.
            celery.exceptions.ImproperlyConfigured: `sig` cannot take that place.
        """
        return replacing.replace(self, sig)

    def on_replace(self, sig: Any) -> Any:
        """Hook: start the replacement; an override must return what this returns."""
        return replacing.on_replace(self, sig)

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Add a call to the chord that the current one is in; `lazy` leaves sending it to you."""
        return replacing.add_to_chord(self, sig, lazy)

    def add_trail(self, result: Any) -> Any:
        """List a result among the children of the current call."""
        if self.trail:
            self.request.children.append(result)
        return result

    # -- signatures

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """Write a call down: ``(args, kwargs, options)``."""
        starkwargs.setdefault("app", self.app)
        return signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Write a call down; what comes before it may fill in arguments that are left out."""
        return self.signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Write a call down that takes no more arguments."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, it: Iterable[Any], n: int) -> Any:
        """Write down the calls with each of `it`, `n` of them a task."""
        return chunks(self.s(), it, n, app=self.app)

    def map(self, it: Iterable[Any]) -> Any:
        """Write down one task that calls this one with each of `it`."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Iterable[Any]) -> Any:
        """Write down one task that calls this one with the arguments in each of `it`."""
        return xstarmap(self.s(), it, app=self.app)

    # -- results and events

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:
        """Give the result of a call."""
        return self._get_app().AsyncResult(  # type: ignore[no-any-return]
            task_id, backend=self.backend, task_name=self.name, **kwargs
        )

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state of a call that has not ended; default the current one."""
        task_id = self.request.id if task_id is None else task_id
        self.backend.store_result(task_id, meta, state, request=self.request, **kwargs)

    def send_event(
        self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any
    ) -> Any:
        """Send a monitoring event about the current call."""
        request = self.request
        policy = retry_policy or self.app.conf.task_publish_retry_policy
        with self.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            return dispatcher.send(
                type_, uuid=request.id, retry=retry, retry_policy=policy, **fields
            )

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The connection of the run: what is done on it commits if and only if that succeeds.

        Raises:
            AttributeError: The task is not `transactional`, or does not run.
        """
        return transactional.connection(self)

    @property
    def backend(self) -> Any:
        """Where results are stored; the app's unless set."""
        return self.app.backend if self._backend is None else self._backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    # -- itself

    def _get_exec_options(self) -> dict[str, Any]:
        return {name: getattr(self, name, None) for name in EXEC_OPTIONS}

    def _check_call(self, args: Any, kwargs: Any) -> None:
        """Raise TypeError if the arguments do not fit the function."""
        check = getattr(self, "__header__", None) if self.typing else None
        if check is not None:
            check(*(args or ()), **(kwargs or {}))

    #: These, as they are unless an application overrides them; see `forms`.
    _hooks = _get_exec_options, TaskHooks.shadow_name
    _sends = apply_async

    @property
    def __name__(self) -> str:
        return str(type(self).__name__)

    def __reduce__(self) -> tuple[Any, ...]:
        module: str | None = type(self).__module__
        module = module if module and module in sys.modules else None
        return _unpickle_task_v2, (self.name, module), None

    def __repr__(self) -> str:
        flags = " (v2 compatible)" if self.__v2_compat__ else ""
        return f"<@task: {self.name} of {appstr(self._app)}{flags}>"


inherit_settings(Task)

BaseTask = Task
