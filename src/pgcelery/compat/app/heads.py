"""The heads of messages that differ in little, each written once.

From one plain call of a task to the next, headers and properties are the same but for ids and the
texts of arguments. So what was written in full for the first is kept, with blanks in these places.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from json.encoder import encode_basestring_ascii as quote
from uuid import uuid4

from pgcelery.compat.message import Message, head_of, join

__all__ = ("Heads", "quote")

#: What stands in a head where a blank is to be; no application says that.
_MARK = uuid4().hex

#: Headers that are blanks.
_HEADERS = ("id", "group", "group_index", "root_id", "parent_id", "argsrepr", "kwargsrepr")

#: Most heads that are kept.
_KEPT = 1000


class Heads:
    """Those that are known, by all that they say but the blanks."""

    def __init__(self) -> None:
        self._known: dict[Hashable, str] = {}

    def write(self, key: Hashable, blanks: Mapping[str, str], body: bytes) -> bytes | None:
        """Give the payload of a message; None if the head for this key is not known.

        Args:
            key: What it was learnt by.
            blanks: By name, as JSON: `id`, `group`, `group_index`, `root_id`, `parent_id`,
                `argsrepr`, `kwargsrepr`, `reply_to`, `exchange`, `routing_key`, and those that
                it was learnt with.
            body: The encoded body.
        """
        head = self._known.get(key)
        return None if head is None else join(head % blanks, body)

    def learn(self, key: Hashable, message: Message, more: Collection[str] = ()) -> None:
        """Keep the head of a message that was made in full; `more` of its headers are blanks."""
        blank, blanks = _blank, (*_HEADERS, *more)
        headers = {**message.headers, **{name: blank(name) for name in blanks}}
        properties = {
            **message.properties,
            "correlation_id": blank("id"),
            "reply_to": blank("reply_to"),
            "delivery_info": {name: blank(name) for name in ("exchange", "routing_key")},
        }
        kinds = message.content_type, message.content_encoding
        text = head_of(Message(headers, properties, b"", *kinds)).replace("%", "%%")
        for name in (*blanks, "reply_to", "exchange", "routing_key"):
            text = text.replace(quote(blank(name)), f"%({name})s")
        if len(self._known) >= _KEPT:
            self._known = {}
        self._known[key] = text


def _blank(name: str) -> str:
    return f"{_MARK} {name}"
