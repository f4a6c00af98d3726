"""Thinning: of many records those values that tell the most. Pure.

Of each tag and window of time stay the first and the last value, the lowest and the highest; of text and other values
that have no size, the first, the last, and each that differs from the one before. Where the quality changes, the last
value before and the first behind the change stay as well, so that the first and last of each run are there. Windows
are counted from 1970 by the batches' times; where time is set back, a new one begins. What came as history is thinned
by itself: it stands between records that are newer.

A batch keeps its number, its definition, its time and what else there is to say of the values that stay. A record of
which nothing stays vanishes; one gap tells of all of those, from the first to the last, and how many they were: unlike
other gaps it does not say that nothing is left of that range. What is no batch always stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from gateway.model import GOOD, Batch, Quality
from gateway.spool.record import Gap, Record, gap_record

_NUMBERS = (float, int, bool)


def thin(records: Sequence[Record], window_ms: int) -> list[Record]:
    """What stays of records of one epoch that follow each other, in order."""
    chosen: list[set[int]] = [set() for _ in records]
    groups: dict[tuple[bytes, bool], list[int]] = {}
    for n, record in enumerate(records):
        if record.batch is not None:
            groups.setdefault((record.batch.group.hash, record.batch.is_history), []).append(n)
    for places in groups.values():
        for _, found in groupby(places, key=lambda n: records[n].time // window_ms):
            at: list[int] = list(found)
            batches = [batch for batch in (records[n].batch for n in at) if batch is not None]
            for tag in _tags(batches):
                for k, position in tag:
                    chosen[at[k]].add(position)
    return _put_together(records, chosen)


def _tags(batches: Sequence[Batch]) -> Iterator[list[tuple[int, int]]]:
    """For each tag of the group what to keep: (which batch, which of its values)."""
    width = len(batches[0].values)
    if all(b.index is None and b.quality is GOOD and len(b.values) == width for b in batches):
        for position, column in enumerate(zip(*(b.values for b in batches), strict=True)):
            yield [(n, position) for n in picks(column)]
        return
    samples: dict[int, list[tuple[int, int]]] = {}
    for n, batch in enumerate(batches):
        for position, tag in enumerate(range(len(batch.values)) if batch.index is None else batch.index):
            samples.setdefault(tag, []).append((n, position))
    for found in samples.values():
        values = [batches[n].values[position] for n, position in found]
        qualities = [_quality(batches[n], position) for n, position in found]
        yield [found[k] for k in picks(values, qualities)]


def _quality(batch: Batch, position: int) -> Quality:
    return batch.quality if isinstance(batch.quality, Quality) else batch.quality[position]


def picks(values: Sequence[Any], qualities: Sequence[Quality] | None = None) -> Collection[int]:
    """Which of a tag's values in one window stay; without `qualities` all are good."""
    end = len(values) - 1
    if end < 2:
        return range(end + 1)
    if qualities is None and type(values[0]) in _NUMBERS and values[0] == values[0]:
        try:
            return {0, end, values.index(min(values)), values.index(max(values))}
        except TypeError:  # not all are numbers
            pass
    kept = {0, end}
    low = high = -1
    for n, value in enumerate(values):
        is_number = type(value) in _NUMBERS and value == value  # noqa: PLR0124 - NaN does not
        if n and qualities is not None and qualities[n] != qualities[n - 1]:
            kept |= {n - 1, n}
        if not is_number:
            if n and not _is_same(value, values[n - 1]):
                kept.add(n)
        elif qualities is None or qualities[n].level != "bad":
            low = n if low < 0 or value < values[low] else low
            high = n if high < 0 or value > values[high] else high
    return kept | {n for n in (low, high) if n >= 0}


def _is_same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other or (value != value and other != other))  # noqa: PLR0124


def _put_together(records: Sequence[Record], chosen: Sequence[set[int]]) -> list[Record]:
    """The records with the chosen values, and the gap over those that vanished in its place."""
    kept: list[Record] = []
    gap: Gap | None = None
    for record, positions in zip(records, chosen, strict=True):
        lost: Gap | None = None
        if record.batch is None:
            if record.gap is None or record.gap.cause != "thinned":
                kept.append(record)
            else:
                lost = record.gap
        elif len(positions) == len(record.batch.values) and positions:
            kept.append(record)
        elif positions:
            kept.append(replace(record, batch=_sparse(record.batch, sorted(positions)), is_thinned=True))
        else:
            lost = Gap(record.seq, record.seq, record.time, record.time, 1, "thinned")
        if lost is not None:
            gap = lost if gap is None else _joined(gap, lost)
    if gap is not None:
        kept.append(gap_record(gap, records[0].epoch))
        kept.sort(key=lambda record: record.seq)
    return kept


def _joined(gap: Gap, other: Gap) -> Gap:
    """Both as one; the other ends behind the first, but may begin before it."""
    joined = gap.joined(other)
    if other.first_seq < gap.first_seq:
        joined = replace(joined, first_seq=other.first_seq, first_time=other.first_time or gap.first_time)
    return joined


def _sparse(batch: Batch, positions: Sequence[int]) -> Batch:
    values, quality, index, times, served = batch.values, batch.quality, batch.index, batch.times, batch.server_times
    return replace(
        batch,
        values=[values[n] for n in positions],
        quality=quality if isinstance(quality, Quality) else [quality[n] for n in positions],
        index=positions if index is None else [index[n] for n in positions],
        times=None if times is None else [times[n] for n in positions],
        server_times=None if served is None else [served[n] for n in positions],
        raw=None,
    )
