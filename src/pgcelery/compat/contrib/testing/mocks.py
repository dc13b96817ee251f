"""Messages and mocks for unit tests.

Source: Celery 5.7, ``celery.contrib.testing.mocks``.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

from kombu import serialization
from kombu.utils.uuid import uuid

# Kombu does not say its types.
dumps: Any = serialization.dumps

__all__ = ("ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig")


def TaskMessage(
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Any:
    """Make a task message of protocol 2; `options` are more headers."""
    id = id or uuid()
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    message = Mock(name=f"TaskMessage-{id}")
    message.headers = {"id": id, "task": name, "shadow": shadow, **options}
    message.payload = (args, kwargs or {}, embed)
    message.content_type, message.content_encoding, message.body = dumps(
        message.payload, serializer="json"
    )
    return message


def TaskMessage1(
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    **options: Any,
) -> Any:
    """Make a task message of protocol 1; `options` are more fields of its body."""
    id = id or uuid()
    message = Mock(name=f"TaskMessage-{id}")
    message.headers = {}
    message.payload = {
        "task": name,
        "id": id,
        "args": args,
        "kwargs": kwargs or {},
        "callbacks": callbacks,
        "errbacks": errbacks,
        **options,
    }
    message.content_type, message.content_encoding, message.body = dumps(message.payload)
    return message


def task_message_from_sig(
    app: Any, sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage
) -> Any:
    """Make the message that a signature would send."""
    sig.freeze()
    callbacks = sig.options.pop("link", None)
    errbacks = sig.options.pop("link_error", None)
    countdown = sig.options.pop("countdown", None)
    eta = sig.options.pop("eta", None)
    if countdown:
        eta = app.now() + timedelta(seconds=countdown)
    expires = sig.options.pop("expires", None)
    if expires and isinstance(expires, numbers.Real):
        expires = app.now() + timedelta(seconds=float(expires))
    return TaskMessage(
        sig.task,
        id=sig.id,
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=[dict(s) for s in callbacks] if callbacks else None,
        errbacks=[dict(s) for s in errbacks] if errbacks else None,
        eta=_as_text(eta),
        expires=_as_text(expires),
        utc=utc,
        **sig.options,
    )


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


class _ContextMock(Mock):
    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


def ContextMock(*args: Any, **kwargs: Any) -> Any:
    """Make a mock that is also a context manager, giving itself."""
    mock: Any = _ContextMock(*args, **kwargs)
    mock.attach_mock(_ContextMock(), "__enter__")
    mock.attach_mock(_ContextMock(), "__exit__")
    mock.__enter__.return_value = mock
    # None: what is raised inside goes on.
    mock.__exit__.return_value = None
    return mock
