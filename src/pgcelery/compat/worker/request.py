"""A task as the worker's main process sees it: taken, not run.

Source: Celery 5.7, ``celery.worker.request``; it is what ``task_received`` and ``task_revoked``
receivers get. The message is decoded when something of it is asked for: most are handed on to a
pool process unread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from kombu import serialization

from pgcelery.compat.exceptions import NotRegistered
from pgcelery.compat.message import Message, decode
from pgcelery.compat.platforms import signals
from pgcelery.compat.utils.time import maybe_iso8601
from pgcelery.compat.worker import state
from pgcelery.engine import Job

# Kombu does not say its types.
loads: Any = serialization.loads
prepare_accept_content: Any = serialization.prepare_accept_content

__all__ = ("Request", "create_request_cls")


class Request:
    """One taken task.

    Args:
        message: With ``headers``, ``properties``, ``body``; decoded from `job` if None.
        app: The app of the worker.
        hostname: Name of the node.
        job: The engine's job.
        task: Looked up by name if None.

    Attributes:
        time_start: Seconds since 1970; None until it runs.
        worker_pid: Process that runs it; None until it runs.
    """

    time_start: float | None = None
    worker_pid: int | None = None
    acknowledged = False
    tzlocal: Any = None

    def __init__(
        self,
        message: Any = None,
        app: Any = None,
        hostname: str | None = None,
        job: Job | None = None,
        task: Any = None,
        **opts: Any,
    ) -> None:
        self.app = app
        self.hostname = hostname
        self.job = job
        if job is not None:
            self.id, self.type = job.id, job.name
        if message is not None:
            self.message = message
        if task is not None:
            self.task = task

    @cached_property
    def message(self) -> Message:
        """The message; one without headers when the payload cannot be read."""
        assert self.job is not None
        try:
            return decode(self.job.payload)
        except Exception:
            # The pool ends a job whose payload is garbage; here it is only looked at.
            return Message(headers={"id": self.job.id, "task": self.job.name})

    @property
    def request_dict(self) -> dict[str, Any]:
        """The headers of the message."""
        headers: dict[str, Any] = self.message.headers
        return headers

    @cached_property
    def id(self) -> str:
        """Id of the task."""
        return str(self.request_dict["id"])

    @cached_property
    def type(self) -> str:
        """Registered name of the task."""
        return str(self.request_dict.get("task") or "")

    @property
    def name(self) -> str:
        """Name shown: the shadow name, if the message has one."""
        return self.request_dict.get("shadow") or self.type

    @property
    def task_id(self) -> str:
        """Id of the task."""
        return self.id

    task_name = name

    @cached_property
    def task(self) -> Any:
        """The registered task.

        Raises:
            NotRegistered: The worker does not know it.
        """
        try:
            return self.app.tasks[self.type]
        except KeyError:
            raise NotRegistered(self.type) from None

    @cached_property
    def _payload(self) -> tuple[Any, Any, Mapping[str, Any]]:
        message = self.message
        args, kwargs, embed = loads(
            message.body,
            message.content_type,
            message.content_encoding,
            accept=prepare_accept_content(self.app.conf.accept_content),
        )
        return args, kwargs, embed or {}

    @property
    def args(self) -> Any:
        """Positional arguments, decoded."""
        return self._payload[0]

    @property
    def kwargs(self) -> Any:
        """Keyword arguments, decoded."""
        return self._payload[1]

    @property
    def argsrepr(self) -> str:
        """Positional arguments as the sender wrote them down."""
        return str(self.request_dict.get("argsrepr", ""))

    @property
    def kwargsrepr(self) -> str:
        """Keyword arguments as the sender wrote them down."""
        return str(self.request_dict.get("kwargsrepr", ""))

    @cached_property
    def eta(self) -> datetime | None:
        """Time before which it may not start."""
        return _as_time(self.request_dict.get("eta"))

    @cached_property
    def expires(self) -> datetime | None:
        """Time after which it may not start."""
        return _as_time(self.request_dict.get("expires"))

    @property
    def stamps(self) -> dict[str, Any]:
        """Values of its stamps."""
        stamps = self.request_dict.get("stamps") or {}
        return {header: stamps.get(header) for header in self.stamped_headers}

    @property
    def stamped_headers(self) -> list[str]:
        """Names of its stamps."""
        return list(self.request_dict.get("stamped_headers") or ())

    @property
    def callbacks(self) -> Any:
        """Signatures to call with the result."""
        return self._payload[2].get("callbacks")

    @property
    def errbacks(self) -> Any:
        """Signatures to call on failure."""
        return self._payload[2].get("errbacks")

    @property
    def chord(self) -> Any:
        """Body of the chord it is a header task of."""
        return self._payload[2].get("chord")

    @property
    def group(self) -> str | None:
        """Id of its group."""
        return self.request_dict.get("group")

    @property
    def group_index(self) -> int | None:
        """Place in its group."""
        return self.request_dict.get("group_index")

    @property
    def root_id(self) -> str | None:
        """Id of the first task of its workflow."""
        return self.request_dict.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sent it."""
        return self.request_dict.get("parent_id")

    @property
    def replaced_task_nesting(self) -> int:
        """How many times it was replaced."""
        return int(self.request_dict.get("replaced_task_nesting") or 0)

    @property
    def store_errors(self) -> bool:
        """Whether a failure is stored."""
        ignored = self.request_dict.get("ignore_result")
        ignored = self.task.ignore_result if ignored is None else ignored
        return not ignored or bool(self.task.store_errors_even_if_ignored)

    @property
    def reply_to(self) -> str | None:
        """Where its sender listens."""
        return self.message.properties.get("reply_to")

    @property
    def correlation_id(self) -> str | None:
        """Id its sender knows it by."""
        return self.message.properties.get("correlation_id")

    @property
    def delivery_info(self) -> dict[str, Any]:
        """How it came: exchange, routing key, priority, and whether for the first time."""
        info = self.message.properties.get("delivery_info") or {}
        return {
            "exchange": info.get("exchange") or "",
            "routing_key": info.get("routing_key"),
            "priority": self.message.properties.get("priority") or 0,
            "redelivered": bool(self.job is not None and self.job.delivery > 1),
        }

    @property
    def body(self) -> bytes:
        """The body as it travelled."""
        return self.message.body

    @property
    def content_type(self) -> str:
        """Content type of the body."""
        return self.message.content_type

    @property
    def content_encoding(self) -> str:
        """Encoding of the body."""
        return self.message.content_encoding

    def accepted(self, pid: int | None, started_monotonic: float) -> None:
        """Note that it runs since `started_monotonic`, in the process `pid`."""
        self.worker_pid = pid or os.getpid()
        self.time_start = time.time() - (time.monotonic() - started_monotonic)
        self.acknowledged = not self._acks_late()

    def _acks_late(self) -> bool:
        task = self.app.tasks.get(self.type)
        return bool(task is not None and task.acks_late)

    def revoked(self) -> bool:
        """Whether it must not run: expired, or its id or one of its stamps is revoked."""
        return self.maybe_expire() or self.id in state.revoked or self.revoked_by_stamp()

    def revoked_by_stamp(self) -> bool:
        """Whether one of its stamps is revoked."""
        stamps = self.stamps
        for header, values in state.revoked_stamps.items():
            if header in stamps and set(_as_list(values)) & set(_as_list(stamps[header])):
                return True
        return False

    def maybe_expire(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.now(UTC) >= _aware(self.expires)

    def terminate(self, pool: Any = None, signal: str | int | None = None) -> None:
        """Have the process that runs it killed."""
        signum = signals.signum(signal or "SIGTERM")
        self.app.engine.cancel([self.id], terminate=True, signum=signum)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What ``inspect active`` and its like answer with.

        Args:
            safe: Arguments as text; nothing of the body is decoded.
        """
        return {
            "id": self.id,
            "name": self.name,
            "args": self.argsrepr if safe else self.args,
            "kwargs": self.kwargsrepr if safe else self.kwargs,
            "type": self.type,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": self.delivery_info,
            "worker_pid": self.worker_pid,
        }

    def humaninfo(self) -> str:
        """``name[id]``."""
        return f"{self.name}[{self.id}]"

    def __str__(self) -> str:
        eta = f"  ETA:[{self.eta}]" if self.eta else ""
        expires = f"  expires:[{self.expires}]" if self.expires else ""
        return f"{self.humaninfo()}{eta}{expires}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.humaninfo()} {self.argsrepr} {self.kwargsrepr}>"


def create_request_cls(
    base: type[Request], task: Any, pool: Any, hostname: str, eventer: Any, **kwargs: Any
) -> type[Request]:
    """Class of the requests for one task; here it is the base itself."""
    return base


def _as_time(value: Any) -> datetime | None:
    found: datetime | None = maybe_iso8601(value)
    return found


def _aware(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
