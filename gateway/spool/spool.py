"""The spool: a queue for each class of records, so that none of them can crowd out one that matters more.

    <folder>/         data, the usual class
    <folder>/alarm/   and so on: made when the first tag asks for that class, looked into as long as it is there

Each queue numbers its records by itself and has an epoch of its own: (gateway, epoch, seq) stays unique. Between two
classes no order is promised; their times tell it. They share one clock, one thread that writes and one that reads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.clock import Clock
from gateway.journal.disk import FolderDisk
from gateway.metrics import Metrics
from gateway.model import CLASSES, Definition, RecordClass
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.spool.record import Note, Record
from gateway.spool.status import SpoolStatus, summed
from gateway.spool.store import refuse_foreign
from gateway.spool.timekeeper import CLOCK_WAIT_S, Timekeeper
from gateway.spool.timeline import Worth

log = logging.getLogger("headgate.spool")


class Spool:
    """The durable store. Made by `open`, ended by `close`. `queues` by class, the most important first."""

    def __init__(
        self, queues: Mapping[RecordClass, Queue], stack: AsyncExitStack, clock: Clock, timekeeper: Timekeeper
    ) -> None:
        self.queues = queues
        self._stack = stack
        self._clock = clock
        self._timekeeper = timekeeper
        self._strangers: set[RecordClass] = set()

    def __repr__(self) -> str:
        return f"Spool({', '.join(self.queues)})"

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: Mapping[RecordClass, Limits],
        *,
        classes: Collection[RecordClass] = (),
        clock: Clock,
        metrics: Metrics,
        writing: Executor | None = None,
        clock_wait_s: float = CLOCK_WAIT_S,
    ) -> Spool:
        """Open the folder, making it where it is missing: a queue for `data`, for `classes`, and for what has one.

        Records that are no alarms wait up to `clock_wait_s` for a clock that cannot be right. Raises RefusedError, see
        `Queue.open`.
        """
        names = {name for name in CLASSES if name in classes or name == "data" or _is_used(folder / name)}
        timekeeper = Timekeeper(clock, wait_s=clock_wait_s)
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            reading = _thread("headgate-read", stack)
            writing = writing or _thread("headgate-write", stack)
            for below in (_below(folder, name) for name in CLASSES):  # all of them, before anything in one is changed
                if below.is_dir():
                    await loop.run_in_executor(writing, refuse_foreign, below, FolderDisk(below))
            queues: dict[RecordClass, Queue] = {}
            for name in sorted(names, key=_outer_first):
                queue = await Queue.open(
                    _below(folder, name),
                    limits[name],
                    clock=clock,
                    metrics=metrics,
                    writing=writing,
                    reading=reading,
                    timekeeper=timekeeper,
                    is_ready=name == "alarm" and name in classes,
                    record_class=name,
                )
                if queue.is_spent and name not in classes and name != "data":
                    await queue.close()  # nobody writes to it any more, and all that was in it is with whom it was for
                    continue
                stack.push_async_callback(queue.close)
                queues[name] = queue
            spool = cls({name: queues[name] for name in CLASSES if name in queues}, stack.pop_all(), clock, timekeeper)
        timekeeper.start()
        timekeeper.followers.append(spool._on_clock)
        spool._on_clock()
        return spool

    def queue_of(self, definition: Definition) -> Queue:
        """The queue for batches of that definition."""
        queue = self.queues.get(definition.record_class)
        return queue if queue is not None else self._stranger(definition)

    def _stranger(self, definition: Definition) -> Queue:
        """The usual queue, for a class that nobody named when the spool was opened."""
        if definition.record_class not in self._strangers:
            self._strangers.add(definition.record_class)
            log.error(
                "device '%s' has tags of class %s, but there is no such queue: they go with the data",
                definition.device,
                definition.record_class,
            )
        return self.queues["data"]

    def note(self, name: str, fields: Mapping[str, Any]) -> int:
        """Append an event of the gateway's own, to the queue of events where there is one. Gives its number."""
        queue = self.queues.get("event") or self.queues["data"]
        return queue.add(Note(self._clock.wall_ms(), name, fields), "event")

    def audit(self, name: str, fields: Mapping[str, Any], *, urgent: bool) -> Record:
        """Append an entry for the audit, to the queue of events where there is one; `urgent`: it is written at once."""
        queue = self.queues.get("event") or self.queues["data"]
        note = Note(self._clock.wall_ms(), name, fields)
        seq = queue.add(note, "audit")
        if urgent:
            queue.urge()
        return Record(seq, queue.epoch, None, "audit", note)

    async def kept(self, seq: int) -> bool:
        """Whether the audit's entry of that number, just appended, is on the medium or acknowledged by all who hold."""
        return await (self.queues.get("event") or self.queues["data"]).kept(seq)

    # --- the clock ------------------------------------------------------------------------------------------------

    @property
    def clock_worth(self) -> Worth:
        """What wall time is worth: `synced`, `holdover` (not so, but plausible), `unsynced` (it cannot be right)."""
        return self._timekeeper.worth

    def may_send(self, record_class: RecordClass) -> bool:
        """Whether records of that class need not wait for the clock."""
        return record_class == "alarm" or not self._timekeeper.is_waiting

    def _on_clock(self) -> None:
        """Where records went out with times that could not be right, say by how much they were wrong."""
        timeline = self._timekeeper.timeline
        for offset, correction in timeline.corrections():
            fields = {
                "boot_id": str(UUID(bytes=timeline.boot_id)),
                "clock_ms": offset,
                "offset_ms": correction,
                "state": timeline.worth,
            }
            self.note("clock", fields)

    # --- the whole ------------------------------------------------------------------------------------------------

    @property
    def busy_s(self) -> float:
        """For how long the writer thread has been at its present job: whether it makes progress."""
        return max(queue.busy_s for queue in self.queues.values())

    def status(self) -> SpoolStatus:
        """How things stand. Cheap enough to ask each second."""
        return summed([queue.status() for queue in self.queues.values()])

    async def durable(self) -> None:
        """Return when everything appended so far is on the medium or acknowledged by all who hold."""
        await asyncio.gather(*(queue.durable() for queue in self.queues.values()))

    async def room(self) -> None:
        """Return when memory has room for much more; see `Queue.room`."""
        for queue in self.queues.values():
            await queue.room()

    def retire(self) -> None:
        """All uplinks have claimed their cursors: the others hold what they have, and nothing new."""
        for queue in self.queues.values():
            queue.retire()

    def forget(self, name: str) -> None:
        """Give up the cursors of that name: what only they held is held no more."""
        for queue in self.queues.values():
            queue.forget(name)

    async def close(self) -> None:
        """Write the cursors and what is not acknowledged; let go of the folder."""
        self._timekeeper.followers.remove(self._on_clock)
        await self._stack.aclose()


def _below(folder: Path, name: RecordClass) -> Path:
    return folder if name == "data" else folder / name


def _is_used(folder: Path) -> bool:
    """Whether anything was ever stored in a class's folder."""
    return folder.is_dir() and any(folder.glob("*.seg"))


def _outer_first(name: RecordClass) -> bool:
    """The folder of `data` holds the others': who has its lock has all."""
    return name != "data"


def _thread(name: str, stack: AsyncExitStack) -> Executor:
    executor = ThreadPoolExecutor(1, name)
    stack.callback(partial(executor.shutdown, wait=False))
    return executor
