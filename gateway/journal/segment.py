"""Segments: files of frames, all of one size, written from front to back by one run of the program, then recycled.

    0            extent 1      extent 1+2                    end                         size
    +------------+-------------+--- ... ---+-----------------+---------------------------+
    | frame      | frame       |           | frame           | zeros, or frames of the   |
    | seq 1..40  | seq 41..95  |           |                 | file's earlier life       |
    +------------+-------------+--- ... ---+-----------------+---------------------------+

A file is named by its segment's number, sixteen hex digits and `.seg`. Numbers only grow, so the names sort in the
order of writing. A file that was never used, written full of zeros so that its blocks are allocated, is
`spare-<number>`; what could not be read at all is set aside as `<number>.bad`.

A reader walks from block to block and believes only a frame whose checksums hold and which names this segment and this
offset; anything else is skipped by one block. So a damaged frame costs itself and nothing behind it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.frame import Body, Head
from gateway.metrics import Counter

log = logging.getLogger("headgate.journal")

SEGMENT_SIZE = 8 * 1024 * 1024
_NAME = re.compile(r"([0-9a-f]{16})\.(?:seg|bad)")
_READ_FAILURES = 16  # a dying card takes seconds for each block it cannot read: then this segment is given up


@dataclass(frozen=True, slots=True)
class Tally:
    """What a journal counts, handed in by its owner.

    Of all bytes written some are frames with records, whole blocks long, and of those some are bodies, as stored.
    """

    bytes_written: Counter = field(default_factory=Counter)
    flushes: Counter = field(default_factory=Counter)
    frames: Counter = field(default_factory=Counter)
    frame_bytes: Counter = field(default_factory=Counter)
    payload_bytes: Counter = field(default_factory=Counter)
    corrupt: Counter = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Segment:
    """What is known of one segment without reading it again.

    `first` is its first readable frame. Readers look no further than `end`: behind the last durable frame where this
    run wrote it; in an old one, of an earlier run, the file's size until somebody has walked it. `last_seq` is None
    where only a walk could tell. Once it is gone, its file serves another segment, unless it is suspect: a write or a
    flush of it has failed in this run.

    `level`: how often its records were thinned, 0 for never. `life` counts how often the file was rewritten in this
    run: an offset in it is of use only within one life. `idle_since`: the monotonic time in seconds when it was first
    seen that nobody needs its records any more.
    """

    id: int
    size: int
    end: int
    first: Head | None = None
    last_seq: int | None = None
    is_old: bool = False
    is_gone: bool = False
    is_suspect: bool = False
    level: int = 0
    life: int = 0
    idle_since: float | None = None
    damaged: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The file's name."""
        return name_of(self.id)


def name_of(number: int) -> str:
    """`0000000000000007.seg`."""
    return f"{number:016x}.seg"


def number_of(name: str) -> int | None:
    """The segment's number by the name of its file, set aside or not; None for files of another kind."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) if match else None


class Scanner:
    """Walks segments and reads frames; whatever the disk answers, it gives what can be believed and never raises."""

    def __init__(self, disk: Disk, tally: Tally) -> None:
        self._disk = disk
        self._tally = tally

    def heads(self, file: int, segment: Segment, offset: int = 0) -> Iterator[Head]:
        """Heads of the segment's own frames from `offset`, in order. Bodies are not looked at."""
        failures = 0
        behind = offset
        while offset + frame.BLOCK <= segment.end:
            try:
                data = self._disk.pread(file, frame.LONGEST_HEAD, offset)
            except OSError as error:
                self.damage(segment, offset, str(error))
                failures += 1
                if failures == _READ_FAILURES:
                    return
                data = b""
            head = frame.parse(data)
            if head is not None and _belongs(head, segment, offset):
                yield head
                behind = offset = offset + head.extent
                continue
            if head is None and data.startswith(frame.MAGIC):
                self.damage(segment, offset, "the head is wrong")
            offset += frame.BLOCK
        if segment.is_old and not failures:
            segment.end = min(segment.end, behind)

    def load(self, file: int, segment: Segment, head: Head) -> Body | None:
        """The body behind a head, or None (counted and logged) where it is damaged."""
        try:
            stored = self._disk.pread(file, head.body_length, head.offset + head.length)
        except OSError as error:
            self.damage(segment, head.offset, str(error))
            return None
        try:
            body = frame.unpack(head, stored)
        except frame.FormatError as error:  # a start looks for that first; so only where frames of a segment differ
            self.damage(segment, head.offset, str(error))
            return None
        if body is None:
            self.damage(segment, head.offset, f"the body is wrong, records {head.first_seq} to {head.last_seq}")
        return body

    def damage(self, segment: Segment, offset: int, what: str) -> None:
        """Count a damaged place once, and log the first of each segment."""
        if segment.is_gone or offset in segment.damaged:
            return
        if not segment.damaged:
            log.warning("segment %s is damaged at byte %d: %s; the frame is skipped", segment.name, offset, what)
        segment.damaged.add(offset)
        self._tally.corrupt.value += 1


def _belongs(head: Head, segment: Segment, offset: int) -> bool:
    """Whether the frame is this segment's own and not left over from the file's earlier life."""
    own = head.segment == segment.id and head.offset == offset and offset + head.extent <= segment.size
    # A segment is the work of one start of one store: a number used again after the state was lost is told by that.
    # One that was thinned holds what several starts wrote, but of one store too.
    first = segment.first
    if first is None or first.epoch == head.epoch:
        return own
    return own and bool(first.level and head.level) and first.store == head.store


def bytes_above(segments: Sequence[Segment], seq: int) -> int:
    """About how many bytes of these segments, oldest first, hold records above `seq`; exact at their borders."""
    total = 0
    for segment, following in zip_longest(segments, segments[1:]):
        end = segment.last_seq
        if following is not None and following.first is not None:
            end = following.first.covers_from - 1
        if segment.first is None:
            continue
        start = segment.first.covers_from - 1
        if end is None or seq <= start:
            total += segment.end
        elif seq < end:
            total += segment.end * (end - seq) // (end - start)
    return total
