r"""Frames: one group commit as it lies on the disk. Pure: bytes in, bytes out.

A frame starts at a multiple of 4096 and is filled up with zeros to the next. Little endian, 136 bytes of head:

    offset  size  field            meaning
    ------  ----  ---------------  --------------------------------------------------------------------
         0     4  magic            "HGJ1"
         4     1  version          2
         5     1  codec            how the body is stored, see below
         6     2  flags            1 entries, 2 epoch start, 4 slot (see below); bits 12-14: how often thinned
         8     2  head length      136; a later version may lengthen the head, to 512 at most
        10     1  class            0 data; 1 alarm, 2 event, 3 diag are kept for logs of their own
        11     1  clock            0 unsynced, 1 holdover, 2 synced: state of the wall clock below
        12     4  body length      bytes as stored
        16     8  segment          number of the segment that holds the frame; 0 in a slot
        24     4  offset           where in the segment the frame starts
        28     4  start            which start of the store wrote it  \ together: the epoch,
        32     4  store            identity of the store, 24 bits     /  "<store, 6 hex>-<start>"
        36     4  count            records in the body
        40     8  first seq        of the first record
        48     8  last seq         of the last record
        56     8  covers from      every record from here to last seq that is missing was acknowledged by all
        64     8  min time         ms since 1970, lowest of the records
        72     8  max time         highest
        80    16  boot id          of the machine's boot
        96     8  monotonic        ms, when the frame was made  \ one instant on both clocks: an anchor by which
       104     8  wall             ms since 1970, likewise       /  later readers can mend times of this boot
       112     8  ordinal          records written to this store before this frame
       120     8  generation       counts frames and slots in order of writing: the newest document wins
       128     4  body checksum    CRC-32 of the body as stored
       132     4  head checksum    CRC-32 of all before it; always the last four bytes of the head

    head | body                                                         | zeros to 4096
         | u32 n, n x (8 bytes key, u32 length, entry)   dictionary     |
         | u32 length, document                          state of owner |
         | payload                                       records        |

| codec | the body is     | payload                             | written since version |
|-------|-----------------|-------------------------------------|-----------------------|
|     1 | zlib, level 1   | JSON, as spool/payload_v1 draws it  | 1, no more since 2    |
|     2 | zlib, level 1   | columns, as spool/payload draws it  | 2                     |
|     3 | zstd, level 1   | columns; where zstd is installed    | 2                     |

What stands above keeps its place in every version, so that an older program can tell a frame it cannot read from a
damaged one: it leaves the first alone and says what is missing.

Segment number and offset stand under the checksum: what an earlier life of a recycled file left behind, or a block that
landed in the wrong place, is never taken for a frame of this segment. The *dictionary* holds what payloads refer to by
key; an entry is repeated in every segment that uses it, so that each segment can be read alone. The *document* is the
owner's own state (cursors), as fresh as the frame.

Worked example, the first 24 bytes of a frame at the start of segment 7 with a body of 300 bytes:
`48474a31 02 02 0300 8800 00 02 2c010000 0700000000000000`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gateway.journal import compression

MAGIC = b"HGJ1"
VERSION = 2
BLOCK = 4096
CODEC_JSON_ZLIB, CODEC_COLUMNS_ZLIB, CODEC_COLUMNS_ZSTD = 1, 2, 3

HAS_ENTRIES = 1
EPOCH_START = 2
SLOT = 4
LEVEL_SHIFT = 12

_HEAD = struct.Struct("<4sBBHHBBIQIIIIQQQqq16sqqQQI")
_U32 = struct.Struct("<I")
_ENTRY = struct.Struct("<8sI")
HEAD_LENGTH = _HEAD.size + _U32.size
"""Bytes of the heads that we write."""

LONGEST_HEAD = 512
"""Bytes to read where a head may be: those of later versions may be longer than ours."""


class FormatError(Exception):
    """A frame is whole, but cannot be read by this program as it is installed. Says what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a frame says about itself; the module's table explains each field. Times in ms."""

    version: int = VERSION
    codec: int = CODEC_COLUMNS_ZLIB
    flags: int = 0
    record_class: int = 0
    clock: int = 0
    body_length: int = 0
    segment: int = 0
    offset: int = 0
    start: int = 0
    store: int = 0
    count: int = 0
    first_seq: int = 0
    last_seq: int = 0
    covers_from: int = 0
    min_time: int = 0
    max_time: int = 0
    boot_id: bytes = bytes(16)
    monotonic: int = 0
    wall: int = 0
    ordinal: int = 0
    generation: int = 0
    body_checksum: int = 0
    length: int = HEAD_LENGTH

    @property
    def extent(self) -> int:
        """Bytes on disk, zeros at the end included."""
        return aligned(self.length + self.body_length)

    @property
    def level(self) -> int:
        """How often the records were thinned to make room, 0 for never, at most 7."""
        return self.flags >> LEVEL_SHIFT & 7

    @property
    def epoch(self) -> str:
        """The epoch as records carry it: `9f31c2-3`."""
        return f"{self.store:06x}-{self.start}"


@dataclass(frozen=True, slots=True)
class Body:
    """A frame's three sections: dictionary entries by 8-byte key, the owner's document, and the payload."""

    entries: Mapping[bytes, bytes]
    document: bytes
    payload: bytes


