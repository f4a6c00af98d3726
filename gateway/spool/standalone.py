r"""Reads a spool's folder with plain Python 3.11 or later, without headgate: for a card that was found in a drawer.

    python3 standalone.py FOLDER                 what is in it
    python3 standalone.py FOLDER --csv           every value, a line each      > values.csv
    python3 standalone.py FOLDER --json          every record, a line each     > records.jsonl
         --from 2026-11-22T10:00 --to 1795330000000 --tag 'boiler/flow*'       only a part: UTC or ms since 1970

Copy this one file and the folder to any computer. Nothing is changed, nothing corrected: times stand as they were
stored, with the state of the clock that told them (a time told by a clock that was not `synced` may be wrong, so no
record of such a clock is left out by --from and --to). What is damaged is skipped and told on standard error; the exit
code is then 1. What was acknowledged may or may not be there still.

THE FORMAT. Integers are little endian, times are ms since 1970-01-01 UTC, checksums CRC-32 (zlib's).

Folder: the class `data`, with the folders `alarm`, `event` and `diag` in it where they exist, each with these files:
  <16 hex digits>.seg   a segment, named by its number; numbers grow. `.bad`: one that was set aside as damaged
  slots                 two frames without records, at 0 and 65536: the cursors; the higher generation is newer
  spare-<n>             room for segments to come; no records
Segment: frames, each at a multiple of 4096 and filled up with zeros. Files are used again: a frame counts only where
the segment's number and the offset in its head are right. Where none is found, try the next multiple of 4096.
Frame: a head (struct HEAD below), its last four bytes a checksum of those before it; then the body:
  magic HGJ1, version, codec (1 zlib, payload in JSON; 2 zlib, payload in columns; 3 zstd, payload in columns),
  flags (1 has entries, 2 first of an epoch, 4 slot), length of the head, class (0 data, 1 alarm, 2 event, 3 diag),
  clock (0 unsynced, 1 holdover: plausible, 2 synced), length of the body as stored, segment, offset, start, store
  (the epoch is <store, 6 hex>-<start>), count of records, first seq, last seq, covers from, lowest time, highest time,
  boot id, monotonic ms and wall ms of one instant, ordinal, generation, checksum of the body as stored
Body, decompressed: u32 n, n x (8 bytes key, u32 length, definition); u32 length, document (JSON: cursors); payload.
A definition is JSON: device, names, types, units ... of a group of tags; its key is its BLAKE2b-64. Payloads name
groups by key; the definition is in some frame of the same segment, else, where that is damaged, in another perhaps.

Payload in columns: 16 sections, each u32 length and bytes. `numbers`: each the signed distance to the one before, 8
bytes, shuffled; `shuffled`: first the lowest bytes of all, then the second bytes, and so on; `lines`: JSON each.
   0 keys of groups, 8 bytes each              1 a line: list of qualities
   2 shapes: numbers, three columns one behind the other: group, count, whether sparse
   3 kinds: a byte for each value of each shape (0 flag, 1 i64, 2 u64, 3 f32, 4 f64, 5 object)
   4 positions: numbers, places in the group of the values of sparse shapes; else they are 0, 1, 2 ...
   5 records: numbers, six columns: what, seq above the frame's first, age in ms, time, quality, marks
     what: number of the shape of a batch; -1 gap, -2 message, -3 event, -4 audit; lower ones are of later versions
     marks: 1 each value has a quality of its own, 2 and a time, 4 thinned: only the remarkable values are left,
     8 history: read later from what the device remembers, 16 each value has the time when a server had it, or 0
   6 qualities and 7 times of values, behind all of those the servers' times: numbers   8-12 the values of kinds 0-4,
     in the order of the records, shuffled; flags: 0 false, 1 true, 2 none. Of batches of one shape each is XORed with
     the one before it in the same frame
  13 lines: objects of each batch that has some    14 lines: of each record that is no batch    15 bytes for 14
     gap [0, first, last, first time, last time, count, cause]; event and audit [0, name, fields];
     message [bytes in 15, topic, qos, retain, bytes of properties]: there properties, then the payload
  In a line {"w": list} values are wrapped: {"f": float's bits}, {"b": base64}, {"i": hex}, {"s": UTF-8 in hex}, {"o":
  pairs of an object}
Payload in JSON: {"groups": [keys in hex], "records": [[seq above the frame's first, age, group, time, values]
  or [..., values, quality or list, positions or null, times or null, whether wrapped]
  or [seq, age, -1, [first, last, first time, last time, count, cause]]]}
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import importlib
import json
import re
import struct
import sys
import zlib
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from io import BytesIO, TextIOWrapper
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

HEAD = struct.Struct("<4sBBHHBBIQIIIIQQQqq16sqqQQI")
BLOCK = 4096
KNOWN_VERSION = 2
CLOCKS = ("unsynced", "holdover", "synced")
CLASSES = ("data", "alarm", "event", "diag")
OTHERS = {-1: "gap", -2: "message", -3: "event", -4: "audit"}
FORMS = ((1, "B"), (8, "q"), (8, "Q"), (4, "f"), (8, "d"))
MOST = 64 * 1024 * 1024
SYNCED = 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Head = namedtuple(  # noqa: PYI024 - as short as it can be
    "Head",
    "magic version codec flags length record_class clock body_length segment offset start store records first_seq "
    "last_seq covers_from min_time max_time boot monotonic wall ordinal generation checksum",
)


def head_of(data: bytes) -> Head | None:
    """The head at the start of `data`, None where there is none that is whole."""
    if len(data) < HEAD.size + 4 or not data.startswith(b"HGJ1"):
        return None
    head = Head(*HEAD.unpack_from(data))
    end = head.length - 4
    if not HEAD.size <= end <= len(data) - 4 or zlib.crc32(data[:end]) != int.from_bytes(data[end : end + 4], "little"):
        return None
    return head


def epoch_of(head: Head) -> str:
    """`9f31c2-3`."""
    return f"{head.store:06x}-{head.start}"


def opened(head: Head, stored: bytes) -> tuple[dict[bytes, bytes], bytes, bytes]:
    """Definitions by key, document and payload of a body. Raises ValueError, with what is wrong."""
    if head.version > KNOWN_VERSION or head.codec > 3:
        raise ValueError(f"it is of format version {head.version}; take the reader of a newer headgate")
    if len(stored) != head.body_length or zlib.crc32(stored) != head.checksum:
        raise ValueError("its checksum is wrong")
    try:
        raw = zstd(stored) if head.codec == 3 else zlib.decompressobj().decompress(stored, MOST)
        (count,) = struct.unpack_from("<I", raw)
        at, entries = 4, {}
        for _ in range(count):
            key, length = struct.unpack_from("<8sI", raw, at)
            entries[key] = raw[at + 12 : at + 12 + length]
            at += 12 + length
        (length,) = struct.unpack_from("<I", raw, at)
    except (zlib.error, struct.error) as error:
        raise ValueError(f"it cannot be taken apart ({error})") from error
    return entries, raw[at + 4 : at + 4 + length], raw[at + 4 + length :]


def zstd(data: bytes) -> bytes:
    """Decompress by any module there is. Raises ValueError."""
    for name in ("compression.zstd", "zstandard", "pyzstd"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        try:
            return bytes(module.decompress(data))
        except module.ZstdError as error:
            raise ValueError(f"it cannot be decompressed ({error})") from error
    raise ValueError("it is compressed with zstd: use Python 3.14, or install zstandard")


def unshuffled(data: bytes, width: int) -> bytes:
    """Values of `width` bytes, out of planes of bytes."""
    found = bytearray(len(data))
    count = len(data) // width
    for plane in range(width):
        found[plane::width] = data[plane * count : (plane + 1) * count]
    return bytes(found)


def numbers(data: bytes, columns: int = 1) -> list[list[int]]:
    """Columns of numbers."""
    count = len(data) // 8
    found = list(accumulate(struct.unpack(f"<{count}q", unshuffled(data, 8))))
    return [found[n * count // columns : (n + 1) * count // columns] for n in range(columns)]


def values_of(line: bytes) -> list[Any]:
    """The values of a line of JSON."""
    found = json.loads(line)
    return [unwrap(value) for value in found["w"]] if isinstance(found, dict) else list(found)


def unwrap(value: Any) -> Any:
    """A value that JSON could not carry, or one that it could."""
    if not isinstance(value, dict):
        return [unwrap(v) for v in value] if isinstance(value, list) else value
    ((kind, inner),) = value.items()
    wrapped: dict[str, Callable[[Any], Any]] = {
        "f": lambda x: struct.unpack(">d", bytes.fromhex(x))[0],
        "b": base64.b64decode,
        "i": lambda x: int(x, 16),
        "s": lambda x: bytes.fromhex(x).decode("utf-8", "surrogatepass"),
        "o": lambda x: {unwrap(k): unwrap(v) for k, v in x},
    }
    return wrapped[kind](inner)


class Row(NamedTuple):
    """A record out of a payload. `key` of its group, `places` in it; `served` are a server's times, 0 for none."""

    seq: int
    what: int
    time: int
    key: bytes
    places: list[int]
    values: list[Any]
    qualities: list[str]
    times: list[int]
    served: list[int]
    marks: int


