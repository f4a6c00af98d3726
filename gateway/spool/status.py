"""What the spool says about itself when somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gateway.model import RecordClass
from gateway.spool.committer import Committer
from gateway.spool.cursor import Cursor, Cursors
from gateway.spool.store import Store
from gateway.spool.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorStatus:
    """Where an uplink stands. Lag: what it has not acknowledged, in records, and the age of the oldest in seconds.

    For records of earlier starts both are estimates, exact at the borders of segments.
    """

    name: str
    holds: bool
    committed: int
    lag_records: int
    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue of the spool.

    `state`: `ok`; `degraded`, the disk fails and memory must do; `full`, the oldest records give way to the newest.
    `head` is the last number given to a record; up to `durable` all are on the medium or acknowledged. `used_bytes` of
    the disk hold records somebody needs; `allocated_bytes` are taken from the file system. Counts are since the start.
    """

    record_class: RecordClass
    state: Literal["ok", "degraded", "full"]
    epoch: str
    head: int
    durable: int
    cursors: tuple[CursorStatus, ...]
    used_bytes: int
    allocated_bytes: int
    max_bytes: int
    ram_bytes: int
    bytes_written: int
    flushes: int
    frames: int
    evicted: int
    dropped: int
    corrupt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatus:
    """The spool as a whole: the worst state, sums, and each queue by itself. Cursors stand once a name."""

    state: Literal["ok", "degraded", "full"]
    cursors: tuple[CursorStatus, ...]
    used_bytes: int
    allocated_bytes: int
    max_bytes: int
    ram_bytes: int
    bytes_written: int
    flushes: int
    frames: int
    evicted: int
    dropped: int
    corrupt: int
    queues: tuple[QueueStatus, ...]


def summed(queues: Sequence[QueueStatus]) -> SpoolStatus:
    """Several queues as one; the cursor of the usual class tells how far it came."""
    cursors: dict[str, CursorStatus] = {}
    for cursor in (cursor for queue in reversed(queues) for cursor in queue.cursors):
        other = cursors.get(cursor.name)
        cursors[cursor.name] = (
            cursor
            if other is None
            else replace(
                other, lag_records=other.lag_records + cursor.lag_records, lag_s=max(other.lag_s, cursor.lag_s)
            )
        )
    return SpoolStatus(
        state=max((queue.state for queue in queues), key=("ok", "full", "degraded").index),
        cursors=tuple(cursors.values()),
        used_bytes=sum(queue.used_bytes for queue in queues),
        allocated_bytes=sum(queue.allocated_bytes for queue in queues),
        max_bytes=sum(queue.max_bytes for queue in queues),
        ram_bytes=sum(queue.ram_bytes for queue in queues),
        bytes_written=sum(queue.bytes_written for queue in queues),
        flushes=sum(queue.flushes for queue in queues),
        frames=sum(queue.frames for queue in queues),
        evicted=sum(queue.evicted for queue in queues),
        dropped=sum(queue.dropped for queue in queues),
        corrupt=sum(queue.corrupt for queue in queues),
        queues=tuple(queues),
    )


def describe(
    store: Store,
    window: Window,
    cursors: Cursors,
    committer: Committer,
    *,
    record_class: RecordClass,
    epoch: str,
    max_bytes: int,
    now_ms: int,
    evicted: int,
    dropped: int,
) -> QueueStatus:
    """Put the status together."""
    is_full = store.writer.is_evicting and cursors.acked < committer.written
    points = _milestones(store)
    tally = store.tally
    return QueueStatus(
        state="degraded" if committer.is_degraded else "full" if is_full else "ok",
        record_class=record_class,
        epoch=epoch,
        head=window.head,
        durable=committer.durable,
        cursors=tuple(_describe(c, store, window, points, now_ms) for c in cursors.by_name.values()),
        used_bytes=store.writer.used_bytes(cursors.acked),
        allocated_bytes=store.writer.allocated_bytes,
        max_bytes=max_bytes,
        ram_bytes=window.bytes,
        bytes_written=tally.bytes_written.value,
        flushes=tally.flushes.value,
        frames=tally.frames.value,
        evicted=evicted,
        dropped=dropped,
        corrupt=tally.corrupt.value,
    )


def _describe(cursor: Cursor, store: Store, window: Window, points: Sequence[_Milestone], now_ms: int) -> CursorStatus:
    before = store.writer.epoch_first - 1
    here = _locate(points, cursor.committed)
    lag = window.head - max(cursor.committed, before)
    oldest = 0
    if cursor.committed >= window.base:
        record = window.record_after(cursor.committed)
        oldest = record.time if record is not None else 0
    else:
        oldest = here.time
    if cursor.committed < before:
        lag += max(0, store.earlier - here.ordinal)
    return CursorStatus(
        name=cursor.name,
        holds=cursor.holds,
        committed=cursor.committed,
        lag_records=lag,
        lag_s=max(0, now_ms - oldest) / 1000 if lag and oldest else 0.0,
    )


@dataclass(frozen=True, slots=True)
class _Milestone:
    """A point of the journal: up to record `seq`, `ordinal` records were written, the next of them at `time` (ms)."""

    seq: int
    ordinal: int
    time: int


def _milestones(store: Store) -> list[_Milestone]:
    """The starts of all segments, and where the earlier starts of the program ended."""
    points = []
    for first in (s.first for s in store.writer.segments if s.first is not None):
        points.append(_Milestone(first.covers_from - 1, first.ordinal, first.min_time))
        points.append(_Milestone(first.first_seq - 1, first.ordinal, first.min_time))
    points.append(_Milestone(store.recovered.last_seq, store.earlier, store.recovered.last_time))
    return sorted(points, key=lambda point: point.seq)


def _locate(points: Sequence[_Milestone], seq: int) -> _Milestone:
    """About where a cursor stands that has acknowledged `seq`, between the milestones."""
    before = points[0]
    for point in points:
        if point.seq > seq:
            share = max(0.0, (seq - before.seq) / max(1, point.seq - before.seq))
            ordinal = before.ordinal + round(share * (point.ordinal - before.ordinal))
            time = before.time or point.time  # a store that is new has no time of its earlier runs
            return _Milestone(seq, ordinal, time + round(share * (point.time - time)))
        before = point
    return before
