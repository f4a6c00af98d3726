"""A queue: takes batches, numbers them, and keeps them until every uplink that holds has acknowledged them.

What it promises:

- `append` gives a number and returns at once; the record is in memory. A power cut takes what is younger than the
  commit interval and one flush.
- After `durable` a record is on the medium, or acknowledged by all who hold.
- From then on it is handed to every cursor, in order, at least once, until acknowledged; or it is given up to keep
  within `max_bytes` (the oldest first), counted, logged, and a gap record takes its place.
- A start always succeeds. What is damaged costs itself, and is reported as a gap where it can be told.

Everything here runs on the event loop and never waits for the disk, except where it says `async`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from gateway.clock import Clock
from gateway.journal.disk import Disk
from gateway.journal.frame import Head
from gateway.metrics import Metrics
from gateway.model import Batch, RecordClass
from gateway.spool.backlog import Backlog, Request
from gateway.spool.committer import Committer, Rules
from gateway.spool.cursor import MOST_CURSORS, Cursor, Cursors, lose, lose_tail
from gateway.spool.limits import Limits
from gateway.spool.record import Gap, Record, gap_record
from gateway.spool.status import QueueStatus, describe
from gateway.spool.store import Store
from gateway.spool.window import Window, footprint

log = logging.getLogger("headgate.spool")

_JOB_BYTES = 4 * 1024 * 1024


class Queue:
    """One class's records. Made by `open`, ended by `close`. `epoch` is `<store id, 6 hex>-<start count>`."""

    def __init__(
        self, limits: Limits, store: Store, *, record_class: RecordClass, clock: Clock, metrics: Metrics
    ) -> None:
        self.record_class = record_class
        self.epoch = f"{store.state.store:06x}-{store.state.start}"
        self._limits = limits
        self._store = store
        self._clock = clock
        self._now = clock.monotonic
        self._ram_bytes = limits.ram_bytes
        self._interval_s = math.inf
        self._epoch_first = store.writer.epoch_first
        self._backlog = Backlog(store.reader)
        self._window = Window(self._epoch_first - 1)
        self._cursors = Cursors(store.state.marks, self._window.head)
        rules = Rules(
            interval_s=limits.commit_interval_s,
            is_always=limits.persist == "always",
            frame_bytes=limits.commit_bytes,
            job_bytes=min(_JOB_BYTES, limits.ram_bytes // 4),
        )
        self._committer = Committer(store, self._window, self._cursors, self, rules=rules, clock=clock)
        self._waiting: list[asyncio.Future[None]] = []
        self._durables: list[tuple[int, asyncio.Future[None]]] = []
        self._is_dropping = self._is_evicting = False
        labels = {"class": record_class}
        self._evicted = metrics.counter("spool_evicted_records_total", **labels)
        self._dropped = metrics.counter("spool_dropped_records_total", **labels)
        metrics.gauge("spool_memory_bytes", lambda: self._window.bytes, **labels)
        metrics.gauge("spool_used_bytes", lambda: store.writer.used_bytes(self._cursors.acked), **labels)
        metrics.gauge("spool_degraded", lambda: float(self._committer.is_degraded), **labels)
        metrics.gauge("spool_commit_seconds_max", lambda: self._committer.longest_commit_s, **labels)
        self._cursors_changed()

    def __repr__(self) -> str:
        return f"Queue(epoch={self.epoch!r}, head={self._window.head}, durable={self._committer.durable})"

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: Limits,
        *,
        clock: Clock,
        metrics: Metrics,
        disk: Disk | None = None,
        segment_size: int | None = None,
        writing: Executor | None = None,
        record_class: RecordClass = "data",
    ) -> Queue:
        """Open the folder, making it where it is missing.

        `disk` and `segment_size` are the journal's, if not the usual; `writing` is the thread that owns all durable
        files, where the process has one already. Raises RefusedError when another process has the folder (named by its
        pid) or it cannot be written; damage never raises.
        """
        store = await Store.open(
            folder,
            max_bytes=limits.max_bytes,
            metrics=metrics,
            disk=disk,
            segment_size=segment_size,
            writing=writing,
            record_class=record_class,
        )
        return cls(limits, store, record_class=record_class, clock=clock, metrics=metrics)

    # --- the side that appends ------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> int:
        """Take a batch and give its number. Never blocks, never raises; with nobody to read, nothing is kept."""
        window = self._window
        if self._cursors.is_read:
            seq = window.head + 1
            now = self._now()
            window.append(Record(seq, self.epoch, batch), footprint(batch), now)
            if window.bytes > self._ram_bytes:
                self._shed()
            if self._waiting:
                self._wake()
            due = now + self._interval_s
            if due < self._committer.due:
                self._committer.expect(due)
        else:
            seq = window.skip()
        if seq > self._committer.reserve_at:
            self._committer.plan()
        return seq

    def _shed(self) -> None:
        """Too much memory: let go of what is safe, then drop the oldest of what is not being written already."""
        window, committer = self._window, self._committer
        target = self._ram_bytes - self._ram_bytes // 16  # some way below, so that this does not happen at each append
        window.shrink(committer.durable, target)
        if window.bytes <= self._ram_bytes:
            return
        gap = window.drop(max(committer.durable, committer.in_flight), target, self.epoch)
        if gap is None:
            return
        self._dropped.value += gap.count
        if not self._is_dropping:
            self._is_dropping = True
            log.error(
                "the disk does not keep up and memory is full (%d bytes): records from %d on are dropped, oldest first",
                self._ram_bytes,
                gap.first_seq,
            )

    async def durable(self) -> None:
        """Return when everything appended so far is on the medium or acknowledged by all who hold.

        Asks for an immediate commit. While the disk fails this takes as long as that lasts.
        """
        seq = self._window.head
        if self._committer.durable >= seq:
            return
        future = asyncio.get_running_loop().create_future()
        self._durables.append((seq, future))
        self._committer.urge(seq)
        await future

    # --- the side that reads --------------------------------------------------------------------------------------

    def cursor(self, name: str, *, holds: bool = True) -> Cursor:
        """Find the cursor of that name, or make one that begins with the next record.

        One that holds keeps records until it has acknowledged them; its position survives restarts. Raises ValueError
        when there are too many.
        """
        cursor = self._cursors.by_name.get(name)
        if cursor is None:
            if len(self._cursors.by_name) >= MOST_CURSORS:
                raise ValueError(f"there are {MOST_CURSORS} cursors already: forget those that no uplink uses")
            cursor = self._cursors.by_name[name] = Cursor(name, holds=holds, committed=self._window.head)
        cursor.holds = holds
        cursor.is_claimed = True
        self._cursors_changed()
        self._committer.touch()
        return cursor

    def forget(self, name: str) -> None:
        """Give up a cursor: what only it held is held no more. Nothing happens where there is none of that name."""
        if self._cursors.by_name.pop(name, None) is not None:
            self._cursors_changed()
            self._committer.touch()
            self._wake()

    def _cursors_changed(self) -> None:
        self._cursors.changed(self._window.head)
        self._interval_s = self._limits.commit_interval_s if self._cursors.is_held else math.inf
        self._settle()
        self._committer.plan()

    def take(self, cursor: Cursor, n: int) -> Sequence[Record] | None:
        """The next records, at most `n`, as far as they are in memory; advances `cursor.position`.

        Empty: nothing new. None: they must be fetched from the disk, by `read`.
        """
        position = cursor.position
        if cursor.ahead:
            return self._take_ahead(cursor, n)
        if position >= self._window.head:
            return []
        found = self._window.after(position, n)
        if found:
            gap = found[0].gap
            if gap is not None and gap.first_seq <= position:
                found[0] = gap_record(gap.after(position), found[0].epoch)
            cursor.position = found[-1].seq
        return found

    def _take_ahead(self, cursor: Cursor, n: int) -> Sequence[Record] | None:
        """Hand out what was read from the disk."""
        ahead = cursor.ahead
        while ahead and ahead[0].seq <= cursor.position:
            ahead.popleft()
        found = [ahead.popleft() for _ in range(min(n, len(ahead)))]
        if not found:
            return self.take(cursor, n)
        cursor.position = found[-1].seq
        return found

    async def read(self, cursor: Cursor, n: int) -> Sequence[Record]:
        """The next records, at least one and at most `n`, from memory or disk; advances `cursor.position`.

        Waits where there is nothing new. One reader for each cursor; one that waits does not notice a rewind.
        """
        while True:
            found = self.take(cursor, n)
            if found:
                return found
            if found is None:
                await self._fetch(cursor, n)
            else:
                arrival = asyncio.get_running_loop().create_future()
                self._waiting.append(arrival)
                await arrival

    def _wake(self) -> None:
        """Wake all readers, once for however many records come in this turn of the loop."""
        waiting, self._waiting = self._waiting, []
        for arrival in waiting:
            if not arrival.done():
                arrival.set_result(None)

    async def _fetch(self, cursor: Cursor, n: int) -> None:
        """Read ahead from the disk, or step over what nobody has any more."""
        position, base = cursor.position, self._window.base
        request = Request(position, cursor.holds, cursor.losses, cursor.place, n)
        loop = asyncio.get_running_loop()
        fetched = await loop.run_in_executor(self._store.reading, self._backlog.fetch, request)
        if cursor.position != position:
            return  # it was rewound meanwhile
        cursor.place = fetched.place
        cursor.ahead.extend(fetched.records)
        if fetched.records:
            return
        # The disk has no more, so what left the window before we asked is gone.
        first = max(position + 1, self._epoch_first)
        if first > base:
            cursor.position = base
            return
        following = self._window.record_after(base)
        last_time = following.time if following is not None else self._clock.wall_ms()
        gap = Gap(first, base, 0, last_time, base - first + 1, "damaged" if cursor.holds else "overtaken")
        cursor.ahead.append(gap_record(gap, self.epoch))

    def commit(self, cursor: Cursor, seq: int) -> None:
        """Everything up to `seq` is acknowledged by that uplink."""
        if seq <= cursor.committed:
            return
        cursor.committed = seq = min(seq, self._window.head)
        if cursor.position < seq:  # noqa: PLR1730 - once for each record acknowledged: a call would cost more
            cursor.position = seq
        if cursor.losses and cursor.losses[0].gap.last_seq <= seq:
            cursor.losses = tuple(loss for loss in cursor.losses if loss.gap.last_seq > seq)
        self._cursors.settle(self._window.head)
        self._settle()
        self._committer.touch()

    def _settle(self) -> None:
        """Let go of what nobody needs any more, and tell those who wait for durability."""
        low = self._cursors.low
        if self._limits.persist == "always" and self._cursors.is_held:
            low = min(low, self._committer.written)
        self._window.release(low)
        if self._durables:
            durable = self._committer.durable
            for seq, future in self._durables:
                if seq <= durable and not future.done():
                    future.set_result(None)
            self._durables = [waiting for waiting in self._durables if waiting[0] > durable]

    # --- what the committer reports -------------------------------------------------------------------------------

    def on_settled(self) -> None:
        """More is on the medium: durable records beyond a small stock for readers leave memory."""
        self._cursors.settle(self._window.head)
        self._settle()
        self._window.shrink(self._committer.durable, self._ram_bytes // 4)
        if not self._committer.is_degraded:
            self._is_dropping = False
        if self._cursors.acked >= self._committer.written:
            self._is_evicting = False

    def on_evicted(self, heads: Sequence[Head]) -> None:
        """The oldest records had to go: note it in each cursor that had not acknowledged them."""
        worst = 0
        for cursor in self._cursors.by_name.values():
            before = sum(loss.gap.count for loss in cursor.losses)
            cursor.losses = lose(cursor.losses, cursor.committed, heads)
            worst = max(worst, sum(loss.gap.count for loss in cursor.losses) - before)
        first, last = heads[0].first_seq, heads[-1].last_seq
        self._window.release(last)
        self._evicted.value += worst
        if self._is_evicting:
            return
        self._is_evicting = True
        log.warning(
            "the spool is full (%d bytes): records %d to %d were given up before all uplinks had them",
            self._limits.max_bytes,
            first,
            last,
        )

    def on_unwritten(self, first: int) -> None:
        """The disk fails and the end has come: note in each cursor what is lost with our memory."""
        record, last = self._window.record_after(first - 1), self._window.head
        first_time = record.time if record is not None else 0
        gap = Gap(first, last, first_time, self._clock.wall_ms(), last - first + 1, "memory")
        for cursor in self._cursors.by_name.values():
            cursor.losses = lose_tail(cursor.losses, cursor.committed, gap, self.epoch)

    def on_too_large(self, records: Sequence[Record]) -> None:
        """On the disk, gaps stand in the place of these."""
        self._dropped.value += len(records)
        log.error("record %d, and %d more, cannot be stored: larger than a segment", records[0].seq, len(records) - 1)

    @property
    def busy_s(self) -> float:
        """For how long the writer thread has been at its present job: whether it makes progress."""
        return self._committer.busy_s

    # --- the whole ------------------------------------------------------------------------------------------------

    def status(self) -> QueueStatus:
        """How things stand. Cheap enough to ask each second."""
        return describe(
            self._store,
            self._window,
            self._cursors,
            self._committer,
            record_class=self.record_class,
            epoch=self.epoch,
            max_bytes=self._limits.max_bytes,
            now_ms=self._clock.wall_ms(),
            evicted=self._evicted.value,
            dropped=self._dropped.value,
        )

    async def close(self) -> None:
        """Write the cursors and what is not acknowledged; let go of the folder. Who still waits is cancelled."""
        await self._committer.close()
        for waiting in (*self._waiting, *(future for _, future in self._durables)):
            waiting.cancel()
        self._store.release()
