"""Sending a call: options, route and message become a job, and the job is inserted.

Source: Celery 5.7, `Celery.send_task` and `AMQP.send_task_message`; `conn` and `using` are new.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.functional import retry_over_time

from pgcelery.compat import signals
from pgcelery.compat._state import get_current_worker_task
from pgcelery.compat.app import fields, plain, sentevents
from pgcelery.compat.app.connections import driver_connection
from pgcelery.compat.app.envelope import (
    AT_ONCE,
    Envelope,
    Times,
    check_arguments,
    check_text,
    seal,
    times,
)
from pgcelery.compat.app.headers import check_headers
from pgcelery.compat.app.running import collecting, divert, lent
from pgcelery.compat.exceptions import AlwaysEagerIgnored
from pgcelery.compat.message import Message, encode
from pgcelery.compat.result import inputs
from pgcelery.compat.serialization import dump
from pgcelery.compat.utils.ids import uuid
from pgcelery.compat.utils.text import one_line
from pgcelery.engine import DatabaseUnavailable, NewJob

__all__ = ("Outgoing", "build", "build_job", "collecting", "insert", "send_task")

logger = logging.getLogger("celery.app.sending")

#: Said by nobody; None is a value that clears a default.
_OMITTED: Any = object()

#: Runs without an outcome that an ``acks_late`` task may have.
MAX_DELIVERIES = 5

#: Options that say where to.
_ROUTING_OPTIONS = ("queue", "exchange", "routing_key", "exchange_type")


class Outgoing(NamedTuple):
    """One call that is ready to be inserted; more than one job when it is a broadcast.

    `envelope` is None where nobody would be shown it.
    """

    name: str
    task_id: str
    jobs: list[NewJob]
    envelope: Envelope | None
    exchange: str
    routing_key: str
    retry: bool
    retry_policy: dict[str, Any]

    def announce(self) -> None:
        """Tell the receivers of `after_task_publish` that it was sent."""
        if self.envelope is None:
            return
        headers, _, body = self.envelope
        if signals.after_task_publish.receivers:
            signals.after_task_publish.send(
                sender=self.name,
                body=body,
                headers=headers,
                exchange=self.exchange,
                routing_key=self.routing_key,
            )
        if signals.task_sent.receivers:
            signals.task_sent.send(
                sender=self.name,
                task_id=self.task_id,
                task=self.name,
                args=body[0],
                kwargs=body[1],
                eta=headers["eta"],
                taskset=headers["group"],
            )


def send_task(
    app: Any,
    name: str,
    args: Any = None,
    kwargs: Any = None,
    *,
    result_cls: Any = None,
    add_to_parent: bool = True,
    conn: Any = None,
    using: Any = None,
    **options: Any,
) -> Any:
    """Send a call by name; gives its `AsyncResult`, or that of the one like it if it is unique.

    Args:
        app: The application.
        name: Name of the task; it need not be registered here.
        args: Positional arguments.
        kwargs: Keyword arguments.
        result_cls: Makes the result, given the id.
        add_to_parent: Whether the call is listed among the children of the task that makes it.
        conn: A psycopg connection, SQLAlchemy session or connection, or Django database alias: the
            call is inserted inside its transaction, and is sent if and only if that commits.
        using: The same under Django's name.
        **options: Those of `build`.

    Raises:
        TypeError: Arguments or options of a wrong type.
        ValueError: Options out of range.
        kombu.exceptions.EncodeError: Arguments that the serializer cannot say.
        kombu.exceptions.OperationalError: The database cannot be reached.
    """
    # A task that is called does not come here then.
    if options.get("task_type") is None and app.conf.task_always_eager:
        warnings.warn(
            AlwaysEagerIgnored("task_always_eager has no effect on send_task"), stacklevel=2
        )
    transaction = driver_connection(conn if conn is not None else using)
    ignore_result = options.get("ignore_result")
    outgoing = build(app, name, args, kwargs, **options)
    existing = insert(
        app,
        outgoing.jobs,
        conn=transaction,
        retry_policy=outgoing.retry_policy,
        retry=outgoing.retry,
    )
    outgoing.announce()
    task_id = existing.get(outgoing.task_id, outgoing.task_id)
    shown = outgoing.envelope is not None and task_id == outgoing.task_id
    if shown and app.conf.task_send_sent_event:
        sentevents.tell(app, outgoing)
    result = (result_cls or app.AsyncResult)(task_id)
    result.ignored = ignore_result
    if add_to_parent:
        parent = get_current_worker_task()
        if parent is not None:
            parent.add_trail(result)
    return result


def build_job(app: Any, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> NewJob:
    """Give the job of a call without inserting it; takes the options of `build`."""
    return build(app, name, args, kwargs, **options).jobs[0]


def build(
    app: Any,
    name: str,
    args: Any = None,
    kwargs: Any = None,
    *,
    task_id: str | None = None,
    countdown: Any = None,
    eta: Any = None,
    expires: Any = _OMITTED,
    time_limit: Any = _OMITTED,
    soft_time_limit: Any = _OMITTED,
    router: Any = None,
    route_name: str | None = None,
    task_type: Any = None,
    producer: Any = None,
    publisher: Any = None,
    connection: Any = None,
    ignore_result: bool | None = None,
    headers: Mapping[str, Any] | None = None,
    **options: Any,
) -> Outgoing:
    """Make a call ready to be inserted, and tell the receivers of `before_task_publish`.

    Args:
        app: The application.
        name: Name of the task.
        args: Positional arguments.
        kwargs: Keyword arguments.
        task_id: Its id; default a new one.
        countdown: Seconds until it may start.
        eta: Time before which it may not start.
        expires: Seconds until, or time after which it is not run any more.
        time_limit: Seconds after which its process is killed.
        soft_time_limit: Seconds after which `SoftTimeLimitExceeded` is raised in it.
        router: Used instead of the app's.
        route_name: Name that is routed instead of the task's.
        task_type: The task itself, when its own options have been merged already.
        producer: Not used: there is no broker.
        publisher: Not used.
        connection: Not used.
        ignore_result: Whether its result is kept; None leaves it to the task.
        headers: Headers of the application's own.
        **options: Everything else that `apply_async` takes, and `inputs.OPTIONS`; what nobody knows
            becomes a property of the message.
    """
    check_text("task name", name)
    check_arguments(args, kwargs)
    task_id = uuid() if not task_id else check_text("task_id", task_id)
    if task_type is None:
        task_type, options = _own_options(app, name, options)
    limits = {
        "expires": expires,
        "time_limit": time_limit,
        "soft_time_limit": soft_time_limit,
    }
    for option, given in limits.items():
        default = options.pop(option, None)
        limits[option] = default if given is _OMITTED else given
    waits = inputs.take(options)
    if waits and isinstance(limits["expires"], (int, float)):
        waits["chord_lives"] = float(limits["expires"])
    chain_link = options.pop("chain_link", None)
    more = waits if chain_link is None else {**waits, "chain_link": chain_link}
    shares = app._rulebook.fields(name, task_type, (args, kwargs, headers), options, waits, task_id)
    options = (router or app.amqp.router).route(
        options, route_name or name, args, kwargs, task_type
    )
    when = times(app, countdown, eta, limits["expires"])
    if when.expires_at is not None:
        options["expiration"] = _expiration(task_id, when.expires_at)
    _inherit(app, options)
    shape = _shape(app, task_id, name, when, task_type, waits, options, shares)
    said = {
        "ignore_result": ignore_result,
        "time_limit": limits["time_limit"],
        "soft_time_limit": limits["soft_time_limit"],
    }
    draft = None
    if when is AT_ONCE and not headers:
        draft = plain.draft(app, shape, args, kwargs, options, more, *said.values())
        if draft is not None and draft.payload is not None:
            return _drafted(app, shape, draft, draft.payload, options)
    own = fields.take(app, options)
    envelope = seal(app, task_id, name, args, kwargs, when, **said, **own)
    if headers:
        envelope.headers.update(headers)
    envelope.headers.update(more)
    check_headers(envelope.headers)
    outgoing = _address(app, shape, envelope, options)
    if draft is not None:
        draft.learn(app, envelope.headers, envelope.properties)
    return outgoing


def _shape(
    app: Any,
    task_id: str,
    name: str,
    when: Times,
    task_type: Any,
    waits: Mapping[str, Any],
    options: Mapping[str, Any],
    shares: Mapping[str, Any],
) -> NewJob:
    """The job without what only its queue and its message say."""
    late = app.conf.task_acks_late if task_type is None else task_type.acks_late
    return NewJob(
        id=task_id,
        queue="",
        name=name,
        payload=b"",
        due_at=when.due_at,
        delay_s=when.delay_s,
        expires_at=None if "chord_lives" in waits else when.expires_at,
        lives_s=waits.get("chord_lives"),
        max_deliveries=MAX_DELIVERIES if late else 1,
        ttl_s=fields.ttl_s(app.conf["result_expires"]),
        parents=inputs.parents(waits) if waits else (),
        awaited=bool(options.get("chord")),
        **shares,
    )


def _own_options(app: Any, name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Merge the options of the task of this name, if it is registered here."""
    # The registry itself: asking `app.tasks` would finalize the app.
    task = app._tasks.get(name) if hasattr(app._tasks, "get") else None
    own = task._get_exec_options() if task is not None else {}
    return task, {**{k: v for k, v in own.items() if v is not None}, **options}


