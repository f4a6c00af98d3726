"""The window: the newest records, in memory, in order, within a bound.

    left  |  durable, kept a while for readers  |  being written  |  pending: neither on the disk nor acknowledged
    ------+-------------------------------------+-----------------+-----------------------------------------------
        base                                                                                                    head

Records leave at the front. Only when the disk does not keep up are pending ones dropped, the oldest first or, where
those matter more, the newest; a gap then stands in their place. Three lists side by side and a start index: appending,
slicing and leaving cost one C call each.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import lru_cache, reduce
from operator import attrgetter

from gateway.model import Batch, Definition
from gateway.spool.record import Gap, Message, Note, Record, gap_record

_SEQ = attrgetter("seq")
_DEAD = 64  # left records stay listed until there are so many: shifting a list at each commit would cost more
_RECORD = 300
_VALUE = 40  # a float and its place in a list


class Window:
    """The newest records. `head` is the number of the last one accepted, `base` of the last one that left.

    `bytes` is an estimate of the memory held.
    """

    __slots__ = ("_records", "_sizes", "_start", "_times", "base", "bytes", "head")

    def __init__(self, base: int) -> None:
        self.base = base
        self.head = base
        self.bytes = 0
        self._records: list[Record] = []
        self._sizes: list[int] = []
        self._times: list[float] = []
        self._start = 0

    def append(self, record: Record, size: int, time: float) -> None:
        """Take the next record; `time` is the monotonic time of its acceptance in seconds."""
        self.head = record.seq
        self._records.append(record)
        self._sizes.append(size)
        self._times.append(time)
        self.bytes += size

    def skip(self) -> int:
        """Count a record that nobody wants: its number. Only for an empty window."""
        self.base = self.head = self.head + 1
        return self.head

    def after(self, seq: int, n: int) -> list[Record] | None:
        """Up to `n` records above `seq`; None where the next one has already left."""
        if seq < self.base:
            return None
        i = self._behind(seq)
        return self._records[i : i + n]

    def _behind(self, seq: int) -> int:
        """Index of the first record above `seq`. A gap stands for many numbers: then it must be searched."""
        records = self._records
        i = self._start + seq - self.base
        if 0 < i <= len(records) and records[i - 1].seq == seq:
            return i
        return bisect_right(records, seq, self._start, key=_SEQ)

    def pending(self, seq: int, most_bytes: int) -> tuple[list[Record], list[float]]:
        """Records above `seq` with their times, up to about `most_bytes` of memory, at least one if there is any."""
        first = last = self._behind(seq)
        while last < len(self._sizes) and most_bytes > 0:
            most_bytes -= self._sizes[last]
            last += 1
        return self._records[first:last], self._times[first:last]

    def time_after(self, seq: int) -> float | None:
        """When the oldest record above `seq` was accepted."""
        i = self._behind(seq)
        return self._times[i] if i < len(self._times) else None

    def record_after(self, seq: int) -> Record | None:
        """The oldest record above `seq`."""
        i = self._behind(seq)
        return self._records[i] if i < len(self._records) else None

    def release(self, seq: int) -> None:
        """Let go of all records up to `seq`."""
        if seq > self.base:
            self._leave(self._behind(seq), seq)

    def shrink(self, seq: int, most_bytes: int) -> None:
        """Let go of records up to `seq`, the oldest first, until `most_bytes` are left."""
        i = self._start
        held = self.bytes
        while held > most_bytes and i < len(self._records) and self._records[i].seq <= seq:
            held -= self._sizes[i]
            i += 1
        if i > self._start:
            self._leave(i, self._records[i - 1].seq)

    def _leave(self, i: int, seq: int) -> None:
        """Records before index `i` have left; `seq` was the last of them."""
        sizes, start = self._sizes, self._start
        self.bytes -= sizes[start] if i == start + 1 else sum(sizes[start:i])
        self.base = seq
        if i == len(sizes):
            self._records.clear()
            self._sizes.clear()
            self._times.clear()
            i = 0
        elif i >= _DEAD:
            del self._records[:i], self._sizes[:i], self._times[:i]
            i = 0
        self._start = i

    def drop(self, seq: int, most_bytes: int, epoch: str) -> Gap | None:
        """Drop records above `seq`, the oldest first, until `most_bytes` are left; a gap takes their place.

        The newest record always stays. Returns what was dropped now, None where nothing could be.
        """
        first = last = self._behind(seq)
        held = self.bytes
        while held > most_bytes and last < len(self._records) - 1:
            held -= self._sizes[last]
            last += 1
        if last == first:
            return None
        gap = reduce(Gap.joined, map(_gap_over, self._records[first:last]))
        regime = self._records[last - 1].regime
        if self._records[first].regime != regime:
            gap = replace(gap, first_time=0)  # two clocks in one gap: of the earlier one nothing is claimed
        dropped = sum(record.gap is None for record in self._records[first:last])
        self._records[first:last] = [gap_record(gap, epoch, regime)]
        self._times[first:last] = [self._times[first]]
        self._sizes[first:last] = [_RECORD]
        self.bytes = held + _RECORD
        return Gap(gap.first_seq, gap.last_seq, gap.first_time, gap.last_time, dropped, "memory") if dropped else None

    def refuse(self, seq: int, epoch: str) -> Gap:
        """Put a gap in the place of the newest record; one with the gap before it, where that lies above `seq`.

        Returns what was refused now.
        """
        record, time = self._records.pop(), self._times.pop()
        self.bytes -= self._sizes.pop()
        refused = gap = Gap(record.seq, record.seq, record.time, record.time, 1, "refused")
        if len(self._records) > self._start:
            last = self._records[-1]
            if last.seq > seq and last.gap is not None and (last.gap.cause, last.regime) == ("refused", record.regime):
                gap = last.gap.joined(gap)
                self._records.pop()
                self.bytes -= self._sizes.pop()
                time = self._times.pop()
        self.append(gap_record(gap, epoch, record.regime), _RECORD, time)
        return refused


def _gap_over(record: Record) -> Gap:
    if record.gap is not None:
        return record.gap
    return Gap(record.seq, record.seq, record.time, record.time, 1, "memory")


def footprint(batch: Batch) -> int:
    """About how many bytes of memory a batch holds. Cheap for numbers; text and the like are looked at."""
    size = _RECORD + _VALUE * len(batch.values)
    if batch.raw is not None:
        size += len(batch.raw)
    size += _VALUE * ((batch.times is not None) + (batch.server_times is not None)) * len(batch.values)
    if not _is_numeric(batch.group):
        size += sum(map(_extent, batch.values))
    return size


def extent(content: Message | Note) -> int:
    """About how many bytes of memory a message or a note holds."""
    if isinstance(content, Message):
        return _RECORD + len(content.topic) + len(content.payload) + len(content.properties)
    return _RECORD + len(content.name) + _extent(dict(content.fields))


@lru_cache(maxsize=4096)
def _is_numeric(group: Definition) -> bool:
    return group.is_numeric


def _extent(value: object) -> int:
    """What a value needs beyond a number's room."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return 200 + sum(_extent(k) + _extent(v) + _VALUE for k, v in value.items())
    if isinstance(value, list | tuple):
        return sum(_extent(v) + _VALUE for v in value)
    return 0
