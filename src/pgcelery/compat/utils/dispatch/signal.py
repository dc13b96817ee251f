"""Signal: functions that hear of an event.

Source: Celery 5.7, `celery.utils.dispatch.signal`: receivers are held weakly unless told otherwise,
must take keywords, and what they raise is logged and returned, never raised.
"""

from __future__ import annotations

import inspect
import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from kombu.utils.functional import retry_over_time

from pgcelery.compat.exceptions import CDeprecationWarning
from pgcelery.compat.local import PromiseProxy, Proxy

__all__ = ("Signal",)

logger = logging.getLogger("celery.utils.dispatch.signal")

_Key = tuple[Hashable, Hashable]


def _make_id(target: Any) -> Hashable:
    """What receivers and senders are told apart by: text, owner and function, or identity."""
    if isinstance(target, Proxy):
        target = target._get_current_object()
    if isinstance(target, (bytes, str)):
        return target
    if hasattr(target, "__func__"):
        return (id(getattr(target, "__self__", None)), id(target.__func__))
    return id(target)


_ANY_SENDER = _make_id(None)


def _lookup_key(receiver: Any, sender: Any, dispatch_uid: Hashable) -> _Key:
    uid = dispatch_uid or getattr(receiver, "_dispatch_uid", None) or _make_id(receiver)
    return uid, _make_id(sender)


def _takes_keywords(receiver: Callable[..., Any]) -> bool:
    parameters = inspect.signature(receiver).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def _retrying(receiver: Callable[..., Any], uid: Hashable) -> Callable[..., Any]:
    """Wrap `receiver` so that it is called until it does not raise."""

    def call_over_time(*args: Any, **kwargs: Any) -> Any:
        def on_error(exc: BaseException, intervals: Iterator[float], retries: int) -> float:
            interval = next(intervals)
            logger.error(
                "Could not process signal receiver %s. Retrying in %s seconds...",
                receiver,
                interval,
            )
            return interval

        return retry_over_time(receiver, Exception, args, kwargs, on_error)

    call_over_time._dispatch_uid = uid  # type: ignore[attr-defined]
    return call_over_time


class Signal:
    """An event that receivers are connected to.

    Attributes:
        receivers: ``(key, receiver or weak reference)`` of each; empty means that sending is free.
    """

    def __init__(
        self,
        providing_args: Iterable[str] | None = None,
        use_caching: bool = False,
        name: str | None = None,
    ) -> None:
        self.receivers: list[tuple[_Key, Any]] = []
        self.providing_args = set(providing_args or ())
        self.lock = threading.Lock()
        self.use_caching = use_caching
        self.name = name
        self._has_dead = False

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Connect a receiver; with or without arguments also a decorator.

        Args:
            *args: The receiver, then the options by position.
            **kwargs: ``sender`` to hear only of that one, ``weak=True`` not to keep the receiver
                alive, ``dispatch_uid`` so that a second of that name is not added, ``retry`` to
                call again (for ever, and holding it strongly) as long as it raises.

        Raises:
            ValueError: The receiver does not take ``**kwargs``.
        """
        if args and callable(args[0]):
            return self._connect(args[0], *args[1:], **kwargs)

        def decorate(receiver: Callable[..., Any]) -> Callable[..., Any]:
            return self._connect(receiver, *args, **kwargs)

        return decorate

    def _connect(
        self,
        receiver: Callable[..., Any],
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Hashable = None,
        retry: bool = False,
    ) -> Callable[..., Any]:
        if retry:
            dispatch_uid = dispatch_uid or _make_id(receiver)
            self._add(_retrying(receiver, dispatch_uid), sender, False, dispatch_uid)
        else:
            self._add(receiver, sender, weak, dispatch_uid)
        return receiver

    def _add(
        self, receiver: Callable[..., Any], sender: Any, weak: bool, dispatch_uid: Hashable
    ) -> None:
        if not _takes_keywords(receiver):
            raise ValueError("Signal receiver must accept keyword arguments.")
        if isinstance(sender, PromiseProxy):
            sender.__then__(self._add_resolved, receiver, sender, weak, dispatch_uid)
            return
        key = _lookup_key(receiver, sender, dispatch_uid)
        held: Any = receiver
        if weak:
            owner = getattr(receiver, "__self__", None)
            is_method = hasattr(receiver, "__func__") and owner is not None
            held = weakref.WeakMethod(receiver) if is_method else weakref.ref(receiver)
            weakref.finalize(owner if is_method else receiver, self._note_dead).atexit = False
        with self.lock:
            self._drop_dead()
            if all(known != key for known, _ in self.receivers):
                self.receivers.append((key, held))

    def _add_resolved(
        self, receiver: Callable[..., Any], sender: Any, weak: bool, dispatch_uid: Hashable
    ) -> None:
        self._add(receiver, sender._get_current_object(), weak, dispatch_uid)

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: Any = None,
        weak: bool | None = None,
        dispatch_uid: Hashable = None,
    ) -> bool:
        """Disconnect a receiver, given it or its `dispatch_uid`; False if it is not there."""
        if weak is not None:
            warnings.warn(
                "Passing `weak` to disconnect has no effect.", CDeprecationWarning, stacklevel=2
            )
        key = _lookup_key(receiver, sender, dispatch_uid)
        with self.lock:
            self._drop_dead()
            for index, (known, _) in enumerate(self.receivers):
                if known == key:
                    del self.receivers[index]
                    return True
        return False

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether sending from `sender` would call anything."""
        return bool(self._live_receivers(sender))

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """Call the receivers; give ``(receiver, what it returned or raised)`` of each."""
        if not self.receivers:
            return []
        responses: list[tuple[Any, Any]] = []
        for receiver in self._live_receivers(sender):
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as exc:
                logger.exception("Signal handler %r raised: %r", receiver, exc)
                response = exc
            responses.append((receiver, response))
        return responses

    send_robust = send

    def _live_receivers(self, sender: Any) -> list[Any]:
        wanted = (_ANY_SENDER, _make_id(sender))
        with self.lock:
            self._drop_dead()
            held = [receiver for key, receiver in self.receivers if key[1] in wanted]
        called = [r() if isinstance(r, weakref.ReferenceType) else r for r in held]
        return [receiver for receiver in called if receiver is not None]

    def _drop_dead(self) -> None:
        """Forget collected receivers; the caller holds the lock."""
        if self._has_dead:
            self._has_dead = False
            self.receivers[:] = [
                pair
                for pair in self.receivers
                if not (isinstance(pair[1], weakref.ReferenceType) and pair[1]() is None)
            ]

    def _note_dead(self) -> None:
        # Runs inside garbage collection, where the lock may be held already: only take a note.
        self._has_dead = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} providing_args={self.providing_args!r}>"