def _inherit(app: Any, options: dict[str, Any]) -> None:
    """Take root, parent and perhaps priority from the task that makes the call."""
    if options.get("root_id") and options.get("parent_id"):
        return
    parent = get_current_worker_task()
    if parent is None:
        return
    request = parent.request
    options["root_id"] = options.get("root_id") or request.root_id or request.id
    options["parent_id"] = options.get("parent_id") or request.id
    if app.conf.task_inherit_parent_priority and options.get("priority") is None:
        options["priority"] = (request.delivery_info or {}).get("priority")


def _expiration(task_id: str, expires_at: datetime) -> float:
    left = (expires_at - datetime.now(UTC)).total_seconds()
    if left < 0:
        logger.warning(
            "%s has an expiration date in the past (%ss ago). It is sent all the same, "
            "and will be revoked rather than run.",
            one_line(task_id),
            -left,
        )
        return 0
    return left


def _drafted(
    app: Any, shape: NewJob, draft: plain.Draft, payload: bytes, options: Mapping[str, Any]
) -> Outgoing:
    """Do what `_address` does for a call whose message is written."""
    retry = options.get("retry")
    priority = app._rulebook.priorities.to_engine(options.get("priority"))
    return Outgoing(
        name=shape.name,
        task_id=shape.id,
        jobs=[shape._replace(queue=draft.queue, payload=payload, priority=priority)],
        envelope=None,
        exchange=draft.exchange,
        routing_key=draft.routing_key,
        retry=draft.retry if retry is None else retry,
        retry_policy=draft.retry_policy,
    )


