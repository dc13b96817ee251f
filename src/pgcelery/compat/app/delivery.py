"""One job as a worker gets it: the message in it, its task, its request; or why it is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from kombu.exceptions import ContentDisallowed

from pgcelery.compat.app.headers import check_headers, check_properties
from pgcelery.compat.app.request import Context
from pgcelery.compat.exceptions import InvalidTaskError, NotRegistered
from pgcelery.compat.message import Message, decode
from pgcelery.compat.result import inputs
from pgcelery.compat.serialization import load
from pgcelery.engine import Job

__all__ = ("Delivery",)


_NOTHING: Mapping[str, Any] = {}
_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")
_LISTS = ("callbacks", "errbacks", "chain")

#: Longer time limits are none.
_LONGEST_S = 1e9


class Delivery:
    """Decodes a job; what goes wrong is kept, not raised.

    Attributes:
        error: Why the job cannot be run, or None.
        message: The message; with only id and name in its headers when the payload is garbage.
        request: The fields of the task's `Context`.
        task: The registered task, or None.
    """

    def __init__(self, handler: Any, job: Job) -> None:
        self.handler = handler
        self.app = handler.app
        self.job = job
        self.error: BaseException | None = None
        try:
            self.message = decode(job.payload)
            check_headers(self.message.headers)
            check_properties(self.message.properties)
            self.request = self._request()
        except Exception as exc:  # it may be anybody's: nothing in it is sure
            self.error = InvalidTaskError(str(exc))
            self.message = Message({"id": job.id, "task": job.name})
            self.request = self._request()
        self.name = str(self.message.headers.get("task") or job.name)
        self.task = self.app.tasks.get(self.name)
        if self.task is None and self.error is None:
            self.error = NotRegistered(self.name)

    def _request(self) -> dict[str, Any]:
        message, job = self.message, self.job
        get = message.properties.get
        info = get("delivery_info") or _NOTHING
        request = {
            "id": job.id,
            **message.headers,
            "properties": message.properties,
            "reply_to": get("reply_to"),
            "correlation_id": get("correlation_id"),
            "hostname": self.handler.hostname,
            "delivery_info": {
                "exchange": info.get("exchange"),
                "routing_key": info.get("routing_key"),
                "priority": get("priority") or 0,
                "redelivered": job.delivery > 1 or bool(info.get("redelivered")),
            },
            "is_eager": False,
            "args": (),
            "kwargs": {},
        }
        if self.error is None:
            self._fill_from_body(request)
        if "chord_parents" in request:
            lives_s = inputs.take(request).get("chord_lives")
            if lives_s is not None:
                request["expires"] = (self.app.now() + timedelta(seconds=lives_s)).isoformat()
        link = request.get("chain_link")
        if link and (link["head"] != request["id"] or not request.get("chain")):
            request.pop("chain", None)  # so that it is looked up when somebody asks
        return request

    def _fill_from_body(self, request: dict[str, Any]) -> None:
        message = self.message
        try:
            args, kwargs, embed = load(
                message.body,
                message.content_type,
                message.content_encoding,
                self.handler.accept,
                message.headers.get("compression"),
            )
            if not isinstance(args, (list, tuple)) or not isinstance(kwargs, (dict, Mapping)):
                raise TypeError("arguments are no list, or keyword arguments no mapping")
            request["args"], request["kwargs"] = args, kwargs
            request.update(_embedded(embed or {}))
        except ContentDisallowed as exc:
            self.error = exc
        except Exception as exc:
            self.error = InvalidTaskError(f"the body of the message is no task: {exc}")

    @cached_property
    def context(self) -> Context:
        """The request as hooks and signals get it."""
        return Context(self.request, called_directly=False)

    @property
    def backend(self) -> Any:
        """Where the result goes."""
        return self.app.backend if self.task is None else self.task.backend

    def stores(self) -> bool:
        """Whether a failure is stored."""
        ignored = self.request.get("ignore_result")
        if self.task is None:
            return not ignored
        ignored = self.task.ignore_result if ignored is None else ignored
        return not ignored or bool(self.task.store_errors_even_if_ignored)

    def limits(self) -> tuple[float | None, float | None]:
        """Hard and soft time limit in seconds."""
        pair = self.request.get("timelimit")
        hard, soft = pair if isinstance(pair, (list, tuple)) and len(pair) == 2 else (None, None)
        if self.task is not None:
            hard, soft = hard or self.task.time_limit, soft or self.task.soft_time_limit
        return _seconds(hard), _seconds(soft)


def _embedded(embed: Mapping[str, Any]) -> dict[str, Any]:
    """The third part of a body: what is called when the task ends."""
    found = {name: embed.get(name) for name in _EMBEDDED}
    for name in _LISTS:
        value = found[name]
        if value is not None and not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} are no list")
    return found


def _seconds(value: Any) -> float | None:
    """A limit that came in a message: what is no positive number is none."""
    return float(value) if isinstance(value, (int, float)) and 0 < value <= _LONGEST_S else None
