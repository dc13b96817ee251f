"""Runs a program's `case_*` functions and prints what they returned or raised, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def attempt(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returned, or the exception it raised as text."""
    try:
        return call(*args, **kwargs)
    except Exception as exc:
        return f"raised {type(exc).__name__}: {exc}"


def run(namespace: dict[str, Any]) -> None:
    """Print {case: what it returned}; to be called at the end of a program."""
    found = {
        name.removeprefix("case_"): attempt(case)
        for name, case in list(namespace.items())
        if name.startswith("case_")
    }
    json.dump(found, sys.stdout, default=repr)
