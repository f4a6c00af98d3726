"""Lag: how far behind each uplink is, in records, seconds and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.journal.segment import bytes_above
from gateway.spool.cursor import Cursor
from gateway.spool.islands import count, outside
from gateway.spool.losses import absences
from gateway.spool.store import Store
from gateway.spool.timeline import Timeline
from gateway.spool.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorStatus:
    """Where an uplink stands: `sent` is the last record handed to it, up to `committed` all are acknowledged.

    Lag: what it has not acknowledged, in records, in bytes on the disk, and the age of the oldest in seconds;
    `unsent_s` is the age of the oldest that was not even sent. For records of earlier starts and those that were
    thinned these are estimates, exact at the borders of segments. `retired`: the file has no such uplink any more, so
    nothing new is held for it.
    """

    name: str
    holds: bool
    retired: bool
    committed: int
    sent: int
    lag_records: int
    lag_s: float
    lag_bytes: int
    unsent_s: float


def cursor_status(
    cursor: Cursor, store: Store, window: Window, points: Sequence[Milestone], clock: Clock
) -> CursorStatus:
    """Where one uplink stands; `points` are the milestones of the store."""
    before = store.writer.epoch_first - 1
    here = _locate(points, cursor.committed)
    end = window.head if cursor.holds_until is None else min(window.head, cursor.holds_until)
    known = [*cursor.islands, *absences(cursor.losses)]
    lag = count(outside(known, max(cursor.committed, before) + 1, end))
    if cursor.committed < min(before, end):
        there = store.earlier if end >= before else _locate(points, end).ordinal
        lag += max(0, there - here.ordinal)
    return CursorStatus(
        name=cursor.name,
        holds=cursor.holds,
        retired=cursor.holds_until is not None,
        committed=cursor.committed,
        sent=cursor.position,
        lag_records=lag,
        lag_s=_age(cursor.committed, window, points, clock) if lag else 0.0,
        lag_bytes=bytes_above(store.writer.segments, cursor.committed) if lag else 0,
        unsent_s=_age(cursor.position, window, points, clock) if lag else 0.0,
    )


def _age(seq: int, window: Window, points: Sequence[Milestone], clock: Clock) -> float:
    """For how long the first record above `seq` has been here, in seconds; 0 where there is none, or nobody knows."""
    if seq >= window.base:
        accepted = window.time_after(seq)
        return 0.0 if accepted is None else max(0.0, clock.monotonic() - accepted)
    time = _locate(points, seq).time
    return max(0, clock.wall_ms() - time) / 1000 if time else 0.0


@dataclass(frozen=True, slots=True)
class Milestone:
    """A point of the journal: up to record `seq`, `ordinal` records were written, the next of them at `time` (ms)."""

    seq: int
    ordinal: int
    time: int


def milestones(store: Store, timeline: Timeline) -> list[Milestone]:
    """The starts of all segments, and where the earlier starts of the program ended; times are mended."""
    points = []
    for first in (timeline.mended(s.first) for s in store.writer.segments if s.first is not None):
        points.append(Milestone(first.covers_from - 1, first.ordinal, first.min_time))
        points.append(Milestone(first.first_seq - 1, first.ordinal, first.min_time))
    newest = store.recovered.newest
    last_time = 0 if newest is None else timeline.mended(newest).max_time
    points.append(Milestone(store.recovered.last_seq, store.earlier, last_time))
    return sorted(points, key=lambda point: point.seq)


def _locate(points: Sequence[Milestone], seq: int) -> Milestone:
    """About where a cursor stands that has acknowledged `seq`, between the milestones."""
    before = points[0]
    for point in points:
        if point.seq > seq:
            share = max(0.0, (seq - before.seq) / max(1, point.seq - before.seq))
            ordinal = before.ordinal + round(share * (point.ordinal - before.ordinal))
            time = before.time or point.time  # a store that is new has no time of its earlier runs
            return Milestone(seq, ordinal, time + round(share * (point.time - time)))
        before = point
    return before
