"""Writing what the store notes: frames to the writer thread, flushes, snapshots, and what to do when the disk refuses.

At the end of a turn `flush` hands all that was noted, as one frame, to the gateway's writer thread; while that is busy,
further turns wait and become one frame together. A frame counts as written when the kernel has it (`sync: interval`;
brought to the medium each commit interval) or when it is on the medium (`sync: always`). What is to leave only then
remembers `mark` and waits until `written` has reached it.

In the same thread, in small slices, the log is replaced by a snapshot when it has grown larger than what is alive.

The disk refuses: the same thread tries once more at once, in a new file. If that fails too, `failure` says so, nothing
more is to be promised, and the next tries come after 1, 2, 4 ... 60 seconds. Meanwhile what is noted stays in memory;
if it grows beyond 8 MiB the store is given up for this run, and the next start finds the state of before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from functools import partial
from math import inf
from typing import Literal

from gateway.broker.recovery import compact
from gateway.journal.log import Log
from gateway.metrics import Metrics

log = logging.getLogger("headgate.broker")

_MIB = 1024 * 1024
SNAPSHOT_AT = 4 * _MIB
_MOST_FILES = 8
_SLICE_S = 0.002
_PAUSES = 4
"""A slice of a snapshot is followed by a pause of so many times its length."""
_HURRY = 2
"""A log so many times longer than it may be is growing faster than that: the pauses shrink, and with them the log."""
_SNAPSHOT_PAUSE_S = 600.0
"""After a snapshot could not be written."""
_UNFLUSHED = 4 * _MIB
"""So much may be in memory because it is not on the medium; then it is brought there before its time."""
_WAITING = 8 * _MIB
_BEHIND = 64 * _MIB
_STALLED_S = 5.0
_LONGEST_PAUSE_S = 60.0


class Writing:
    """The store's way to the disk. `_put` takes an operation's bytes; it is another one after each frame.

    `mark`: number of the frame that is being filled; 0 while the store fails: then nothing needs to wait for it.
    `written`: frames up to this one are written. `failure`: why nothing can be stored now; empty while all is well.
    `on_written` is called on the loop when `written` or `failure` has changed.
    """

    __slots__ = (
        "_chunks",
        "_commit_interval_s",
        "_compaction",
        "_done",
        "_executor",
        "_failures",
        "_flush_at",
        "_is_always",
        "_is_closing",
        "_is_failing",
        "_is_given_up",
        "_job",
        "_job_since",
        "_logs",
        "_loop",
        "_number",
        "_operations",
        "_pause_s",
        "_put",
        "_retry_at",
        "_ring_at",
        "_slice_at",
        "_snapshot_after",
        "_snapshot_at",
        "_timer",
        "_waiting",
        "failure",
        "mark",
        "on_written",
        "written",
    )

    def __init__(
        self,
        logs: Log,
        executor: Executor,
        *,
        commit_interval_s: float,
        sync: Literal["interval", "always"],
        metrics: Metrics,
        snapshot_at: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._logs = logs
        self._executor = executor
        self._commit_interval_s = commit_interval_s
        self._is_always = sync == "always"
        self._snapshot_at = snapshot_at
        self._operations: list[bytes] = []
        self._put = self._operations.append
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._number = logs.last + 1
        self._job: Future[None] | None = None
        self._job_since = 0.0
        self._done: Callable[[float], None] = self._wrote
        self._compaction: Generator[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ring_at = self._flush_at = inf
        self._slice_at = self._snapshot_after = self._retry_at = -inf
        self._pause_s = 1.0
        self._is_failing = self._is_given_up = self._is_closing = False
        self._failures = metrics.counter("broker_store_failures_total")
        self.mark = self._number
        self.written = logs.last
        self.failure = ""
        self.on_written: Callable[[], None] = _nobody
        metrics.gauge("broker_store_log_bytes", lambda: logs.log_bytes)
        metrics.gauge("broker_store_snapshot_bytes", lambda: logs.snapshot_bytes)
        metrics.gauge("broker_store_waiting_bytes", lambda: self._waiting + logs.kept_bytes)
        metrics.gauge("broker_store_failing", lambda: float(bool(self.failure)))

    def __repr__(self) -> str:
        return f"<Store: written {self.written} of {self._number - 1}{', ' * bool(self.failure)}{self.failure}>"

    def begin(self) -> None:
        """Do what the start found to be due."""
        self._next()

    # --- frames -------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """The turn is over: have what it noted written, now or together with what follows while the writer is busy."""
        if not self._operations:
            return
        if self._job is None and not self.failure:
            self._submit()
            return
        chunk = b"".join(self._operations)
        self._operations.clear()
        if self._is_given_up:
            return
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        if self._waiting > _WAITING:
            self._overflow()

    def _overflow(self) -> None:
        """More waits than should. Where the disk is only slow, that is said before anything is lost."""
        if self._is_failing or self._waiting > _BEHIND + _WAITING:
            self.give_up(self.failure or "the broker's store waits for its disk in vain")
        elif not self.failure and (self._waiting > _BEHIND or self._loop.time() - self._job_since > _STALLED_S):
            self._say_failure("the broker's store waits for its disk")
        else:
            return
        self._loop.call_soon(self.on_written)

    def _submit(self) -> None:
        """Hand everything that waits to the writer thread, as one frame."""
        number = self._number
        self._number = number + 1
        if self.mark:
            self.mark = number + 1
        pieces = self._take()
        self._run(partial(self._append, number, pieces), self._wrote)

    def _take(self) -> list[bytes]:
        pieces = self._operations
        if self._chunks:
            pieces = self._chunks + pieces
            self._chunks = []
            self._waiting = 0
        self._operations = []
        self._put = self._operations.append
        return pieces

    def _run(self, work: Callable[[], None], done: Callable[[float], None]) -> None:
        """Have the writer thread do something; `done` is called on the loop, with the time, if it went well."""
        self._done = done
        self._job_since = self._loop.time()
        self._job = self._executor.submit(work)
        self._job.add_done_callback(self._report)

    def _report(self, job: Future[None]) -> None:
        """In the writer thread: the one word back to the loop."""
        self._loop.call_soon_threadsafe(self._finished, job)

    # --- in the writer thread -----------------------------------------------------------------------------------------

    def _append(self, number: int, pieces: list[bytes]) -> None:
        """Write a frame."""
        logs = self._logs
        try:
            logs.append(number, b"".join(pieces))
            if self._is_always:
                logs.flush()
        except OSError as error:
            self._try_elsewhere(error)

    def _bring(self) -> None:
        """Bring frames to the medium."""
        try:
            self._logs.flush()
        except OSError as error:
            self._try_elsewhere(error)

    def _try_elsewhere(self, error: OSError) -> None:
        log.warning("writing to the broker's store failed (%s); trying once more in a new file", error)
        self._logs.retry()

    def _slice(self) -> None:
        """Go on with a snapshot for a moment."""
        if self._compaction is None:
            self._compaction = compact(self._logs)
        end = time.perf_counter() + _SLICE_S
        is_over = True
        try:
            for _ in self._compaction:
                if time.perf_counter() >= end:
                    is_over = False
                    return
        finally:
            if is_over:
                self._compaction = None

    def _end(self, number: int, pieces: list[bytes]) -> None:
        """Write the last of it; a disk that fails now is tried once more."""
        try:
            if pieces:
                self._append(number, pieces)
            self._logs.retry()
        except OSError as error:
            log.error("the last changes of the broker's store are lost: the disk fails (%s)", error)  # noqa: TRY400 - no bug
        self._leave()

    def _leave(self) -> None:
        """Close all files; an unfinished snapshot is not wanted."""
        if self._compaction is not None:
            self._compaction.close()
        self._logs.close()

    # --- what comes next ----------------------------------------------------------------------------------------------

    def _finished(self, job: Future[None]) -> None:
        """A job is done: take its result, and begin the next."""
        self._job = None
        if self._is_given_up:
            self._logs.give_up()
            return
        before = (self.written, self.failure)
        error = job.exception()
        if error is None:
            self._done(self._loop.time())
        elif self._done == self._sliced and not self._logs.is_failed:
            self._postpone(error)
        else:
            self._fail(error)
        self._next()
        if before != (self.written, self.failure):
            self.on_written()

    def _wrote(self, now: float) -> None:
        """All that was handed over is written."""
        self.written = self._logs.last
        self._is_failing = False
        if not self._logs.kept_bytes:
            self._flush_at = inf
        elif self._logs.kept_bytes > _UNFLUSHED:
            self._flush_at = now
        elif self._flush_at == inf:
            self._flush_at = now + self._commit_interval_s
        if self.failure and not self._chunks:
            log.info("the broker's store works again")
            self.failure = ""
            self.mark = self._number
            self._pause_s = 1.0

    def _ended(self, now: float) -> None:
        """The last job is done; what it could not write is not called written."""
        if not self._logs.is_failed:
            self._wrote(now)

    def _sliced(self, now: float) -> None:
        """A slice of a snapshot is done."""
        hurry = max(1.0, self._logs.log_bytes / (_HURRY * self._allowed()))
        self._slice_at = now + _PAUSES / (hurry * hurry) * (now - self._job_since)

    def _postpone(self, error: BaseException) -> None:
        """A snapshot that fails harms nobody while the log itself can be written."""
        bug = None if isinstance(error, OSError) else error
        log.warning("no snapshot of the broker's store can be made (%s): the log goes on growing", error, exc_info=bug)
        self._snapshot_after = self._loop.time() + _SNAPSHOT_PAUSE_S

    def _fail(self, error: BaseException) -> None:
        if not self._is_failing:
            # Whatever it is: the broker goes on with what needs no store.
            self._say_failure(
                f"the broker's store cannot be written ({getattr(error, 'strerror', None) or error})", error
            )
        self._is_failing = True
        self._retry_at = self._loop.time() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _say_failure(self, text: str, error: BaseException | None = None) -> None:
        self._failures.value += 1
        bug = None if error is None or isinstance(error, OSError) else error
        log.error("%s: what would have to be kept is refused until it works again", text, exc_info=bug)
        self.failure = text
        self.mark = 0

    def give_up(self, why: str) -> None:
        """Store nothing any more in this run."""
        log.error("%s: it is given up, and the next start will find an earlier state", why)
        self.failure = f"{why}; it is given up"
        self._is_given_up = True
        self.mark = self._waiting = 0
        self._chunks.clear()
        self._operations.clear()
        self._silence()

    def _next(self) -> None:
        """Begin what is due, or see that somebody wakes us when it will be."""
        if self._job is not None or self._is_closing or self._is_given_up:
            return
        now = self._loop.time()
        if self._is_failing:
            if self._retry_at <= now:
                self._run(self._logs.retry, self._wrote)
            else:
                self._ring(self._retry_at)
        elif self._flush_at <= now:
            self._run(self._bring, self._wrote)
        elif self._slice_at <= now and self._may_slice() and self._wants_snapshot(now):
            self._run(self._slice, self._sliced)
        elif self._operations or self._chunks:
            self._submit()
        else:
            self._ring(min(self._flush_at, self._slice_at if self._wants_snapshot(now) else inf))

    def _may_slice(self) -> bool:
        """Two slices never follow each other while acknowledgements wait for a frame."""
        return self._done != self._sliced or not (self._operations or self._chunks)

    def _allowed(self) -> int:
        """How long the log may become before a snapshot takes its place."""
        return max(self._snapshot_at, self._logs.snapshot_bytes, 1)

    def _wants_snapshot(self, now: float) -> bool:
        """Whether a snapshot is being made, or should be."""
        if self._compaction is not None:
            return True
        logs = self._logs
        is_long = logs.log_bytes > self._allowed() or len(logs.files) > _MOST_FILES
        return (is_long or logs.is_worn) and self._snapshot_after <= now

    def _ring(self, at: float) -> None:
        if at != self._ring_at:
            self._silence()
            if at < inf:
                self._ring_at = at
                self._timer = self._loop.call_at(at, self._rung)

    def _rung(self) -> None:
        self._ring_at = inf
        self._next()

    def _silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ring_at = inf

    async def close(self) -> None:
        """Write all that waits and bring it to the medium; nothing is noted any more."""
        self._is_closing = True
        self._silence()
        await self._idle()
        if self._is_given_up:
            self._run(self._leave, self._ended)
        else:
            number, self._number = self._number, self._number + 1
            self._run(partial(self._end, number, self._take()), self._ended)
        await self._idle()
        self._is_given_up = True

    async def _idle(self) -> None:
        """Wait for the writer thread."""
        while self._job is not None:
            await asyncio.wait([asyncio.wrap_future(self._job)])


def _nobody() -> None:
    """Nobody wants to know."""
