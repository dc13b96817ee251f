"""A call as a message: headers, properties and body of Celery's task protocol 2.

Source: Celery 5.7, `celery.app.amqp.as_task_v2`.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pgcelery.compat.utils.nodenames import anon_nodename
from pgcelery.compat.utils.saferepr import saferepr

__all__ = ("Envelope", "Times", "seal", "times", "to_datetime")

#: Where Celery stops believing in a number of seconds.
_MIN_SECONDS = -2147483648

#: Names and ids longer than this cannot be stored.
MAX_TEXT = 255

#: Arguments that `repr` writes just as `saferepr` does, unless text needs quoting.
_PLAIN = frozenset((int, float, bool, type(None)))
_PLAIN_ITEMS = 8
_PLAIN_TEXT = 100


class Times(NamedTuple):
    """When a call may start and when it is too late: for headers, and for the engine."""

    eta: str | None = None
    due_at: datetime | None = None
    delay_s: float | None = None
    expires: str | None = None
    expires_at: datetime | None = None


#: Those of a call that may start at once and for ever.
AT_ONCE = Times()


class Envelope(NamedTuple):
    """A message before it is serialized; the publish signals may change all three."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: tuple[Any, Any, dict[str, Any]]


def check_text(what: str, value: Any, longest: int = MAX_TEXT) -> str:
    """Give `value` if the database can hold it as a name.

    Raises:
        TypeError: It is no string.
        ValueError: It is empty or too long, or has NUL or lone surrogates in it.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string, not {type(value).__name__}")
    if not value or len(value) > longest:
        raise ValueError(f"{what} must be 1 to {longest} characters long, not {len(value)}")
    if "\0" in value:
        raise ValueError(f"{what} contains a NUL character")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{what} contains a lone surrogate") from None
    return value


def check_arguments(args: Any, kwargs: Any) -> None:
    """Refuse arguments that are no arguments.

    Raises:
        TypeError: `args` is no list or tuple, or `kwargs` no mapping.
    """
    if args is not None and not isinstance(args, (list, tuple)):
        raise TypeError("task args must be a list or tuple")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError("task keyword arguments must be a mapping")


def to_datetime(what: str, value: Any) -> datetime:
    """Give a time as an aware datetime; a naive one is UTC, as a worker of Celery reads it.

    Raises:
        TypeError: Neither a datetime nor text.
        ValueError: Text that is no ISO 8601 time, or a time that has none in UTC.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{what} {value!r} is no ISO 8601 time") from None
    if not isinstance(value, datetime):
        raise TypeError(f"{what} must be a datetime or ISO 8601 text, not {type(value).__name__}")
    when: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    try:
        when.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{what} {when.isoformat()} is out of range") from None
    return when


def _after(app: Any, what: str, seconds: Any) -> datetime:
    """The aware time `seconds` from now."""
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise TypeError(f"{what} must be a number of seconds, not {type(seconds).__name__}")
    if seconds < _MIN_SECONDS:
        raise ValueError(f"{what} is out of range: {seconds!r}")
    try:
        when: datetime = app.now() + timedelta(seconds=float(seconds))
    except (OverflowError, ValueError):
        raise ValueError(f"{what} is out of range: {seconds!r}") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def times(app: Any, countdown: Any, eta: Any, expires: Any) -> Times:
    """Read the three options about time; `countdown` beats `eta`, and 0 is none.

    Raises:
        TypeError: Something that is no time.
        ValueError: A time out of all range.
    """
    if not countdown and not eta and (expires is None or expires == ""):
        return AT_ONCE
    eta_text = due_at = delay_s = expires_text = expires_at = None
    if countdown:
        due_at = _after(app, "countdown", countdown)
        eta_text, delay_s = due_at.isoformat(), float(countdown)
    elif eta:
        due_at = to_datetime("eta", eta)
        eta_text = eta if isinstance(eta, str) else eta.isoformat()
    if expires is not None and expires != "":
        if isinstance(expires, (str, datetime)):
            expires_at = to_datetime("expires", expires)
            expires_text = expires if isinstance(expires, str) else expires.isoformat()
        else:
            expires_at = _after(app, "expires", expires)
            expires_text = expires_at.isoformat()
    return Times(eta_text, due_at, delay_s, expires_text, expires_at)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return (
            len(value) <= _PLAIN_TEXT
            and value.isprintable()
            and "'" not in value
            and "\\" not in value
        )
    return kind in _PLAIN


def repr_value(value: Any, maxlen: int) -> str:
    """Write a value for people: as `saferepr`, and a plain one at once."""
    return repr(value) if _is_plain(value) else saferepr(value, maxlen)


def repr_args(app: Any, args: Any, maxlen: int) -> str:
    """Write arguments for people: as `saferepr`, and for a few plain values at once."""
    if len(args) <= _PLAIN_ITEMS and type(args) in (tuple, list) and all(map(_is_plain, args)):
        return repr(args)
    return saferepr(args, maxlen, app.conf.task_repr_maxlevels)


def repr_kwargs(app: Any, kwargs: Any, maxlen: int) -> str:
    """Write keyword arguments for people."""
    if not kwargs:
        return "{}"
    if (
        len(kwargs) <= _PLAIN_ITEMS
        and type(kwargs) is dict
        and all(map(_is_plain, kwargs))
        and all(map(_is_plain, kwargs.values()))
    ):
        return repr(kwargs)
    return saferepr(kwargs, maxlen, app.conf.task_repr_maxlevels)


def seal(
    app: Any,
    task_id: str,
    name: str,
    args: Any,
    kwargs: Any,
    when: Times,
    *,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    chord: Any = None,
    group_id: str | None = None,
    group_index: int | None = None,
    retries: int = 0,
    reply_to: str | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    shadow: str | None = None,
    origin: str | None = None,
    ignore_result: bool | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    stamped_headers: Any = None,
    stamps: Mapping[str, Any] | None = None,
    replaced_task_nesting: int = 0,
) -> Envelope:
    """Make the message of one call; the keywords are `apply_async`'s options."""
    args = args or ()
    kwargs = kwargs or {}
    headers = {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": shadow,
        "eta": when.eta,
        "expires": when.expires,
        "group": group_id,
        "group_index": group_index,
        "retries": retries,
        "timelimit": [time_limit, soft_time_limit],
        "root_id": root_id or task_id,
        "parent_id": parent_id,
        "argsrepr": repr_args(app, args, 1024) if argsrepr is None else argsrepr,
        "kwargsrepr": repr_kwargs(app, kwargs, 1024) if kwargsrepr is None else kwargsrepr,
        "origin": origin or anon_nodename(),
        "ignore_result": ignore_result,
        "replaced_task_nesting": replaced_task_nesting,
        "stamped_headers": stamped_headers,
        "stamps": dict(stamps or {}),
    }
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain, "chord": chord}
    return Envelope(
        headers, {"correlation_id": task_id, "reply_to": reply_to or ""}, (args, kwargs, embed)
    )
