"""Files of an append log as they lie on disk, and reading them. What frames say, nobody knows here.

Files of a folder, all numbers in hex digits:

    00000001-0000000000000001.log         frames 1 ... 700
    00000002-00000000000002bd.log         frames 701 ..., the file's number and its first frame's stand in the name
    00000003-00000000000004b0.snapshot    all that frames up to 1200 left, instead of all files with lower numbers
    00000003-00000000000004b0.new         a snapshot, or a log file after a failure, that is not whole yet
    00000001-0000000000000001.bad         a file that was damaged, for whoever wants to look; the newest two are kept

A frame, little endian, 19 bytes of head:

    offset  size  field     meaning
    ------  ----  --------  ------------------------------------------------------------------------------
         0     2  magic     "HL"
         2     4  checksum  CRC-32 of all behind it; it starts from the CRC-32 of kind and number of the file,
                            xor the frame's offset: what strayed here from elsewhere is not believed
         6     1  flags     1 everything before it in this file is on the medium; 2 last frame of a snapshot
         7     4  length    bytes of payload
        11     8  number    +1 from frame to frame; in a snapshot from 1 on
        19        payload

Frame 5 at the start of log file 1 with payload "ab": `484c e8754d65 00 02000000 0500000000000000 6162`.

After a flush the next frame begins at the next multiple of 4096 and says so (flag 1): what was called durable is never
written again, and a damaged place can be told from a torn end. Between and behind frames there may be zeros.

| what happens                         | what is found                             | what the next start does          |
|--------------------------------------|-------------------------------------------|-----------------------------------|
| kill in the middle of a write        | half a frame at the end                   | cuts it off                       |
| power fails between two flushes, or  | a torn end, maybe pieces behind           | cuts at the first wrong frame,    |
| the end goes bad later: who can tell |                                           | says so, sets the file aside      |
| a place of the medium goes bad       | a wrong frame, a flag 1 somewhere behind  | loses the frames up to that flag  |
| power fails while a snapshot is made | `.new`, the logs it would have replaced   | removes it, reads the logs        |
| ... between its rename and the rest  | the snapshot, logs that it covers         | removes those                     |
"""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from gateway.journal.disk import Disk

log = logging.getLogger("headgate.journal")

BLOCK = 4096
FLUSHED = 1
LAST = 2

_MAGIC = b"HL"
_START = Struct("<2sI")
_REST = Struct("<BIQ")
HEAD_LENGTH = _START.size + _REST.size
_SEED = Struct("<BI")
_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})\.(log|snapshot|new|bad)")
_KINDS = {"log": 1, "snapshot": 2}
_U32 = 0xFFFFFFFF
_WINDOW = 256 * 1024
_READ_FAILURES = 16  # a dying card takes seconds for each block it cannot read: then this file is given up


def seed_of(kind: str, number: int) -> int:
    """Where checksums of a file start."""
    return zlib.crc32(_SEED.pack(_KINDS[kind], number))


def seal(seed: int, at: int, number: int, payload: bytes, flags: int = 0) -> bytes:
    """A frame as it goes to disk, at that offset."""
    rest = _REST.pack(flags, len(payload), number)
    return _START.pack(_MAGIC, zlib.crc32(payload, zlib.crc32(rest, seed ^ at & _U32))) + rest + payload


@dataclass(frozen=True, slots=True)
class File:
    """One file of the folder. `first`: number of its first frame; of a snapshot, the last frame it stands for.

    `limit`: frames from this number on do not count.
    """

    number: int
    first: int
    kind: str
    limit: int = 1 << 64

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.number:08x}-{self.first:016x}.{self.kind}"


