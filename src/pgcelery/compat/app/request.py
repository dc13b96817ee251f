"""Context: what a task may know of the call it serves (``task.request``).

Source: Celery 5.7, `celery.app.task.Context`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgcelery.compat.app.planned import PlannedChain

__all__ = ("Context", "get_actual_ignore_result")

#: RabbitMQ's notes of where a message has been; sending them on would look like a cycle.
X_DEATH_HEADERS = frozenset(
    {
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    }
)


class Context:
    """The fields of one call; message headers of the application's own are attributes too.

    Attributes:
        headers: Only the application's own headers, or None.
        timelimit: ``[hard, soft]`` in seconds, as in the message.
        expires: ISO text.
        called_directly: False only while a worker or ``apply`` runs the task.
    """

    _children: list[Any] | None = None
    _protected = 0
    args: Any = None
    callbacks: Any = None
    called_directly = True
    chain: Any = PlannedChain()
    chain_link: dict[str, Any] | None = None
    chord: Any = None
    correlation_id: str | None = None
    delivery_info: dict[str, Any] | None = None
    errbacks: Any = None
    eta: str | None = None
    expires: Any = None
    group: str | None = None
    group_index: int | None = None
    headers: dict[str, Any] | None = None
    hostname: str | None = None
    id: str | None = None
    ignore_result: bool | None = False
    is_eager = False
    kwargs: Any = None
    logfile: str | None = None
    loglevel: int | None = None
    origin: str | None = None
    parent_id: str | None = None
    properties: dict[str, Any] | None = None
    retries = 0
    reply_to: str | None = None
    replaced_task_nesting = 0
    root_id: str | None = None
    shadow: str | None = None
    taskset: str | None = None
    timelimit: Any = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    utc: bool | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.update(*args, **kwargs)
        if self.headers is None:
            fields = self.__dict__
            none = _NOT_OWN.issuperset(fields)  # mostly
            self.headers = None if none else {k: fields[k] for k in fields if k not in _NOT_OWN}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Headers of the application's own are attributes."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set fields as `dict.update` does; `timelimit` also sets the two limits."""
        fields = self.__dict__
        before = fields.get("timelimit", self)
        fields.update(*args, **kwargs)
        limits = fields.get("timelimit", self)
        if limits is not before:
            pair = isinstance(limits, (list, tuple)) and len(limits) >= 2
            self.time_limit, self.soft_time_limit = limits[:2] if pair else (None, None)

    def clear(self) -> None:
        """Forget every field."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """Give a field or `default`."""
        return getattr(self, key, default)

    def __repr__(self) -> str:
        return f"<Context: {vars(self)!r}>"

    def as_execution_options(self) -> dict[str, Any]:
        """Give the `apply_async` options that repeat this call."""
        hard, soft = self.timelimit or (None, None)
        options = {
            "task_id": self.id,
            "root_id": self.root_id,
            "parent_id": self.parent_id,
            "group_id": self.group,
            "group_index": self.group_index,
            "shadow": self.shadow,
            "chord": self.chord,
            # Steps that wait already are not sent again.
            "chain": vars(self).get("chain"),
            "chain_link": self.chain_link,
            "link": self.callbacks,
            "link_error": self.errbacks,
            "expires": self.expires,
            "soft_time_limit": soft,
            "time_limit": hard,
            "headers": {k: v for k, v in (self.headers or {}).items() if k not in X_DEATH_HEADERS},
            "retries": self.retries,
            "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting,
            "origin": self.origin,
        }
        if self.stamps is not None and self.stamped_headers is not None:
            options["stamped_headers"] = self.stamped_headers
            options.update({k: v for k, v in self.stamps.items() if k in self.stamped_headers})
        return options

    @property
    def children(self) -> list[Any]:
        """Results of the calls made by this one."""
        if self._children is None:
            self._children = []
        return self._children


#: Keys of a request that are not headers of the application's own.
_NOT_OWN = frozenset(vars(Context)) | {"lang", "task", "argsrepr", "kwargsrepr", "compression"}


def get_actual_ignore_result(task: Any, request: Any) -> bool | None:
    """Whether the result is ignored: what the call says, else what the task says.

    Only a value set on the request counts, not the class's default.
    """
    if isinstance(request, Context):
        said = vars(request).get("ignore_result")
    else:
        said = getattr(request, "ignore_result", None)
    ignored: bool | None = task.ignore_result if said is None else said
    return ignored
