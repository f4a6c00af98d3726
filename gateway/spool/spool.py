"""The spool: a queue for each class of records, so that none of them can crowd out one that matters more.

    <folder>/         data, the usual class
    <folder>/alarm/   and so on: made when the first tag asks for that class, looked into as long as it is there

Each queue numbers its records by itself and has an epoch of its own: (gateway, epoch, seq) stays unique. Between two
classes no order is promised; their times tell it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model import CLASSES, Definition, RecordClass
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.spool.status import SpoolStatus, summed


class Spool:
    """The durable store. Made by `open`, ended by `close`. `queues` by class, the most important first."""

    def __init__(self, queues: Mapping[RecordClass, Queue], stack: AsyncExitStack) -> None:
        self.queues = queues
        self._stack = stack

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
    ) -> Spool:
        """Open the folder, making it where it is missing: a queue for `data`, for `classes`, and for what has one.

        Raises RefusedError, see `Queue.open`.
        """
        async with AsyncExitStack() as stack:
            queues: dict[RecordClass, Queue] = {}
            for name in sorted(CLASSES, key=_outer_first):
                below = folder if name == "data" else folder / name
                if name in classes or name == "data" or below.is_dir():
                    queue = await Queue.open(
                        below, limits[name], clock=clock, metrics=metrics, writing=writing, record_class=name
                    )
                    stack.push_async_callback(queue.close)
                    queues[name] = queue
            return cls({name: queues[name] for name in CLASSES if name in queues}, stack.pop_all())

    def queue_of(self, definition: Definition) -> Queue:
        """The queue for batches of that definition."""
        return self.queues[definition.record_class]

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

    def forget(self, name: str) -> None:
        """Give up the cursors of that name: what only they held is held no more."""
        for queue in self.queues.values():
            queue.forget(name)

    async def close(self) -> None:
        """Write the cursors and what is not acknowledged; let go of the folder."""
        await self._stack.aclose()


def _outer_first(name: RecordClass) -> bool:
    """The folder of `data` holds the others': who has its lock has all."""
    return name != "data"
