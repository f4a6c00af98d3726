"""Cursors: a named position for each uplink, and the document in which positions survive a restart.

A cursor that holds keeps records on the disk until it has acknowledged them. One that does not (a QoS 0 uplink, which
acknowledges nothing) is served from what there is, and may be overtaken.

A queue is read through readings: the cursor itself is the one that goes through everything in order; others may run
ahead of it. What they acknowledge stands as islands above `committed` until the two meet.

A stored position is a hint that may be too low and never too high: what is lost of it comes back as duplicates.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import orjson

from gateway.journal.reader import Place
from gateway.spool.islands import Islands, absorb, add, beyond, largest
from gateway.spool.losses import Loss, Losses, absences, miss
from gateway.spool.record import Gap, Record, Regime

MOST_CURSORS = 64  # their document must fit into a slot
NEVER = 1 << 64
"""Beyond all numbers of records."""

_MOST_ISLANDS = 64
_STORED_ISLANDS = 8


class Span(NamedTuple):
    """From when to when, wall time in ms, both included."""

    first_ms: int
    last_ms: int

    def holds(self, time: int) -> bool:
        """Whether that moment lies in it."""
        return self.first_ms <= time <= self.last_ms


class Reading:
    """One head that reads for a cursor, and where it stands. Made by `Cursor.branch`; moved by the queue only.

    It hands out what lies above `after` up to `until`, and what it acknowledges is acknowledged from `after` on.
    `position`: the last record handed out. `stop`: up to there nothing must be stepped over. With a `span`, it is
    everything of that time that there is, acknowledged or not, and it acknowledges nothing.
    """

    __slots__ = ("after", "ahead", "cursor", "place", "position", "span", "stop", "until")

    def __init__(self, cursor: Cursor, after: int, until: int = NEVER, span: Span | None = None) -> None:
        self.cursor = cursor
        self.after = after
        self.until = until
        self.span = span
        self.ahead: deque[Record] = deque()  # read from the disk and not handed out yet
        self.place: Place | None = None
        self.position = after
        self.stop = until

    def __repr__(self) -> str:
        return f"<Reading of {self.cursor.name!r} at {self.position}, from {self.after} until {self.until}>"

    @property
    def is_done(self) -> bool:
        """Whether it has handed out everything it was made for."""
        return self.position >= self.until and not self.ahead

    def go_to(self, position: int) -> None:
        """Hand out, from now on, what lies above `position`."""
        self.position = position
        self.ahead.clear()
        self.place = None
        self.aim()

    def aim(self) -> None:
        """Find out up to where nothing must be stepped over."""
        self.stop = self.until
        if self.span is None and (self.cursor.islands or self.cursor.losses):
            position = self.position
            for first, _ in (*self.cursor.islands, *absences(self.cursor.losses)):
                if position < first <= self.stop:
                    self.stop = first - 1

    def step(self) -> Loss | None:
        """Having come to `stop`, step over what is acknowledged, or over a time away: then that is to be told."""
        position = self.position
        found = next((loss for loss in self.cursor.losses if loss.is_absence and loss.covers(position + 1)), None)
        end = beyond(self.cursor.islands, position) if found is None else found.gap.last_seq
        self.position = min(end, self.until)
        self.aim()
        return found


class Cursor(Reading):
    """Where an uplink stands. Made by `Queue.cursor`, and moved by the queue only, except for `rewind`.

    `committed`: everything up to it is acknowledged; `islands`: ranges above it that are. `losses`: what was given up
    before this cursor had acknowledged it, in order, until that has been reported and acknowledged in its turn.
    `holds_until`: of one whose uplink is gone from the file, the last record that it holds.
    """

    __slots__ = ("committed", "holds", "holds_until", "is_claimed", "islands", "losses", "name")

    def __init__(self, name: str, *, holds: bool, committed: int, losses: Losses = ()) -> None:
        self.name = name
        self.holds = holds
        self.committed = committed
        self.islands: Islands = []
        self.losses = losses
        self.holds_until: int | None = None
        self.is_claimed = False
        super().__init__(self, after=0)
        self.position = committed

    def __repr__(self) -> str:
        return f"Cursor({self.name!r}, holds={self.holds}, committed={self.committed}, position={self.position})"

    def rewind(self, until: int = NEVER) -> None:
        """Go back to what is acknowledged: what was handed out since then will be handed out again, up to `until`."""
        self.until = until
        self.go_to(self.committed)

    def branch(self, after: int, until: int = NEVER, span: Span | None = None) -> Reading:
        """Another head, that begins behind `after`."""
        reading = Reading(self, after, until, span)
        reading.aim()
        return reading

    def acknowledge(self, after: int, seq: int) -> None:
        """Everything above `after` up to `seq` is acknowledged; that is above `committed`."""
        if after <= self.committed:
            self.committed = seq = absorb(self.islands, seq) if self.islands else seq
            if self.position < seq:  # noqa: PLR1730 - once for each record acknowledged: a call would cost more
                self.position = seq
        else:
            add(self.islands, after + 1, seq)
            if len(self.islands) > _MOST_ISLANDS:
                self.islands[:] = largest(self.islands, _MOST_ISLANDS)
        if self.losses and self.losses[0].gap.last_seq <= self.committed:
            self.losses = tuple(loss for loss in self.losses if loss.gap.last_seq > self.committed)

    @property
    def spared(self) -> tuple[tuple[int, int], ...]:
        """Ranges above `committed` whose loss is none to it."""
        return _spared(self.islands, self.holds_until)

    def beyond(self, seq: int) -> int:
        """The last number up to which it wants nothing of what lies above `seq`."""
        seq = max(seq, self.committed)
        known = [*self.islands, *absences(self.losses)]
        while (end := beyond(known, seq)) > seq:
            seq = end
        return seq if self.holds_until is None or seq < self.holds_until else NEVER

    def claim(self, head: int, epoch: str, now_ms: int) -> None:
        """Its uplink is there. If it was gone for a while, what came meanwhile is a loss to it."""
        self.is_claimed = True
        known = [last for _, last in absences(self.losses)]  # of being away before, and nothing was stored since
        if self.holds_until is not None and head > (last := max(self.holds_until, self.committed, *known)):
            gap = Gap(last + 1, head, 0, now_ms, head - last, "overtaken")
            self.losses = miss(self.losses, gap, epoch)
        self.holds_until = None
        self.aim()

    def mark(self) -> Mark:
        """What is stored of this cursor."""
        islands = largest(self.islands, _STORED_ISLANDS)
        return Mark(self.name, self.holds, self.committed, self.losses, islands, self.holds_until)


@dataclass(frozen=True, slots=True)
class Mark:
    """A cursor as it is stored. `islands`: what is acknowledged above `committed`, as (first, last), in order."""

    name: str
    holds: bool
    committed: int
    losses: Losses = ()
    islands: tuple[tuple[int, int], ...] = ()
    holds_until: int | None = None

    @property
    def spared(self) -> tuple[tuple[int, int], ...]:
        """Ranges above `committed` whose loss is none to it."""
        return _spared(self.islands, self.holds_until)


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

    No number above `ceiling` was given to a record, unless a frame or a cursor tells of it. `seen` is the newest wall
    time (ms) that was believed; `uncorrected` are clocks that could not be right, and by which records were sent.
    """

    store: int
    start: int
    ceiling: int
    marks: tuple[Mark, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    seen: int = 0
    uncorrected: tuple[Regime, ...] = ()
    wear: Wear = Wear()

    def document(self) -> bytes:
        """The state in JSON."""
        return orjson.dumps(
            {
                "store": f"{self.store:06x}",
                "start": self.start,
                "ceiling": self.ceiling,
                "cursors": [
                    [m.name, m.holds, m.committed, [_row(loss) for loss in m.losses], m.islands, m.holds_until]
                    for m in self.marks
                ],
                "anchors": [[anchor.boot_id.hex(), anchor.offset] for anchor in self.anchors],
                "seen": self.seen,
                "uncorrected": [[regime.boot_id.hex(), regime.offset] for regime in self.uncorrected],
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
                seen=int(d.get("seen", 0)),
                uncorrected=tuple(
                    Regime(bytes.fromhex(boot), int(offset), is_plausible=False)
                    for boot, offset in d.get("uncorrected", ())
                ),
                wear=Wear(*map(int, d.get("wear", ()))),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the spool's state cannot be read: {error!r}") from error


class Cursors:
    """All cursors of a spool, and what follows from them.

    `floor`: what every cursor that holds has acknowledged without exception, and so have those whose uplinks are gone;
    beyond all numbers where none holds. `firm`: the same without those whose uplinks are gone. `acked`: above what is
    on the disk already, up to where those that hold need nothing written; there, islands count. `low`: what nobody who
    is there to read needs any more. `is_held`: whether anyone holds what is new; if not, nothing is stored.
    """

    __slots__ = ("_counted", "_retired", "_unwritten", "acked", "by_name", "firm", "floor", "is_held", "low")

    def __init__(self, marks: Sequence[Mark], head: int) -> None:
        self.by_name: dict[str, Cursor] = {}
        for mark in marks:
            cursor = Cursor(mark.name, holds=mark.holds, committed=mark.committed, losses=mark.losses)
            cursor.islands[:] = mark.islands
            cursor.holds_until = mark.holds_until
            cursor.aim()
            self.by_name[mark.name] = cursor
        self.changed(head, head)

    def changed(self, head: int, written: int) -> None:
        """Take notice that a cursor came, went, or holds no more."""
        # An uplink taken out of the file holds on, until it is known to be out of it; but nobody reads for it.
        gone = [c for c in self.by_name.values() if c.holds and not c.is_claimed and c.holds_until is not None]
        # What it holds may be in memory only: until that is written it counts as if it were there.
        self._unwritten = max((c.holds_until or 0 for c in gone), default=0)
        if self._unwritten <= written:
            self._unwritten = 0
        self._retired = () if self._unwritten else tuple(gone)
        counted = (c for c in self.by_name.values() if c.is_claimed or c.holds)
        self._counted = tuple(c for c in counted if c not in self._retired)
        self.is_held = any(c.holds for c in self._counted)
        self.settle(head, written)

    def settle(self, head: int, written: int) -> None:
        """Take notice that a cursor moved, or more is on the disk: up to `written`."""
        if 0 < self._unwritten <= written:
            self.changed(head, written)
            return
        acked, low = head if self.is_held else NEVER, head
        floor = acked
        for cursor in self._counted:
            committed = cursor.committed
            if committed < low:  # noqa: PLR1730 - once for each record acknowledged: a call would cost more
                low = committed
            if cursor.holds:
                if committed < floor:  # noqa: PLR1730 - likewise
                    floor = committed
                if (cursor.islands or cursor.losses) and committed < written:
                    committed = cursor.beyond(written)
                if committed < acked:  # noqa: PLR1730 - likewise
                    acked = committed
        self.firm = floor
        for cursor in self._retired:
            if cursor.committed < min(floor, cursor.holds_until or 0):
                floor = cursor.committed
        self.acked, self.floor, self.low = acked, floor, low

    @property
    def is_read(self) -> bool:
        """Whether anyone wants records at all."""
        return bool(self._counted)

    def marks(self) -> tuple[Mark, ...]:
        """What is stored of all of them."""
        return tuple(c.mark() for c in self.by_name.values())


def _spared(islands: Sequence[tuple[int, int]], holds_until: int | None) -> tuple[tuple[int, int], ...]:
    return tuple(islands) if holds_until is None else (*islands, (holds_until + 1, NEVER))


def _mark(
    name: Any, holds: Any, committed: Any, rows: Any, islands: Any = (), holds_until: Any = None, *_later: Any
) -> Mark:
    losses = tuple(Loss(str(row[0]), Gap(*row[1:])) for row in rows)
    ranges = tuple((int(first), int(last)) for first, last in islands)
    until = None if holds_until is None else int(holds_until)
    return Mark(str(name), bool(holds), int(committed), losses, ranges, until)


def _row(loss: Loss) -> list[Any]:
    gap = loss.gap
    return [loss.epoch, gap.first_seq, gap.last_seq, gap.first_time, gap.last_time, gap.count, gap.cause]
