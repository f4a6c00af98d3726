"""A disk that fails, tears, lies, fills up, stalls, and forgets what was not synced, for `gateway.journal.disk.Disk`.

It models what the kernel and a card do: writes land in a cache; `fdatasync` brings a file's cache to the medium; names
reach the medium with `sync_folder`. A power cut keeps the medium, plus any of the sectors still in the cache, later
ones without earlier ones, plus any of the changes of names that were not synced. After a failed write or `fdatasync`
nothing is known of what it should have saved: some sectors may be on the medium, the cache is marked clean, and asking
again says "ok" and proves nothing.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

SECTOR = 512


class PowerCutError(OSError):
    """The machine is off: nothing works from here on."""


class TornError(OSError):
    """A write that ends in the middle: the kernel took some sectors, then refused."""


@dataclass(eq=False)
class File:
    cache: bytearray = field(default_factory=bytearray)
    medium: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, bytes]] = field(default_factory=list)
    is_suspect: bool = False


def store(target: bytearray, data: bytes, offset: int) -> None:
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


class SimulatedDisk:
    """`cut_at`: the power fails at that operation (1 = the first), in the middle of it. `operations` counts them.

    `break_at` lets one operation fail and some that follow. Beside that, `fault(operation, name)` may return an OSError
    to raise. `bad_blocks`, by name and number, cannot be read. `room` bounds the sum of all files, `free` is what the
    file system says is left. `lies` are the operations (`fdatasync`, `sync_folder`) that are answered and not done.
    `gate`, when given, must be set for an `fdatasync` to return. `asked_again`: writes to files that had refused one or
    a flush before.
    """

    def __init__(self, *, cut_at: int = 0, seed: int = 0, room: int = 1 << 40) -> None:
        self.names_now: dict[str, File] = {}
        self.names_kept: dict[str, File] = {}
        self.renaming: list[Callable[[dict[str, File]], None]] = []
        self.handles: dict[int, tuple[File, str]] = {}
        self.next_handle = 100
        self.operations = 0
        self.log: list[tuple[str, str]] = []
        self.asked_again: list[tuple[str, str]] = []
        self.cut_at = cut_at
        self.is_off = False
        self.random = random.Random(seed)
        self.room = room
        self.free = 1 << 40
        self.bad_blocks: set[tuple[str, int]] = set()
        self.lies: set[str] = set()
        self.failing = range(0)
        self.failure: Callable[[], OSError] = lambda: OSError(errno.EIO, "input/output error")
        self.fault: Callable[[str, str], OSError | None] = lambda _operation, _name: None
        self.gate: threading.Event | None = None
        self.lock = threading.RLock()
        self.written = 0

    # --- what happens to the machine --------------------------------------------------------------------------------

    def crash(self, seed: int = 0) -> SimulatedDisk:
        """The disk as the next start finds it after a power cut."""
        chance = random.Random(seed)
        names = dict(self.names_kept)
        # A journalling file system keeps the order of such changes; others do not. Every other cut is of each kind.
        in_order = self.renaming[: chance.randint(0, len(self.renaming))]
        any_order = [change for change in self.renaming if chance.random() < 0.5]
        for change in in_order if chance.random() < 0.5 else any_order:
            change(names)
        found = SimulatedDisk(seed=seed)
        for name, file in names.items():
            medium = bytearray(file.medium)
            _keep_some(medium, file.dirty, chance)
            found.put(name, bytes(medium))
        return found

    def copy(self) -> SimulatedDisk:
        """The same files, all of them on the medium, on a disk that works."""
        found = SimulatedDisk()
        for name, file in self.names_now.items():
            found.put(name, bytes(file.cache))
        return found

    def put(self, name: str, data: bytes) -> None:
        self.names_now[name] = self.names_kept[name] = File(bytearray(data), bytearray(data))

    def drop_cache(self) -> None:
        """The kernel needs its memory for something else: what is read from now on comes from the medium."""
        for file in self.names_now.values():
            file.cache = bytearray(file.medium)

    def break_at(self, operation: int, failure: Callable[[], OSError], *, times: int = 1) -> None:
        """From that operation on (1 = the first ever) raise `failure()`, so many times or until `repair`."""
        self.failing, self.failure = range(operation, operation + times), failure

    @property
    def liar(self) -> bool:
        """Whether no flush at all is done."""
        return self.lies == {"fdatasync", "sync_folder"}

    @liar.setter
    def liar(self, value: bool) -> None:
        self.lies = {"fdatasync", "sync_folder"} if value else set()

    def repair(self) -> None:
        """Everything works again."""
        self.failing, self.fault = range(0), lambda _operation, _name: None

    def _operation(self, what: str, name: str) -> bool:
        """Count it; True when the power fails in the middle of it."""
        if self.is_off:
            raise PowerCutError(errno.EIO, "the power is off")
        self.operations += 1
        self.log.append((what, name))
        error = self.fault(what, name)
        if error is None and self.operations in self.failing:
            error = self.failure()
        if error is not None:
            raise error
        self.is_off = self.operations == self.cut_at
        return self.is_off

    def _watch(self, what: str, file: File, name: str) -> None:
        if file.is_suspect:
            self.asked_again.append((what, name))

    # --- gateway.journal.disk.Disk ------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return list(self.names_now)

    def size(self, name: str) -> int:
        return len(self._find(name).cache)

    def _find(self, name: str) -> File:
        if name not in self.names_now:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        return self.names_now[name]

    def open(self, name: str, *, create: bool = False) -> int:
        with self.lock:
            if create:
                is_cut = self._operation("create", name)
                if name in self.names_now:
                    raise FileExistsError(errno.EEXIST, "exists", name)
                file = self.names_now[name] = File()
                self.renaming.append(lambda names: names.__setitem__(name, file))
                if is_cut:
                    raise PowerCutError(errno.EIO, "cut")
            else:
                error = self.fault("open", name)
                if error is not None:
                    raise error
                file = self._find(name)
            self.next_handle += 1
            self.handles[self.next_handle] = (file, name)
            return self.next_handle

    def close(self, file: int) -> None:
        del self.handles[file]

    def pread(self, file: int, size: int, offset: int) -> bytes:
        found, name = self.handles[file]
        error = self.fault("pread", name)
        blocks = range(offset // 4096, (offset + size - 1) // 4096 + 1)
        if error is not None or any((name, block) in self.bad_blocks for block in blocks):
            raise error or OSError(errno.EIO, "bad block")
        return bytes(found.cache[offset : offset + size])

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        with self.lock:
            found, name = self.handles[file]
            self._watch("pwrite", found, name)
            is_cut = False
            try:
                is_cut = self._operation("pwrite", name)
            except OSError as error:
                found.is_suspect = found.is_suspect or not self.is_off
                if isinstance(error, TornError):
                    self._write(found, data[: self.random.randrange(0, len(data), SECTOR)], offset)
                raise
            if is_cut:
                data = data[: self.random.randrange(0, len(data) + 1, SECTOR)]
            grown = max(0, offset + len(data) - len(found.cache))
            if sum(len(f.cache) for f in set(self.names_now.values())) + grown > self.room:
                found.is_suspect = True
                raise OSError(errno.ENOSPC, "no space left on device")
            self._write(found, data, offset)
            self.written += len(data)
            if is_cut:
                raise PowerCutError(errno.EIO, "cut")

    def _write(self, file: File, data: bytes, offset: int) -> None:
        store(file.cache, data, offset)
        file.dirty.append((offset, bytes(data)))

    def fdatasync(self, file: int) -> None:
        if self.gate is not None:
            self.gate.wait()
        with self.lock:
            found, name = self.handles[file]
            self._watch("fdatasync", found, name)
            try:
                is_cut = self._operation("fdatasync", name)
            except OSError:
                if not self.is_off:
                    found.is_suspect = True
                    _keep_some(found.medium, found.dirty, self.random)
                    found.dirty.clear()  # the pages are clean now, says the kernel
                raise
            if is_cut and self.random.random() < 0.5:
                raise PowerCutError(errno.EIO, "cut before the flush was done")
            if "fdatasync" not in self.lies:
                for offset, data in found.dirty:
                    store(found.medium, data, offset)
                found.dirty.clear()
            if is_cut:
                raise PowerCutError(errno.EIO, "cut after the flush was done")

    def sync_folder(self) -> None:
        with self.lock:
            is_cut = self._operation("sync_folder", "")
            if is_cut and self.random.random() < 0.5:
                raise PowerCutError(errno.EIO, "cut")
            if "sync_folder" not in self.lies:
                self.names_kept = dict(self.names_now)
                self.renaming.clear()
            if is_cut:
                raise PowerCutError(errno.EIO, "cut")

    def rename(self, old: str, new: str) -> None:
        with self.lock:
            is_cut = self._operation("rename", new)
            self._find(old)

            def change(names: dict[str, File]) -> None:
                if old in names:
                    names[new] = names.pop(old)

            change(self.names_now)
            self.renaming.append(change)
            for handle, (file, name) in self.handles.items():
                if name == old:
                    self.handles[handle] = (file, new)
            if is_cut:
                raise PowerCutError(errno.EIO, "cut")

    def unlink(self, name: str) -> None:
        with self.lock:
            is_cut = self._operation("unlink", name)
            self._find(name)
            del self.names_now[name]
            self.renaming.append(lambda names: names.pop(name, None))
            if is_cut:
                raise PowerCutError(errno.EIO, "cut")

    def free_bytes(self) -> int:
        return self.free


def _keep_some(medium: bytearray, dirty: list[tuple[int, bytes]], chance: random.Random) -> None:
    """Bring any of the sectors to the medium; of those that were not, the ones in the middle read as zeros."""
    for offset, data in dirty:
        for at in range(0, len(data), SECTOR):
            if chance.random() < 0.5:
                store(medium, data[at : at + SECTOR], offset + at)