def rows_in_json(head: Head, payload: bytes) -> Iterator[Row]:
    """The records of a payload in JSON."""
    found = json.loads(payload)
    for seq, _, group, *rest in found["records"]:
        if group < 0:
            yield Row(head.first_seq + seq, group, 0, b"", [], [b"", *rest[0]], [], [], [], 0)
            continue
        time, values, quality, index, times, wrapped = (*rest, "good", None, None, 0)[:6] if len(rest) == 2 else rest
        values = [unwrap(v) for v in values] if wrapped else values
        places = list(range(len(values))) if index is None else index
        qualities = [quality] * len(values) if isinstance(quality, str) else quality
        key = bytes.fromhex(found["groups"][group])
        yield Row(head.first_seq + seq, 0, time, key, places, values, qualities, times or [time] * len(values), [], 0)


def rows_in_columns(head: Head, payload: bytes) -> Iterator[Row]:
    """The records of a payload in columns."""
    sections, at = [], 0
    for _ in range(16):
        length = int.from_bytes(payload[at : at + 4], "little")
        sections.append(payload[at + 4 : at + 4 + length])
        at += 4 + length
    keys = [sections[0][n : n + 8] for n in range(0, len(sections[0]), 8)]
    quality_of, shapes = values_of(sections[1]), shapes_of(sections)
    rows, codes, times = list(zip(*numbers(sections[5], 6), strict=True)), iter(numbers(sections[6])[0]), sections[7]
    first = sum(len(shapes[what][2]) for what, *_, marks in rows if what >= 0 and marks & 2)
    times_of, served_of = iter(numbers(times)[0][:first]), iter(numbers(times)[0][first:])
    streams = [BytesIO(unshuffled(sections[8 + n], width)) for n, (width, _) in enumerate(FORMS)]
    objects, others, blobs = iter(sections[13].split(b"\n")), iter(sections[14].split(b"\n")), BytesIO(sections[15])
    last: dict[tuple[int, int], bytes] = {}
    for what, offset, _, time, code, marks in rows:
        seq = head.first_seq + offset & 0xFFFFFFFFFFFFFFFF
        if what < 0:
            size, *items = values_of(next(others))
            yield Row(seq, what, time, b"", [], [blobs.read(size), *items], [], [], [], marks)
            continue
        group, places, kinds = shapes[what]
        columns: list[Iterator[Any]] = []
        for kind, (width, form) in enumerate(FORMS):
            data = streams[kind].read(kinds.count(kind) * width)
            last[what, kind] = data = xored(data, last.get((what, kind), b""))
            found = struct.unpack(f"<{len(data) // width}{form}", data)
            columns.append(iter(found if kind else [(False, True, None)[n] for n in found]))
        columns.append(iter(values_of(next(objects)) if 5 in kinds else ()))
        values = [next(columns[kind]) for kind in kinds]
        many = len(values)
        qualities = [quality_of[n] for n in (islice(codes, many) if marks & 1 else [code] * many)]
        own = list(islice(times_of, many)) if marks & 2 else [time] * many
        served = list(islice(served_of, many)) if marks & 16 else []
        yield Row(seq, what, time, keys[group], places, values, qualities, own, served, marks)


