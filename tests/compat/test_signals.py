from __future__ import annotations

import gc
import logging
from typing import Any

import celery.signals as theirs
import pytest

from pgcelery.compat import signals as ours
from pgcelery.compat.local import PromiseProxy
from pgcelery.compat.utils.dispatch import Signal


@pytest.mark.parametrize("name", sorted(theirs.__all__))
def test_every_signal_of_celerys_is_there(name: str) -> None:
    found, wanted = getattr(ours, name), getattr(theirs, name)
    assert found.name == name
    assert found.providing_args == wanted.providing_args


def test_a_receiver_gets_signal_sender_and_arguments() -> None:
    signal, calls = Signal(name="s"), []

    @signal.connect
    def receiver(**kwargs: Any) -> str:
        calls.append(kwargs)
        return "answer"

    assert signal.send("me", a=1) == [(receiver, "answer")]
    assert calls == [{"signal": signal, "sender": "me", "a": 1}]
    assert signal.has_listeners()


def test_a_receiver_hears_of_its_sender_only() -> None:
    signal, heard, sender = Signal(), [], object()

    @signal.connect(sender=sender)
    def by_identity(sender: Any, **kwargs: Any) -> None:
        heard.append("identity")

    @signal.connect(sender="".join(["na", "me"]))
    def by_equality(sender: Any, **kwargs: Any) -> None:
        heard.append("equality")

    signal.send(object())
    signal.send(sender)
    signal.send("name")
    assert heard == ["identity", "equality"]


def test_receivers_are_held_weakly_unless_told_otherwise() -> None:
    signal, heard = Signal(), []

    def connect(weak: bool) -> None:
        signal.connect(lambda **kw: heard.append(weak), weak=weak)

    connect(True)
    connect(False)
    gc.collect()
    signal.send(None)
    assert heard == [False]
    assert len(signal.receivers) == 1


class Listener:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def hear(self, sender: Any = None, **kwargs: Any) -> None:
        self.heard.append(sender)


def test_methods_of_two_objects_are_two_receivers() -> None:
    signal, one, two = Signal(), Listener(), Listener()
    signal.connect(one.hear)
    signal.connect(two.hear)
    signal.connect(two.hear)
    signal.send(1)
    assert (one.heard, two.heard) == ([1], [1])
    assert signal.disconnect(one.hear)
    signal.send(2)
    assert (one.heard, two.heard) == ([1], [1, 2])
    del two
    gc.collect()
    assert not signal.has_listeners()


def test_a_dispatch_uid_stands_for_the_receiver() -> None:
    signal, heard = Signal(), []
    for number in range(2):
        signal.connect(lambda n=number, **kw: heard.append(n), weak=False, dispatch_uid="u")
    signal.send(None)
    assert heard == [0]
    assert signal.disconnect(dispatch_uid="u")
    assert not signal.disconnect(dispatch_uid="u")


def test_what_a_receiver_raises_is_logged_and_returned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    signal, heard = Signal(), []
    error = ValueError("mine")

    def bad(**kwargs: Any) -> None:
        raise error

    def good(**kwargs: Any) -> None:
        heard.append(1)

    signal.connect(bad)
    signal.connect(good)
    logger = logging.getLogger("celery.utils.dispatch.signal")
    logger.addHandler(caplog.handler)
    try:
        assert signal.send(None) == [(bad, error), (good, None)]
    finally:
        logger.removeHandler(caplog.handler)
    assert heard == [1]
    assert "raised: ValueError('mine')" in caplog.text


def test_a_receiver_must_take_keywords() -> None:
    with pytest.raises(ValueError, match="must accept keyword arguments"):
        Signal().connect(lambda sender: None)


@pytest.mark.slow
def test_a_retried_receiver_is_called_until_it_does_not_raise() -> None:
    signal, attempts = Signal(), []

    def flaky(**kwargs: Any) -> str:
        attempts.append(1)
        if len(attempts) < 2:
            raise ConnectionError
        return "done"

    signal.connect(flaky, retry=True)
    ((_, answer),) = signal.send(None)
    assert (answer, len(attempts)) == ("done", 2)
    assert signal.disconnect(flaky)


def test_a_lazy_sender_is_taken_when_it_is_there() -> None:
    signal, heard, real = Signal(), [], Listener()
    proxy: Any = PromiseProxy(lambda: real)

    def receiver(**kwargs: Any) -> None:
        heard.append(1)

    signal.connect(receiver, sender=proxy)
    assert proxy.heard == []
    signal.send(real)
    assert heard == [1]