def _address(app: Any, shape: NewJob, envelope: Envelope, options: dict[str, Any]) -> Outgoing:
    """Find the queues, let the receivers of `before_task_publish` have their say, and encode."""
    take = options.pop
    retry, policy = take("retry", None), take("retry_policy", None)
    serializer = take("serializer", None) or app.conf.task_serializer
    compression = take("compression", None) or app.conf.task_compression
    queue = options.get("queue")
    destinations = app.amqp.resolve_queue(options)
    info = destinations[0][1] if destinations else {"exchange": "", "routing_key": ""}
    for option in _ROUTING_OPTIONS:
        take(option, None)
    mode = take("delivery_mode", None) or app.conf.task_default_delivery_mode
    options["delivery_mode"] = fields.delivery_mode(mode)
    headers, properties, body = envelope
    properties.update(options)
    retry_policy = {**app.conf.task_publish_retry_policy, **(policy or {})}
    if signals.before_task_publish.receivers:
        signals.before_task_publish.send(
            sender=shape.name,
            body=body,
            **info,
            declare=None if queue is None else [queue],
            headers=headers,
            properties=properties,
            retry_policy=retry_policy,
        )
    payload = _encode(envelope, info, serializer, compression)
    priority = app._rulebook.priorities.to_engine(properties.get("priority"))
    # A broadcast is one job a queue; the first of them has the id that callers know.
    if len(destinations) > 1 and shape.unique is not None:
        shape = shape._replace(unique=None)
    jobs = [
        shape._replace(
            id=shape.id if place == 0 else f"{shape.id}@{name}",
            queue=check_text("queue", name),
            payload=payload,
            priority=priority,
        )
        for place, (name, _) in enumerate(destinations)
    ]
    return Outgoing(
        name=shape.name,
        task_id=shape.id,
        jobs=jobs,
        envelope=envelope,
        exchange=info["exchange"],
        routing_key=info["routing_key"],
        retry=app.conf.task_publish_retry if retry is None else retry,
        retry_policy=retry_policy,
    )