def xored(data: bytes, other: bytes) -> bytes:
    """Both, bit by bit."""
    return (int.from_bytes(data, "little") ^ int.from_bytes(other, "little")).to_bytes(len(data), "little")


def shapes_of(sections: list[bytes]) -> list[tuple[int, list[int], bytes]]:
    """Group, places and kinds of each shape."""
    kinds, places = BytesIO(sections[3]), iter(numbers(sections[4])[0])
    return [
        (group, list(islice(places if is_sparse else range(MOST), len(found := kinds.read(count)))), found)
        for group, count, is_sparse in zip(*numbers(sections[2], 3), strict=True)
    ]


class Card:
    """A spool's folder. `complaints` are what was told to be damaged; `documents` are the newest, by class."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.complaints: set[str] = set()
        self.documents: dict[str, tuple[int, dict[str, Any]]] = {}
        self._groups: dict[bytes, dict[str, Any]] = {}
        self._seen: set[tuple[str, str, int]] = set()

    def complain(self, what: str) -> None:
        """Tell of damage, once."""
        if what not in self.complaints:
            self.complaints.add(what)
            sys.stderr.write(f"{what}\n")

    def entries(self) -> Iterator[dict[str, Any]]:
        """All records of all classes that can be read, batches with `samples`; what was written twice comes once."""
        for name in CLASSES:  # definitions first: damage may have taken one from where it belongs
            for head, path in self._heads(name):
                if head.flags & 1:
                    self._learn(head, path)
        for name in CLASSES:
            for head, path in self._heads(name):
                for entry in () if head.flags & 4 else self._decoded(name, head, path):
                    if (name, entry["epoch"], entry["seq"]) not in self._seen:
                        self._seen.add((name, entry["epoch"], entry["seq"]))
                        yield entry

    def _heads(self, name: str) -> Iterator[tuple[Head, Path]]:
        """The files' own frames, in order."""
        folder = self.folder if name == "data" else self.folder / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = re.fullmatch(r"([0-9a-f]{16})\.(?:seg|bad)|slots", path.name)
            size, offset = path.stat().st_size if match is not None else 0, 0
            while match is not None and offset < size:
                data = self._read(path, offset, 512)
                head = head_of(data)
                if head is not None and (head.segment, head.offset) == (int(match[1] or "0", 16), offset):
                    yield head, path
                    offset += -(-(head.length + head.body_length) // BLOCK) * BLOCK
                    continue
                if head is None and data.startswith(b"HGJ1"):
                    self.complain(f"{path}: a frame at byte {offset} is damaged and is skipped")
                offset += BLOCK

    def _read(self, path: Path, offset: int, size: int) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            self.complain(f"{path}: {size} bytes at byte {offset} cannot be read ({error.strerror})")
            return b""

    def _body(self, head: Head, path: Path) -> tuple[dict[bytes, bytes], bytes, bytes] | None:
        try:
            return opened(head, self._read(path, head.offset + head.length, head.body_length))
        except ValueError as error:
            lost = f"{head.records} records ({epoch_of(head)}, {head.first_seq} to {head.last_seq})"
            self.complain(f"{path}: the frame at byte {head.offset} is skipped, with {lost}: {error}")
            return None

    def _learn(self, head: Head, path: Path) -> None:
        for key, written in (self._body(head, path) or ({},))[0].items():
            if hashlib.blake2b(written, digest_size=8).digest() == key:
                self._groups[key] = json.loads(written)

    def _decoded(self, name: str, head: Head, path: Path) -> Iterator[dict[str, Any]]:
        body = self._body(head, path)
        if body is None:
            return
        try:
            if head.generation > self.documents.get(name, (-1,))[0] and body[1]:
                self.documents[name] = head.generation, json.loads(body[1])
            for row in (rows_in_json if head.codec == 1 else rows_in_columns)(head, body[2]):
                if row.what >= 0 or row.what in OTHERS:
                    yield self._entry(name, head, row)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError, struct.error) as error:
            self.complain(f"{path}: of the frame at byte {head.offset} not all can be read: {error!r}")

    def _entry(self, name: str, head: Head, row: Row) -> dict[str, Any]:
        clock = CLOCKS[head.clock] if head.clock < len(CLOCKS) else str(head.clock)
        entry: dict[str, Any] = {"class": name, "epoch": epoch_of(head), "seq": row.seq}
        entry |= {"kind": OTHERS.get(row.what, "batch"), "time": row.time, "clock": clock}
        if head.clock != SYNCED:
            entry["boot"] = head.boot.hex()
        if row.what >= 0:
            group = self._groups.get(row.key) or {"device": f"unknown-{row.key.hex()}", "names": (), "units": ()}
            known = dict(enumerate(zip(group["names"], group["units"], strict=True)))
            served = row.served or [0] * len(row.values)
            samples = zip(row.places, row.values, row.qualities, row.times, served, strict=True)
            entry["device"] = group["device"]
            entry["samples"] = [(*known.get(place, (f"#{place}", "")), *rest) for place, *rest in samples]
            return entry | {word: True for mark, word in ((4, "thinned"), (8, "history")) if row.marks & mark}
        blob, *items = row.values
        if entry["kind"] == "gap":
            names = ("first_seq", "last_seq", "first_time", "last_time", "count", "cause")
            entry |= dict(zip(names, items, strict=True))
            return entry | {"seq": entry["last_seq"], "time": entry["last_time"]}
        if entry["kind"] == "message":
            entry |= dict(zip(("topic", "qos", "retain"), items, strict=False))
            return entry | {"payload": blob[items[3] :], "properties": blob[: items[3]]}
        return entry | {"name": items[0], "fields": items[1]}


