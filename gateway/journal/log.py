"""An append log of small frames, with snapshots that stand for what was before them. Knows nothing of what frames say.

The other shape beside `writer`: frames are not aligned, many small writes lie between two flushes, and a frame is done
with as soon as a snapshot covers it, not when a cursor has passed it. Layout and crashes: `logfile`.

A file of an earlier run is never written to. A run's first frame takes the number behind the last one that was found;
of an older file no frame counts from the first number of the next file on. After a failed write or flush a file is
never touched again: what was not on the medium, kept in memory till then, goes to a new file with the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from gateway.journal.disk import Disk
from gateway.journal.logfile import BLOCK, FLUSHED, LAST, File, Source, file_of, seal, seed_of
from gateway.journal.segment import Tally

log = logging.getLogger("headgate.journal")

_BAD_KEPT = 2
_FLUSH_BYTES = 128 * 1024
_LITTLE = 16 * 1024
_AHEAD = 64 * 1024


class Appender:
    """One new file while it is written. All methods may raise OSError."""

    def __init__(self, disk: Disk, file: File, *, kind: str, tally: Tally) -> None:
        """`kind`: what the file will be when it is called so; `file` may be `new` as yet."""
        self._disk = disk
        self._seed = seed_of(kind, file.number)
        self._tally = tally
        self._flags = FLUSHED
        self._handle = disk.open(file.name, create=True)
        self._made = 0 if kind == "log" else 1 << 64
        self.size = 0
        self.unflushed = 0

    def put(self, number: int, payload: bytes, flags: int = 0) -> None:
        """Hand a frame to the kernel."""
        data = seal(self._seed, self.size, number, payload, self._flags | flags)
        self._disk.pwrite(self._handle, data, self.size)
        self._flags = 0
        self.size += len(data)
        self.unflushed += len(data)
        self._tally.bytes_written.value += len(data)
        self._tally.frames.value += 1

    def flush(self) -> None:
        """Bring the file to the medium; the next frame begins a block.

        Where little is written between two flushes, room is made ahead in log files, with zeros: to write into blocks
        that are there costs a card a third of what it costs to make the file longer, and one flush in place of two.
        """
        end = -(-self.size // BLOCK) * BLOCK
        if self.unflushed <= _LITTLE and end + BLOCK > self._made:
            with contextlib.suppress(OSError):
                self._disk.pwrite(self._handle, bytes(_AHEAD), end)
                self._tally.bytes_written.value += _AHEAD
            self._made = end + _AHEAD
        self._disk.fdatasync(self._handle)
        self._tally.flushes.value += 1
        self._flags = FLUSHED
        self.size = end
        self.unflushed = 0

    def close(self) -> None:
        """Give the file back; it is not flushed. Once is enough, twice does no harm."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self._disk.close(self._handle)
            self._handle = -1


class Snapshot:
    """A snapshot while it is written. Nobody reads it before `Log.install`."""

    def __init__(self, disk: Disk, file: File, tally: Tally) -> None:
        self._number = 0
        self._appender = Appender(disk, replace(file, kind="new"), kind="snapshot", tally=tally)
        self.file = file

    @property
    def size(self) -> int:
        """Bytes until now."""
        return self._appender.size

    def add(self, payload: bytes, *, is_last: bool = False) -> None:
        """Write a part. Flushes now and then, so that no single flush takes long. Raises OSError."""
        self._number += 1
        self._appender.put(self._number, payload, LAST if is_last else 0)
        if is_last or self._appender.unflushed >= _FLUSH_BYTES:
            self._appender.flush()

    def close(self) -> None:
        """Give the file back."""
        self._appender.close()


