"""The backlog: records that have left memory, read back from the disk for one cursor. Runs in the reading thread.

A frame says from which number on it accounts for everything. A hole below that is a loss, and becomes a gap record; a
hole inside was acknowledged by all who held. Between the last frame of one epoch and the first of the next those
numbers were never used, or acknowledged, or within the loss window of a power cut. Only where the later frame counts
more records as written before it than the frames before it hold, they have been there, and are lost.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from gateway.journal.frame import EPOCH_START, Head
from gateway.journal.reader import Found, Place, Reader
from gateway.model import Definition
from gateway.spool.cursor import NEVER, Span
from gateway.spool.losses import Losses, gap_between
from gateway.spool.payload import decode
from gateway.spool.record import Gap, Record, gap_record
from gateway.spool.timeline import regime_of_head

log = logging.getLogger("headgate.spool")

_MOST_BYTES = 512 * 1024  # of payload, in one go
_MOST_FRAMES = 64
_MOST_DEFINITIONS = 4096
_SYNCED = 2


@dataclass(frozen=True, slots=True)
class Request:
    """What a reading asks for: `n` records above `position` up to `until`, and on the way to be told of its `losses`.

    With a `span`, frames that the clock says are of another time are passed over.
    """

    position: int
    holds: bool
    losses: Losses
    place: Place | None
    n: int
    until: int = NEVER
    span: Span | None = None


@dataclass(slots=True)
class Fetched:
    """Records in order, and where to go on. A frame is handed out whole, so there may be more than was asked for.

    `position`: everything up to it was looked at; as far as it was when the disk has no more.
    """

    records: list[Record] = field(default_factory=list)
    place: Place | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class _Vanished:
    """How many records are proved to be missing, 0 where nothing is, and the epoch of the last one before them."""

    count: int
    epoch: str


_NOTHING_KNOWN = _Vanished(0, "")


class Backlog:
    """Fetches records from the journal. `reader` is used by one thread at a time."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._definitions: dict[bytes, Definition | None] = {}

    def fetch(self, request: Request) -> Fetched:
        """The next records above the position, as far as the disk has them; none means there are no more."""
        fetched = Fetched(place=request.place, position=request.position)
        size = 0
        for _ in range(_MOST_FRAMES):
            if len(fetched.records) >= request.n or size > _MOST_BYTES or fetched.position >= request.until:
                break
            found = self._reader.after(fetched.position, fetched.place)
            vanished = self._vanished(found, fetched.position)
            loss = _loss(found, fetched.position, request.losses)
            if loss is not None:
                _deliver_before(fetched, _between_starts(found, fetched.position, vanished), loss, request)
                _deliver(fetched, loss, request)
                continue
            hole = _hole(found, fetched.position, vanished)
            if hole is not None:
                _deliver(fetched, hole if request.holds or found.damaged is not None else _overtaken(hole), request)
            if found.head is None or found.body is None or found.place is None:
                break
            size += len(found.body.payload)
            if found.head.covers_from <= request.until and not _is_elsewhere(found.head, request.span):
                self._unpack(fetched, found.head, found, request)
            if found.head.last_seq <= request.until:
                fetched.place = found.place
            fetched.position = max(fetched.position, min(found.head.last_seq, request.until))
        return fetched

    def _vanished(self, found: Found, position: int) -> _Vanished:
        """What is missing between the position and the frame found, by what the frames around it have counted."""
        head = found.head
        last = None
        if head is not None and head.covers_from > position + 1:
            last = self._reader.before(position)
        if head is None or last is None or last.level:  # of what was thinned nobody can tell: that is less on purpose
            return _NOTHING_KNOWN
        count = head.ordinal - last.ordinal - last.count - (position - last.last_seq)
        return _Vanished(max(0, count), last.epoch)

    def _unpack(self, fetched: Fetched, head: Head, found: Found, request: Request) -> None:
        records = self._decoded(head, found)
        if head.level and head.last_seq > request.until:
            records = _cut(records, request.until)
        for record in records:
            if not request.holds:
                _overtake(fetched, record, head, request)
            _deliver(fetched, record, request)

    def _decoded(self, head: Head, found: Found) -> list[Record]:
        for key, entry in found.entries.items():
            self._learn(key, entry)
        payload = found.body.payload if found.body is not None else b""
        near = head.segment
        try:
            return decode(head, payload, lambda key: self._definition(key, near))
        except ValueError as error:
            log.warning("records %d to %d are lost: %s", head.first_seq, head.last_seq, error)
            return [_lost(head, head.first_seq)]

    def _definition(self, key: bytes, near: int) -> Definition | None:
        """A definition by its hash; where the frame that brought it is damaged, any other segment's copy will do."""
        if key not in self._definitions:
            entry = self._reader.entry(key, near)
            if entry is None:
                log.warning("the definition %s is nowhere to be found: its records cannot be read", key.hex())
            self._learn(key, entry)
        return self._definitions[key]

    def _learn(self, key: bytes, entry: bytes | None) -> None:
        if self._definitions.get(key) is not None:
            return
        if len(self._definitions) >= _MOST_DEFINITIONS:
            self._definitions.clear()
        self._definitions[key] = None
        if entry is not None:
            try:
                self._definitions[key] = Definition.from_document(entry)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("the definition %s cannot be read: %r", key.hex(), error)