# --- the command ------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A value in terms of JSON: bytes as base64, numbers that JSON has not as text."""
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [plain(v) for v in value]
    return {str(k): plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def utc(time: int) -> str:
    """ISO 8601; the bare number where no calendar has the day."""
    try:
        return (EPOCH + timedelta(milliseconds=time)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return str(time)


def moment(text: str) -> int:
    """Ms since 1970, from that or from ISO 8601, UTC where it says nothing else."""
    if text.lstrip("-").isdigit():
        return int(text)
    found = datetime.fromisoformat(text)
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def wanted(entries: Iterator[dict[str, Any]], first: int, end: int, tag: str) -> Iterator[dict[str, Any]]:
    """Records of that time, and of clocks that cannot tell; batches with the tags asked for, and gaps in any case."""
    for entry in entries:
        if entry["clock"] == "synced" and not first <= entry["time"] < end:
            continue
        if tag and entry["kind"] != "gap":
            device = entry.get("device", "")
            samples = [s for s in entry.get("samples", ()) if fnmatchcase(f"{device}/{s[0]}", tag)]
            if samples:
                yield entry | {"samples": samples}
            continue
        yield entry


def write_json(entries: Iterator[dict[str, Any]]) -> None:
    """Every record, a line each."""
    for entry in entries:
        samples = entry.pop("samples", None)
        if samples is not None:
            entry["values"] = {tag: value for tag, _, value, *_ in samples}
            entry["quality"] = {tag: quality for tag, _, _, quality, *_ in samples if quality != "good"}
            entry["times"] = {tag: time for tag, _, _, _, time, _ in samples if time != entry["time"]}
            entry["server_times"] = {tag: served for tag, *_, served in samples if served}
        sys.stdout.write(json.dumps(plain(entry)) + "\n")


def write_csv(entries: Iterator[dict[str, Any]]) -> None:
    """Every value, a line each; records without values have one line, their details in JSON in place of a value."""
    out = csv.writer(sys.stdout)
    columns = ("class", "epoch", "seq", "kind", "clock")
    out.writerow(("time", "time_ms", "device", "tag", "value", "unit", "quality", *columns, "server_ms", "history"))
    for entry in entries:
        told, mark = [entry[column] for column in columns], "true" if "history" in entry else ""
        details = {k: plain(v) for k, v in entry.items() if k not in (*columns, "time", "boot")}
        for tag, unit, value, quality, time, served in entry.get("samples", [("", "", details, "", entry["time"], 0)]):
            shown = plain(value) if isinstance(value, str | bytes | float | int) else json.dumps(plain(value))
            stamp = (utc(time), time, entry.get("device", ""))
            out.writerow((*stamp, tag, shown, unit, quality, *told, served or "", mark))


def write_summary(card: Card, entries: Iterator[dict[str, Any]]) -> None:
    """What is in the folder."""
    spans: dict[tuple[str, ...], list[int]] = {}
    for entry in entries:
        key, seq, time = (entry["class"], entry["epoch"], entry["kind"], entry["clock"]), entry["seq"], entry["time"]
        span = spans.setdefault(key, [0, seq, seq, time, time])
        span[:] = span[0] + 1, min(span[1], seq), max(span[2], seq), min(span[3], time), max(span[4], time)
    for (name, epoch, kind, clock), (count, first, last, begin, end) in sorted(spans.items()):
        sys.stdout.write(f"{name} {epoch} {kind}: {count}, {first} to {last}, {utc(begin)} to {utc(end)}, {clock}\n")
    for name, (_, document) in card.documents.items():
        for cursor in document.get("cursors", ()):
            sys.stdout.write(f"{name}: uplink {cursor[0]} has acknowledged all up to {cursor[2]}\n")


def main() -> int:
    """The command: see the docstring of the file."""
    parser = argparse.ArgumentParser(description="Read a spool's folder.", epilog="See the head of this file for more.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="every record, a line each")
    parser.add_argument("--csv", action="store_true", help="every value, a line each")
    parser.add_argument("--from", type=moment, default=-(1 << 63), dest="first", help="ISO 8601 (UTC), or ms")
    parser.add_argument("--to", type=moment, default=1 << 63, help="before that time; likewise")
    parser.add_argument("--tag", default="", help="only DEVICE/TAG; * and ? stand for others")
    options = parser.parse_args()
    found = (path for pattern in ("*", "*/*") for path in options.folder.glob(pattern))
    if not any(path.suffix in (".seg", ".bad") or path.name == "slots" for path in found):
        parser.error(f"{options.folder} is no spool's folder: it has no *.seg, *.bad or slots. Name the folder itself")
    card = Card(options.folder)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # text that is broken is told all the same
    entries = wanted(card.entries(), options.first, options.to, options.tag)
    try:
        if options.json or options.csv:
            (write_json if options.json else write_csv)(entries)
        else:
            write_summary(card, entries)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
    return 1 if card.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
