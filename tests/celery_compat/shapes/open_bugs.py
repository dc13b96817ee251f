"""Differences that are to be mended. Each is strict too: once it is gone, its line must go."""

from __future__ import annotations

from tests.celery_compat.shapes.accepted import Rules
from tests.celery_compat.shapes.compare import MISSING, Difference, Pair


def chord_in_a_body_group(found: Difference, pair: Pair) -> bool:
    """A chord in a body group whose header fails says ChordError, in Celery as the others there."""
    if "value" not in found.path or pair.ran(found):
        return False
    ours, theirs = (call["stored"]["value"] for call in pair.calls(found))
    return "ChordError" in ours and theirs[1][0].strip("\"'") in str(ours)


def error_links_of_a_body_chain(found: Difference, pair: Pair) -> bool:
    """A failed header calls those of a body chain's first step, in Celery those of the chain."""
    if found.theirs == MISSING or found.path == ("errbacks",):
        return any(chain[0] in str(found.ours) for chain in pair.waiting_chains)
    as_last = str(found.ours)
    for chain in pair.waiting_chains:
        as_last = as_last.replace(chain[0] or MISSING, chain[-1])
    return as_last == found.theirs


#: Name -> whether a difference is one of these.
RULES: Rules = {
    "chord in a body group": chord_in_a_body_group,
    "error links of a body chain": error_links_of_a_body_chain,
}
