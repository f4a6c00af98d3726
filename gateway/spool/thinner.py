"""The thinner: turns frames of the journal into fewer and sparser ones, when the disk is full. In the writer thread.

Records are put together into chunks that begin and end at a segment's border, and wherever the epoch, the clock's
regime or the numbers break: what a frame says about its records stays true. Within a chunk, windows of time are whole,
except where that would take too much memory: a window cut in two keeps a few values more, never fewer.

Ages of records count, from then on, from the anchors of the frames they first stood in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import reduce

from gateway.journal.frame import EPOCH_START, Body, Head, best_codec, capacity
from gateway.model import Definition
from gateway.spool.payload import Payload, decode
from gateway.spool.record import Gap, Record
from gateway.spool.thin import thin
from gateway.spool.window import footprint

_CHUNK = 1 << 20  # bytes of memory: from here on a chunk ends where a window does
_LARGEST_CHUNK = 12 << 20
_JITTER_MS = 20  # the two clocks of a frame's head are not read in the same instant
_SLEWED_MS = 1000  # by so much a synchronised clock may be moved without anybody noticing
_SLACK = 16384
_SMALLEST = 4096
_SYNCED = 2
_OTHER = 300


class Thinner:
    """`journal.rewrite.Sparser` for records. `tell` hears of what vanished or lost detail, once it has for good."""

    def __init__(self, *, window_ms: int, frame_bytes: int, segment_size: int, tell: Callable[[Gap], None]) -> None:
        self._window_ms = window_ms
        self._most = max(_SMALLEST, min(frame_bytes, capacity(segment_size) // 2 - _SLACK))
        self._tell = tell
        self._definitions: dict[bytes, Definition] = {}
        self._records: list[Record] = []
        self._anchors: dict[int, int] = {}  # by number: monotonic ms of the frame the record stood in
        self._size = 0
        self._first: Head | None = None
        self._last: Head | None = None
        self._lost: list[Gap | None] = [None]  # what vanished of each segment; the last one is being read

    def add(self, head: Head, body: Body) -> Iterator[tuple[Head, Body]]:
        """Take the next frame, and give those that can be written by now. Raises ValueError on one it cannot read."""
        done = self._last.last_seq if self._last is not None else 0
        if head.last_seq <= done:
            return  # it was written twice
        found = self._decoded(head, body)
        if self._last is not None and self._records and not self._goes_on(self._last, head, found):
            yield from self._flush()
        self._first = self._first or head
        self._last = head
        for record in found:
            if record.seq > done:
                self._records.append(record)
                self._anchors[record.seq] = head.monotonic
                self._size += _OTHER if record.batch is None else footprint(record.batch)

    def _decoded(self, head: Head, body: Body) -> list[Record]:
        for key, entry in body.entries.items():
            try:
                self._definitions[key] = Definition.from_document(entry)
            except (KeyError, TypeError) as error:
                raise ValueError(f"a definition cannot be read: {error!r}") from error
        found = decode(head, body.payload, self._definition)
        if len(found) != head.count:
            raise ValueError(f"{head.count - len(found)} records are of a kind we do not know")
        return found

    def _definition(self, key: bytes) -> Definition:
        if key not in self._definitions:
            raise ValueError(f"the definition {key.hex()} is missing")
        return self._definitions[key]

    def _goes_on(self, last: Head, head: Head, found: list[Record]) -> bool:
        """Whether the frame belongs into the same chunk as the one before."""
        if head.covers_from > last.last_seq + 1 or head.flags & EPOCH_START or self._size >= _LARGEST_CHUNK:
            return False
        if (head.epoch, head.clock, head.boot_id) != (last.epoch, last.clock, last.boot_id):
            return False
        drift = abs((head.wall - head.monotonic) - (last.wall - last.monotonic))
        if drift > (_SLEWED_MS if head.clock == _SYNCED else _JITTER_MS):
            return False
        is_same_window = found[0].time // self._window_ms == self._records[-1].time // self._window_ms
        return self._size < _CHUNK or is_same_window

    def end(self) -> Iterator[tuple[Head, Body]]:
        """Give all that is left: a segment ends here."""
        yield from self._flush()
        self._definitions.clear()
        self._lost.append(None)

    def _flush(self) -> Iterator[tuple[Head, Body]]:
        """The chunk, thinned, in frames."""
        first, last = self._first, self._last
        if first is None or last is None or not self._records:
            return
        records, self._records, self._size, self._first = self._records, [], 0, None
        kept = thin(records, self._window_ms)
        self._note(records, kept)
        numbers = [record.seq for record in records]
        covers_from = first.covers_from
        payload = Payload(kept[0].seq)
        for record in kept:
            age = last.monotonic - self._anchors[record.seq]
            if not payload.add(record, age, self._most):
                ordinal = first.ordinal + bisect_left(numbers, covers_from)
                yield _framed(first, last, payload, covers_from, payload.last_seq, ordinal)
                covers_from = payload.last_seq + 1
                payload = Payload(record.seq)
                payload.add(record, age, self._most)
        yield _framed(
            first, last, payload, covers_from, last.last_seq, first.ordinal + bisect_left(numbers, covers_from)
        )
        self._anchors.clear()

    def _note(self, records: list[Record], kept: list[Record]) -> None:
        """Remember which records vanished, or are less than they were."""
        whole = set(map(id, kept))
        touched = [record for record in records if record.batch is not None and id(record) not in whole]
        if touched:
            first, last = touched[0], touched[-1]
            gap = Gap(first.seq, last.seq, first.time, last.time, len(touched), "thinned")
            earlier = self._lost[-1]
            self._lost[-1] = gap if earlier is None else earlier.joined(gap)

    def settle(self, segments: int) -> None:
        """So many of the segments that ended have given their place to what was made of them."""
        lost = [gap for gap in self._lost[:segments] if gap is not None]
        if lost:
            self._tell(reduce(Gap.joined, lost))


def _framed(
    first: Head, last: Head, payload: Payload, covers_from: int, last_seq: int, ordinal: int
) -> tuple[Head, Body]:
    """A frame with the records of a chunk: of the chunk's epoch and regime, by its last anchor."""
    head = Head(
        codec=best_codec(),
        flags=first.flags & EPOCH_START if covers_from == first.covers_from else 0,
        record_class=first.record_class,
        clock=last.clock,
        start=first.start,
        store=first.store,
        count=payload.count,
        first_seq=payload.first_seq,
        last_seq=last_seq,
        covers_from=covers_from,
        min_time=payload.min_time,
        max_time=payload.max_time,
        boot_id=last.boot_id,
        monotonic=last.monotonic,
        wall=last.wall,
        ordinal=ordinal,
    )
    return head, Body(payload.entries, b"", payload.sealed())
