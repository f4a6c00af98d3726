"""Giving up records, or an uplink, in a store that does not run: it is opened with its lock, like a gateway does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from gateway.cli.queue_target import Target
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import RecordClass
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.upkeep import giving_up
from gateway.upkeep.giving_up import Share
from gateway.upkeep.survey import Survey

_LEAST = 1 << 30

Work = Callable[[Queue], list[Share | None]]


def purge(target: Target, shares: Iterable[Share]) -> list[Share]:
    """Give up what was planned. Raises RefusedError where the folder is in use or cannot be written."""
    wanted = list(shares)
    now_ms = SystemClock().wall_ms()

    def work(queue: Queue) -> list[Share | None]:
        return [
            giving_up.give_up(
                queue, share.uplink, share.last_seq, times=(share.first_time, share.last_time), now_ms=now_ms
            )
            for share in wanted
            if share.record_class == queue.record_class
        ]

    return asyncio.run(_opened(target, work))


def forget(target: Target, uplink: str) -> list[Share]:
    """Forget an uplink in all classes. Raises RefusedError where the folder is in use or cannot be written."""
    now_ms = SystemClock().wall_ms()
    return asyncio.run(_opened(target, lambda queue: [giving_up.forget(queue, uplink, now_ms=now_ms)]))


async def _opened(target: Target, work: Work) -> list[Share]:
    """Open all queues, the outer folder's first (who has its lock has all), work on each, and close them."""
    surveys = sorted(target.surveys(None), key=lambda survey: survey.part.record_class != "data")
    gone: list[Share | None] = []
    async with AsyncExitStack() as stack:
        for survey in surveys:
            record_class = survey.part.record_class
            queue = await Queue.open(
                survey.part.folder,
                _limits(target, survey, record_class),
                clock=SystemClock(),
                metrics=Metrics(),
                segment_size=max((file.size for file in survey.files), default=0) or None,
                record_class=record_class,
            )
            stack.push_async_callback(queue.close)
            gone += work(queue)
    return [share for share in gone if share is not None]


def _limits(target: Target, survey: Survey, record_class: RecordClass) -> Limits:
    """The file's; else wide enough that nothing has to give way."""
    limits = target.limits
    if limits is not None:
        return limits[record_class]
    return Limits(max_bytes=max(_LEAST, 2 * survey.allocated_bytes), min_free_bytes=0)