def file_of(name: str) -> File | None:
    """The file of that name; None where it is not one of ours."""
    match = _NAME.fullmatch(name)
    return File(int(match[1], 16), int(match[2], 16), match[3]) if match else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was read. `at`: where its payload stands in the file."""

    number: int
    at: int
    payload: bytes
    flags: int = 0

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.at + len(self.payload)


class Source:
    """A file being read; whatever the disk answers, it gives what can be believed and never raises.

    `last`: number of the last frame given. `lost_bytes`: what damage cost before the end; `torn_bytes`: what was cut
    off at the end. `is_cut`: that is the beginning of one frame, as a kill
    leaves it. `is_complete`: a snapshot was read to its last frame, and none is missing.
    """

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._seed = seed_of(file.kind, file.number)
        self._failures = 0
        self._window = b""
        self._window_at = 0
        self._handle = -1
        self.file = file
        self.last = 0 if file.kind == "snapshot" else file.first - 1
        self.lost_bytes = 0
        self.torn_bytes = 0
        self.is_cut = True
        self.is_complete = False
        self.size = 0
        try:
            self.size = disk.size(file.name)
            self._handle = disk.open(file.name)
        except OSError as error:
            log.warning("%s cannot be read (%s)", file.name, error)
            self._failures = _READ_FAILURES

    def close(self) -> None:
        """Give the file back."""
        if self._handle >= 0:
            self._disk.close(self._handle)
            self._handle = -1

    @property
    def is_damaged(self) -> bool:
        """Whether something is missing that was once on the medium, or cannot be read."""
        incomplete = self.file.kind == "snapshot" and not self.is_complete
        return bool(self.lost_bytes or self._failures or incomplete or not self.is_cut)

    def frames(self) -> Iterator[Frame]:
        """The frames that count, in order."""
        at = 0
        while True:
            frame = self._frame(at)
            if frame is None or frame.number != self.last + 1:
                frame = self._behind(at)
                if frame is None:
                    break
                start = frame.at - HEAD_LENGTH
                if frame.number != self.last + 1 or any(self.read(at, start - at)):
                    self.lost_bytes += start - at
            if frame.number >= self.file.limit:
                return
            self.last = frame.number
            at = frame.end
            yield frame
            if frame.flags & LAST:
                self.is_complete = not self.lost_bytes
                return
        left = self.read(at, self.size - at).rstrip(b"\0") if at < self.size else b""
        self.torn_bytes = len(left)
        self.is_cut = self._is_beginning(left.lstrip(b"\0"))  # a frame behind a flush begins a block

    def _is_beginning(self, data: bytes) -> bool:
        """Whether these bytes, zeros at their end left out, may be the beginning of the next frame."""
        if len(data) < HEAD_LENGTH:
            return data[: len(_MAGIC)] == _MAGIC[: len(data)]
        _, length, number = _REST.unpack_from(data, _START.size)
        return data.startswith(_MAGIC) and number == self.last + 1 and len(data) < HEAD_LENGTH + length

    def _behind(self, at: int) -> Frame | None:
        """The next frame that stands at the start of a block and knows that all before it was on the medium."""
        for block in range(-(-at // BLOCK) * BLOCK, self.size, BLOCK):
            if self.read(block, 2) == _MAGIC:
                frame = self._frame(block)
                if frame is not None and frame.flags & FLUSHED and frame.number > self.last:
                    return frame
        return None

    def _frame(self, at: int) -> Frame | None:
        head = self.read(at, HEAD_LENGTH)
        if len(head) < HEAD_LENGTH or not head.startswith(_MAGIC):
            return None
        _, checksum = _START.unpack_from(head)
        flags, length, number = _REST.unpack_from(head, _START.size)
        if at + HEAD_LENGTH + length > self.size:
            return None
        payload = self.read(at + HEAD_LENGTH, length)
        if zlib.crc32(payload, zlib.crc32(head[_START.size :], self._seed ^ at & _U32)) != checksum:
            return None
        return Frame(number, at + HEAD_LENGTH, payload, flags)

    def read(self, at: int, size: int) -> bytes:
        """Bytes of the file, through a window: reading on and on asks the disk rarely. Zeros where it cannot say."""
        start = at - self._window_at
        if start >= 0 and start + size <= len(self._window):
            return self._window[start : start + size]
        if size > _WINDOW // 2:
            return self._pread(at, size)
        self._window_at, self._window = at, self._pread(at, _WINDOW)
        return self._window[:size]

    def _pread(self, at: int, size: int) -> bytes:
        size = max(0, min(size, self.size - at))
        if self._failures < _READ_FAILURES:
            try:
                return self._disk.pread(self._handle, size, at)
            except OSError as error:
                if not self._failures:
                    log.warning("%s cannot be read at byte %d and behind (%s)", self.file.name, at, error)
        pieces = []
        end = at + size
        while at < end:
            step = min(BLOCK - at % BLOCK, end - at)
            piece = b""
            if self._failures < _READ_FAILURES:
                try:
                    piece = self._disk.pread(self._handle, step, at)
                except OSError:
                    self._failures += 1
            pieces.append(piece.ljust(step, b"\0"))
            at += step
        return b"".join(pieces)
