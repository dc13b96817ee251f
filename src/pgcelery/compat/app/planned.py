"""The rest of a chain that was sent as a whole: seen as Celery's ``request.chain``, and cut short.

The steps wait in the database already, so a call does not carry them; `request.chain` is read when
somebody looks. A body that changes it (``self.request.chain = None`` ends the chain) gets its way:
with the call's outcome the steps that wait are forgotten, and those that it left are sent.
"""

from __future__ import annotations

from typing import Any

from kombu.serialization import prepare_accept_content

from pgcelery.compat._state import get_current_app, get_current_worker_task
from pgcelery.compat.message import decode
from pgcelery.compat.result import result_from_tuple
from pgcelery.compat.serialization import load

__all__ = ("PlannedChain", "hang_next", "is_changed", "steps_of")


class PlannedChain:
    """Descriptor of ``chain``: what was set on the request, else what is still to come."""

    def __get__(self, request: Any, owner: Any = None) -> Any:
        if request is None or not request.chain_link:
            return None
        steps = steps_of(get_current_app(), request.chain_link)
        if steps:
            vars(request)["chain"] = steps
        return steps


def steps_of(app: Any, link: dict[str, Any]) -> list[Any]:
    """Read the steps that follow, last one first; none if they were not written out."""
    head = app.engine.job(link["head"])
    if head is None:
        return []
    message = decode(head.payload)
    _, _, embed = load(
        message.body,
        message.content_type,
        message.content_encoding,
        prepare_accept_content(app.conf.accept_content),
        message.headers.get("compression"),
    )
    return list(embed.get("chain") or ())[: link["left"]]


def is_changed(request: Any) -> bool:
    """Whether the body wants another chain than the one that waits."""
    link, fields = request.chain_link, vars(request)
    if not link or "chain" not in fields:
        return False
    chain = fields["chain"]
    if not chain or len(chain) != link["left"]:
        return True
    return bool(chain[-1]["options"].get("task_id") != link["next"])


def hang_next(app: Any, request: Any) -> None:
    """List what sending the next step would have left among the children of the running task."""
    task = get_current_worker_task()
    for given in request.chain_link["trail"] if task is not None else ():
        task.add_trail(result_from_tuple(given, app))
