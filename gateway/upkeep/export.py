"""Records as a table of samples, in CSV or JSON Lines: what a spreadsheet or a database can take in.

One row a sample:

    ts,ts_ms,device,tag,value,unit,quality,seq,epoch,class,clock,server_ms,history
    2026-11-22T06:00:00.123Z,1795330000123,boiler,flow,1.5,m3/h,good,4711,9f31c2-3,data,synced,,

`ts` is UTC, a source time where the sample has one; `clock` says what it is worth: synced, mended by what was known
later, holdover (plausible at least), or unsynced. `server_ms` is when the server that handed the sample on had it,
where that was kept; `history` is true where it was read later from what the device remembers. In JSON Lines these two
are left out where they say nothing. Values are exact: floats with all digits that tell them apart, bytes as lower-case
hexadecimal text, lists and objects in JSON. In CSV, NaN and infinities are nan, inf, -inf and no value is an empty
field; in JSON Lines all of them are null, and the quality says `uncertain:nan`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import isfinite
from typing import Any, Literal

import orjson

from gateway.model import GOOD, Batch, Definition, Quality, uncertain
from gateway.spool.record import Record
from gateway.upkeep.moments import iso
from gateway.upkeep.records import Wanted, clock_of, frames
from gateway.upkeep.survey import Advance, Survey

Format = Literal["csv", "jsonl"]
_LATER = ("server_ms", "history")
COLUMNS = ("ts", "ts_ms", "device", "tag", "value", "unit", "quality", "seq", "epoch", "class", "clock", *_LATER)
_KEPT = 4096


@dataclass(slots=True)
class Count:
    """What went into the table, and what has no place in one: `gaps` lost records in `gap_records` pieces.

    `unread` records could not be read for want of what `obstacle` says.
    """

    unread: int = 0
    obstacle: str = ""
    samples: int = 0
    records: int = 0
    gaps: int = 0
    gap_records: int = 0
    others: int = 0


class Table:
    """Turns records into rows of bytes. `count` grows as they are made."""

    def __init__(self, form: Format, wanted: Wanted) -> None:
        self.count = Count()
        self._wanted = wanted
        self._rows = _csv if form == "csv" else _jsonl
        self._mark: str | bool = "true" if form == "csv" else True
        self._picked: dict[bytes, Sequence[int] | None] = {}

    def pieces(self, survey: Survey, *, advance: Advance | None = None) -> Iterator[bytes]:
        """The rows of one class, a record at a time. Memory stays bounded by a frame."""
        record_class = survey.part.record_class
        for seen, records in frames(survey, self._wanted, advance=advance):
            if seen.obstacle:
                self.count.unread += seen.head.count
                self.count.obstacle = seen.obstacle
            for record in records:
                rows = self._samples(record, record_class, clock_of(seen.head, record))
                self.count.samples += len(rows)
                if rows:
                    yield self._rows(rows)

    def _samples(self, record: Record, record_class: str, clock: str) -> list[tuple[Any, ...]]:
        """The rows of one record, in the order of the columns."""
        batch = record.batch
        if batch is None:
            self._note(record)
            return []
        tail = (record.seq, record.epoch, record_class, clock)
        mark = self._mark if batch.is_history else None
        span = self._wanted.span
        if batch.times is None and not span.holds(batch.time):
            return []
        positions = self._positions(batch.group)
        if positions is not None and not positions:
            return []
        chosen = samples(batch)
        if positions is not None:
            wanted = set(positions)
            chosen = (sample for sample in chosen if sample[0] in wanted)
        if batch.times is not None:
            chosen = (sample for sample in chosen if span.holds(sample[1]))
            device = batch.group.device
            rows = [(iso(at), at, device, *rest, *tail, served or None, mark) for _, at, *rest, served in chosen]
        else:
            stamp = (iso(batch.time), batch.time, batch.group.device)
            rows = [(*stamp, *rest, *tail, served or None, mark) for _, _, *rest, served in chosen]
        self.count.records += bool(rows)
        return rows

    def _note(self, record: Record) -> None:
        gap = record.gap
        if gap is None:
            self.count.others += self._wanted.span.holds(record.time)
        elif self._wanted.span.meets(gap.first_time or gap.last_time, gap.last_time or gap.first_time):
            self.count.gaps += gap.count
            self.count.gap_records += 1

    def _positions(self, definition: Definition) -> Sequence[int] | None:
        if definition.hash not in self._picked:
            if len(self._picked) >= _KEPT:
                self._picked.clear()
            self._picked[definition.hash] = self._wanted.positions(definition)
        return self._picked[definition.hash]


def header(form: Format) -> bytes:
    """What stands before the first row."""
    return (",".join(COLUMNS) + "\n").encode() if form == "csv" else b""


def samples(batch: Batch) -> Iterator[tuple[int, int, str, Any, str, Quality, int]]:
    """Each sample of a batch: position in its group, time (ms), tag, value, unit, quality, the server's time or 0."""
    group, index = batch.group, batch.index
    order: Sequence[int] = range(len(group.names)) if index is None else index
    names: Sequence[str] = group.names if index is None else [group.names[i] for i in index]
    units: Sequence[str] = group.units if index is None else [group.units[i] for i in index]
    quality, count = batch.quality, len(batch.values)
    qualities = repeat(quality, count) if isinstance(quality, Quality) else quality
    times = repeat(batch.time, count) if batch.times is None else batch.times
    served = repeat(0, count) if batch.server_times is None else batch.server_times
    return zip(order, times, names, batch.values, units, qualities, served, strict=True)


def _csv(rows: Sequence[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    simple = [row if type(row[4]) is float else (*row[:4], _cell(row[4]), *row[5:]) for row in rows]
    csv.writer(text, lineterminator="\n").writerows(simple)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _cell(value: Any) -> Any:
    """A value as a field of CSV."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value.hex()
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=_foreign, ensure_ascii=False)
    return value


def _jsonl(rows: Sequence[tuple[Any, ...]]) -> bytes:
    return b"".join([_line(row) for row in rows])


def _line(row: tuple[Any, ...]) -> bytes:
    value = row[4]
    if type(value) is float and not isfinite(value):
        quality = uncertain("nan") if row[6] == GOOD else row[6]
        row = (*row[:4], None, row[5], quality, *row[7:])
    document = dict(zip(COLUMNS, row, strict=True))
    for key in _LATER:
        if document[key] is None:
            del document[key]
    try:
        return orjson.dumps(document, default=_foreign, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # integers beyond 64 bits, broken text
        return json.dumps(document, default=_foreign).encode() + b"\n"


def _foreign(value: object) -> str:
    return value.hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)
