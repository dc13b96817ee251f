"""The rules of one task, compiled: from the arguments of a call to the fields of its job."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kombu.utils.json import dumps

from pgcelery.compat.app.envelope import MAX_TEXT, check_text
from pgcelery.compat.app.rules.expressions import Call
from pgcelery.compat.app.rules.keys import Key, Parameters, call_of_user, check_key
from pgcelery.compat.app.rules.options import (
    STRATEGIES,
    Concurrency,
    Placement,
    RateLimit,
    Unique,
    check_count,
)
from pgcelery.engine import Gate
from pgcelery.engine import Unique as UniqueJob

__all__ = ("Declared", "TaskRules", "engine_key")


#: Most limits of one task; the engine's.
MAX_GATES = 8

_READABLE_SCOPE = 180

#: Makes the gate of a call; the mapping has the options of the call.
MakeGate = Callable[[Call, Mapping[str, Any]], Gate]


class Declared(NamedTuple):
    """What a task or the configuration says, checked."""

    concurrency: tuple[Concurrency, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    unique: Unique | None = None
    placement: Placement | None = None


class TaskRules:
    """The rules of one task.

    Args:
        name: The task's.
        declared: What it says.
        parameters: Its function's; None if they are not known.

    Raises:
        ValueError: A key names a parameter that there is not, two limits have the same name, or
            there are more than 8.
    """

    def __init__(self, name: str, declared: Declared, parameters: Parameters | None) -> None:
        self.name, self.declared, self._parameters = name, declared, parameters
        self._gates: list[MakeGate] = []
        self._names: list[str] = []
        self._slot_names: list[str] = []
        for rule in declared.concurrency:
            self._slot_names.append(self._gate_name(rule.name, rule._key, ""))
            self._gates.append(self._slots_of(rule, self._slot_names[-1]))
        for rate in declared.rate_limits:
            gate_name = self._gate_name(rate.name, rate._key, ":rate")
            self._gates.append(self._rate_of(rate, gate_name))
        if len(self._gates) > MAX_GATES:
            raise ValueError(f"task {name} has {len(self._gates)} limits; {MAX_GATES} at most")
        self._unique = None
        if declared.unique is not None:
            self._unique = self._unique_of(declared.unique)

    # -- compiling

    def _gate_name(self, name: str | None, key: Key | None, suffix: str) -> str:
        own = (self.name if key is None or key.constant is None else key.constant) + suffix
        found = check_text(
            f"the name of a limit of task {self.name}", own if name is None else name
        )
        if found in self._names:
            raise ValueError(
                f"task {self.name} has two limits named {found!r}: give one a name= of its own"
            )
        self._names.append(found)
        return found

    def _key_of(self, key: Key | None, named: str | None) -> Callable[[Call], str]:
        """Give the key within a limit: "" where the limit's name says it all."""
        if key is None or (key.constant is not None and named is None):
            return lambda call: ""
        return key.compile(self.name, self._parameters)

    def _slots_of(self, rule: Concurrency, name: str) -> MakeGate:
        key_of, limit = self._key_of(rule._key, rule.name), rule.limit
        what = f"the concurrency limit {name!r} of task {self.name}"
        limit_of = call_of_user(what, limit) if callable(limit) else None
        strategy, weight = int(STRATEGIES[rule.strategy]), float(rule.weight)

        def make(call: Call, options: Mapping[str, Any]) -> Gate:
            key = _given_key(
                f"concurrency_key for task {self.name}", name, options["concurrency_key"]
            )
            slots: Any = options["concurrency_limit"]
            if slots is None:
                slots = limit if limit_of is None else rule.check_limit(what, limit_of(call))
            else:
                slots = check_count(f"concurrency_limit for task {self.name}", slots)
            return Gate(name, key_of(call) if key is None else key, slots, weight, strategy)

        return make

    def _rate_of(self, rule: RateLimit, name: str) -> MakeGate:
        key_of = self._key_of(rule._key, rule.name)
        what = f"the rate limit {name!r} of task {self.name}"
        limit, own_units = rule.limit, rule.units
        limit_of = call_of_user(what, limit) if callable(limit) else None
        fixed = rule.window == "fixed"
        units_of = call_of_user(f"the units of {what}", own_units) if callable(own_units) else None

        def make(call: Call, options: Mapping[str, Any]) -> Gate:
            key = _given_key(f"rate_key for task {self.name}", name, options["rate_key"])
            rate = rule.read(what, limit if limit_of is None else limit_of(call))
            units: Any = options["rate_units"]
            if units is None:
                units = own_units if units_of is None else units_of(call)
            units = check_count(f"the units of {what}", units)
            return Gate(
                name,
                key_of(call) if key is None else key,
                rate=rate.units,
                period_s=rate.period_s,
                burst=rule.burst_of(what, rate, units),
                fixed=fixed,
                units=units,
            )

        return make

    def _unique_of(self, rule: Unique) -> Callable[[Call, Any], UniqueJob]:
        scope = self._unique_scope(rule)
        if rule._key is None:
            key_of: Callable[[Call], str] = self._arguments
        elif rule._key.constant is not None and rule.name is None:
            key_of = lambda call: ""  # noqa: E731
        else:
            key_of = rule._key.compile(self.name, self._parameters)
        until, for_s = rule._until, rule._for_s

        def make(call: Call, given: Any) -> UniqueJob:
            if given is None:
                key = key_of(call)
            else:
                key = check_key(f"unique_key for task {self.name}", given)
            return UniqueJob(engine_key(scope, key), until, for_s)

        return make

    def _unique_scope(self, rule: Unique) -> str:
        if rule.name is not None:
            return rule.name
        constant = None if rule._key is None else rule._key.constant
        return self.name if constant is None else constant

    def _arguments(self, call: Call) -> str:
        """Say the arguments in the one way there is."""
        known = self._parameters
        said = (
            [list(call.args), call.kwargs]
            if known is None
            else known.normal(call.args, call.kwargs)
        )
        try:
            return str(dumps(said, sort_keys=True, separators=(",", ":")))
        except Exception as exc:
            raise TypeError(
                f"task {self.name} is unique by its arguments, and these cannot be written as JSON "
                f"({exc}): give Unique(key=...), or unique_key= with the call"
            ) from exc

    # -- a call

    def fields(self, call: Call, options: Mapping[str, Any], *, alone: bool) -> dict[str, Any]:
        """Give the fields of the `NewJob` of a call.

        Args:
            call: Its arguments.
            options: The `CALL_OPTIONS` it came with; all of them, None for what was not given.
            alone: Whether it is in no canvas, so that it may be unique.

        Raises:
            TypeError: A key, limit or option of a wrong type came out.
            ValueError: One that is out of range, or a function of the application raised.
        """
        self._check(options)
        found: dict[str, Any] = {}
        gates = self._gates
        if gates:
            found["gates"] = tuple([make(call, options) for make in gates])
        placement = self.declared.placement
        if options["placement"] is not None:
            placement = options["placement"]
        if placement:
            found["placement"], found["sticky"] = placement._text, placement._sticky
        if alone and self._unique is not None:
            found["unique"] = self._unique(call, options["unique_key"])
        return found

    def _check(self, options: Mapping[str, Any]) -> None:
        """Refuse options about limits that the task does not have."""
        key = options["concurrency_key"]
        if key is not None or options["concurrency_limit"] is not None:
            self._check_concurrency(key)
        for option in ("rate_key", "rate_units"):
            if options[option] is not None and not self.declared.rate_limits:
                raise TypeError(
                    f"{option} needs a task with rate_limits=RateLimit(...): {self.name}"
                )

    def _check_concurrency(self, key: Any) -> None:
        names = self._slot_names
        if not names:
            raise TypeError(
                f"concurrency_key needs a task with concurrency=Concurrency(...), or "
                f"concurrency_limit= with it: {self.name}"
            )
        if isinstance(key, Mapping):
            unknown = [name for name in key if name not in names]
            if unknown:
                raise ValueError(
                    f"concurrency_key for task {self.name} names {unknown[0]!r}; its limits are "
                    f"{', '.join(names)}"
                )
        elif len(names) > 1:
            raise TypeError(
                f"task {self.name} has several concurrency limits: say which, as "
                f"concurrency_key={{{names[0]!r}: ...}}"
            )


def _given_key(what: str, name: str, given: Any) -> str | None:
    """Give the key that a call brings for the limit of this name."""
    if isinstance(given, Mapping):
        given = given.get(name)
    return None if given is None else check_key(what, given)


def engine_key(scope: str, key: str) -> str:
    """Put a unique key under the name that it is compared under; long ones become a digest."""
    text = f"{scope}={key}"
    if len(text) <= MAX_TEXT and "=" not in scope and text.isprintable():
        return text
    digest = hashlib.sha256(f"{len(scope)}:{scope}{key}".encode()).hexdigest()
    return f"{scope[:_READABLE_SCOPE]}#{digest}"
