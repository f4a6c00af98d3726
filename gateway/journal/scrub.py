"""The scrub: reads old segments again, little by little, so that damage is found before somebody needs the records.

Runs in a thread that reads, in slices, and never waits for the writer. Only what is closed is looked at. A segment that
is recycled or rewritten meanwhile is no damage: the scrub goes on with the next.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from gateway.journal.disk import Disk
from gateway.journal.frame import EPOCH_START, Head
from gateway.journal.segment import Scanner, Segment, Tally

SLICE = 256 * 1024
"""Bytes that are read in one go."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the present pass came: `done` of `segments`; `passes` went through to the end since the start."""

    done: int
    segments: int
    passes: int


class Scrub:
    """Goes through the segments that `segments` gives, oldest first, round and round."""

    def __init__(self, disk: Disk, segments: Callable[[], Sequence[Segment]], tally: Tally) -> None:
        self._disk = disk
        self._segments = segments
        self._scanner = Scanner(disk, tally)
        self._current: Generator[list[Head]] | None = None
        self._last: Head | None = None
        self._number = 0
        self._done = 0
        self._passes = 0

    @property
    def progress(self) -> Progress:
        """How far it came."""
        left = sum(segment.id > self._number for segment in self._closed())
        return Progress(self._done, self._done + left, self._passes)

    def _closed(self) -> Sequence[Segment]:
        """The writer is at work on the newest."""
        return self._segments()[:-1]

    def _next(self) -> tuple[Segment | None, Segment | None]:
        """The segment to be read next, and the one before it."""
        before = None
        for segment in self._closed():
            if segment.id > self._number:
                return before, segment
            before = segment
        return before, None

    def step(self) -> tuple[bool, list[Head]]:
        """Look at one slice. Whether the pass goes on, and what was found damaged: heads that say what was there."""
        if self._current is None:
            before, segment = self._next()
            if segment is None:
                self._passes += self._done > 0
                self._number = self._done = 0
                return False, []
            self._number = segment.id
            last = self._last
            self._current = self._verify(segment, last if last and before and last.segment == before.id else None)
        found = next(self._current, None)
        if found is None:
            self._current = None
            self._done += 1
        return True, found or []

    def close(self) -> None:
        """Let go of the file that is being read."""
        if self._current is not None:
            self._current.close()
            self._current = None

    def _verify(self, segment: Segment, last: Head | None) -> Generator[list[Head]]:
        """The damaged frames of one segment, in slices; `last` is the frame before it, if that is known."""
        try:
            file = self._disk.open(segment.name)
        except OSError:
            return
        found: list[Head] = []
        size = 0
        try:
            for head in self._scanner.heads(file, segment):
                if last is not None and head.covers_from > last.last_seq + 1 and not head.flags & EPOCH_START:
                    found.append(_between(last, head))
                if not self._is_whole(file, segment, head):
                    found.append(head)
                last, size = head, size + head.extent
                if segment.is_gone:  # whatever was read, it was no longer what it had been
                    return
                if size >= SLICE:
                    yield found
                    found, size = [], 0
        finally:
            self._disk.close(file)
        self._last = last
        yield found

    def _is_whole(self, file: int, segment: Segment, head: Head) -> bool:
        try:
            stored = self._disk.pread(file, head.body_length, head.offset + head.length)
        except OSError as error:
            self._scanner.damage(segment, head.offset, str(error))
            return False
        if len(stored) == head.body_length and zlib.crc32(stored) == head.body_checksum:
            return True
        self._scanner.damage(segment, head.offset, f"the body is wrong, records {head.first_seq} to {head.last_seq}")
        return False


def _between(one: Head, other: Head) -> Head:
    """What must have been between two frames where there is none that can be read."""
    first, last = one.last_seq + 1, other.covers_from - 1
    return replace(
        one,
        first_seq=first,
        last_seq=last,
        covers_from=first,
        count=last - first + 1,
        min_time=one.max_time,
        max_time=other.min_time,
    )