class Log:
    """The log of one folder. Its methods belong to one thread; others may look at its numbers.

    `files`: the snapshot, if there is one, and the log files since, oldest first. `snapshot_bytes`, `log_bytes`: what
    they take. `last`: number of the last frame handed in. `kept_bytes`: of frames that are not on the medium as far as
    we know; they stay in memory until they are. `is_worn`: a snapshot should replace the files soon, for they are
    damaged, or nobody knows what of them is on the medium.
    """

    def __init__(self, disk: Disk, tally: Tally) -> None:
        self._disk = disk
        self._tally = tally
        self._appender: Appender | None = None
        self._kept: list[tuple[int, bytes]] = []
        self._failed: list[File] = []
        self._bad: list[File] = []
        self._sizes: dict[str, int] = {}
        self._next = 1
        self.files: list[File] = []
        self.snapshot_bytes = 0
        self.kept_bytes = 0
        self.last = 0
        self.is_worn = False

    @property
    def log_bytes(self) -> int:
        """Bytes of the log files, the one being written included."""
        return sum(self._sizes.values()) + (self._appender.size if self._appender is not None else 0)

    @property
    def is_failed(self) -> bool:
        """Whether frames wait for a file that can be written."""
        return self._appender is None and bool(self._kept)

    # --- at the start -------------------------------------------------------------------------------------------------

    def recover(self) -> list[Source]:
        """Find the files that count. Damage never raises; OSError only where the folder itself cannot be listed.

        The caller reads the sources in order, hands them to `judge`, and closes them.
        """
        found = sorted(filter(None, map(file_of, self._disk.names())), key=lambda file: file.number)
        self._next = max((file.number for file in found), default=0) + 1
        for file in found:
            if file.kind == "new":
                self._remove(file)
        self._bad = [file for file in found if file.kind == "bad"]
        logs = [file for file in found if file.kind == "log"]
        base = self._base([file for file in reversed(found) if file.kind == "snapshot"], logs)
        covered = base.number if base is not None else 0
        for file in logs:
            if file.number <= covered:
                self._remove(file)
        self.files = [base] if base is not None else []
        self.files += [file for file in logs if file.number > covered]
        self._limit()
        self._thin_out_bad()
        return self.sources()

    def sources(self) -> list[Source]:
        """The files, opened for reading."""
        return [Source(self._disk, file) for file in self.files]

    def _base(self, snapshots: Sequence[File], logs: Sequence[File]) -> File | None:
        """The newest snapshot that is whole, where the logs go on from it; else the newest, as far as it goes.

        More than one is found only after a crash between the rename of the newest and the removal of what it replaces.
        """
        if not snapshots:
            return None
        base = next(filter(self._is_whole, snapshots), None)
        if base is not snapshots[0]:
            number, last = (base.number, base.first) if base is not None else (0, 0)
            following = next((file.first for file in logs if file.number > number), 0)
            if following != last + 1:
                base = snapshots[0]
        for snapshot in snapshots:
            if snapshot is base:
                continue
            if base is None or snapshot.number > base.number:
                log.warning("%s is damaged and set aside; what it replaced is still there", snapshot.name)
                self._tally.corrupt.value += 1
                self._set_aside(snapshot)
            else:
                self._remove(snapshot)
        return base

    def _is_whole(self, snapshot: File) -> bool:
        source = Source(self._disk, snapshot)
        for _ in source.frames():
            pass
        source.close()
        return source.is_complete

    def _limit(self) -> None:
        """Of an older file, no frame counts that a newer one has."""
        first = 1 << 64
        for n in range(len(self.files) - 1, -1, -1):
            if self.files[n].kind == "log":
                self.files[n] = replace(self.files[n], limit=first)
                first = self.files[n].first

    def judge(self, sources: Sequence[Source]) -> None:
        """Take what reading has told: sizes, the last frame, damage. What an earlier run left is brought to the medium.

        A damaged file stays where it is until a snapshot holds what could be read of it, then it is set aside.
        """
        for source in sources:
            file = source.file
            is_gap = False
            if file.kind == "snapshot":
                self.snapshot_bytes = source.size
                self.last = file.first
            else:
                self._sizes[file.name] = source.size
                is_gap = self.last < file.first - 1
                self.last = max(self.last, source.last)
            if source.is_damaged or is_gap:
                self.is_worn = True
                self._tally.corrupt.value += 1
                log.warning(
                    "%s is damaged, or what was before it: some of it is lost (%d bytes in it, %d at its end)",
                    file.name,
                    source.lost_bytes,
                    source.torn_bytes,
                )
            elif source.torn_bytes:
                log.info(
                    "%s: the last %d bytes were not written to their end and do not count", file.name, source.torn_bytes
                )
        if self.files and self.files[-1].kind == "log":
            self._settle(self.files[-1])

    def _settle(self, file: File) -> None:
        """Flush what a kill may have left in the kernel's memory only: new frames go on from it."""
        try:
            handle = self._disk.open(file.name)
            try:
                self._disk.fdatasync(handle)
            finally:
                self._disk.close(handle)
        except OSError as error:
            log.warning("%s cannot be flushed (%s)", file.name, error)
            self.is_worn = True

    # --- day by day ---------------------------------------------------------------------------------------------------

    def append(self, number: int, payload: bytes) -> None:
        """Hand a frame to the kernel. Raises OSError; the frame is kept then, with all since the last flush."""
        if number != self.last + 1:  # one was lost by a mistake of ours: readers bear that between two files only
            self.flush()
            self._leave()
        self._kept.append((number, payload))
        self.kept_bytes += len(payload)
        self.last = number
        if self._appender is None:
            self._begin()
            return
        try:
            self._appender.put(number, payload)
        except OSError:
            self._abandon()
            raise

    def flush(self) -> None:
        """Bring all frames to the medium. Raises OSError: nobody knows then, so all since the last flush are kept."""
        if self._appender is None or not self._kept:
            return
        try:
            self._appender.flush()
        except OSError:
            self._abandon()
            raise
        self._forget()

    def retry(self) -> None:
        """After a failure, write what is kept into a new file and bring it to the medium. Raises OSError: not yet."""
        if self._appender is None and self._kept:
            self._begin()
        self.flush()

    def _begin(self) -> None:
        """Open the next file and write all that is kept.

        What failed before may still be whole in the kernel's memory, and a kill would spare it: so the file that shall
        replace it gets its name when it is on the medium.
        """
        file = File(self._next, self._kept[0][0], "log")
        new = replace(file, kind="new") if self._failed else file
        self._next += 1
        appender = Appender(self._disk, new, kind="log", tally=self._tally)
        try:
            for number, payload in self._kept:
                appender.put(number, payload)
            if self._failed:
                appender.flush()
                self._disk.rename(new.name, file.name)
            self._disk.sync_folder()
        except OSError:
            appender.close()
            self._remove(new)
            self._remove(file)
            raise
        self._tally.flushes.value += 1
        self._appender = appender
        for failed in self._failed:
            if failed.first >= file.first:  # no frame of it was on the medium
                self.files.remove(failed)
                self._sizes.pop(failed.name, None)
                self._remove(failed)
        self._failed.clear()
        self.files.append(file)
        self._limit()

    def _abandon(self) -> None:
        """A write or a flush failed: never touch this file again."""
        if self._appender is not None:
            self._failed.append(self.files[-1])
            self._leave()

    def _leave(self) -> None:
        if self._appender is not None:
            self._sizes[self.files[-1].name] = self._appender.size
            self._appender.close()
            self._appender = None

    def _forget(self) -> None:
        self._kept.clear()
        self.kept_bytes = 0

    def give_up(self) -> None:
        """Forget what could not be written."""
        self._forget()

    def close(self) -> None:
        """Close the file being written."""
        self._leave()

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def roll(self) -> tuple[list[Source], Snapshot]:
        """End the file being written: the next frame begins another. Gives all files to read, and a snapshot to fill.

        Raises OSError.
        """
        self.flush()
        self._leave()
        file = File(self._next, self.last, "snapshot")
        self._next += 1
        snapshot = Snapshot(self._disk, file, self._tally)
        return self.sources(), snapshot

    def install(self, snapshot: Snapshot, covered: Sequence[Source]) -> None:
        """Let a whole snapshot take the place of what it covers. Raises OSError; then nothing was removed."""
        file, names = snapshot.file, {source.file.name for source in covered}
        size = snapshot.size
        snapshot.close()
        try:
            self._disk.rename(replace(file, kind="new").name, file.name)
            self._disk.sync_folder()
        except OSError:
            self.discard(snapshot)
            raise
        self._tally.flushes.value += 1
        for source in covered:
            if source.is_damaged:
                self._set_aside(source.file)
            else:
                self._remove(source.file)
            self._sizes.pop(source.file.name, None)
        self._thin_out_bad()
        self.files = [file, *(f for f in self.files if f.name not in names)]
        self.snapshot_bytes = size
        self.is_worn = False

    def discard(self, snapshot: Snapshot) -> None:
        """A snapshot is not wanted any more, or could not be written."""
        snapshot.close()
        self._remove(replace(snapshot.file, kind="new"))
        self._remove(snapshot.file)

    def _remove(self, file: File) -> None:
        with contextlib.suppress(OSError):
            self._disk.unlink(file.name)

    def _set_aside(self, file: File) -> None:
        bad = replace(file, kind="bad")
        with contextlib.suppress(OSError):
            self._disk.rename(file.name, bad.name)
            self._bad.append(bad)

    def _thin_out_bad(self) -> None:
        """Keep the newest few damaged files for whoever wants to look."""
        self._bad.sort(key=lambda file: file.number)
        for file in self._bad[:-_BAD_KEPT]:
            self._remove(file)
        del self._bad[:-_BAD_KEPT]
