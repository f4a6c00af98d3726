"""The reader: finds frames by the numbers of their records. Runs in a thread of its own and never waits for the writer.

A segment may be recycled or rewritten while it is read: then its frames stop naming it, and the reader looks again at
the list of segments as it is now. What is missing is told by the numbers of the frame that follows, never by guessing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from gateway.journal.disk import Disk
from gateway.journal.frame import HAS_ENTRIES, Body, Head
from gateway.journal.segment import Scanner, Segment, Tally

_LOOKS = 5  # at a list that changes under the reader's eyes
_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading goes on: behind the frame read last. Of use only as long as the segment is in that life."""

    segment: int
    offset: int
    life: int = 0


@dataclass(slots=True)
class Found:
    """The next frame, if there is one.

    `entries`: the dictionary as far as the walk has met it. `damaged`: what the frames passed on the way held whose
    bodies are lost, summed up in one head.
    """

    head: Head | None = None
    body: Body | None = None
    place: Place | None = None
    entries: dict[bytes, bytes] = field(default_factory=dict)
    damaged: Head | None = None


class Reader:
    """Reads what the writer of the same folder wrote. `segments` gives the present list, oldest first."""

    def __init__(self, disk: Disk, segments: Callable[[], Sequence[Segment]], tally: Tally) -> None:
        self._disk = disk
        self._segments = segments
        self._scanner = Scanner(disk, tally)

    def after(self, seq: int, place: Place | None = None) -> Found:
        """The first whole frame with a record above `seq`. `place` spares the walk to where the last call ended."""
        found = Found()
        for look in range(_LOOKS):
            if look:
                time.sleep(_PAUSE_S)  # the writer is just about to say what became of them
            found = Found()
            if self._walk(self._segments(), seq, place, found):
                break
        return found

    def _walk(self, segments: Sequence[Segment], seq: int, place: Place | None, found: Found) -> bool:
        """Look for the frame; False where a segment that might have held it vanished on the way."""
        if not any(place is not None and (s.id, s.life) == (place.segment, place.life) for s in segments):
            place = None
        is_whole = True
        for segment, following in zip_longest(segments, segments[1:]):
            if place is not None and segment.id < place.segment:
                continue
            if _ends_before(segment, following, seq):
                continue
            offset = place.offset if place is not None and segment.id == place.segment else 0
            is_found = self._search(segment, seq, offset, found)
            is_whole = is_whole and is_found is not None
            if is_found:
                break
        return is_whole

    def _search(self, segment: Segment, seq: int, offset: int, found: Found) -> bool | None:
        """Look for the frame in one segment; None where that vanished meanwhile."""
        try:
            file = self._disk.open(segment.name)
        except FileNotFoundError:  # recycled since the list was made
            return None
        except OSError as error:
            self._scanner.damage(segment, offset, str(error))
            return False
        try:
            for head in self._scanner.heads(file, segment, offset):
                if head.last_seq <= seq and not head.flags & HAS_ENTRIES:
                    continue
                body = self._scanner.load(file, segment, head)
                if body is not None:
                    found.entries.update(body.entries)
                if head.last_seq <= seq:
                    continue
                if segment.is_gone:  # recycled while we read it: what it held is no longer here to be damaged
                    return None
                if body is None:
                    found.damaged = head if found.damaged is None else _sum(found.damaged, head)
                    continue
                found.head, found.body = head, body
                found.place = Place(segment.id, head.offset + head.extent, segment.life)
                return True
        finally:
            self._disk.close(file)
        return None if segment.is_gone else False

    def before(self, seq: int) -> Head | None:
        """The last frame whose records end at `seq` or before it, whether its body is whole or not, if it is there."""
        for segment in reversed(self._segments()):
            if segment.first is None or segment.first.last_seq > seq:
                continue
            try:
                file = self._disk.open(segment.name)
            except OSError:
                return None
            try:
                heads = [head for head in self._scanner.heads(file, segment) if head.last_seq <= seq]
            finally:
                self._disk.close(file)
            return None if segment.is_gone else max(heads, key=lambda head: head.ordinal + head.count, default=None)
        return None

    def entry(self, key: bytes, near: int) -> bytes | None:
        """A dictionary entry by its key: from segment `near`, else, should its place there be damaged, from any."""
        for segment in sorted(self._segments(), key=lambda s: abs(s.id - near)):
            try:
                file = self._disk.open(segment.name)
            except OSError:
                continue
            try:
                for head in self._scanner.heads(file, segment):
                    body = self._scanner.load(file, segment, head) if head.flags & HAS_ENTRIES else None
                    if body is not None and key in body.entries:
                        return body.entries[key]
            finally:
                self._disk.close(file)
        return None


def _ends_before(segment: Segment, following: Segment | None, seq: int) -> bool:
    """Whether no frame of the segment can have a record above `seq`."""
    if segment.last_seq is not None:
        return segment.last_seq <= seq
    return following is not None and following.first is not None and following.first.covers_from - 1 <= seq


def _sum(one: Head, other: Head) -> Head:
    """What two damaged frames, the second behind the first, held together."""
    return replace(
        one,
        last_seq=max(one.last_seq, other.last_seq),
        count=one.count + other.count,
        min_time=min(one.min_time, other.min_time),
        max_time=max(one.max_time, other.max_time),
    )
