"""The committer: decides when something is written, and hands it to the writer thread. Lives on the event loop.

Persist on age: when the oldest record that is neither on the medium nor acknowledged by all who hold has waited for
the commit interval, it is written, and with it all others in that position. What is acknowledged sooner is never
encoded. One timer stands for the nearest deadline; one job at a time runs in the writer thread and reports back once.

While the disk fails, nothing is lost that memory can hold: the next try comes after 1, 2, 4 … 60 seconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from gateway.clock import Clock
from gateway.journal.frame import Head
from gateway.spool.commit import Commit
from gateway.spool.cursor import Cursors, State
from gateway.spool.record import Record
from gateway.spool.store import RESERVE, Store
from gateway.spool.window import Window

log = logging.getLogger("headgate.spool")

_SAVE_BUSY_S = 10.0
_SAVE_IDLE_S = 60.0
_LONGEST_PAUSE_S = 60.0
_SPARE_PAUSE_S = 600.0
_STALLED_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How much is written when: the age at which a record must be, and the sizes of a frame and of one job."""

    interval_s: float
    is_always: bool
    frame_bytes: int
    job_bytes: int


class Owner(Protocol):
    """Whom the committer tells what became of the records. Called on the event loop."""

    def on_settled(self) -> None:
        """More is on the medium than before."""

    def on_evicted(self, heads: Sequence[Head]) -> None:
        """These frames, the oldest, had to go."""

    def on_unwritten(self, first: int) -> None:
        """The end has come, and records from that number on are in memory only."""

    def on_too_large(self, records: Sequence[Record]) -> None:
        """On the disk, gaps stand in the place of these records."""