def _encode(
    envelope: Envelope, info: dict[str, Any], serializer: str, compression: str | None
) -> bytes:
    headers, properties, body = envelope
    content_type, encoding, data, compressed_as = dump(body, serializer, compression)
    if compressed_as:
        headers = {**headers, "compression": compressed_as}
    properties = {**properties, "delivery_info": info}
    try:
        return encode(Message(headers, properties, data, content_type, encoding))
    except (TypeError, ValueError, RecursionError) as exc:
        raise EncodeError(f"headers or properties of the task: {exc}") from exc


def insert(
    app: Any,
    jobs: list[NewJob],
    *,
    conn: Any = None,
    retry: bool | None = None,
    retry_policy: Mapping[str, Any] | None = None,
    closes: str | None = None,
) -> Mapping[str, str]:
    """Insert jobs in one transaction, or keep them for the end of the run that sends them.

    Args:
        app: The application.
        jobs: What to insert; an id that exists already is left alone and logged.
        conn: A psycopg connection in whose transaction to insert; nothing is tried again then.
        retry: Whether to try again when the database is away; None asks the settings.
        retry_policy: How; None asks the settings.
        closes: A latch of the engine that they close.

    Returns:
        For each id that was not inserted, the id of the job that is there instead: the same one, or
        that of a job like it, if it was to be unique.

    Raises:
        kombu.exceptions.OperationalError: The database cannot be reached.
    """
    conn = conn or getattr(jobs, "conn", None) or lent()
    jobs = divert(jobs, conn)
    if not jobs:
        return {}

    def enqueue() -> dict[str, str]:
        if closes is not None:
            return {job_id: job_id for job_id in app.engine.close_latch(closes, jobs)}
        return dict(app.engine.enqueue(jobs, conn=conn))

    try:
        existing = enqueue()
    except DatabaseUnavailable as exc:
        again = app.conf.task_publish_retry if retry is None else retry
        if conn is not None or not again:
            raise OperationalError(str(exc)) from exc
        policy = retry_policy or app.conf.task_publish_retry_policy
        existing = reached(_retried, enqueue, policy, exc)
    if existing:
        tell_existing(existing)
    return existing


def tell_existing(existing: Mapping[str, str]) -> None:
    """Log what was not inserted, as `insert` gives it."""
    for task_id, there in existing.items():
        if task_id == there:
            logger.warning("Task %s was sent before: nothing was sent again.", one_line(task_id))
        else:
            logger.debug("Task %r was not sent: %r is like it.", task_id, there)


def reached(call: Callable[..., Any], *args: Any) -> Any:
    """Call, and raise what Celery's callers know when the database cannot be reached."""
    try:
        return call(*args)
    except DatabaseUnavailable as exc:
        raise OperationalError(str(exc)) from exc


def _retried(enqueue: Any, policy: Mapping[str, Any], exc: DatabaseUnavailable) -> Any:
    """Try it again, after `exc`."""
    tries = policy.get("max_retries")
    if tries is not None and tries <= 0:
        raise exc
    return retry_over_time(
        enqueue,
        (DatabaseUnavailable,),
        max_retries=None if tries is None else tries - 1,
        interval_start=policy.get("interval_start", 0),
        interval_step=policy.get("interval_step", 0.2),
        interval_max=policy.get("interval_max", 1),
    )