def _deliver(fetched: Fetched, record: Record, request: Request) -> None:
    """Append a record, where it lies above the position and not beyond the end; of a gap, that part.

    A gap of thinned records is told as a whole: between its numbers stand others that are there.
    """
    if record.seq <= fetched.position or fetched.position >= request.until:
        return
    if record.gap is not None and record.gap.cause != "thinned":
        part = gap_between(record.gap, fetched.position, request.until)
        if part is None:
            return
        record = gap_record(part, record.epoch, record.regime)
    elif record.seq > request.until:
        fetched.position = request.until
        return
    fetched.records.append(record)
    fetched.position = record.seq


def _cut(records: list[Record], until: int) -> list[Record]:
    """The records, and of a gap of thinned ones that goes on beyond `until` what lies before it as a gap of its own."""
    there = {record.seq for record in records}
    cut = list(records)
    for gap in [record.gap for record in records if record.gap is not None and record.seq > until]:
        missing = [n for n in range(gap.first_seq, until + 1) if n not in there] if gap.cause == "thinned" else []
        if missing:
            part = replace(gap, last_seq=missing[-1], count=min(gap.count, len(missing)))
            cut.append(gap_record(part, records[0].epoch, records[0].regime))
    return sorted(cut, key=lambda record: record.seq)


def _deliver_before(fetched: Fetched, gone: Record | None, loss: Record, request: Request) -> None:
    """Append of what is gone the part that comes before a loss of which the cursor knows."""
    if gone is None or gone.gap is None or loss.gap is None:
        return
    part = gap_between(gone.gap, fetched.position, loss.gap.first_seq - 1)
    if part is not None:
        _deliver(fetched, gap_record(part, gone.epoch, gone.regime), request)


def _overtaken(hole: Record) -> Record:
    """What a cursor that holds nothing finds missing without a trace was let go of by those who do."""
    return hole if hole.gap is None else replace(hole, other=replace(hole.gap, cause="overtaken"))


def _overtake(fetched: Fetched, record: Record, head: Head, request: Request) -> None:
    """What the others had acknowledged was not kept for a cursor that holds nothing: tell of what is missing.

    In a frame that was thinned nobody can tell that from what vanished.
    """
    position = fetched.position
    first = max(position + 1, head.covers_from) if head.flags & EPOCH_START else position + 1
    if record.gap is None and first < record.seq and not head.level:
        gap = Gap(first, record.seq - 1, 0, record.time, record.seq - first, "overtaken")
        _deliver(fetched, gap_record(gap, record.epoch, record.regime), request)


def _is_elsewhere(head: Head, span: Span | None) -> bool:
    """Whether a frame is sure to hold nothing of that time: where its clock was right."""
    if span is None or head.clock != _SYNCED:
        return False
    return head.max_time < span.first_ms or head.min_time > span.last_ms


def _loss(found: Found, position: int, losses: Losses) -> Record | None:
    """The next of the losses, as far as it comes before what was found. What is on the disk after all is handed out.

    The power may have failed when the slots had told of a loss, and before its segment was recycled.
    """
    loss = next((loss for loss in losses if loss.gap.last_seq > position and not loss.is_absence), None)
    if loss is None:
        return None
    if found.head is not None and found.head.first_seq <= loss.gap.last_seq:
        part = gap_between(loss.gap, position, found.head.covers_from - 1)
        return None if part is None else gap_record(part, loss.epoch)
    if found.damaged is not None and position < found.damaged.last_seq < loss.gap.first_seq:
        return _lost(found.damaged, max(found.damaged.first_seq, position + 1))
    return gap_record(loss.gap.after(position), loss.epoch)


def _hole(found: Found, position: int, vanished: _Vanished) -> Record | None:
    """What is missing between the position and the frame found, or behind the position when there is none."""
    head, damaged = found.head, found.damaged
    if head is not None and head.covers_from <= position + 1:
        return None  # what was damaged on the way has been written twice
    gone = _between_starts(found, position, vanished)
    if gone is not None:
        return gone
    if damaged is not None and damaged.last_seq > position:
        is_whole_story = damaged.covers_from <= position + 1 or damaged.flags & EPOCH_START
        if head is None or head.flags & EPOCH_START or (is_whole_story and damaged.last_seq == head.covers_from - 1):
            return _lost(damaged, max(damaged.first_seq, position + 1))
    if head is None or head.flags & EPOCH_START:
        return None
    return _gap_before(head, position, vanished.count, head.epoch)


def _between_starts(found: Found, position: int, vanished: _Vanished) -> Record | None:
    """What is missing before the first frame of an epoch, where that is proved, and more than damaged heads tell of."""
    head, damaged = found.head, found.damaged
    if head is None or not head.flags & EPOCH_START or not vanished.count:
        return None
    if damaged is not None and damaged.last_seq > position and damaged.count >= vanished.count:
        return None
    return _gap_before(head, position, vanished.count, vanished.epoch)


def _gap_before(head: Head, position: int, count: int, epoch: str) -> Record:
    """The gap between the position and a frame; `count` is 0 where nobody knows it."""
    first, last = position + 1, head.covers_from - 1
    numbers = last - first + 1
    gap = Gap(first, last, 0, head.min_time, min(numbers, count) or numbers, "damaged")
    return gap_record(gap, epoch, regime_of_head(head))


def _lost(head: Head, first: int) -> Record:
    """The gap over what a frame holds from `first` on."""
    count = min(head.count, head.last_seq - first + 1)
    gap = Gap(first, head.last_seq, head.min_time, head.max_time, count, "damaged")
    return gap_record(gap, head.epoch, regime_of_head(head))
