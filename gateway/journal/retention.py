"""Retention: which segments are needed, and which stay a while although nobody needs their records any more.

What was acknowledged may be wanted once more: by a broker that had not saved it when it fell over, by somebody who
looks. So the newest of what is acknowledged stays, for a time and up to a size, whichever ends first.

Time is judged by the monotonic clock from the moment when nobody needed the segment any more. Of segments that were in
that position already when this run began, nobody knows when that was: their age counts from when they were written, if
the wall clock was synchronised then and is now, else from the start of this run. A clock that is not synchronised ends
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.clock import Clock
from gateway.journal.frame import Head
from gateway.journal.segment import Segment

_SYNCED = 2


class Retention:
    """Keeps `keep_s` seconds and `keep_bytes` bytes; 0: not asked for; both 0: nothing."""

    def __init__(self, *, keep_s: float, keep_bytes: int, clock: Clock) -> None:
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._earlier: frozenset[int] | None = None

    def kept(self, idle: Sequence[Segment], following: Segment | None) -> int:
        """How many of `idle`, the newest of them, stay. `following` stands behind the last, if any does."""
        if not self._keep_s and not self._keep_bytes:
            return 0
        is_synced = bool(self._keep_s) and self._clock.state() == "synced"
        count = size = 0
        for segment in reversed(idle):
            size += segment.size
            if self._keep_bytes and size > self._keep_bytes:
                break
            if self._keep_s and self._age(segment, following, is_synced=is_synced) > self._keep_s:
                break
            count += 1
            following = segment
        return count

    def notice(self, idle: Sequence[Segment]) -> None:
        """Take the time for those that nobody needs since the last look. At the first, nobody knows since when."""
        now = self._clock.monotonic()
        if self._earlier is None:
            self._earlier = frozenset(segment.id for segment in idle)
        for segment in idle:
            if segment.idle_since is None:
                segment.idle_since = now

    def _age(self, segment: Segment, following: Segment | None, *, is_synced: bool) -> float:
        age = 0.0 if segment.idle_since is None else self._clock.monotonic() - segment.idle_since
        if is_synced and self._earlier is not None and segment.id in self._earlier:
            end = following.first if following is not None else None
            written = _written(end) or _written(segment.first)
            if written:
                age = max(age, self._clock.wall_ms() / 1000 - written)
        return age


def _written(head: Head | None) -> float:
    """When a frame was written, wall time in seconds; 0 where no clock is to be believed."""
    return head.wall / 1000 if head is not None and head.clock == _SYNCED else 0.0


def needed(segments: Sequence[Segment], floor: int) -> list[Segment]:
    """Those of which a record above `floor` may be wanted. A segment ends at the latest where the next one begins."""
    found = []
    last: int | None = None
    for segment in reversed(segments):
        bound = segment.last_seq if segment.last_seq is not None else last
        if bound is None or bound > floor:
            found.append(segment)
        if segment.first is not None:
            last = segment.first.covers_from - 1
    return found
