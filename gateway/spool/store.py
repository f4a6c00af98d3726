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

from gateway.errors import RefusedError
from gateway.journal.disk import Disk, FolderDisk
from gateway.journal.frame import BLOCK
from gateway.journal.reader import Reader
from gateway.journal.segment import SEGMENT_SIZE, Tally
from gateway.journal.writer import Recovered, Writer
from gateway.metrics import Metrics
from gateway.model import RecordClass
from gateway.spool.cursor import State
from gateway.spool.lock import Lock

log = logging.getLogger("headgate.spool")

RESERVE = 1 << 20
"""How many numbers are reserved ahead of the head: so many may be skipped after a power cut, and none is used twice."""

_SMALLEST_SEGMENT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Store:
    """An opened folder.

    `state` is this run's, with numbers reserved; `failure` says why it could not be written, if so. `earlier` records
    were ever written by earlier runs. One thread writes, another reads.
    """

    writer: Writer
    reader: Reader
    state: State
    recovered: Recovered
    earlier: int
    failure: OSError | None
    writing: Executor
    reading: Executor
    tally: Tally
    segment_size: int
    release: Callable[[], None]

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        max_bytes: int,
        metrics: Metrics,
        disk: Disk | None,
        segment_size: int | None,
        writing: Executor | None,
        record_class: RecordClass,
    ) -> Store:
        """Take the lock, look through the folder, and begin a new epoch. Raises RefusedError."""
        labels = {"class": record_class}
        tally = Tally(
            bytes_written=metrics.counter("spool_bytes_written_total", **labels),
            flushes=metrics.counter("spool_flushes_total", **labels),
            frames=metrics.counter("spool_frames_total", **labels),
            corrupt=metrics.counter("spool_corrupt_frames_total", **labels),
        )
        segment_size = segment_size or _segment_size(max_bytes)
        disk = disk or FolderDisk(folder)
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            _make(folder)
            stack.callback(Lock(folder).release)
            reading = ThreadPoolExecutor(1, "headgate-read")
            stack.callback(partial(reading.shutdown, wait=False))
            if writing is None:
                writing = ThreadPoolExecutor(1, "headgate-write")
                stack.callback(partial(writing.shutdown, wait=False))
            writer = Writer(disk, segment_size=segment_size, max_bytes=max_bytes, tally=tally)
            try:
                recovered = await loop.run_in_executor(writing, writer.recover)
            except OSError as error:
                raise RefusedError(f"{folder}: the spool's folder cannot be read ({error.strerror})") from error
            state = _begin(recovered)
            failure = await loop.run_in_executor(writing, _save, writer, state)
            if failure is not None:
                # Nobody will know that this start was counted: so it gets an identity of its own.
                state = replace(state, store=secrets.randbits(24), start=1)
            earlier = writer.ordinal
            writer.begin(store=state.store, start=state.start, first_seq=state.ceiling - RESERVE + 1)
            reader = Reader(disk, lambda: writer.segments, tally)
            release = stack.pop_all().close
            return cls(
                writer, reader, state, recovered, earlier, failure, writing, reading, tally, segment_size, release
            )


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
    """This run's state by the last one's: one start more, and numbers above all that may have been used."""
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
    return replace(last, start=last.start + 1, ceiling=used + RESERVE)


def _save(writer: Writer, state: State) -> OSError | None:
    try:
        writer.save(state.document())
    except OSError as error:
        return error
    return None