class Committer:
    """Brings records and cursors to the disk.

    `due` is when the timer will ring (minus infinity while a job runs: its end looks for what is due anyway); whoever
    knows of an earlier deadline calls `expect`. `written`: everything up to it is on the medium or was acknowledged.
    `in_flight`: up to it, records are in the writer's hands. `reserve_at`: above it, more numbers must be reserved.
    """

    def __init__(
        self,
        store: Store,
        window: Window,
        cursors: Cursors,
        owner: Owner,
        *,
        rules: Rules,
        clock: Clock,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._writer = store.writer
        self._window = window
        self._cursors = cursors
        self._owner = owner
        self._rules = rules
        self._clock = clock
        self._saved = store.state
        self._stored = store.recovered.last_seq
        self._dirty_since = -math.inf if store.failure is not None else math.inf
        self._urgent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._job: asyncio.Future[None] | None = None
        self._job_since = 0.0
        self._retry_at = -math.inf
        self._pause_s = 1.0
        self._spare_at = -math.inf
        self._is_closing = False
        self._failure: BaseException | None = None
        self.longest_commit_s = 0.0
        self.due = math.inf
        self.written = self.in_flight = store.writer.written
        self.reserve_at = store.state.ceiling - RESERVE // 2
        if store.failure is not None:
            self._fail(store.failure)

    @property
    def busy_s(self) -> float:
        """For how long the writer has been at its present job; 0 when it has none."""
        return 0.0 if self._job is None else self._clock.monotonic() - self._job_since

    @property
    def is_degraded(self) -> bool:
        """Whether the disk fails, or keeps us waiting for longer than disks do."""
        return self._failure is not None or self.busy_s > _STALLED_S

    @property
    def durable(self) -> int:
        """Everything up to it is on the medium or acknowledged by all who hold."""
        return min(self._window.head, max(self.written, self._cursors.acked))

    def expect(self, due: float) -> None:
        """See that the timer rings at `due` (monotonic seconds) at the latest."""
        if due < self.due:
            self._ring_at(due)

    def touch(self) -> None:
        """A cursor moved: it shall be stored some time soon."""
        if self._dirty_since == math.inf:
            self._dirty_since = self._clock.monotonic()
            self.expect(self._dirty_since + _SAVE_BUSY_S)

    def urge(self, seq: int) -> None:
        """Do not wait for the interval with records up to `seq`."""
        self._urgent = max(self._urgent, seq)
        self.plan()

    def _ring_at(self, due: float) -> None:
        self._silence()
        self.due = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock.monotonic()), self.plan)

    def _silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.due = math.inf

    def plan(self) -> None:
        """Start what is due, or set the timer for what will be due next."""
        if self._job is not None or self._is_closing:
            return
        self._silence()
        now = self._clock.monotonic()
        for due, start in (
            (self._commit_due(), self._start_commit),
            (self._save_due(), self._start_save),
            (self._spare_due(), self._start_growing),
        ):
            if due <= now:
                start()
                return
            self.due = min(self.due, due)
        if self.due < math.inf:
            self._ring_at(self.due)

    def _commit_due(self) -> float:
        if not self._cursors.is_held:
            return math.inf
        accepted = self._window.time_after(self._pending_after())
        if accepted is None:
            return math.inf
        due = accepted if self._urgent > self.durable else accepted + self._rules.interval_s
        return max(due, self._retry_at)

    def _pending_after(self) -> int:
        return self.written if self._rules.is_always else self.durable

    def _save_due(self) -> float:
        if self._window.head > self.reserve_at:
            return self._retry_at
        is_busy = any(mark.committed < self._stored for mark in self._saved.marks)
        return max(self._dirty_since + (_SAVE_BUSY_S if is_busy else _SAVE_IDLE_S), self._retry_at)

    def _spare_due(self) -> float:
        if self._cursors.is_held and self._failure is None and self._writer.wants_spare(self._cursors.acked):
            return self._spare_at
        return math.inf

    def _start_commit(self) -> None:
        records, times = self._window.pending(self._pending_after(), self._rules.job_bytes)
        self.in_flight = records[-1].seq
        state, commit = self._make()
        self._run(partial(commit.write, records, times, self._clock), partial(self._committed, state, commit))

    def _start_save(self) -> None:
        state, commit = self._make()
        self._run(commit.save, partial(self._committed, state, commit))

    def _start_growing(self) -> None:
        self._run(self._writer.grow_spare, self._grown)

    def _make(self) -> tuple[State, Commit]:
        """The state as it is now, with numbers reserved, and a commit that will write it."""
        ceiling = self._window.head + (0 if self._is_closing else RESERVE)
        state = replace(self._saved, ceiling=ceiling, marks=self._cursors.marks())
        floor, rules = self._cursors.acked, self._rules
        segment_size = self._store.segment_size
        commit = Commit(self._writer, state, floor, frame_bytes=rules.frame_bytes, segment_size=segment_size)
        return state, commit

    def _run(self, work: Callable[[], None], done: Callable[[asyncio.Future[None]], None]) -> None:
        self.due = -math.inf
        self._job_since = self._clock.monotonic()
        self._job = self._loop.run_in_executor(self._store.writing, work)
        self._job.add_done_callback(done)

    def _committed(self, state: State, commit: Commit, job: asyncio.Future[None]) -> None:
        """The writer thread is done with records, or with the state alone."""
        self._job = None
        self.longest_commit_s = max(self.longest_commit_s, self._clock.monotonic() - self._job_since)
        self.written = self.in_flight = max(self.written, self._writer.written)
        if self._writer.written >= self._writer.epoch_first:
            self._stored = self._writer.written
        if commit.evicted:
            self._owner.on_evicted(commit.evicted)
        error = job.exception()
        if error is not None:
            self._fail(error)
        else:
            self._succeed(state)
            if commit.too_large:
                self._owner.on_too_large(commit.too_large)
        self._owner.on_settled()
        self.plan()

    def _succeed(self, state: State) -> None:
        if self._failure is not None:
            log.info("the spool's disk works again")
        self._failure = None
        self._retry_at, self._pause_s = -math.inf, 1.0
        self._saved = state
        self.reserve_at = state.ceiling - RESERVE // 2
        self._dirty_since = math.inf if self._cursors.marks() == state.marks else self._clock.monotonic()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            # Whatever it is: the field side goes on, and so do the uplinks, from memory.
            log.error(
                "the spool's disk fails (%s): records are kept in memory only, until it works again",
                error,
                exc_info=None if isinstance(error, OSError) else error,
            )
        self._failure = error
        self._retry_at = self._clock.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _grown(self, job: asyncio.Future[None]) -> None:
        self._job = None
        error = job.exception()
        if error is not None:
            log.info("no spare segment can be made ready now (%s); those there are go round", error)
            self._spare_at = self._clock.monotonic() + _SPARE_PAUSE_S
        self.plan()

    async def close(self) -> None:
        """Write what is pending, and the state; then close all files. A disk that fails now is tried once."""
        self._is_closing = True
        self._silence()
        await self._idle()
        failures = 0
        while not failures and self._cursors.is_held and self._window.time_after(self._pending_after()) is not None:
            self._start_commit()
            await self._idle()
            failures += self._failure is not None
        if failures:
            log.error("records %d to %d are lost: the disk fails", self.durable + 1, self._window.head)
            self._owner.on_unwritten(self.durable + 1)
        self._start_save()
        await self._idle()
        await self._loop.run_in_executor(self._store.writing, self._writer.close)

    async def _idle(self) -> None:
        """Wait for the writer thread."""
        while self._job is not None:
            await asyncio.wait([self._job])
