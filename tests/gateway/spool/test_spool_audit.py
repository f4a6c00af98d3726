"""Entries for the audit: one that is urgent is on the disk at once, whatever the commit interval."""

import asyncio
import time

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.spool.limits import Limits
from gateway.spool.spool import Spool


async def opened(folder, **more):
    limits = {name: Limits(commit_interval_s=3600.0) for name in ("alarm", "event", "data", "diag")}
    spool = await Spool.open(folder, limits, clock=SystemClock(), metrics=Metrics(), **more)
    for queue in spool.queues.values():
        queue.cursor("cloud")
    return spool


async def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def durable(queue):
    return queue._committer.durable


def test_an_urgent_entry_is_written_at_once_and_takes_along_what_waits(tmp_path):
    async def story():
        spool = await opened(tmp_path)
        queue = spool.queues["data"]
        before = durable(queue)
        calm = spool.audit("command", {"phase": "outcome"}, urgent=False)
        await asyncio.sleep(0.05)
        assert durable(queue) == before
        urgent = spool.audit("command", {"phase": "intent", "tag": "pump"}, urgent=True)
        await until(lambda: durable(queue) >= urgent.seq)
        await spool.close()
        assert (calm.seq + 1, calm.epoch, urgent.kind) == (urgent.seq, queue.epoch, "audit")
        assert (urgent.other.name, urgent.other.fields) == ("command", {"phase": "intent", "tag": "pump"})

    asyncio.run(story())


def test_entries_go_with_the_events_where_there_are_any(tmp_path):
    async def story():
        spool = await opened(tmp_path, classes={"event", "data"})
        record = spool.audit("command", {}, urgent=True)
        event = spool.queues["event"]
        await until(lambda: durable(event) >= record.seq)
        assert record.epoch == event.epoch
        await spool.close()

    asyncio.run(story())