def aligned(length: int) -> int:
    """`length` rounded up to whole blocks."""
    return -(-length // BLOCK) * BLOCK


def capacity(size: int) -> int:
    """Bytes of body, before compression, that are sure to fit into one frame of an area of `size` bytes."""
    return size - BLOCK - size // 1024  # zlib adds 5 bytes to 16 KiB of what it cannot compress, zstd 3 to 128 KiB


def seal(head: Head, body: Body) -> bytes:
    """The frame as it goes to disk, whole blocks long; lengths, checksums and the entries flag are filled in."""
    pieces = [_U32.pack(len(body.entries))]
    for key, entry in body.entries.items():
        pieces += (_ENTRY.pack(key, len(entry)), entry)
    pieces += (_U32.pack(len(body.document)), body.document, body.payload)
    stored = _codec(head).compress(b"".join(pieces))
    flags = head.flags | (HAS_ENTRIES if body.entries else 0)
    packed = _pack(replace(head, flags=flags, body_length=len(stored), body_checksum=zlib.crc32(stored)))
    return b"".join((packed, stored, bytes(-(len(packed) + len(stored)) % BLOCK)))


def best_codec() -> int:
    """The codec for new frames: zstd where there is one, for it takes a fraction of the time."""
    return CODEC_COLUMNS_ZLIB if compression.zstd() is None else CODEC_COLUMNS_ZSTD


def _codec(head: Head) -> compression.Codec:
    if head.codec != CODEC_COLUMNS_ZSTD:
        return compression.ZLIB
    codec = compression.zstd()
    if codec is None:
        raise FormatError(_NO_ZSTD)
    return codec


_NO_ZSTD = "frames are compressed with zstd: install zstandard"


def _pack(head: Head) -> bytes:
    packed = _HEAD.pack(
        MAGIC,
        VERSION,
        head.codec,
        head.flags,
        HEAD_LENGTH,
        head.record_class,
        head.clock,
        head.body_length,
        head.segment,
        head.offset,
        head.start,
        head.store,
        head.count,
        head.first_seq,
        head.last_seq,
        head.covers_from,
        head.min_time,
        head.max_time,
        head.boot_id,
        head.monotonic,
        head.wall,
        head.ordinal,
        head.generation,
        head.body_checksum,
    )
    return packed + _U32.pack(zlib.crc32(packed))


def moved(data: bytes, *, segment: int, offset: int) -> bytes:
    """A whole frame, of whatever version, as it is at another place: only segment, offset and checksum differ."""
    (length,) = struct.unpack_from("<H", data, 8)
    head = bytearray(data[: length - _U32.size])
    struct.pack_into("<QI", head, 16, segment, offset)
    return bytes(head) + _U32.pack(zlib.crc32(head)) + data[length:]


def parse(data: bytes) -> Head | None:
    """The head at the start of `data`, or None where there is none that we know how to read. Never raises.

    `data` should be `LONGEST_HEAD` bytes long, as far as the file goes.
    """
    head = glance(data)
    return None if head is None or head.version > VERSION or head.codec > CODEC_COLUMNS_ZSTD else head


def glance(data: bytes) -> Head | None:
    """The head at the start of `data`, of whatever version; None where there is none that is whole. Never raises."""
    if len(data) < HEAD_LENGTH or not data.startswith(MAGIC):
        return None
    fields = _HEAD.unpack_from(data)
    length = fields[4]
    if not HEAD_LENGTH <= length <= min(LONGEST_HEAD, len(data)):
        return None
    (checksum,) = _U32.unpack_from(data, length - _U32.size)
    if zlib.crc32(data[: length - _U32.size]) != checksum:
        return None
    return Head(
        version=fields[1],
        codec=fields[2],
        flags=fields[3],
        length=length,
        record_class=fields[5],
        clock=fields[6],
        body_length=fields[7],
        segment=fields[8],
        offset=fields[9],
        start=fields[10],
        store=fields[11],
        count=fields[12],
        first_seq=fields[13],
        last_seq=fields[14],
        covers_from=fields[15],
        min_time=fields[16],
        max_time=fields[17],
        boot_id=fields[18],
        monotonic=fields[19],
        wall=fields[20],
        ordinal=fields[21],
        generation=fields[22],
        body_checksum=fields[23],
    )


def obstacle(head: Head) -> str | None:
    """What it takes to read the frame of that head; None where nothing stands in the way."""
    if head.version > VERSION or head.codec > CODEC_COLUMNS_ZSTD:
        return (
            f"it was written in format version {head.version} (codec {head.codec}), and this program knows versions up "
            f"to {VERSION}: run the version of headgate that wrote it, or a newer one"
        )
    return _NO_ZSTD if head.codec == CODEC_COLUMNS_ZSTD and compression.zstd() is None else None


def unpack(head: Head, stored: bytes) -> Body | None:
    """The body behind `head`, or None where its checksum or its shape is wrong.

    Raises FormatError where it takes a codec that is not installed: that is no damage.
    """
    if len(stored) != head.body_length or zlib.crc32(stored) != head.body_checksum:
        return None
    codec = _codec(head)
    try:
        raw = codec.decompress(stored)
        (count,) = _U32.unpack_from(raw)
        at = _U32.size
        entries = {}
        for _ in range(count):
            key, length = _ENTRY.unpack_from(raw, at)
            at += _ENTRY.size
            entries[key] = raw[at : at + length]
            at += length
        (length,) = _U32.unpack_from(raw, at)
    except (ValueError, struct.error):
        return None
    at += _U32.size
    return Body(entries, raw[at : at + length], raw[at + length :])
