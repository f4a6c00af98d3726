"""The frames of one class's folder as they lie there: read without changing a byte, also beside a running gateway.

A walk gives, file by file and front to back:

- `Seen`, a frame whose head can be believed; without a body where that is damaged,
- `Scar`, a place between or behind frames where there is something that is no frame of this file,
- `Vanished`, a file that was taken for another segment while we read: nothing is wrong, but what it held is gone.

The writer fills a segment without leaving room between frames, so a hole between two frames is always a scar. Behind
the last frame lies what the file held in an earlier life, or zeros: there, what begins like a frame and is none is one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from gateway.journal import frame
from gateway.journal.disk import Disk
from gateway.journal.frame import Body, Head
from gateway.journal.segment import Tally, number_of
from gateway.journal.slots import Slots
from gateway.model import Definition
from gateway.spool.cursor import State
from gateway.upkeep.folder import Part

_PIECE = 1 << 20
_TRUSTED = "only its head was read"
_MOST_FAILURES = 16  # a dying card takes seconds for each block it cannot read: then this file is given up
_MOST_DEFINITIONS = 4096


@dataclass(frozen=True, slots=True)
class File:
    """A file of frames; `is_bad` where it was set aside."""

    name: str
    number: int
    size: int

    @property
    def is_bad(self) -> bool:
        """Whether it was set aside as damaged."""
        return self.name.endswith(".bad")


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame. `body` is None where it is damaged, or where only heads were asked for.

    `obstacle` says what it takes to read one that is whole and that this program cannot read as it is installed.
    """

    file: File
    head: Head
    body: Body | None
    obstacle: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether its checksums hold."""
        return self.body is not None or bool(self.obstacle)


@dataclass(frozen=True, slots=True)
class Scar:
    """`size` bytes from `offset` that should be frames and are not. `is_end`: behind the last frame of the file."""

    file: File
    offset: int
    size: int
    what: str
    is_end: bool


@dataclass(frozen=True, slots=True)
class Vanished:
    """A file that was recycled before or while it was read."""

    file: File


Item: TypeAlias = Seen | Scar | Vanished
Advance: TypeAlias = Callable[[int], None]
"""Told how many bytes more have been dealt with."""


class Survey:
    """One class's folder. `files` are its segments, oldest first, `set_aside` the damaged ones, as found when made."""

    def __init__(self, part: Part, *, disk: Disk | None = None) -> None:
        self.part = part
        self._disk = disk or part.disk
        self._definitions: dict[bytes, Definition | None] = {}
        found: list[File] = []
        self.allocated_bytes = 0
        for name in sorted(self._disk.names()):
            number = number_of(name)
            size = self._size(name) if number is not None or name.startswith("spare-") or name == "slots" else 0
            self.allocated_bytes += size
            if number is not None:
                found.append(File(name, number, size))
        self.files = tuple(sorted((f for f in found if not f.is_bad), key=lambda f: f.number))
        self.set_aside = tuple(sorted((f for f in found if f.is_bad), key=lambda f: f.number))

    def _size(self, name: str) -> int:
        try:
            return self._disk.size(name)
        except OSError:  # recycled since it was listed; the walk will say so
            return 0

    @property
    def size(self) -> int:
        """Bytes of all segments: what a walk will have told by its end."""
        return sum(file.size for file in self.files)

    def walk(self, *, bodies: bool = True, advance: Advance | None = None) -> Iterator[Item]:
        """All frames and scars of all segments, in the order of writing. One body is in memory at a time."""
        for file in self.files:
            yield from self.walk_file(file, bodies=bodies, advance=advance)

    def heads(self) -> Iterator[Item]:
        """The same by their heads alone, which are taken on trust: quick, and blind for damaged bodies."""
        for item in self.walk(bodies=False):
            yield replace(item, obstacle=_TRUSTED) if isinstance(item, Seen) else item

    def walk_file(self, file: File, *, bodies: bool = True, advance: Advance | None = None) -> Iterator[Item]:
        """The same of one file, which may be one that was set aside."""
        told = 0

        def tell(offset: int) -> None:
            nonlocal told
            if advance is not None and offset > told:
                advance(offset - told)
                told = offset

        try:
            handle = self._disk.open(file.name)
        except FileNotFoundError:
            yield Vanished(file)
        except OSError as error:
            yield Scar(file, 0, file.size, f"the file cannot be read: {error.strerror}", is_end=False)
        else:
            try:
                yield from _Walk(self._disk, handle, file, bodies=bodies, tell=tell).items()
            finally:
                self._disk.close(handle)
        tell(file.size)

    def state(self) -> State | None:
        """The newest state that can be read; None without any."""
        newest = self.document()
        try:
            return None if newest is None else State.parse(newest[1])
        except ValueError:
            return None

    def document(self) -> tuple[int, bytes] | None:
        """Generation and bytes of the newest state document, of the slots and of the last whole frame."""
        slots = Slots(self._disk, Tally())
        try:
            newest = slots.read()
        finally:
            slots.close()
        for file in reversed(self.files):
            last: tuple[int, bytes] | None = None
            for item in self.walk_file(file):
                if isinstance(item, Seen) and item.body is not None:
                    last = item.head.generation, item.body.document
            if last is not None:
                newest = last if newest is None else max(newest, last)
                break
        return newest

    def learn(self, body: Body) -> None:
        """Remember the definitions that a frame brings along."""
        for key, entry in body.entries.items():
            if self._definitions.get(key) is None:
                self._note(key, entry)

    def definition(self, key: bytes) -> Definition | None:
        """The definition of that hash, from any file that has it; None where none has."""
        if key not in self._definitions:
            self._note(key, self._search(key))
        return self._definitions[key]

    def _note(self, key: bytes, entry: bytes | None) -> None:
        if len(self._definitions) >= _MOST_DEFINITIONS:
            self._definitions.clear()
        self._definitions[key] = None
        if entry is not None:
            try:
                self._definitions[key] = Definition.from_document(entry)
            except (ValueError, KeyError, TypeError):
                return

    def _search(self, key: bytes) -> bytes | None:
        for file in (*self.files, *self.set_aside):
            for item in self.walk_file(file, bodies=False):
                if isinstance(item, Seen) and item.head.flags & frame.HAS_ENTRIES:
                    body = self.load(item)
                    if body is not None and key in body.entries:
                        return body.entries[key]
        return None

    def load(self, seen: Seen) -> Body | None:
        """The body of a frame that was walked over without; None where it is damaged, or gone."""
        if seen.body is not None or frame.obstacle(seen.head) is not None:
            return seen.body
        try:
            handle = self._disk.open(seen.file.name)
        except OSError:
            return None
        try:
            head = seen.head
            return frame.unpack(head, self._disk.pread(handle, head.body_length, head.offset + head.length))
        except OSError:
            return None
        finally:
            self._disk.close(handle)

    def is_mended(self, item: Seen | Scar) -> bool:
        """Whether a place that looked damaged does not any more: the writer was at it, or has recycled the file."""
        offset = item.offset if isinstance(item, Scar) else item.head.offset
        for again in self.walk_file(item.file):
            if isinstance(again, Vanished):
                return True
            if isinstance(again, Scar):
                if again.offset <= offset < again.offset + again.size:
                    return False
            elif again.head.offset == offset:
                return again.is_whole
        return isinstance(item, Scar) and item.is_end


