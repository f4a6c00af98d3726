"""What the spool says about itself when somebody looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from gateway.clock import Clock
from gateway.journal.scrub import Progress
from gateway.model import RecordClass
from gateway.spool.committer import Committer
from gateway.spool.cursor import Cursors
from gateway.spool.drops import Drops
from gateway.spool.lag import CursorStatus, cursor_status, milestones
from gateway.spool.record import Cause, Gap
from gateway.spool.scrubber import Scrubber
from gateway.spool.store import Store
from gateway.spool.timeline import Timeline
from gateway.spool.window import Window

StoreState: TypeAlias = Literal["ok", "full", "degraded", "readonly"]
_STATES: tuple[StoreState, ...] = ("ok", "full", "degraded", "readonly")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossStatus:
    """What was given up for one cause since the start: how many records, and the range of the last time, in ms."""

    cause: Cause
    count: int
    first_seq: int
    last_seq: int
    first_time: int
    last_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """One queue of the spool.

    `state`: `ok`; `full`, records or their detail give way, or wait for room; `degraded`, the disk fails and memory
    must do; `readonly`, for it takes no writes at all. `head` is the last number given to a record; up to `durable` all
    are on the medium or acknowledged, up to `acked` acknowledged by all who hold. `used_bytes` of the disk hold records
    somebody needs, which is `fill` of the room, 0 to 1; `hours_left` until it is full, at the rate of the last ten
    minutes of storing, None where it does not fill. `allocated_bytes` are taken from the file system.

    Times of commits are in seconds, of the last few hundred, and the longest since the start. `bytes_written` and
    `flushes` count since the start; beside them those of this day (UTC) and of all starts. `amplification`: bytes
    written for each byte of records, None where none were. `evicted`, `refused`, `thinned`, `dropped` count records
    since the start, `corrupt` damaged places; `lost` tells of each cause when it was last. `scrub`: how far the reading
    over of old segments is; of what it read, `scrub_damaged` records were.
    """

    record_class: RecordClass
    state: StoreState
    epoch: str
    head: int
    durable: int
    acked: int
    cursors: tuple[CursorStatus, ...]
    used_bytes: int
    allocated_bytes: int
    max_bytes: int
    fill: float
    hours_left: float | None
    ram_bytes: int
    commit_p50_s: float
    commit_p99_s: float
    commit_max_s: float
    bytes_written: int
    flushes: int
    frames: int
    bytes_today: int
    flushes_today: int
    bytes_total: int
    flushes_total: int
    amplification: float | None
    evicted: int
    refused: int
    thinned: int
    dropped: int
    corrupt: int
    lost: tuple[LossStatus, ...]
    scrub: Progress
    scrub_damaged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatus:
    """The spool as a whole: the worst state, sums, and each queue by itself. Cursors stand once a name.

    `fill` is that of the fullest queue, `hours_left` of the one that is full first.
    """

    state: StoreState
    cursors: tuple[CursorStatus, ...]
    used_bytes: int
    allocated_bytes: int
    max_bytes: int
    fill: float
    hours_left: float | None
    ram_bytes: int
    bytes_written: int
    flushes: int
    frames: int
    bytes_today: int
    flushes_today: int
    bytes_total: int
    flushes_total: int
    evicted: int
    refused: int
    thinned: int
    dropped: int
    corrupt: int
    queues: tuple[QueueStatus, ...]


def summed(queues: Sequence[QueueStatus]) -> SpoolStatus:
    """Several queues as one; the cursor of the usual class tells how far it came."""
    cursors: dict[str, CursorStatus] = {}
    for cursor in (cursor for queue in reversed(queues) for cursor in queue.cursors):
        other = cursors.get(cursor.name)
        cursors[cursor.name] = cursor if other is None else _both(other, cursor)
    return SpoolStatus(
        state=max((queue.state for queue in queues), key=_STATES.index),
        cursors=tuple(cursors.values()),
        used_bytes=sum(queue.used_bytes for queue in queues),
        allocated_bytes=sum(queue.allocated_bytes for queue in queues),
        max_bytes=sum(queue.max_bytes for queue in queues),
        fill=max(queue.fill for queue in queues),
        hours_left=min((queue.hours_left for queue in queues if queue.hours_left is not None), default=None),
        ram_bytes=sum(queue.ram_bytes for queue in queues),
        bytes_written=sum(queue.bytes_written for queue in queues),
        flushes=sum(queue.flushes for queue in queues),
        frames=sum(queue.frames for queue in queues),
        bytes_today=sum(queue.bytes_today for queue in queues),
        flushes_today=sum(queue.flushes_today for queue in queues),
        bytes_total=sum(queue.bytes_total for queue in queues),
        flushes_total=sum(queue.flushes_total for queue in queues),
        evicted=sum(queue.evicted for queue in queues),
        refused=sum(queue.refused for queue in queues),
        thinned=sum(queue.thinned for queue in queues),
        dropped=sum(queue.dropped for queue in queues),
        corrupt=sum(queue.corrupt for queue in queues),
        queues=tuple(queues),
    )


def _both(one: CursorStatus, other: CursorStatus) -> CursorStatus:
    return replace(
        one,
        lag_records=one.lag_records + other.lag_records,
        lag_s=max(one.lag_s, other.lag_s),
        lag_bytes=one.lag_bytes + other.lag_bytes,
        unsent_s=max(one.unsent_s, other.unsent_s),
    )


def describe(
    store: Store,
    window: Window,
    cursors: Cursors,
    committer: Committer,
    drops: Drops,
    scrubber: Scrubber,
    *,
    record_class: RecordClass,
    epoch: str,
    max_bytes: int,
    clock: Clock,
    timeline: Timeline,
) -> QueueStatus:
    """Put the status together."""
    points = milestones(store, timeline)
    tally, wear, latency, payload = store.tally, committer.wear, committer.latency, store.tally.payload_bytes.value
    counts = drops.counts
    return QueueStatus(
        state=_state(store, cursors, committer),
        record_class=record_class,
        epoch=epoch,
        head=window.head,
        durable=committer.durable,
        acked=min(window.head, cursors.floor),
        cursors=tuple(cursor_status(c, store, window, points, clock) for c in cursors.by_name.values()),
        used_bytes=store.writer.used_bytes(cursors.floor),
        allocated_bytes=store.writer.allocated_bytes,
        max_bytes=max_bytes,
        fill=committer.fill,
        hours_left=committer.hours_left,
        ram_bytes=window.bytes,
        commit_p50_s=latency.share(0.5),
        commit_p99_s=latency.share(0.99),
        commit_max_s=latency.longest,
        bytes_written=tally.bytes_written.value,
        flushes=tally.flushes.value,
        frames=tally.frames.value,
        bytes_today=wear.day_bytes,
        flushes_today=wear.day_flushes,
        bytes_total=wear.bytes,
        flushes_total=wear.flushes,
        amplification=tally.bytes_written.value / payload if payload else None,
        evicted=counts["evicted"],
        refused=counts["refused"],
        thinned=counts["thinned"],
        dropped=counts["memory"] + counts["too large"],
        corrupt=tally.corrupt.value,
        lost=tuple(_lost(cause, counts[cause], gap) for cause, gap in drops.last.items()),
        scrub=scrubber.progress,
        scrub_damaged=scrubber.damaged,
    )


def _lost(cause: Cause, count: int, gap: Gap) -> LossStatus:
    return LossStatus(
        cause=cause,
        count=count,
        first_seq=gap.first_seq,
        last_seq=gap.last_seq,
        first_time=gap.first_time,
        last_time=gap.last_time,
    )


def _state(store: Store, cursors: Cursors, committer: Committer) -> StoreState:
    if committer.is_readonly:
        return "readonly"
    if committer.is_degraded:
        return "degraded"
    is_behind = cursors.floor < committer.written
    is_giving_way = store.writer.is_evicting or store.writer.is_thinned(cursors.floor)
    return "full" if committer.is_blocked or (is_behind and is_giving_way) else "ok"
