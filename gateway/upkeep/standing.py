"""How a spool stands that does not run, by its folder alone: what waits for whom, and how fast it filled up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.journal.frame import Head
from gateway.model import RecordClass
from gateway.spool.cursor import Mark, State
from gateway.upkeep.continuity import Stored, follow
from gateway.upkeep.records import CLOCKS, timeline_of
from gateway.upkeep.survey import Survey

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """What waits for one uplink: records, bytes on the disk, and the age of the oldest in seconds.

    Where it stands in the middle of a frame, records and bytes are estimates. `retired`: the file had no such uplink
    any more, so nothing new was held for it.
    """

    name: str
    holds: bool
    retired: bool
    committed: int
    lag_records: int
    lag_bytes: int
    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One class of a spool that does not run.

    `first_seq` to `last_seq` are on the disk, `records` of them, the newest of `last_ms`. `hours_left` at the rate of
    the last hour in which something was written; None where no limit is known, or nothing was written. Bytes and
    flushes are of the whole life, and of the present day; `wear_day` (days since 1970) is the last that had some.
    """

    record_class: RecordClass
    epoch: str
    first_seq: int
    last_seq: int
    records: int
    frames: int
    last_ms: int
    clock: str
    used_bytes: int
    allocated_bytes: int
    max_bytes: int | None
    bytes_per_s: float
    hours_left: float | None
    bytes_total: int
    flushes_total: int
    wear_day: int
    bytes_today: int
    flushes_today: int
    set_aside: int
    cursors: tuple[Lag, ...]


def standing(survey: Survey, now_ms: int, *, max_bytes: int | None) -> Standing:
    """Look at the heads of all frames; bodies are not read."""
    state = survey.state()
    timeline = timeline_of(survey)
    heads = [timeline.mended(f.seen.head) for f in follow(survey.heads()) if isinstance(f, Stored)]
    marks = () if state is None else state.marks
    used = _used(survey, heads, marks)
    rate = _rate(heads)
    wear = None if state is None else state.wear
    is_today = wear is not None and wear.day == now_ms // _DAY_MS
    return Standing(
        record_class=survey.part.record_class,
        epoch=_epoch(heads, state),
        first_seq=heads[0].first_seq if heads else 0,
        last_seq=heads[-1].last_seq if heads else 0,
        records=sum(head.count for head in heads),
        frames=len(heads),
        last_ms=heads[-1].max_time if heads else 0,
        clock=CLOCKS[heads[-1].clock] if heads and heads[-1].clock < len(CLOCKS) else "",
        used_bytes=used,
        allocated_bytes=survey.allocated_bytes,
        max_bytes=max_bytes,
        bytes_per_s=rate,
        hours_left=max(0, max_bytes - used) / rate / 3600 if max_bytes is not None and rate else None,
        bytes_total=wear.bytes if wear is not None else 0,
        flushes_total=wear.flushes if wear is not None else 0,
        wear_day=wear.day if wear is not None else 0,
        bytes_today=wear.day_bytes if wear is not None and is_today else 0,
        flushes_today=wear.day_flushes if wear is not None and is_today else 0,
        set_aside=len(survey.set_aside),
        cursors=tuple(_lag(mark, heads, now_ms) for mark in marks),
    )


def _epoch(heads: Sequence[Head], state: State | None) -> str:
    """Of the last start that left something."""
    if state is not None:
        return f"{state.store:06x}-{state.start}"
    return heads[-1].epoch if heads else ""


def _used(survey: Survey, heads: Sequence[Head], marks: Sequence[Mark]) -> int:
    """Bytes of the segments that hold a record somebody needs."""
    holding = [mark.committed for mark in marks if mark.holds]
    if not holding:
        return 0
    floor = min(holding)
    needed = {head.segment for head in heads if head.last_seq > floor}
    return sum(file.size for file in survey.files if file.number in needed)


def _rate(heads: Sequence[Head]) -> float:
    """Bytes per second on the disk, over the last hour in which frames were written; by one start's own clock."""
    if not heads:
        return 0.0
    last = heads[-1]
    recent = [h for h in heads if h.epoch == last.epoch and last.monotonic - h.monotonic <= _HOUR_MS]
    spent = last.monotonic - recent[0].monotonic
    return sum(h.extent for h in recent[1:]) * 1000 / spent if spent > 0 else 0.0


def _lag(mark: Mark, heads: Sequence[Head], now_ms: int) -> Lag:
    records = size = oldest = 0
    for head in heads:
        share = _share(mark, head)
        if share:
            records += round(head.count * share)
            size += round(head.extent * share)
            oldest = oldest or head.min_time
    return Lag(
        name=mark.name,
        holds=mark.holds,
        retired=mark.holds_until is not None,
        committed=mark.committed,
        lag_records=records,
        lag_bytes=size,
        lag_s=max(0, now_ms - oldest) / 1000 if oldest else 0.0,
    )


def _share(mark: Mark, head: Head) -> float:
    """How much of a frame waits for that uplink, from 0 to 1."""
    if head.last_seq <= mark.committed:
        return 0.0
    numbers = head.last_seq - head.first_seq + 1
    done = max(0, mark.committed - head.first_seq + 1)
    for first, last in mark.spared:
        done += max(0, min(last, head.last_seq) - max(first, head.first_seq) + 1)
    return max(0.0, 1 - done / numbers)
