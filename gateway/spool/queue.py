"""A queue: takes batches, numbers them, and keeps them until every uplink that holds has acknowledged them.

What it promises:

- `append` gives a number and returns at once; the record is in memory. A power cut takes what is younger than the
  commit interval and one flush.
- After `durable` a record is on the medium, or acknowledged by all who hold.
- From then on it is handed to every cursor, in order, at least once, until acknowledged; or it is given up to keep
  within `max_bytes`, counted, logged, and a gap record takes its place: the oldest first, or detail of the oldest, or
  new ones are not taken, as `Limits.full` has it.
- A start always succeeds. What is damaged costs itself, and is reported as a gap where it can be told.

Everything here runs on the event loop and never waits for the disk, except where it says `async`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Literal

from gateway.clock import Clock
from gateway.journal.disk import Disk
from gateway.journal.frame import Head
from gateway.metrics import Metrics
from gateway.model import Batch, RecordClass
from gateway.spool.committer import Committer, Rules
from gateway.spool.cursor import MOST_CURSORS, Cursor, Cursors, Reading
from gateway.spool.drops import Drops, evict, forfeit
from gateway.spool.handing_out import HandingOut
from gateway.spool.limits import Limits
from gateway.spool.record import Gap, Kind, Message, Note, Record
from gateway.spool.scrubber import Scrubber
from gateway.spool.status import QueueStatus, describe
from gateway.spool.store import Store
from gateway.spool.timekeeper import Timekeeper
from gateway.spool.timeline import STEP_MS
from gateway.spool.waiters import Waiters, resolve
from gateway.spool.window import Window, extent, footprint

_JOB_BYTES = 4 * 1024 * 1024


class Queue:
    """One class's records. Made by `open`, ended by `close`. `epoch` is `<store id, 6 hex>-<start count>`."""

    def __init__(
        self,
        limits: Limits,
        store: Store,
        *,
        record_class: RecordClass,
        clock: Clock,
        timekeeper: Timekeeper,
        metrics: Metrics,
    ) -> None:
        self.record_class = record_class
        self.epoch = f"{store.state.store:06x}-{store.state.start}"
        self._limits = limits
        self._store = store
        self._clock = clock
        self._now = clock.monotonic
        self._timekeeper = timekeeper
        self._timeline = timekeeper.timeline
        self._ram_bytes = self._shed_at = limits.ram_bytes
        self._stock_bytes = limits.ram_bytes // 4
        self._interval_s = math.inf
        self._window = Window(store.writer.epoch_first - 1)
        self._cursors = Cursors(store.state.marks, self._window.head)
        rules = Rules(
            interval_s=limits.commit_interval_s,
            is_always=limits.persist == "always",
            frame_bytes=limits.commit_bytes,
            job_bytes=min(_JOB_BYTES, limits.ram_bytes // 4),
            thin_s=limits.thin_s,
        )
        self._committer = Committer(
            store, self._window, self._cursors, self, rules=rules, clock=clock, timeline=self._timeline
        )
        self._out = HandingOut(
            self._window, store, timekeeper, epoch=self.epoch, tell_evicted=self._committer.tell_evicted
        )
        self._waiting: list[Callable[[], object]] = []
        self._arrivals: set[asyncio.Future[None]] = set()
        self._waiters = Waiters()
        self._drops = Drops(metrics, record_class, clock.monotonic)
        self._scrubber = Scrubber(
            store.scrub,
            store.reading,
            clock,
            segment_size=store.segment_size,
            is_calm=lambda: not self._committer.is_degraded,
            on_damage=self._on_damage,
        )
        self._measure(metrics)
        timekeeper.learn(store.state, store.boots)
        timekeeper.followers.append(self._on_clock)
        self._cursors_changed()

    def _measure(self, metrics: Metrics) -> None:
        """Register what is read when somebody looks."""
        committer, cursors, window, writer = self._committer, self._cursors, self._window, self._store.writer
        gauges: dict[str, Callable[[], float]] = {
            "spool_accepted_seq": lambda: window.head,
            "spool_durable_seq": lambda: committer.durable,
            "spool_acked_seq": lambda: min(window.head, cursors.floor),
            "spool_memory_bytes": lambda: window.bytes,
            "spool_used_bytes": lambda: writer.used_bytes(cursors.floor),
            "spool_fill_ratio": lambda: committer.fill,
            "spool_hours_left": lambda: math.inf if committer.hours_left is None else committer.hours_left,
            "spool_degraded": lambda: committer.is_degraded,
            "spool_readonly": lambda: committer.is_readonly,
            "spool_commit_seconds_p50": lambda: committer.latency.share(0.5),
            "spool_commit_seconds_p99": lambda: committer.latency.share(0.99),
            "spool_commit_seconds_max": lambda: committer.latency.longest,
            "spool_written_today_bytes": lambda: committer.wear.day_bytes,
            "spool_flushes_today": lambda: committer.wear.day_flushes,
        }
        for name, read in gauges.items():
            metrics.gauge(name, read, **{"class": self.record_class})

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
        reading: Executor | None = None,
        timekeeper: Timekeeper | None = None,
        is_ready: bool = False,
        record_class: RecordClass = "data",
    ) -> Queue:
        """Open the folder, making it where it is missing.

        `disk` and `segment_size` are the journal's, if not the usual. `writing` is the thread that owns all durable
        files, `reading` the one that reads them, where the process has them already. A `timekeeper` that is handed over
        is started and stopped by its owner. `is_ready`: make the first files now, so that a full disk does not matter.

        Raises RefusedError when another process has the folder (named by its pid) or it cannot be written; damage never
        raises.
        """
        store = await Store.open(
            folder,
            limits=limits,
            clock=clock,
            metrics=metrics,
            disk=disk,
            segment_size=segment_size,
            writing=writing,
            reading=reading,
            is_ready=is_ready,
            record_class=record_class,
        )
        keeper = timekeeper or Timekeeper(clock)
        queue = cls(limits, store, record_class=record_class, clock=clock, timekeeper=keeper, metrics=metrics)
        if timekeeper is None:
            keeper.start()
        return queue

    # --- the side that appends ------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> int:
        """Take a batch and give its number. Never blocks, never raises; with nobody to read, nothing is kept."""
        return self._accept(batch, "batch", None, batch.time, footprint(batch))

    def add(self, content: Message | Note, kind: Literal["message", "event", "audit"]) -> int:
        """Take a message, or the note of an event or for the audit, and give its number; else as `append`."""
        return self._accept(None, kind, content, content.time, extent(content))

    def _accept(self, batch: Batch | None, kind: Kind, other: Message | Note | None, time: int, size: int) -> int:
        window = self._window
        if self._cursors.is_read:
            now = self._now()
            timeline = self._timeline
            regime = timeline.regime
            if not -STEP_MS < time - timeline.offset - now * 1000 < STEP_MS:
                regime = self._timekeeper.regime_of(time, now)  # where the clock was set, an event may come before this
            seq = window.head + 1
            window.append(Record(seq, self.epoch, batch, kind, other, regime), size, now)
            if window.bytes > self._shed_at:
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
        """Too much memory: let go of what is safe, then give up the oldest or the newest of what is not."""
        window, committer = self._window, self._committer
        target = self._ram_bytes - self._ram_bytes // 16  # some way below, so that this does not happen at each append
        window.shrink(committer.durable, target)
        if window.bytes <= self._shed_at:
            return
        untouched = max(committer.durable, committer.in_flight)
        if self._limits.full == "drop_newest":
            self._shed_at = target
            self._gave_way(window.refuse(untouched, self.epoch))
        elif (gap := window.drop(untouched, target, self.epoch)) is not None:
            self._gave_way(gap)

    def _gave_way(self, gap: Gap) -> None:
        self._drops.note(gap)
        self._waiters.lost(gap.first_seq, gap.last_seq)

    async def durable(self) -> None:
        """Return when all appended so far is on the medium, or acknowledged by all who hold.

        Has it written at once. While the disk fails this takes as long as that lasts.
        """
        if self._committer.durable < (seq := self._window.head):
            self.urge()
            await self._waiters.add(seq, is_own=False)

    async def room(self) -> None:
        """Return when memory has room for much more, which as a rule it has; else have it written first.

        For who appends faster than any disk takes it. While the disk fails this takes as long as that lasts.
        """
        if self._window.bytes > 2 * self._stock_bytes:
            await self.durable()

    async def kept(self, seq: int) -> bool:
        """Whether the record just appended is safe, as `durable` has it, itself and not a gap in its place."""
        record = self._window.record_after(seq - 1)
        if not self._cursors.is_held or record is None or record.seq != seq or record.gap is not None:
            return False
        self.urge()
        return await self._waiters.add(seq, is_own=True)

    def urge(self) -> None:
        """Have all that was appended so far written at once."""
        self._committer.urge(self._window.head)

    # --- the side that reads --------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """The number of the last record accepted."""
        return self._window.head

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
        cursor.claim(self._window.head, self.epoch, self._timekeeper.known_now())
        self._cursors_changed()
        self._committer.touch()
        return cursor

    def retire(self) -> None:
        """All uplinks have claimed their cursors: let the others hold what they have, and nothing new."""
        last = self._window.head
        if last < self._store.writer.epoch_first:  # numbers that were only reserved are not held
            last = self._store.recovered.last_seq
        is_new = False
        for cursor in self._cursors.by_name.values():
            if cursor.holds and not cursor.is_claimed and cursor.holds_until is None:
                cursor.holds_until = last
                is_new = True
        self._cursors_changed()
        self._committer.touch()
        if is_new:  # else the next start would not know from where on it holds nothing, and could not tell of it
            self._committer.hurry()

    def forget(self, name: str) -> None:
        """Give up a cursor: what only it held is held no more. Nothing happens where there is none of that name."""
        if self._cursors.by_name.pop(name, None) is not None:
            self._cursors_changed()
            self._committer.touch()
            self._wake()

    def give_up(self, name: str, seq: int) -> None:
        """Let the cursor of that name go on behind `seq`: what it had not acknowledged by then it does not get."""
        cursor = self._cursors.by_name.get(name)
        if cursor is not None:
            self.commit(cursor, seq)

    def _cursors_changed(self) -> None:
        self._cursors.changed(self._window.head, self._committer.written)
        self._interval_s = self._limits.commit_interval_s if self._cursors.is_held else math.inf
        self._settle()
        self._committer.plan()

    def take(self, reading: Reading, n: int) -> Sequence[Record] | None:
        """The next records, at most `n`, as far as they are in memory; advances the reading's `position`.

        Empty: nothing new, or nothing more, or it `is_waiting_for_clock`. None: they must be fetched from the disk, by
        `fetch` or `read`.
        """
        if reading.span is not None:
            return self._out.take_span(reading, reading.span, n)
        if self.record_class != "alarm" and self._timekeeper.has_to_wait():
            return []
        return self._out.take(reading, n)

    async def fetch(self, reading: Reading, n: int) -> None:
        """Read ahead from the disk, so that `take` has something; or step over what nobody has any more."""
        await self._out.fetch(reading, n)

    async def read(self, reading: Reading, n: int) -> Sequence[Record]:
        """The next records, at least one and at most `n`, from memory or disk; advances the reading's `position`.

        Waits where there is nothing new. One reader for each reading; one that waits does not notice a rewind.
        """
        while not (found := self.take(reading, n)):
            if found is None:
                await self.fetch(reading, n)
            else:
                arrival = asyncio.get_running_loop().create_future()
                self._arrivals.add(arrival)
                arrival.add_done_callback(self._arrivals.discard)
                self.notify(partial(resolve, arrival))
                await arrival
        return found

    def notify(self, call: Callable[[], object]) -> None:
        """Call once, as soon as there is something new."""
        self._waiting.append(call)

    def _wake(self) -> None:
        """Wake all readers, once for however many records come in this turn of the loop."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    @property
    def is_waiting_for_clock(self) -> bool:
        """Whether nothing is handed out because its time cannot be right; `notify` tells of the end, too."""
        return self.record_class != "alarm" and self._timekeeper.is_waiting

    def timed(self, record: Record) -> Record:
        """A record on its way out: with its times mended, where the clock was wrong and is known by now."""
        return self._timekeeper.timed(record)

    def _on_clock(self) -> None:
        """The clock was set, or waiting for that has come to an end."""
        self._committer.on_clock()
        self._wake()

    def commit(self, reading: Reading, seq: int) -> None:
        """Everything that reading has handed out up to `seq` is acknowledged by its uplink."""
        cursor = reading.cursor
        if seq <= cursor.committed:
            return
        cursor.acknowledge(reading.after, min(seq, self._window.head))
        self._cursors.settle(self._window.head, self._committer.written)
        self._settle()
        self._committer.touch()

    def _settle(self) -> None:
        """Let go of what nobody needs any more, and tell those who wait for durability."""
        low = self._cursors.low
        if self._limits.persist == "always" and self._cursors.is_held:
            low = min(low, self._committer.written)
        self._window.release(low)
        if self._window.bytes > self._stock_bytes and self._cursors.acked > self._cursors.floor:
            # A backlog lane far behind must not keep in memory what the live lane is done with.
            self._window.shrink(self._committer.durable, self._stock_bytes)
        if self._waiters.waiting:
            self._waiters.settle(self._committer.durable)

    # --- what the committer reports -------------------------------------------------------------------------------

    def on_settled(self) -> None:
        """More is on the medium: durable records beyond a small stock for readers leave memory."""
        self._cursors.settle(self._window.head, self._committer.written)
        self._settle()
        self._window.shrink(self._committer.durable, self._stock_bytes)
        self._shed_at = self._ram_bytes if self._window.bytes < self._shed_at else self._shed_at
        self._drops.settle(
            is_degraded=self._committer.is_degraded,
            is_refusing=self._shed_at < self._ram_bytes,
            is_behind=self._cursors.floor < self._committer.written,
        )

    def on_evicted(self, heads: Sequence[Head]) -> None:
        """The oldest records had to go: note it in each cursor that had not acknowledged them."""
        gap = evict(self._cursors.by_name.values(), heads)
        if gap is not None and self._limits.full == "drop_newest":
            self._drops.say_who_yields(self._cursors.by_name.values())
        self._window.release(heads[-1].last_seq)
        if gap is not None:
            self._drops.note(gap)

    def on_thinned(self, gap: Gap) -> None:
        """On the disk, of these records less is left than there was."""
        self._drops.note(gap)

    def on_unwritten(self, first: int) -> None:
        """The disk fails and the end has come: note in each cursor what is lost with our memory."""
        record, last = self._window.record_after(first - 1), self._window.head
        begun = record.gap.first_time if record is not None and record.gap is not None else None
        first_time = begun if begun is not None else record.time if record is not None else 0
        gap = Gap(first, last, first_time, self._timekeeper.known_now(), last - first + 1, "memory")
        forfeit(self._cursors.by_name.values(), gap, self.epoch)

    def on_too_large(self, records: Sequence[Record]) -> None:
        """On the disk, gaps stand in the place of these."""
        for record in records:
            self._gave_way(Gap(record.seq, record.seq, record.time, record.time, 1, "too large"))

    def _on_damage(self, gap: Gap) -> None:
        """The scrub found records that are lost: to whom that matters."""
        if gap.last_seq > self._cursors.floor:
            self._drops.note(gap)
            self._drops.over(gap.cause)

    @property
    def busy_s(self) -> float:
        """For how long the writer thread has been at its present job: whether it makes progress."""
        return self._committer.busy_s

    # --- the whole ------------------------------------------------------------------------------------------------

    @property
    def is_spent(self) -> bool:
        """Whether nobody is owed anything of what earlier runs left."""
        owed = any(cursor.losses for cursor in self._cursors.by_name.values())
        return not owed and self._cursors.floor >= self._store.recovered.last_seq

    def status(self) -> QueueStatus:
        """How things stand. Cheap enough to ask each second."""
        return describe(
            self._store,
            self._window,
            self._cursors,
            self._committer,
            self._drops,
            self._scrubber,
            max_bytes=self._limits.max_bytes,
            clock=self._clock,
            timeline=self._timeline,
            record_class=self.record_class,
            epoch=self.epoch,
        )

    async def close(self) -> None:
        """Write the cursors and what is not acknowledged; let go of the folder. Who still waits is cancelled."""
        await self._scrubber.close()
        await self._committer.close()
        self._waiters.cancel()
        for waiting in self._arrivals:
            waiting.cancel()
        self._timekeeper.followers.remove(self._on_clock)
        if not self._timekeeper.followers:
            self._timekeeper.stop()
        self._store.release()
