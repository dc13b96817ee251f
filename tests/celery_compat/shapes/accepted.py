"""The differences between Celery and pgcelery that are meant, each with its reason.

A rule accepts one difference, or does not. It looks at both traces, so that it accepts what follows
from its reason and nothing else. docs/compatibility-differences.md has a paragraph for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.celery_compat.shapes.compare import (
    MISSING,
    Difference,
    Pair,
    Trace,
    calls,
    differences,
)

Rules = dict[str, Callable[[Difference, Pair], bool]]


def unexplained(ours: Trace, theirs: Trace, rules: Rules) -> tuple[list[Difference], set[str]]:
    """Give the differences that no rule accepts, and the names of the rules that accepted some."""
    left, used = [], set()
    pair = Pair(ours, theirs)
    for found in differences(ours, theirs):
        name = next((name for name, rule in rules.items() if rule(found, pair)), None)
        if name is None:
            left.append(found)
        else:
            used.add(name)
    return left, used


def written_whole(found: Difference, pair: Pair) -> bool:
    """A step or a body is sent with what it waits for, by whoever sends that; in Celery by that."""
    ours, theirs = pair.calls(found)
    if found.part == "published" and found.leaf == "by":
        before = [ours["published"][found.path[4]]["parent_id"]]
        return found.ours in _senders(pair.ours, before) and found.theirs is not None
    if found.part == "published" and found.leaf == "published":
        return len(ours["runs"]) == len(theirs["runs"]) and len(found.ours) >= len(found.theirs)
    if found.leaf == "children" and "body" not in found.path:
        return _only_more_or_less(found)
    if len(found.path) == 2 and found.task and found.theirs == MISSING:  # never came up in Celery
        return all(one["runs"] == [] for one in found.ours)
    return False


def _senders(trace: Trace, names: list[str]) -> list[str | None]:
    return [
        call["published"][0]["by"]
        for name, call in calls(trace)
        if f"<{name}>" in names and call["published"]
    ]


def _only_more_or_less(found: Difference) -> bool:
    ours, theirs = found.ours, found.theirs
    return all(one in theirs for one in ours) or all(one in ours for one in theirs)


def last_member(found: Difference, pair: Pair) -> bool:
    """A body's parent is the last member of its header, in Celery the last one to end."""
    if found.leaf == "parent_id":
        return pair.same_header(found.ours, found.theirs)
    return found.leaf == "root_id" and pair.same_root(found.ours, found.theirs)


def kept_for_the_next(found: Difference, pair: Pair) -> bool:
    """A result that a body or a step waits for is stored, though the task says to ignore it."""
    _, theirs = pair.calls(found)
    if found.leaf == "ignore_result":
        return found.ours is False and found.theirs is True and "chord" in str(theirs["runs"])
    if found.part == "stored" and theirs["stored"]["state"] == "PENDING" and _is_ignored(theirs):
        return True
    if "value raised" in found.path:  # that of the member, which is there to be seen
        failed = [call for _, call in calls(pair.theirs) if "task_failure" in str(call["runs"])]
        return any(map(_is_ignored, failed)) and "ChordError" in str(pair.theirs["result"])
    without = str(found.ours)  # what a body of which only some were kept gets in Celery
    for name, call in calls(pair.theirs):
        if _is_ignored(call):
            for kept in pair.ours["tasks"].get(name, ()):
                without = without.replace(str(kept["stored"]["value"]), "None")
    return without == str(found.theirs)


def _is_ignored(call: Any) -> bool:
    return any(run["request"]["ignore_result"] for run in call["runs"] if "request" in run)


def ends_where_celery_hangs(found: Difference, pair: Pair) -> bool:
    """Whatever waits for what failed fails too; in Celery an outer chord may wait for ever."""
    if not pair.hangs:
        return False
    if isinstance(found.ours, list) and found.path in {("errbacks",), ("tasks", found.task)}:
        return found.theirs == MISSING or len(found.ours) > len(found.theirs)
    return found.path[0] == "result" or (bool(found.task) and not pair.ran(found))


