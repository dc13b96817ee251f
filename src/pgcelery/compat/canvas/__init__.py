"""Canvas: calls as data, and workflows made of them.

Source: Celery 5.7, `celery.canvas`.
"""

from __future__ import annotations

from pgcelery.compat.canvas.chains import _chain, chain
from pgcelery.compat.canvas.chords import _chord, chord
from pgcelery.compat.canvas.groups import group
from pgcelery.compat.canvas.maps import _basemap, chunks, xmap, xstarmap
from pgcelery.compat.canvas.signature import Signature, maybe_signature, signature
from pgcelery.compat.canvas.stamping import StampingVisitor

__all__ = (
    "Signature",
    "StampingVisitor",
    "_basemap",
    "_chain",
    "_chord",
    "chain",
    "chord",
    "chunks",
    "group",
    "maybe_signature",
    "maybe_subtask",
    "signature",
    "subtask",
    "xmap",
    "xstarmap",
)

subtask = signature
maybe_subtask = maybe_signature
