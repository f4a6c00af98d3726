r"""The payload of a frame, format 2: records to bytes, and back. Pure. Format 1 is read by `payload_v1`.

Sixteen sections, each a u32 length, little endian, and so many bytes. *Numbers* and *streams* are those of `columns`,
a *line* is one of `objects` with a newline behind it. The columns of a table stand one behind the other, as numbers.

     n  section    holds
    --  ---------  ------------------------------------------------------------------------------------------------
     0  groups     8 bytes each: hashes of the definitions that batches refer to; they lie in the frame's dictionary
     1  qualities  a line: every quality that occurs, `good` first
     2  shapes     table of 3 columns: group (from 0), count of values, 1 if sparse
     3  kinds      a byte for each value of each shape: its kind
     4  positions  numbers: for each value of each sparse shape its place in the group
     5  records    table of 6 columns: what, seq, age, time, quality, marks
     6  codes      numbers: where marked, the quality of each value
     7  times      numbers: where marked, the source time of each value; behind those of all records, likewise, the
                   server's time of each
     8  flags      \
     9  i64         \  streams: the values of all batches by their kinds, in the order of the records. A batch
    10  u64          > of a shape that an earlier one of this frame has had is XORed with the last of those, kind
    11  f32         /  by kind, before the stream is shuffled.
    12  f64        /
    13  objects    a line for each batch that has some
    14  others     a line for each record that is no batch; its first item says how many bytes it has in `blobs`
    15  blobs      bytes

*What* a record is: from 0 on a batch, the number of its shape; -1 a gap, -2 a message, -3 an event, -4 an audit entry;
what is lower is kept for kinds to come, and skipped. `seq` counts from the frame's first seq, `age` is how many ms
before the frame's anchor the record was appended, `time` is wall ms, `quality` a position in `qualities`. Marks: 1 a
quality for each value, 2 a source time for each value, 4 thinned, 8 history, 16 a server's time for each value, 0 where
there is none. The lines of others:

    gap           [0, first_seq, last_seq, first_time, last_time, count, cause]
    message       [bytes, topic, qos, retain, bytes of properties]     blob: properties, payload
    event, audit  [0, name, fields]

Nothing refers to another frame, except groups to their definitions: a damaged frame costs itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

from gateway.journal.frame import CODEC_JSON_ZLIB, Head
from gateway.model import GOOD, Batch, Definition, Quality
from gateway.spool import payload_v1
from gateway.spool.columns import WIDTHS, Layout, layout, near, numbers, numbers_of, shuffled, unshuffled, xored
from gateway.spool.habit import Habit, habit_of
from gateway.spool.objects import line, values_of
from gateway.spool.record import Gap, Kind, Message, Note, Record, Regime, gap_record, quality_of
from gateway.spool.timeline import regime_of_head

_GAP, _MESSAGE, _EVENT, _AUDIT = -1, -2, -3, -4
_NOTES: Mapping[int, Kind] = {_EVENT: "event", _AUDIT: "audit"}
_QUALITIES, _TIMES, _THINNED, _HISTORY, _SERVED = 1, 2, 4, 8, 16
_SECTIONS = 16
_LENGTH = struct.Struct("<I")
_COLUMNS = 6
_ROW = 8 * _COLUMNS
_ENTRY = 32  # of a frame's dictionary, and the group's hash
_HALF = 1 << 63
_U64 = (1 << 64) - 1
_FARTHEST_HEAD = 1 << 62  # ms; a driver's nonsense must not reach the frame's head
_Sliced = TypeVar("_Sliced", bytes, list[int])


class _Shape(NamedTuple):
    """What batches have in common whose values lie in the streams alike: group by its number, places, kinds."""

    group: int
    places: tuple[int, ...] | None
    kinds: bytes

    @property
    def size(self) -> int:
        return 24 + len(self.kinds) + 8 * len(self.places or ())


class _Row:
    """A batch as bytes, before it is known whether there is room for it. `size`: of what it shares with no other."""

    __slots__ = ("index", "kinds", "layout", "line", "packed", "qualities", "served", "size", "times")

    def __init__(self, batch: Batch) -> None:
        values: Sequence[Any] = batch.values
        self.index = None if batch.index is None else tuple(batch.index)
        self.qualities = None if isinstance(batch.quality, str) else list(batch.quality)
        self.times = None if batch.times is None else near(batch.times)
        self.served = None if batch.server_times is None else near(batch.server_times)
        columns = (self.index, self.qualities, self.times, self.served)
        beside = [len(column) for column in columns if column is not None]
        if beside and not min(beside) == max(beside) == len(values):
            values = self._cut(values, min(*beside, len(values)))
        self._pack(habit_of(batch.group), values)
        objects = self.layout.objects_of(values)
        self.line = line(objects) + b"\n" if objects else b""
        self.size = sum(map(len, self.packed)) + len(self.line)
        for column in (self.qualities, self.times, self.served):
            self.size += 0 if column is None else 8 * len(column)

    def _cut(self, values: Sequence[Any], count: int) -> Sequence[Any]:
        """A driver's mistake must not stop the writer: what has no counterpart tells nothing and is left out."""
        self.index = None if self.index is None else self.index[:count]
        self.qualities = None if self.qualities is None else self.qualities[:count]
        self.times = None if self.times is None else self.times[:count]
        self.served = None if self.served is None else self.served[:count]
        return values[:count]

    def _pack(self, habit: Habit, values: Sequence[Any]) -> None:
        types = list(map(type, values))
        kinds = habit.guess(self.index, types)
        if kinds is not None:
            self.kinds, self.layout = kinds, layout(kinds)
            packed = self.layout.pack(values)
            if packed is not None:
                self.packed = packed
                return
        self.kinds = habit.look(self.index, values)
        self.layout = layout(self.kinds)
        self.packed = self.layout.pack(values) or []
        if self.index is None:
            habit.learn(types, self.kinds)


