"""The state's document, cut down where it would grow too large: it goes into every frame and into a slot by itself.

One block is the aim, so that saving it costs one. First go the islands, which costs duplicates; then each cursor's
losses become one, which costs detail; what is left then of 64 cursors always fits into a slot, if not into a block.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import reduce

from gateway.journal.frame import BLOCK, HEAD_LENGTH
from gateway.spool.cursor import State
from gateway.spool.losses import Loss, Losses

_ROOM = BLOCK - HEAD_LENGTH - 64  # what surrounds a document in a slot


def fitted(state: State) -> bytes:
    """The document of the state, or of what of it fits into a block. Never raises."""
    document = state.document()
    if _fits(document):
        return document
    bare = replace(state, marks=tuple(replace(mark, islands=()) for mark in state.marks))
    document = bare.document()
    if _fits(document):
        return document
    return replace(bare, marks=tuple(replace(m, losses=_told_as_one(m.losses)) for m in bare.marks)).document()


def _fits(document: bytes) -> bool:
    return len(document) <= _ROOM or len(zlib.compress(document, 1)) <= _ROOM


def _told_as_one(losses: Losses) -> Losses:
    """The losses as one: what lies between is handed out as long as it is there. Times away stay as they are."""
    absent = [loss for loss in losses if loss.is_absence]
    others = [loss for loss in losses if not loss.is_absence]
    joined = [reduce(_joined, others)] if others else []
    return tuple(sorted([*absent, *joined], key=lambda loss: loss.gap.first_seq))


def _joined(one: Loss, other: Loss) -> Loss:
    return Loss(other.epoch, one.gap.joined(other.gap))
