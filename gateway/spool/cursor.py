"""Cursors: a named position for each uplink, and the document in which positions survive a restart.

A cursor that holds keeps records on the disk until it has acknowledged them. One that does not (a QoS 0 uplink, which
acknowledges nothing) is served from what there is, and may be overtaken.

A stored position is a hint that may be too low and never too high: what is lost of it comes back as duplicates.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

import orjson

from gateway.journal.frame import Head
from gateway.journal.reader import Place
from gateway.spool.record import Gap, Record

MOST_CURSORS = 64  # their document must fit into a slot
_NOBODY = 1 << 64
_MOST_LOSSES = 4  # of a cursor, that cannot be told as one: a disk that fails at four stops in a row


@dataclass(frozen=True, slots=True)
class Loss:
    """A gap that a cursor must be told of, and the epoch it happened in."""

    epoch: str
    gap: Gap


Losses: TypeAlias = tuple[Loss, ...]


class Cursor:
    """Where an uplink stands. Made by `Queue.cursor`, and moved by the queue only, except for `rewind`.

    `committed`: everything up to it is acknowledged. `position`: the last record handed out. `losses`: what was given
    up before this cursor had acknowledged it, in order, until that has been reported and acknowledged in its turn.
    """

    __slots__ = ("ahead", "committed", "holds", "is_claimed", "losses", "name", "place", "position")

    def __init__(self, name: str, *, holds: bool, committed: int, losses: Losses = ()) -> None:
        self.name = name
        self.holds = holds
        self.committed = committed
        self.position = committed
        self.losses = losses
        self.is_claimed = False
        self.ahead: deque[Record] = deque()  # read from the disk and not handed out yet
        self.place: Place | None = None

    def __repr__(self) -> str:
        return f"Cursor({self.name!r}, holds={self.holds}, committed={self.committed}, position={self.position})"

    def rewind(self) -> None:
        """Go back to what is acknowledged: what was handed out since then will be handed out again."""
        if self.position != self.committed:
            self.position = self.committed
            self.ahead.clear()
            self.place = None

    def mark(self) -> Mark:
        """What is stored of this cursor."""
        return Mark(self.name, self.holds, self.committed, self.losses)


@dataclass(frozen=True, slots=True)
class Mark:
    """A cursor as it is stored. `islands`: what is acknowledged above `committed`, as (first, last), in order."""

    name: str
    holds: bool
    committed: int
    losses: Losses = ()
    islands: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Anchor:
    """By how many ms wall time runs ahead of monotonic time in a boot of the machine, once it was synchronised."""

    boot_id: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Wear:
    """What was ever written to the disk here, and on `day` (days since 1970, UTC) of that."""

    bytes: int = 0
    flushes: int = 0
    day: int = 0
    day_bytes: int = 0
    day_flushes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the spool must know at its next start: identity, starts, the numbers it may have used, and all cursors.

    No number above `ceiling` was given to a record, unless a frame or a cursor tells of it.
    """

    store: int
    start: int
    ceiling: int
    marks: tuple[Mark, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    wear: Wear = Wear()

    def document(self) -> bytes:
        """The state in JSON."""
        return orjson.dumps(
            {
                "store": f"{self.store:06x}",
                "start": self.start,
                "ceiling": self.ceiling,
                "cursors": [
                    [m.name, m.holds, m.committed, [_row(loss) for loss in m.losses], m.islands] for m in self.marks
                ],
                "anchors": [[anchor.boot_id.hex(), anchor.offset] for anchor in self.anchors],
                "wear": astuple(self.wear),
            }
        )

    @classmethod
    def parse(cls, document: bytes) -> State:
        """Read what `document` wrote. Raises ValueError on anything else."""
        try:
            d = orjson.loads(document)
            if not re.fullmatch("[0-9a-f]{6}", d["store"]):
                raise ValueError(f"{d['store']!r} is no identity of a store")
            return cls(
                store=int(d["store"], 16),
                start=int(d["start"]),
                ceiling=int(d["ceiling"]),
                marks=tuple(_mark(*row) for row in d["cursors"]),
                anchors=tuple(Anchor(bytes.fromhex(boot), int(offset)) for boot, offset in d.get("anchors", ())),
                wear=Wear(*map(int, d.get("wear", ()))),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the spool's state cannot be read: {error!r}") from error


class Cursors:
    """All cursors of a spool, and what follows from them.

    `acked`: what every cursor that holds has acknowledged; beyond all numbers where none holds. `low`: what nobody who
    is there to read needs any more. `is_held`: whether anyone holds; if not, nothing is stored.
    """

    __slots__ = ("_counted", "acked", "by_name", "is_held", "low")

    def __init__(self, marks: Sequence[Mark], head: int) -> None:
        self.by_name = {m.name: Cursor(m.name, holds=m.holds, committed=m.committed, losses=m.losses) for m in marks}
        self.changed(head)

    def changed(self, head: int) -> None:
        """Take notice that a cursor came, went, or holds no more."""
        # An uplink taken out of the file still holds what it had, until it is forgotten; but nobody reads for it.
        self._counted = tuple(c for c in self.by_name.values() if c.holds or c.is_claimed)
        self.is_held = any(c.holds for c in self._counted)
        self.settle(head)

    def settle(self, head: int) -> None:
        """Take notice that a cursor moved."""
        acked, low = head if self.is_held else _NOBODY, head
        for cursor in self._counted:
            committed = cursor.committed
            if committed < low:  # noqa: PLR1730 - once for each record acknowledged: a call would cost more
                low = committed
            if committed < acked and cursor.holds:
                acked = committed
        self.acked, self.low = acked, low

    @property
    def is_read(self) -> bool:
        """Whether anyone wants records at all."""
        return bool(self._counted)

    def marks(self) -> tuple[Mark, ...]:
        """What is stored of all of them."""
        return tuple(c.mark() for c in self.by_name.values())


def _mark(name: Any, holds: Any, committed: Any, rows: Any, islands: Any = ()) -> Mark:
    losses = tuple(Loss(str(row[0]), Gap(*row[1:])) for row in rows)
    ranges = tuple((int(first), int(last)) for first, last in islands)
    return Mark(str(name), bool(holds), int(committed), losses, ranges)


def _row(loss: Loss) -> list[Any]:
    gap = loss.gap
    return [loss.epoch, gap.first_seq, gap.last_seq, gap.first_time, gap.last_time, gap.count, gap.cause]


def lose(losses: Losses, committed: int, heads: Sequence[Head]) -> Losses:
    """A cursor's losses when these frames, the oldest on the disk, are evicted: it had acknowledged up to `committed`.

    Nothing is left on the disk before them, so earlier losses and this one are told as one.
    """
    for head in heads:
        earlier = [loss for loss in losses if committed < loss.gap.last_seq and loss.gap.first_seq <= head.last_seq]
        done = max(committed, earlier[-1].gap.last_seq if earlier else 0)
        if head.last_seq <= done:  # acknowledged, or a frame that was written twice
            continue
        first = max(head.first_seq, done + 1)
        gap = Gap(first, head.last_seq, head.min_time, head.max_time, min(head.count, head.last_seq - done), "evicted")
        for loss in reversed(earlier):
            gap = loss.gap.joined(gap)
        losses = (Loss(head.epoch, gap), *(loss for loss in losses if loss.gap.first_seq > head.last_seq))
    return losses


def lose_tail(losses: Losses, committed: int, gap: Gap, epoch: str) -> Losses:
    """A cursor's losses when the newest records are lost. Those on the disk before them are still to be handed out."""
    if gap.last_seq <= committed:
        return losses
    gap = gap.after(committed)
    if losses and losses[-1].epoch == epoch and losses[-1].gap.last_seq + 1 == gap.first_seq:
        return (*losses[:-1], Loss(epoch, losses[-1].gap.joined(gap)))
    return (*losses, Loss(epoch, gap))[-_MOST_LOSSES:]