class Payload:
    """Collects the records of one frame. `size` is what it takes, in bytes, with all definitions it needs."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.last_seq = first_seq
        self.count = 0
        self.size = 128
        self._min_time = 0
        self._max_time = 0
        self.entries: dict[bytes, bytes] = {}
        self._groups: dict[bytes, int] = {}
        self._qualities: dict[str, int] = {GOOD: 0}
        self._shapes: dict[_Shape, int] = {}
        self._last: dict[int, list[bytes]] = {}
        self._rows: list[tuple[int, ...]] = []
        self._codes: list[int] = []
        self._times: list[int] = []
        self._served: list[int] = []
        self._has_two_clocks = False
        self._streams: tuple[list[bytes], ...] = tuple([] for _ in WIDTHS)
        self._objects: list[bytes] = []
        self._others: list[bytes] = []
        self._blobs: list[bytes] = []

    def add(self, record: Record, age: int, most: int) -> bool:
        """Append a record accepted `age` ms ago. False: it would be more than `most` bytes; the first always goes."""
        batch = record.batch
        added = self._add_other(record, most) if batch is None else self._add_batch(batch, most)
        if added is None:
            return False
        what, quality, marks = added
        offset = (record.seq - self.first_seq + _HALF & _U64) - _HALF
        time = record.time
        self._rows.append((what, offset, *near((age, time)), quality, marks | _THINNED * record.is_thinned))
        self.count += 1
        self.last_seq = record.seq
        if batch is not None and batch.is_history:
            self._reach(min(batch.times or (time,)))
            self._has_two_clocks |= record.regime is not None
        if time:
            self._reach(time)
        return True

    def _reach(self, time: int) -> None:
        """Have the head's times span this one too. They are mended as those of one clock: of two they cannot tell."""
        known = max(-_FARTHEST_HEAD, min(_FARTHEST_HEAD, time))
        self._min_time = min(self._min_time or known, known)
        self._max_time = max(self._max_time or known, known)

    @property
    def min_time(self) -> int:
        """The earliest time there is, 0 where that cannot be told."""
        return 0 if self._has_two_clocks else self._min_time

    @property
    def max_time(self) -> int:
        """The latest time there is, 0 where that cannot be told."""
        return 0 if self._has_two_clocks else self._max_time

    def _takes(self, size: int, most: int) -> bool:
        """Whether there is room for a record of that size; then it is counted."""
        size += self.size + _ROW
        if self.count and size > most:
            return False
        self.size = size
        return True

    def _add_batch(self, batch: Batch, most: int) -> tuple[int, int, int] | None:
        """Take a batch: its shape, the code of its quality, and its marks; None where there is no room."""
        row, group = _Row(batch), batch.group
        size, definition = row.size, b""
        if group.hash not in self._groups:
            definition = _document(group)
            size += len(definition) + _ENTRY
        shape = _Shape(self._groups.get(group.hash, len(self._groups)), row.index, row.kinds)
        if shape not in self._shapes:
            size += shape.size
        qualities: Sequence[Any] = [batch.quality] if row.qualities is None else row.qualities
        new = [text for text in dict.fromkeys(qualities) if text not in self._qualities]
        if new:
            size += len(line(new))
        if not self._takes(size, most):
            return None
        if definition:
            self._groups[group.hash] = shape.group
            self.entries[group.hash] = definition
        for text in new:
            self._qualities[text] = len(self._qualities)
        codes = list(map(self._qualities.__getitem__, qualities))
        marks = 0
        if row.qualities is not None:
            self._codes += codes
            codes, marks = [0], _QUALITIES
        return self._put(shape, row), codes[0], marks | self._put_times(row) | _HISTORY * batch.is_history

    def _put_times(self, row: _Row) -> int:
        """The times of a batch's values into their columns; the marks that tell of them."""
        marks = 0
        if row.times is not None:
            self._times += row.times
            marks = _TIMES
        if row.served is not None:
            self._served += row.served
            marks |= _SERVED
        return marks

    def _put(self, shape: _Shape, row: _Row) -> int:
        """The values into their streams; the number of the shape."""
        number = self._shapes.setdefault(shape, len(self._shapes))
        last = self._last.get(number)
        packed = row.packed if last is None else map(xored, row.packed, last)
        self._last[number] = row.packed
        for part, data in zip(row.layout.parts, packed, strict=True):
            self._streams[part.kind].append(data)
        if row.line:
            self._objects.append(row.line)
        return number

    def _add_other(self, record: Record, most: int) -> tuple[int, int, int] | None:
        what, items, blob = _other(record)
        written = line([len(blob), *items]) + b"\n"
        if not self._takes(len(written) + len(blob), most):
            return None
        self._others.append(written)
        self._blobs.append(blob)
        return what, 0, 0

    def sealed(self) -> bytes:
        """The payload's bytes."""
        shapes = tuple(self._shapes)
        table = [shape.group for shape in shapes]
        table += [len(shape.kinds) for shape in shapes]
        table += [shape.places is not None for shape in shapes]
        sections = (
            b"".join(self._groups),
            line(list(self._qualities)),
            numbers(table),
            b"".join([shape.kinds for shape in shapes]),
            numbers(near([at for shape in shapes for at in shape.places or ()])),
            numbers([*chain.from_iterable(zip(*self._rows, strict=True))]),
            numbers(self._codes),
            numbers([*self._times, *self._served]),
            *(shuffled(b"".join(s), width) for s, width in zip(self._streams, WIDTHS, strict=True)),
            b"".join(self._objects),
            b"".join(self._others),
            b"".join(self._blobs),
        )
        return b"".join([piece for section in sections for piece in (_LENGTH.pack(len(section)), section)])


