"""Slots: the owner's document in two places by turns, so that one of them is whole at any moment.

    0                      64 KiB                  128 KiB
    +----------------------+-----------------------+
    | slot 0               | slot 1                |     each: a frame without records, document only
    +----------------------+-----------------------+

A write goes to the slot that does not hold the newest document. A power cut in the middle tears that one; the other
still reads. After a failed write the file is at once made anew beside the old one, and takes its place by rename:
blocks that failed once are not asked again.
"""

from __future__ import annotations

import contextlib

from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.frame import Body, Head
from gateway.journal.segment import Tally

NAME = "slots"
SLOT_SIZE = 64 * 1024
FILE_SIZE = 2 * SLOT_SIZE
_NEW = "slots.new"


class Slots:
    """The file of two slots. Reading happens once, at the start; writing in the writer thread.

    `is_doubtful`: a slot was found that holds something and cannot be read. It may have been the newest.
    """

    def __init__(self, disk: Disk, tally: Tally) -> None:
        self._disk = disk
        self._tally = tally
        self._file: int | None = None
        self._newest = 1
        self.is_doubtful = False

    def read(self) -> tuple[int, bytes] | None:
        """Generation and document of the newest slot that is whole; None where there is none."""
        with contextlib.suppress(OSError):
            self._file = self._disk.open(NAME)
        if self._file is None:
            return None
        found: tuple[int, bytes] | None = None
        for slot in (0, 1):
            read = self._read(self._file, slot)
            if read is not None and (found is None or read[0] > found[0]):
                found, self._newest = read, slot
        return found

    def _read(self, file: int, slot: int) -> tuple[int, bytes] | None:
        try:
            data = self._disk.pread(file, SLOT_SIZE, slot * SLOT_SIZE)
        except OSError:
            self.is_doubtful = True
            return None
        head = frame.parse(data)
        if head is not None and head.flags & frame.SLOT and head.offset == slot * SLOT_SIZE:
            body = frame.unpack(head, data[head.length : head.length + head.body_length])
            if body is not None:
                return head.generation, body.document
        self.is_doubtful = self.is_doubtful or any(data)
        return None

    def write(self, generation: int, document: bytes) -> None:
        """Save a document; it is on the medium when this returns. Raises OSError."""
        slot = 1 - self._newest
        head = Head(flags=frame.SLOT, offset=slot * SLOT_SIZE, generation=generation)
        data = frame.seal(head, Body({}, document, b""))
        if len(data) > SLOT_SIZE:
            raise ValueError(f"a document of {len(document)} bytes does not fit into a slot")
        if self._file is None or not self._overwrite(self._file, data, slot * SLOT_SIZE):
            self._file = self._make(data, slot * SLOT_SIZE)
        self._newest = slot

    def _overwrite(self, file: int, data: bytes, offset: int) -> bool:
        """Write to the file that is there. False where the disk refuses: then it is closed, and not asked again."""
        try:
            self._disk.pwrite(file, data, offset)
            self._disk.fdatasync(file)
            self._disk.size(NAME)  # a file that somebody removed takes everything, and nobody sees it again
        except OSError:
            self.close()
            return False
        self._tally.bytes_written.value += len(data)
        self._tally.flushes.value += 1
        return True

    def _make(self, data: bytes, offset: int) -> int:
        """A new file that holds `data` at `offset`, in the place of the old one."""
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(_NEW)
        file = self._disk.open(_NEW, create=True)
        try:
            self._disk.pwrite(file, bytes(offset) + data + bytes(FILE_SIZE - offset - len(data)), 0)
            self._disk.fdatasync(file)
            self._disk.rename(_NEW, NAME)
            self._disk.sync_folder()
        except OSError:
            self._disk.close(file)
            raise
        self._tally.bytes_written.value += FILE_SIZE
        self._tally.flushes.value += 2
        return file

    def close(self) -> None:
        """Close the file; the next write makes it anew."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._disk.close(self._file)
            self._file = None
