"""The seam to the file system: what a journal asks of a disk, and the folder that answers. No other file opens one.

What we assume of the disk, and nothing more:

- `fdatasync` returning means that all bytes written to that file before are on the medium, with the file's size.
- Bytes that were not synced may be on the medium wholly, partly, in any order, or not at all.
- A rename or a new name survives a power cut once the folder was synced; before that, either state may be found.
- After `fdatasync` failed, nothing is known about the bytes it should have saved, and asking again proves nothing:
  the kernel has marked the pages clean. They must be written again, elsewhere.

A card that answers a flush without doing it breaks the first line, and no software can heal that.
"""

from __future__ import annotations

import os
from errno import EACCES
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """One folder of files. Every method may raise OSError. Files are named without a path."""

    def names(self) -> list[str]:
        """Names of all files, in no order."""
        ...

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        ...

    def open(self, name: str, *, create: bool = False) -> int:
        """Open for reading and writing and give its handle; with `create` a new, empty file is made."""
        ...

    def close(self, file: int) -> None:
        """Give a handle back."""
        ...

    def pread(self, file: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the file."""
        ...

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`, or raise."""
        ...

    def fdatasync(self, file: int) -> None:
        """Bring what was written to the medium."""
        ...

    def sync_folder(self) -> None:
        """Bring names (new, renamed, removed) to the medium."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what had it."""
        ...

    def unlink(self, name: str) -> None:
        """Remove a file."""
        ...

    def free_bytes(self) -> int:
        """What is left on the file system for us."""
        ...


class FolderDisk:
    """A real folder on a real file system, opened by path.

    Not `writable`: files are opened for reading only, also where the user may write and on media where nobody can; what
    would change a byte or a name raises PermissionError. Who only looks cannot harm what another process writes.
    """

    def __init__(self, folder: Path, *, writable: bool = True) -> None:
        self._folder = folder
        self._writable = writable

    def __repr__(self) -> str:
        return f"FolderDisk({str(self._folder)!r})"

    def names(self) -> list[str]:
        """Names of all files, in no order."""
        return os.listdir(self._folder)  # noqa: PTH208 - plain names are what we want

    def size(self, name: str) -> int:
        """Length of a file in bytes."""
        return (self._folder / name).stat().st_size

    def open(self, name: str, *, create: bool = False) -> int:
        """Open for reading and writing, or for reading only; with `create` the file must be new."""
        if create:
            self._check(name)
        mode = os.O_RDWR if self._writable else os.O_RDONLY
        return os.open(self._folder / name, mode | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)

    def close(self, file: int) -> None:
        """Give a handle back."""
        os.close(file)

    def pread(self, file: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        return os.pread(file, size, offset)

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        """Write all of `data`: the kernel may take it in parts, when the disk fills up for example."""
        view = memoryview(data)
        while view:
            done = os.pwrite(file, view, offset)
            view = view[done:]
            offset += done

    def fdatasync(self, file: int) -> None:
        """Bring what was written to the medium."""
        os.fdatasync(file)

    def sync_folder(self) -> None:
        """Bring names to the medium."""
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        self._check(old)
        (self._folder / old).replace(self._folder / new)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        self._check(name)
        (self._folder / name).unlink()

    def _check(self, name: str) -> None:
        """Refuse to change names where we only look; writing to a file the kernel refuses by itself."""
        if not self._writable:
            raise PermissionError(EACCES, "opened for reading only", str(self._folder / name))

    def free_bytes(self) -> int:
        """What is left for a user who is not root."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize
