"""Records and their bytes. Pure: a frame's payload is made of records here, and read back.

The payload is one JSON object:

    {"groups": ["<hash, 16 hex>", ...],  definitions the records below refer to; they lie in the frame's dictionary
     "records": [
       [seq, age, group, time, values],                                            a batch, dense, all good
       [seq, age, group, time, values, quality, index, times, wrapped],            any other batch
       [seq, age, -1, [first_seq, last_seq, first_time, last_time, count, cause]]  a gap
     ]}

`seq` counts from the frame's first seq; `age` is how many ms before the frame's anchor the record was appended; `group`
is a position in `groups`. Other negative numbers there are kept for kinds to come: events, messages, audit entries.

Batches come back exactly as they were, value for value and type for type. JSON itself cannot carry NaN, infinities,
bytes, integers beyond 64 bits or broken text: where one occurs the record is `wrapped`, and such values stand as
objects with one key: `f` a float's eight bytes in hex, `b` bytes in base64, `i` an integer in hex, `s` UTF-8 with
surrogates in hex, `o` an object as a list of pairs.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import orjson

from gateway.journal.frame import Head
from gateway.model import GOOD, Batch, Definition, Quality

Cause = Literal["evicted", "refused", "thinned", "memory", "damaged", "overtaken", "too large"]
Kind = Literal["batch", "gap", "message", "event", "audit"]

_GAP = -1
_DEEPEST = 100  # levels of lists and objects within one value; JSON parsers give up soon after
_FARTHEST = 1 << 62  # ms; a driver's nonsense must not reach the frame's head
_DOUBLE = struct.Struct(">d")


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that are lost: from `first_seq` to `last_seq`, `count` of them. Times in ms, 0 where not known.

    Causes: `evicted` to keep within `max_bytes`; `refused` for the same reason, where the older ones matter more;
    `thinned`, so that of some only the remarkable values are left; dropped from `memory` while the disk failed;
    `damaged` on the disk; `overtaken`, by a cursor that holds nothing; `too large` for the disk.
    """

    first_seq: int
    last_seq: int
    first_time: int
    last_time: int
    count: int
    cause: Cause

    def after(self, seq: int) -> Gap:
        """The part above `seq`."""
        if seq < self.first_seq:
            return self
        return replace(self, first_seq=seq + 1, count=min(self.count, self.last_seq - seq))

    def joined(self, later: Gap) -> Gap:
        """This gap and one that follows it, as one."""
        return replace(
            self,
            last_seq=later.last_seq,
            first_time=self.first_time or later.first_time,
            last_time=later.last_time or self.last_time,
            count=self.count + later.count,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """Any MQTT message, kept as it came: published under its own topic. `time` is when it came, wall ms.

    `properties` is the MQTT 5 property field of its PUBLISH without the length in front, empty where there are none.
    """

    topic: str
    payload: bytes
    qos: Literal[0, 1, 2]
    retain: bool
    time: int
    properties: bytes = b""


@dataclass(frozen=True, slots=True)
class Note:
    """An event or an audit entry: something that happened at `time` (wall ms), by name, with JSON-able details."""

    time: int
    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regime:
    """A stretch of a machine's boot during which wall time ran `offset` ms ahead of monotonic time, not synchronised.

    `is_plausible`: the clock at least did not show a time that has been before.
    """

    boot_id: bytes
    offset: int
    is_plausible: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the spool, unique by (epoch, seq): a batch, or in its place what `other` says.

    `regime`: the clock it was taken by, None for one that was synchronised. `is_thinned`: its batch was denser once.
    """

    seq: int
    epoch: str
    batch: Batch | None
    kind: Kind = "batch"
    other: Gap | Message | Note | None = None
    regime: Regime | None = None
    is_thinned: bool = False

    @property
    def gap(self) -> Gap | None:
        """The gap, where that is what it is."""
        return self.other if isinstance(self.other, Gap) else None

    @property
    def time(self) -> int:
        """Wall time in ms: the batch's, or the last known one of the gap."""
        if self.batch is not None:
            return self.batch.time
        if isinstance(self.other, Gap):
            return self.other.last_time
        return self.other.time if self.other is not None else 0


def gap_record(gap: Gap, epoch: str) -> Record:
    """The record that stands for a gap; it bears the number of the last record lost."""
    return Record(gap.last_seq, epoch, None, "gap", gap)


class Payload:
    """Collects the records of one frame. `size` is what it takes, in bytes, with all definitions it needs."""

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.last_seq = first_seq
        self.count = 0
        self.size = 64
        self.min_time = 0
        self.max_time = 0
        self.entries: dict[bytes, bytes] = {}
        self._groups: dict[bytes, int] = {}
        self._parts: list[bytes] = []

    def add(self, record: Record, age: int, most: int) -> bool:
        """Append a record accepted `age` ms ago. False: it would be more than `most` bytes; the first always goes."""
        offset = record.seq - self.first_seq
        definition = b""
        if record.batch is not None:
            group = record.batch.group
            if group.hash not in self._groups:
                definition = _document(group)
            part = _batch(record.batch, offset, age, self._groups.get(group.hash, len(self._groups)))
        else:
            part = _gap(record, offset, age)
        size = self.size + len(part) + len(definition) + 32
        if self.count and size > most:
            return False
        if definition and record.batch is not None:
            self._groups[record.batch.group.hash] = len(self._groups)
            self.entries[record.batch.group.hash] = definition
        self._parts.append(part)
        self.size = size
        self.count += 1
        self.last_seq = record.seq
        if record.time:
            known = max(-_FARTHEST, min(_FARTHEST, record.time))
            self.min_time = min(self.min_time or known, known)
            self.max_time = max(self.max_time or known, known)
        return True

    def sealed(self) -> bytes:
        """The payload's bytes."""
        groups = orjson.dumps([key.hex() for key in self._groups])
        return b'{"groups":%b,"records":[%b]}' % (groups, b",".join(self._parts))


def _batch(batch: Batch, offset: int, age: int, group: int) -> bytes:
    values, is_wrapped = _values(batch.values)
    if batch.quality is GOOD and batch.index is None and batch.times is None and not is_wrapped:
        return b"[%d,%d,%d,%d,%b]" % (offset, age, group, batch.time, values)
    return b"[%d,%d,%d,%d,%b,%b,%b,%b,%d]" % (
        offset,
        age,
        group,
        batch.time,
        values,
        orjson.dumps(batch.quality if isinstance(batch.quality, Quality) else list(batch.quality)),
        _integers(batch.index),
        _integers(batch.times),
        is_wrapped,
    )


def _gap(record: Record, offset: int, age: int) -> bytes:
    gap = record.gap
    fields = [gap.first_seq, gap.last_seq, gap.first_time, gap.last_time, gap.count, gap.cause] if gap else []
    return b"[%d,%d,%d,%b]" % (offset, age, _GAP, orjson.dumps(fields))


@lru_cache(maxsize=1024)
def _document(definition: Definition) -> bytes:
    return definition.document()


def _integers(numbers: Sequence[int] | None) -> bytes:
    return b"null" if numbers is None else orjson.dumps([int(n) for n in numbers])


def _values(values: Sequence[Any]) -> tuple[bytes, bool]:
    """The values in JSON, and whether they had to be wrapped.

    orjson refuses what JSON cannot carry, with one exception: it writes null for NaN and infinities. So every null that
    is not a None of ours gives them away.
    """
    try:
        written = orjson.dumps(values)
    except TypeError:
        return _wrapped(values), True
    if b"null" in written and written.count(b"null") != values.count(None):
        return _wrapped(values), True
    return written, False


def _wrapped(values: Sequence[Any]) -> bytes:
    return orjson.dumps([_wrap(value, 1) for value in values])


def _wrap(value: Any, depth: int) -> Any:
    """A value in terms that JSON can carry. What no driver may hand over is kept as its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 64 else {"i": f"{value:x}"}
    if isinstance(value, float):
        is_finite = value - value == 0
        return float(value) if is_finite else {"f": _DOUBLE.pack(value).hex()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b": b2a_base64(value, newline=False).decode()}
    if depth < _DEEPEST:
        if isinstance(value, list | tuple):
            return [_wrap(v, depth + 1) for v in value]
        if isinstance(value, dict):
            return {"o": [[_wrap(k, depth + 1), _wrap(v, depth + 2)] for k, v in value.items()]}
    text = str(value) if isinstance(value, str) or depth < _DEEPEST else "nested too deep"
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"s": text.encode("utf-8", "surrogatepass").hex()}
    return text


def _unwrap(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrap(v) for v in value]
    if not isinstance(value, dict):
        return value
    ((key, inner),) = value.items()
    return _UNWRAP[key](inner)


_UNWRAP: Mapping[str, Callable[[Any], Any]] = {
    "i": lambda inner: int(inner, 16),
    "f": lambda inner: _DOUBLE.unpack(bytes.fromhex(inner))[0],
    "b": a2b_base64,
    "s": lambda inner: bytes.fromhex(inner).decode("utf-8", "surrogatepass"),
    "o": lambda inner: {_unwrap(k): _unwrap(v) for k, v in inner},
}


def decode(head: Head, payload: bytes, lookup: Callable[[bytes], Definition | None]) -> list[Record]:
    """The records of a frame. Those whose definition `lookup` cannot find come back as gaps; unknown kinds are skipped.

    Raises ValueError on anything that `Payload` did not write.
    """
    epoch = head.epoch
    try:
        document = orjson.loads(payload)
        groups = [lookup(bytes.fromhex(key)) for key in document["groups"]]
        records = []
        for row in document["records"]:
            seq = head.first_seq + row[0]
            if row[2] >= 0:
                group = groups[row[2]]
                if group is None:
                    records.append(gap_record(Gap(seq, seq, row[3], row[3], 1, "damaged"), epoch))
                else:
                    records.append(Record(seq, epoch, _rebuilt(group, row)))
            elif row[2] == _GAP:
                records.append(gap_record(Gap(*row[3]), epoch))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a frame's payload cannot be read: {error!r}") from error
    return records


def _rebuilt(group: Definition, row: list[Any]) -> Batch:
    if len(row) == 5:
        return Batch(group, row[3], row[4])
    _, _, _, time, values, quality, index, times, wrapped = row
    if wrapped:
        values = [_unwrap(v) for v in values]
    known = _quality(quality) if isinstance(quality, str) else [_quality(q) for q in quality]
    return Batch(group, time, values, known, index, times)


@lru_cache(maxsize=1024)
def _quality(text: str) -> Quality:
    """The quality of that text; the good one is the very object that others compare with."""
    return GOOD if text == GOOD else Quality(text)