@lru_cache(maxsize=4096)
def _document(definition: Definition) -> bytes:
    return definition.document()


def _other(record: Record) -> tuple[int, tuple[Any, ...], bytes]:
    """What a record is that is no batch, the items of its line, and its blob."""
    other = record.other
    if isinstance(other, Message):
        items = (other.topic, other.qos, other.retain, len(other.properties))
        return _MESSAGE, items, other.properties + other.payload
    if isinstance(other, Note):
        return _AUDIT if record.kind == "audit" else _EVENT, (other.name, dict(other.fields)), b""
    gap = other or Gap(record.seq, record.seq, 0, 0, 1, "damaged")
    return _GAP, (gap.first_seq, gap.last_seq, gap.first_time, gap.last_time, gap.count, gap.cause), b""


def decode(head: Head, payload: bytes, lookup: Callable[[bytes], Definition | None]) -> list[Record]:
    """The records of a frame. Those whose definition `lookup` cannot find come back as gaps; unknown kinds are skipped.

    Raises ValueError on anything that no `Payload`, of this format or an earlier one, wrote.
    """
    regime = regime_of_head(head)
    try:
        if head.codec == CODEC_JSON_ZLIB:
            return payload_v1.decode(head, payload, lookup, regime)
        return _Opened(head, payload, lookup, regime).records()
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError, struct.error) as error:
        raise ValueError(f"a frame's payload cannot be read: {error!r}") from error


