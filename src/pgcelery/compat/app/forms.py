"""The calls of a task that say nothing but arguments: a form that is filled in.

Most calls are ``task.delay(...)``. What such a call comes to follows, but for ids and arguments,
from settings and from what the task itself says. While all of these are the same objects as when a
call was made in full last, its job and the head of its message are taken from that one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote
from operator import is_
from typing import Any, NamedTuple
from uuid import uuid4

from kombu.entity import Queue

from pgcelery.compat import signals
from pgcelery.compat._state import _task_stack
from pgcelery.compat.app import sending
from pgcelery.compat.app.envelope import check_arguments, repr_args, repr_kwargs
from pgcelery.compat.app.options import EXEC_OPTIONS
from pgcelery.compat.app.plain import EMBED, VALUES
from pgcelery.compat.app.routes import Router
from pgcelery.compat.message import decode, head_of, join
from pgcelery.compat.serialization import dump
from pgcelery.compat.utils.ids import uuid
from pgcelery.engine import NewJob

__all__ = ("Form", "of_members", "send")

_SETTINGS = (
    "task_default_queue",
    "result_expires",
    "task_always_eager",
    "task_compression",
    "task_send_sent_event",
    "task_serializer",
    "task_default_delivery_mode",
    "task_publish_retry",
    "task_publish_retry_policy",
)

_EAGER = _SETTINGS.index("task_always_eager")

#: What `_said` begins with; and what of it must not be set.
_FIRST = (*EXEC_OPTIONS, *_SETTINGS, "ignore_result")
_NEVER = (
    *("task_compression", "task_send_sent_event"),
    *("compression", "exchange", "routing_key"),
)
_IGNORED = _FIRST.index("ignore_result")
_RETRY, _POLICY = map(_FIRST.index, ("task_publish_retry", "task_publish_retry_policy"))

#: What stands in a head where a blank is to be; no application says that.
_MARK = uuid4().hex
_NUMBER = uuid4().int >> 68  # the same, where a number stands

#: What of a task is called when it is sent, if an application has one of its own.
_HOOKS = frozenset(("_get_exec_options", "shadow_name"))


class Form(NamedTuple):
    """What the calls of a task have in common.

    Attributes:
        said: All that it follows from, compared by identity: 1 and True are not the same.
        pid: The process that it was made in, which messages name.
        tried: Whether it is more than a note of what was said once.
        head: Of the message, with blanks; None if calls must be made in full.
        kinds: Content type and encoding of the body.
        serializer: By which it is encoded.
        job: The job of a call.
    """

    said: tuple[Any, ...]
    pid: int
    tried: bool = False
    head: str | None = None
    kinds: tuple[str, str] = ("", "")
    serializer: str | None = None
    job: tuple[Any, ...] = ()

    def fill(self, task: Any, app: Any, args: Any, kwargs: Any, blank: str, value: str) -> Any:
        """Give the job of a call; None if its message is of another kind, as with bytes.

        Args:
            task: What is called.
            app: Its application.
            args: Positional arguments.
            kwargs: Keyword arguments.
            blank: What its head leaves open besides the usual.
            value: What is said there, as JSON.
        """
        task._check_call(args, kwargs)
        if type(args) is not tuple or type(kwargs) is not dict:
            check_arguments(args, kwargs)
        args, kwargs = args or (), kwargs or {}
        kind, encoding, body, _ = dump((args, kwargs, EMBED), self.serializer)
        if self.head is None or (kind, encoding) != self.kinds:
            return None
        task_id = uuid()
        head = self.head % {
            "id": quote(task_id),
            "argsrepr": quote(repr_args(app, args, 1024)),
            "kwargsrepr": quote(repr_kwargs(app, kwargs, 1024)),
            blank: value,
        }
        _, queue, name, _, *rest = self.job
        return NewJob(task_id, queue, name, join(head, body), *rest)


def send(task: Any, app: Any, args: Any, kwargs: Any) -> Any:
    """Send a call without options.

    Returns:
        Its `AsyncResult`; None if nothing was done, because there is no form for it.

    Raises:
        TypeError: The arguments do not fit.
        kombu.exceptions.EncodeError: The serializer cannot say them.
        kombu.exceptions.OperationalError: The database cannot be reached.
    """
    if _task_stack.stack or not _is_ordinary(task, app):
        return None
    said = _said(task, app)
    if said is None:
        return None
    form = task._call_form
    if form is None or form.pid != os.getpid() or not all(map(is_, said, form.said)):
        # Made when it is seen again: there are sources of settings that make them anew each time.
        task._call_form = Form(said, os.getpid())
        return None
    if not form.tried:
        task._call_form = form = _made(task, app, form)
    if form.head is None:
        return None
    job = form.fill(task, app, args, kwargs, "reply_to", quote(app.thread_oid))
    if job is None:
        return None
    task_id = job.id
    existing = sending.insert(app, [job], retry=said[_RETRY], retry_policy=said[_POLICY])
    result = task.AsyncResult(existing.get(task_id, task_id))
    result.ignored = said[_IGNORED]
    return result


def of_members(task: Any, app: Any, group_id: str) -> Callable[[Any, Any, int], Any] | None:
    """Give what makes the job of a group's member, of its arguments and index.

    It makes None of what must be sent in full, as this does for a task of which all must. It is for
    one group: what jobs follow from is looked at once.
    """
    if _task_stack.stack or task.app is not app or not _is_ordinary(task, app):
        return None
    if type(task).apply_async is not type(task)._sends or "apply_async" in vars(task):
        return None
    said = _said(task, app)
    if said is None:
        return None
    place = {"group_id": group_id, "group_index": _NUMBER, "reply_to": app.thread_oid}
    form = _made(task, app, Form(said, os.getpid()), **place)
    if form.head is None:
        return None

    def member(args: Any, kwargs: Any, index: int) -> Any:
        return form.fill(task, app, args, kwargs, "group_index", str(index))

    return member


def _is_ordinary(task: Any, app: Any) -> bool:
    """Whether nobody is told of calls, and nothing is replaced that an application may replace."""
    of_task, of_app = type(task), type(app)
    return not (
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
    ) and (
        (of_task._get_exec_options, of_task.shadow_name) == of_task._hooks
        and _HOOKS.isdisjoint(vars(task))
        and task._dump_pydantic_arguments is None
        and hasattr(of_app, "_send_task")  # it is no proxy
        and of_app.send_task is of_app._send_task
        and "send_task" not in vars(app)
    )


def _said(task: Any, app: Any) -> tuple[Any, ...] | None:
    """Give all that a form follows from, beginning as `_FIRST` says; None if there is more."""
    settings = app.conf.several(_SETTINGS)
    if settings[_EAGER]:  # run at once: nothing of the rest is needed
        return None
    router, rules, name = app.amqp.router, app._rulebook, task.name
    if type(router) is not Router or router.routes or not rules.lets_pass(name, task):
        return None
    own = [getattr(task, option, None) for option in EXEC_OPTIONS]
    try:
        queue = router.queues[own[0] or settings[0]]
    except (KeyError, TypeError):
        return None
    if type(queue) is not Queue:
        return None
    where = queue, queue.name, queue.exchange, rules.priorities
    return (*own, *settings, task.ignore_result, app, name, task.acks_late, *where)


def _made(task: Any, app: Any, form: Form, **place: Any) -> Form:
    """Make a form: of a call that is made in full, with marks where blanks are to be.

    Args:
        task: Whose calls.
        app: Its application.
        form: What says what it follows from.
        **place: Options of the call; their marks become blanks.
    """
    form = form._replace(tried=True)
    said = dict(zip(_FIRST, form.said, strict=False))
    own = {option: said[option] for option in EXEC_OPTIONS}
    soft, hard = own["soft_time_limit"], own["time_limit"]
    if (
        any(map(said.get, _NEVER))
        or own["expires"] is not None
        or (soft and hard and soft > hard)
        or not VALUES.issuperset(map(type, own.values()))
    ):
        return form
    made = sending.build(
        app,
        task.name,
        task_id=_mark("id"),
        argsrepr=_mark("argsrepr"),
        kwargsrepr=_mark("kwargsrepr"),
        **({"reply_to": _mark("reply_to")} | place),
        task_type=task,
        ignore_result=said["ignore_result"],
        **own,
    )
    now = _said(task, app)
    if now is None or not all(map(is_, now, form.said)):  # another thread has changed something
        return form._replace(tried=False)
    if len(made.jobs) != 1 or made.exchange:
        return form
    (job,) = made.jobs
    message = decode(job.payload)
    head = head_of(message)
    if join(head, message.body) != job.payload:
        return form
    head = head.replace("%", "%%")
    for blank in ("id", "argsrepr", "kwargsrepr", "reply_to"):
        head = head.replace(quote(_mark(blank)), f"%({blank})s")
    head = head.replace(str(_NUMBER), "%(group_index)s")
    return form._replace(
        head=head,
        kinds=(message.content_type, message.content_encoding),
        serializer=own["serializer"] or said["task_serializer"],
        job=tuple(job),
    )


def _mark(blank: str) -> str:
    return f"{_MARK} {blank}"