def every_step_fails(found: Difference, pair: Pair) -> bool:
    """All that waits for what failed fails; Celery leaves all but the last step PENDING."""
    ours, theirs = (call["stored"] for call in pair.calls(found))
    both = [*calls(pair.theirs), *((name, call) for name, call in calls(pair.ours) if call["runs"])]
    said = [call["stored"].get("value") for _, call in both]
    return (
        found.part == "stored"
        and not pair.ran(found)
        and (theirs["state"], ours["state"]) == ("PENDING", "FAILURE")
        and any(_as_join_error(ours["value"]) == _as_join_error(value) for value in said)
    )


def join_error(found: Difference, pair: Pair) -> bool:
    """A ChordError says which task raised what; in Celery not if there are groups in the header."""
    if "value raised" in found.path or found.path[0] == "errbacks":
        return "Join error" in str(pair.theirs[found.path[0]])
    theirs = pair.calls(found)[1]["stored"]
    return "value" in found.path and "Join error" in str(theirs) and not pair.ran(found)


def _as_join_error(value: Any) -> str:
    return re.sub(r"Dependency <[^<>]*> raised ", "Join error: ", str(value))


def traceback_of_the_first(found: Difference, pair: Pair) -> bool:
    """What fails because of another has the traceback of that, in Celery only sometimes."""
    if found.path[0] == "errbacks":  # of the new style, which get the traceback as text
        return found.leaf == "traceback" and found.ours == "str"
    return found.leaf == "traceback" and found.ours is True and not pair.ran(found)


def rejected_where_it_ran(found: Difference, pair: Pair) -> bool:
    """The process that ran a rejected task tells of it; in Celery its parent, which got a copy."""
    return not {"exception", "exc"}.isdisjoint(found.path) and "RemoteTrace" in str(found.theirs)


_MADE_UP = ("celery.chain", "celery.chord", "celery.group", "unknown")


def errback_of_what_never_ran(found: Difference, pair: Pair) -> bool:
    """An error link of a body that never ran has its root; in Celery that is the root."""
    if found.path[0] == "errbacks":  # of the new style; in Celery the request is made up
        made_up = found.leaf in ("root_id", "parent_id") and found.theirs is None
        made_up |= found.leaf == "task" and found.theirs in _MADE_UP
        return made_up or (found.leaf == "by" and found.ours is None)
    theirs = pair.calls(found)[1]
    failed = [run["args"][0] for run in theirs["runs"] if run["args"]]
    ran = [f"<{name}>" for name, call in calls(pair.theirs) if call["runs"]]
    if not failed or failed[0] in ran:
        return False
    if found.leaf in ("group", "group_index"):  # they are sent as a group, others may be in it
        return True
    if found.leaf == "root_id":
        return bool(found.theirs == failed[0])
    return found.leaf == "by" and found.ours is None and found.theirs in ran


def after_a_replacement(found: Difference, pair: Pair) -> bool:
    """The steps after one that is replaced were sent before; in Celery by what replaces it."""
    asked = [run["request"] for run in pair.calls(found)[1]["runs"] if "request" in run]
    if not any(one["replaced_task_nesting"] for one in asked):
        return False
    if found.leaf == "replaced_task_nesting":
        return bool(found.ours < found.theirs)
    if found.leaf == "group":  # in Celery that of the header whose body the steps became part of
        return found.ours is None
    if found.path[-2:] == ("request", "chain"):
        return bool(found.theirs[len(found.theirs) - len(found.ours) :] == found.ours)
    return found.path[-2] == "chord" and MISSING in (found.ours, found.theirs)


#: Name -> whether a difference is accepted.
RULES: Rules = {
    "written whole": written_whole,
    "last member": last_member,
    "kept for the next": kept_for_the_next,
    "ends where Celery hangs": ends_where_celery_hangs,
    "every step fails": every_step_fails,
    "join error": join_error,
    "traceback of the first": traceback_of_the_first,
    "rejected where it ran": rejected_where_it_ran,
    "errback of what never ran": errback_of_what_never_ran,
    "after a replacement": after_a_replacement,
}