class _Opened:
    """A payload taken apart; `records` goes through it once. Every count is checked against what there is."""

    def __init__(
        self, head: Head, payload: bytes, lookup: Callable[[bytes], Definition | None], regime: Regime | None
    ) -> None:
        sections, at = [], 0
        for _ in range(_SECTIONS):
            (length,) = _LENGTH.unpack_from(payload, at)
            at += _LENGTH.size + length
            sections.append(payload[at - length : at])
        if at != len(payload):
            raise ValueError(f"the sections take {at} of {len(payload)} bytes")
        self._head = head
        self._regime = regime
        keys, qualities, table, kinds, positions, records, codes, times = sections[:8]
        self._groups = [lookup(keys[n : n + 8]) for n in range(0, len(keys), 8)]
        self._qualities = list(map(quality_of, values_of(qualities)))
        self._shapes = self._read_shapes(_columns(table, 3), kinds, numbers_of(positions))
        self._rows = list(zip(*_columns(records, _COLUMNS), strict=True))
        self._codes = _Run(numbers_of(codes))
        self._times, self._served = self._read_times(numbers_of(times))
        self._streams = [_Run(unshuffled(s, width)) for s, width in zip(sections[8:13], WIDTHS, strict=True)]
        self._objects = iter(sections[13].splitlines())
        self._others = iter(sections[14].splitlines())
        self._blobs = _Run(sections[15])
        self._last: dict[int, list[bytes]] = {}

    def _read_shapes(
        self, table: Sequence[list[int]], kinds: bytes, positions: list[int]
    ) -> list[tuple[Definition | None, list[int] | None, Layout]]:
        kind_run, position_run = _Run(kinds), _Run(positions)
        return [
            (
                self._groups[group] if group >= 0 else None,
                position_run.take(count) if is_sparse else None,
                layout(kind_run.take(count)),
            )
            for group, count, is_sparse in zip(*table, strict=True)
        ]

    def _read_times(self, times: list[int]) -> tuple[_Run[list[int]], _Run[list[int]]]:
        """The times of sources, and behind them those of servers: who does not know of these reads the others right."""
        first = sum(self._shapes[what][2].count for what, *_, marks in self._rows if what >= 0 and marks & _TIMES)
        return _Run(times[:first]), _Run(times[first:])

    def records(self) -> list[Record]:
        """All records, in order."""
        head, epoch = self._head, self._head.epoch
        found = []
        for what, offset, _, time, quality, marks in self._rows:
            seq = head.first_seq + offset & _U64
            if what < 0:
                record = self._other(seq, epoch, what, time)
            else:
                record = self._batch(seq, epoch, what, time, quality, marks)
            if record is not None:
                found.append(record)
        return found

    def _batch(self, seq: int, epoch: str, number: int, time: int, code: int, marks: int) -> Record:
        group, index, form = self._shapes[number]
        packed = [self._streams[part.kind].take(part.size) for part in form.parts]
        if number in self._last:
            packed = list(map(xored, packed, self._last[number]))
        self._last[number] = packed
        values = form.unpack(packed, values_of(next(self._objects, b"")) if form.objects is not None else ())
        quality: Quality | list[Quality] = self._qualities[code]
        if marks & _QUALITIES:
            quality = list(map(self._qualities.__getitem__, self._codes.take(form.count)))
        times = self._times.take(form.count) if marks & _TIMES else None
        served = self._served.take(form.count) if marks & _SERVED else None
        if group is None:
            return gap_record(Gap(seq, seq, time, time, 1, "damaged"), epoch, self._regime)
        places = None if index is None else index.copy()
        batch = Batch(group, time, values, quality, places, times, None, served, bool(marks & _HISTORY))
        return Record(seq, epoch, batch, regime=self._regime, is_thinned=bool(marks & _THINNED))

    def _other(self, seq: int, epoch: str, what: int, time: int) -> Record | None:
        size, *items = values_of(next(self._others, b""))
        blob = self._blobs.take(size)
        if what == _GAP:
            return gap_record(Gap(*items), epoch, self._regime)
        if what == _MESSAGE:
            topic, qos, retain, properties = items
            message = Message(topic, blob[properties:], qos, retain, time, blob[:properties])
            return Record(seq, epoch, None, "message", message, self._regime)
        if what in _NOTES:
            name, fields = items
            return Record(seq, epoch, None, _NOTES[what], Note(time, name, fields), self._regime)
        return None


class _Run(Generic[_Sliced]):
    """Bytes or numbers, taken from front to back."""

    __slots__ = ("_at", "_whole")

    def __init__(self, whole: _Sliced) -> None:
        self._whole: _Sliced = whole
        self._at = 0

    def take(self, count: int) -> _Sliced:
        """The next `count`. Raises ValueError where there are fewer."""
        taken: _Sliced = self._whole[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError(f"{count} are needed where {len(taken)} are left")
        self._at += count
        return taken


def _columns(data: bytes, count: int) -> list[list[int]]:
    """The columns of a table of numbers."""
    found = numbers_of(data)
    rows = len(found) // count
    if rows * count != len(found):
        raise ValueError(f"{len(found)} numbers are no table of {count} columns")
    return [found[n * rows : (n + 1) * rows] for n in range(count)]
