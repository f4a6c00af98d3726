"""Entries for the audit: one that is urgent is on the disk at once, whatever the commit interval."""

import asyncio
import errno
import time

import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.spool.limits import Limits
from gateway.spool.record import Note
from gateway.spool.spool import Spool

LIMITS = {name: Limits(commit_interval_s=3600.0) for name in ("alarm", "event", "data", "diag")}


async def opened(folder, **more):
    spool = await Spool.open(folder, LIMITS, clock=SystemClock(), metrics=Metrics(), **more)
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


def full(what, _name):
    return OSError(errno.EIO, "the disk fails") if what == "fdatasync" else None


@pytest.mark.parametrize("rule", ["drop_newest", "drop_oldest"])
def test_an_entry_that_gave_way_to_a_gap_was_not_kept(virtual_bench, run_virtual, make_disk, rule):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, ram_bytes=40_000, full=rule) as queue:
            queue.cursor("cloud")
            disk.fault = full
            waiting = []
            for n in range(1, 101):
                queue.append(bench.batch(n, size=1500))
                seq = queue.add(Note(1_795_330_000_000 + n, "command", {"phase": "intent"}), "audit")
                waiting.append((seq, asyncio.create_task(queue.kept(seq))))
                await asyncio.sleep(0.1)
            disk.fault = lambda *_: None
            async with asyncio.timeout(3600):
                said = {seq: await task for seq, task in waiting}
            cursor = queue._cursors.by_name["cloud"]
            found = {r.seq for r in await bench.drain(queue, cursor) if r.kind == "audit"}
            assert {seq for seq, is_kept in said.items() if is_kept} == found
            assert 0 < len(found) < 100

    run_virtual(main())


def test_an_entry_is_kept_once_it_is_on_the_disk_and_by_nobody_where_nobody_holds(tmp_path):
    async def story():
        spool = await opened(tmp_path)
        assert await spool.kept(spool.audit("command", {}, urgent=True).seq)
        assert not await spool.kept(spool.audit("command", {}, urgent=True).seq + 1), "there is no such record"
        await spool.close()
        spool = await Spool.open(tmp_path / "other", LIMITS, clock=SystemClock(), metrics=Metrics())
        assert not await spool.kept(spool.audit("command", {}, urgent=True).seq)
        spool.queues["data"].cursor("live", holds=False)
        assert not await spool.kept(spool.audit("command", {}, urgent=True).seq)
        await spool.close()

    asyncio.run(story())
