"""The store: the spool's folder, opened. Lock, threads, journal, and the state that the last run left."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gateway.clock import Clock
from gateway.errors import RefusedError
from gateway.journal import foreign
from gateway.journal.disk import Disk, FolderDisk
from gateway.journal.frame import BLOCK, FormatError
from gateway.journal.pool import Bounds
from gateway.journal.reader import Reader
from gateway.journal.scrub import Scrub
from gateway.journal.segment import SEGMENT_SIZE, Tally
from gateway.journal.writer import Recovered, Writer
from gateway.metrics import Metrics
from gateway.model import RecordClass
from gateway.spool.cursor import State
from gateway.spool.document import fitted
from gateway.spool.limits import Limits
from gateway.spool.lock import Lock

log = logging.getLogger("headgate.spool")

RESERVE = 1 << 20
"""How many numbers are reserved ahead of the head: so many may be skipped after a power cut, and none is used twice."""

_SMALLEST_SEGMENT = 64 * 1024
_READY_SEGMENT = 1024 * 1024  # made at the start: a slow card fills two of them in less than a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An opened folder.

    `state` is this run's, with numbers reserved; `failure` says why it could not be written, if so. `earlier` records
    were ever written by earlier runs. One thread writes, another reads.
    """

    writer: Writer
    reader: Reader
    scrub: Scrub
    state: State
    recovered: Recovered
    earlier: int
    failure: OSError | None
    writing: Executor
    reading: Executor
    tally: Tally
    segment_size: int
    release: Callable[[], None]

    @property
    def boots(self) -> set[bytes]:
        """The boots of the machine of which there are records on the disk."""
        return {segment.first.boot_id for segment in self.writer.segments if segment.first is not None}

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        limits: Limits,
        clock: Clock,
        metrics: Metrics,
        disk: Disk | None,
        segment_size: int | None,
        writing: Executor | None,
        reading: Executor | None,
        is_ready: bool,
        record_class: RecordClass,
    ) -> Store:
        """Take the lock, look through the folder, and begin a new epoch. Raises RefusedError.

        `is_ready`: make the first files now, so that records can be written though the disk be full by then.
        """
        tally = _tally(metrics, record_class)
        segment_size = segment_size or min(
            _segment_size(limits.max_bytes), _READY_SEGMENT if is_ready else SEGMENT_SIZE
        )
        disk = disk or FolderDisk(folder)
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            _make(folder)
            stack.callback(Lock(folder).release)
            reading = reading or _thread("headgate-read", stack)
            writing = writing or _thread("headgate-write", stack)
            writer = _writer(disk, limits, segment_size=segment_size, tally=tally, clock=clock)
            await loop.run_in_executor(writing, refuse_foreign, folder, disk)
            try:
                recovered = await loop.run_in_executor(writing, writer.recover)
            except OSError as error:
                raise RefusedError(f"{folder}: the spool's folder cannot be read ({error.strerror})") from error
            state = _begin(recovered)
            failure = await loop.run_in_executor(writing, _save, writer, state)
            if failure is not None:
                # Nobody will know that this start was counted: so it gets an identity of its own.
                state = replace(state, store=secrets.randbits(24), start=1)
            if is_ready and failure is None:
                await loop.run_in_executor(writing, _prepare, writer, folder)
            earlier = writer.ordinal
            writer.begin(store=state.store, start=state.start, first_seq=state.ceiling - RESERVE + 1)
            return cls(
                writer=writer,
                reader=Reader(disk, lambda: writer.segments, tally),
                scrub=Scrub(disk, lambda: writer.segments, tally),
                state=state,
                recovered=recovered,
                earlier=earlier,
                failure=failure,
                writing=writing,
                reading=reading,
                tally=tally,
                segment_size=segment_size,
                release=stack.pop_all().close,
            )


def _tally(metrics: Metrics, record_class: RecordClass) -> Tally:
    labels = {"class": record_class}
    return Tally(
        bytes_written=metrics.counter("spool_bytes_written_total", **labels),
        flushes=metrics.counter("spool_flushes_total", **labels),
        frames=metrics.counter("spool_frames_total", **labels),
        corrupt=metrics.counter("spool_corrupt_frames_total", **labels),
    )


def _thread(name: str, stack: ExitStack) -> Executor:
    executor = ThreadPoolExecutor(1, name)
    stack.callback(partial(executor.shutdown, wait=False))
    return executor


def _writer(disk: Disk, limits: Limits, *, segment_size: int, tally: Tally, clock: Clock) -> Writer:
    bounds = Bounds(
        min_free_bytes=limits.min_free_bytes, keep_s=limits.keep_s, keep_bytes=limits.keep_bytes, full=limits.full
    )
    return Writer(disk, segment_size=segment_size, max_bytes=limits.max_bytes, tally=tally, bounds=bounds, clock=clock)


def refuse_foreign(folder: Path, disk: Disk) -> None:
    """Raise RefusedError where the folder holds what this program cannot read though it is whole. Touches nothing."""
    try:
        foreign.check(disk)
    except FormatError as error:
        raise RefusedError(f"{folder}: the spool cannot be read: {error}. Nothing was changed in it.") from error
    except OSError as error:
        raise RefusedError(f"{folder}: the spool's folder cannot be read ({error.strerror})") from error


def _make(folder: Path) -> None:
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
            parent = os.open(folder.parent, os.O_RDONLY)  # else a power cut could take the folder with all it holds
            os.fsync(parent)
            os.close(parent)
    except OSError as error:
        raise RefusedError(f"{folder}: the spool's folder cannot be made ({error.strerror})") from error


def _segment_size(max_bytes: int) -> int:
    """The usual size, or less where only a few would go into `max_bytes`."""
    return min(SEGMENT_SIZE, max(_SMALLEST_SEGMENT, max_bytes // 8 // BLOCK * BLOCK))


def _begin(recovered: Recovered) -> State:
    """This run's state by the last one's: one start more, and numbers above all that may have been used.

    Starts that nobody knows of may have used epochs and numbers that those who received them remember: where one may
    have been, its epoch is passed over; where any number of them, the store takes another identity.
    """
    try:
        last = State.parse(recovered.document or b"")
        used = max(last.ceiling, recovered.last_seq, *(mark.committed for mark in last.marks), 0)
    except ValueError as error:
        if recovered.last_seq:
            log.warning(
                "the spool's state is lost (%s): it begins a new one behind record %d", error, recovered.last_seq
            )
        last = State(store=secrets.randbits(24), start=0, ceiling=0)
        used = recovered.last_seq + RESERVE if recovered.last_seq else 0
    else:
        if recovered.saved != "sure":
            log.warning("the spool's state is damaged: it goes on by an older one, and records may be sent twice")
            last, used = replace(last, start=last.start + 1), used + RESERVE
        if recovered.saved == "lost":
            last = replace(last, store=secrets.randbits(24), start=0)
    return replace(last, start=last.start + 1, ceiling=used + RESERVE)


def _prepare(writer: Writer, folder: Path) -> None:
    try:
        writer.prepare()
    except OSError as error:
        log.warning("%s: no room can be set aside now (%s): a full disk would cost records", folder, error)


def _save(writer: Writer, state: State) -> OSError | None:
    try:
        writer.save(fitted(state))
    except OSError as error:
        return error
    return None
