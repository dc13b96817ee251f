from __future__ import annotations

import pickle

import billiard.exceptions
import celery.exceptions as theirs
import kombu.exceptions
import pytest

from pgcelery.compat import exceptions as ours
from pgcelery.compat.utils.serialization import (
    UnpickleableExceptionWrapper,
    celery_module,
    get_pickleable_exception,
    get_pickled_exception,
    jsonify,
    strtobool,
)


@pytest.mark.parametrize("name", sorted(theirs.__all__))
def test_every_name_of_celerys_is_there_with_the_same_ancestors(name: str) -> None:
    found, wanted = getattr(ours, name), getattr(theirs, name)
    if isinstance(wanted, type):
        assert [c.__name__ for c in found.__mro__] == [c.__name__ for c in wanted.__mro__]


def test_what_others_raise_is_what_we_catch() -> None:
    assert ours.SoftTimeLimitExceeded is billiard.exceptions.SoftTimeLimitExceeded
    assert ours.WorkerLostError is billiard.exceptions.WorkerLostError
    assert ours.OperationalError is kombu.exceptions.OperationalError
    assert not issubclass(ours.TimeoutError, TimeoutError)


@pytest.mark.parametrize(
    ("retry", "text"),
    [
        (ours.Retry("because"), "because"),
        (ours.Retry(exc=ValueError("no"), when=5), "Retry in 5s: ValueError('no')"),
        (ours.Retry(when=3), "Retry in 3s"),
        (ours.Retry(exc="text", when=1), "Retry in 1s: text"),
    ],
)
def test_a_retry_says_why_and_when(retry: ours.Retry, text: str) -> None:
    assert str(retry) == text
    assert str(pickle.loads(pickle.dumps(retry))).split(":")[0] == text.split(":")[0]


def test_exceptions_keep_what_they_were_given() -> None:
    reject = ours.Reject("why", requeue=True)
    assert (reject.reason, reject.requeue, reject.args) == ("why", True, ("why", True))
    assert repr(reject) == "reject requeue=True: why"
    assert repr(ours.NotRegistered("t")).startswith("Task of kind 't' never registered")
    exceeded = ours.MaxRetriesExceededError("m", task_args=[1], task_kwargs={"a": 2})
    assert (exceeded.task_args, exceeded.task_kwargs) == ([1], {"a": 2})
    assert ours.CeleryCommandException("m", exit_code=3).exit_code == 3
    with pytest.raises(ours.TaskError):
        ours.reraise(ours.TaskError, ours.TaskError("x"))


def test_stored_results_name_celerys_modules() -> None:
    assert celery_module(ours.ChordError.__module__) == "celery.exceptions"
    assert celery_module("pgcelery.exceptions") == "celery.exceptions"
    assert celery_module("builtins") == "builtins"
    assert celery_module(None) is None


class Stubborn(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("text")


def test_an_exception_that_does_not_pickle_is_wrapped_and_restored() -> None:
    wrapped = get_pickleable_exception(Stubborn(1, 2))
    assert isinstance(wrapped, UnpickleableExceptionWrapper)
    assert str(pickle.loads(pickle.dumps(wrapped))) == "Stubborn('text')"
    restored = get_pickled_exception(wrapped)
    assert type(restored).__name__ == "Stubborn"
    assert restored.args == ("text",)


def test_an_exception_that_pickles_is_left_alone() -> None:
    exc = KeyError("k")
    assert get_pickleable_exception(exc) is exc


def test_small_coercions() -> None:
    assert strtobool("Yes") is True
    assert strtobool("off") is False
    assert strtobool(3) == 3
    with pytest.raises(TypeError, match="Cannot coerce 'maybe' to type bool"):
        strtobool("maybe")
    assert jsonify({"a": (1, 2), "b": None}) == {"a": [1, 2], "b": None}
    with pytest.raises(ValueError, match="Unsupported type"):
        jsonify(object())
