"""Differences that are to be mended. Each is strict too: once it is gone, its line must go."""

from __future__ import annotations

from tests.celery_compat.shapes.accepted import Rules
from tests.celery_compat.shapes.compare import MISSING, Difference, Pair, requests


def root_of_a_body(found: Difference, pair: Pair) -> bool:
    """A body after a chain or chord gets its last task for a root, in Celery the root of that."""
    return found.leaf == "root_id" and pair.root_of_member(found.theirs, found.ours)


def parent_of_a_first_step(found: Difference, pair: Pair) -> bool:
    """The first step of a chain that waits has no parent, in Celery what it waited for."""
    first = f"<{found.task}>" in pair.heads
    ours = (None, "<t0>", f"<{found.task}>")  # itself, after a retry
    return first and found.leaf in ("parent_id", "by") and found.ours in ours


def failure_of_the_ignored(found: Difference, pair: Pair) -> bool:
    """What ignores its result and fails with what it waits for shows as lost, or PENDING."""
    if found.path[0] == "result":
        return "WorkerLostError" in str(pair.ours["result"])
    ours, theirs = (str(call["stored"]) for call in pair.calls(found))
    failed = "FAILURE" in theirs and ("WorkerLostError" in ours or "PENDING" in ours)
    return found.part == "stored" and failed and not pair.ran(found)


def error_links_of_a_body_chain(found: Difference, pair: Pair) -> bool:
    """A failed header calls those of a body chain's first step, in Celery those of the chain."""
    if found.theirs == MISSING or found.path == ("errbacks",):
        return any(chain[0] in str(found.ours) for chain in pair.waiting_chains)
    as_last = str(found.ours)
    for chain in pair.waiting_chains:
        as_last = as_last.replace(chain[0] or MISSING, chain[-1])
    return as_last == found.theirs


def traceback_of_a_body(found: Difference, pair: Pair) -> bool:
    """A body after a failed step has no traceback, in Celery that of the step."""
    return (found.leaf, found.ours, found.theirs) == ("traceback", False, True)


def replaced_by_the_ignored(found: Difference, pair: Pair) -> bool:
    """A body never runs when what a header member was replaced by keeps no result."""
    asked = [asked for _, asked in requests(pair.theirs) if asked["chord"]]
    there = any(one["replaced_task_nesting"] and one["ignore_result"] for one in asked)
    return there and not pair.calls(found)[0]["runs"]


def encode_error(found: Difference, pair: Pair) -> bool:
    """The EncodeError of a result has a text, in Celery the serializer's error."""
    return "EncodeError" in str(pair.theirs) and "not JSON serializable" in f"{found}"


#: Name -> whether a difference is one of these.
RULES: Rules = {
    "root of a body": root_of_a_body,
    "parent of a first step": parent_of_a_first_step,
    "failure of the ignored": failure_of_the_ignored,
    "error links of a body chain": error_links_of_a_body_chain,
    "traceback of a body": traceback_of_a_body,
    "replaced by the ignored": replaced_by_the_ignored,
    "encode error": encode_error,
}
