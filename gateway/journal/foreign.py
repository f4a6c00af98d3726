"""What is foreign: files written by a program that knew more than we do. Looked for before anything is touched.

A frame of a later version, or in a codec that is not installed, is whole; to an older reader it would look like damage,
be set aside, and be removed in the end. So a start asks here first, and a person decides.
"""

from __future__ import annotations

import contextlib

from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.segment import number_of
from gateway.journal.slots import NAME, SLOT_SIZE


def check(disk: Disk) -> None:
    """Look at the first frame of each segment and at the slots; nothing is written.

    A segment is the work of one run, so its first frame speaks for all. What cannot be read because it is damaged is
    passed over here. Raises FormatError, which says what it takes; OSError where the folder cannot be listed.
    """
    for name in sorted(disk.names()):
        number = number_of(name)
        is_segment = number is not None and name.endswith(".seg")
        if is_segment or name == NAME:
            with contextlib.suppress(OSError):
                _check_file(disk, name, number if is_segment else None)


def _check_file(disk: Disk, name: str, number: int | None) -> None:
    """Look at one file: a segment by its number, the slots where that is None."""
    size = disk.size(name)
    step = frame.BLOCK if number is not None else SLOT_SIZE
    file = disk.open(name)
    try:
        for offset in range(0, size, step):
            head = frame.glance(disk.pread(file, frame.LONGEST_HEAD, offset))
            if head is None or head.offset != offset or head.segment != (number or 0):
                continue
            obstacle = frame.obstacle(head)
            if obstacle is not None:
                raise frame.FormatError(f"{name}: {obstacle}")
            if number is not None:
                return
    finally:
        disk.close(file)