class _Walk:
    """The walk through one open file."""

    def __init__(self, disk: Disk, handle: int, file: File, *, bodies: bool, tell: Advance) -> None:
        self._disk = disk
        self._handle = handle
        self._file = file
        self._bodies = bodies
        self._tell = tell
        self._piece = _PIECE if bodies else frame.BLOCK
        self._buffer = b""
        self._start = 0
        self._first: Head | None = None
        self._failures = 0

    def items(self) -> Iterator[Item]:
        offset = behind = 0
        trouble = ""
        size = self._file.size
        while offset + frame.BLOCK <= size:
            head, found = self._look(offset)
            if head is None:
                trouble = trouble or found
                offset += frame.BLOCK
                if self._failures == _MOST_FAILURES:
                    break
                continue
            if offset > behind:
                if self._is_recycled():
                    yield Vanished(self._file)
                    return
                yield Scar(self._file, behind, offset - behind, trouble, is_end=False)
            self._first = self._first or head
            seen = self._seen(head)
            if self._bodies and not seen.is_whole and self._is_recycled():
                yield Vanished(self._file)
                return
            yield seen
            behind = offset = offset + head.extent
            trouble = ""
            self._tell(offset)
        yield from self._end(behind, trouble)

    def _end(self, behind: int, trouble: str) -> Iterator[Item]:
        """What lies behind the last frame. Leftovers and zeros are no scar."""
        if behind >= self._file.size:
            return
        begins_badly = trouble in _BROKEN or trouble.startswith(_UNREADABLE)
        if self._first is None and trouble == _OTHER:
            begins_badly = True  # no frame of its own, and not one of an earlier life at its start either
        if begins_badly and not self._is_recycled():
            yield Scar(self._file, behind, self._file.size - behind, trouble, is_end=True)

    def _look(self, offset: int) -> tuple[Head | None, str]:
        """The head at `offset` if it is one of this file's own, else what is there instead."""
        try:
            data = self._read(offset, frame.LONGEST_HEAD)
        except OSError as error:
            self._failures += 1
            return None, f"{_UNREADABLE}: {error.strerror}"
        head = frame.glance(data)
        if head is None:
            return None, _describe(data)
        if head.segment != self._file.number or head.offset != offset:
            return None, _LEFT_OVER
        if offset + head.extent > self._file.size:
            return None, _CUT
        return (head, "") if self._is_own(head) else (None, _LEFT_OVER)

    def _is_own(self, head: Head) -> bool:
        """Whether no other start of a store left it here, which used the number after the state was lost."""
        first = self._first
        if first is None or first.epoch == head.epoch:
            return True
        return bool(first.level and head.level) and first.store == head.store  # thinned: what several starts wrote

    def _seen(self, head: Head) -> Seen:
        if not self._bodies:
            return Seen(self._file, head, None)
        try:
            stored = self._read(head.offset + head.length, head.body_length)
        except OSError:
            self._failures += 1
            return Seen(self._file, head, None)
        obstacle = frame.obstacle(head)
        if obstacle is None:
            return Seen(self._file, head, frame.unpack(head, stored))
        return Seen(self._file, head, None, obstacle if zlib.crc32(stored) == head.body_checksum else "")

    def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fetched in large pieces; a piece that cannot be read is asked for by itself."""
        at = offset - self._start
        if at < 0 or at + length > len(self._buffer):
            try:
                self._buffer = self._disk.pread(self._handle, max(length, self._piece), offset)
            except OSError:
                self._buffer = self._disk.pread(self._handle, length, offset)
            self._start, at = offset, 0
        return self._buffer[at : at + length]

    def _is_recycled(self) -> bool:
        """Whether the file serves another segment by now: writing begins at its front, so its first frame is gone."""
        if self._first is None:
            return False
        try:
            data = self._disk.pread(self._handle, frame.LONGEST_HEAD, self._first.offset)
        except OSError:
            return False
        return frame.glance(data) != self._first


_UNREADABLE = "the disk does not give it back"
_WRONG_HEAD = "a frame's head is wrong"
_ZEROS = "zeros"
_OTHER = "no frame begins here"
_LEFT_OVER = "a frame of another segment"
_CUT = "a frame is longer than what is left of the file"
_BROKEN = frozenset({_WRONG_HEAD, _CUT})


def _describe(data: bytes) -> str:
    """What stands where a head was looked for."""
    if data.startswith(frame.MAGIC):
        return _WRONG_HEAD
    return _OTHER if any(data) else _ZEROS
