"""Bounds: of the disk, of memory, and what is said when something must go."""

import asyncio
import errno
import logging
import threading
from itertools import pairwise

import pytest

MIB = 1 << 20


def failing(*operations, error=errno.EIO):
    def fault(what, name):
        if what in operations and name.endswith((".seg", "slots", "slots.new")):
            return OSError(error, "the disk fails")
        return None

    return fault


def works(_what, _name):
    return None


def test_beyond_max_bytes_the_oldest_segments_go_and_each_cursor_is_told(bench, make_disk, caplog):
    async def main():
        disk = make_disk()
        limit = 4 * bench.segment_size + 131072
        async with bench.opened(disk, max_bytes=limit, ram_bytes=40_000) as spool:
            ahead, behind = spool.cursor("ahead"), spool.cursor("behind")
            for n in range(1, 401):
                spool.append(bench.batch(n, size=1500))
                if n % 10 == 0:
                    await spool.durable()
                if n == 60:
                    await bench.drain(spool, ahead)
            assert sum(len(f.cache) for f in disk.names_now.values()) <= limit
            status = spool.status()
            assert status.state == "full"
            assert status.allocated_bytes <= limit
            found = bench.numbers(await bench.drain(spool, behind))
            cause, first, last, count = found[0]
            assert (cause, first, count) == ("evicted", 1, last)
            assert found[1:] == list(range(last + 1, 401))
            assert status.evicted == last
            spool.commit(ahead, 65)  # a late acknowledgement: the rest is lost all the same
            found = bench.numbers(await bench.drain(spool, ahead))
            assert found == [("evicted", 66, last, last - 65), *range(last + 1, 401)]
            assert spool.status().state == "ok"
        assert any("were given up" in r.message and r.levelno == logging.WARNING for r in caplog.records)

    asyncio.run(main())


def test_who_asks_for_room_first_loses_nothing_however_much_comes_at_once(bench, make_disk):
    async def main(*, asks):
        async with bench.opened(make_disk(), max_bytes=8 * MIB, ram_bytes=40_000) as spool:
            cloud = spool.cursor("cloud")
            for n in range(1, 301):
                if asks:
                    await spool.room()
                spool.append(bench.batch(n, size=1500))
            found = await bench.drain(spool, cloud)
            return [record.seq for record in found if record.batch is not None]

    assert asyncio.run(main(asks=True)) == list(range(1, 301))
    assert len(asyncio.run(main(asks=False))) < 100


def test_where_there_is_room_nothing_is_written_for_it(bench, make_disk):
    async def main():
        async with bench.opened(make_disk(), max_bytes=8 * MIB, ram_bytes=MIB) as spool:
            spool.cursor("cloud")
            for n in range(1, 101):
                spool.append(bench.batch(n))
                await spool.room()
            assert {n: v for n, _, v in bench.metrics}["spool_durable_seq"] == 0

    asyncio.run(main())


def test_what_was_evicted_is_told_after_a_restart_too(bench, make_disk):
    async def main():
        disk = make_disk()
        limit = 3 * bench.segment_size + 131072
        spool = await bench.open(disk, max_bytes=limit, ram_bytes=40_000)
        spool.cursor("cloud")
        for n in range(1, 301):
            spool.append(bench.batch(n, size=1500))
            if n % 10 == 0:
                await spool.durable()
        bench.abandon(spool)
        for found in (disk.crash(1), disk.copy()):
            async with bench.opened(found, max_bytes=limit) as spool:
                records = await bench.drain(spool, spool.cursor("cloud"), commit=False)
                cause, first, last, count = bench.numbers(records)[0]
                assert (cause, first, count) == ("evicted", 1, last)
                assert records[0].gap.first_time == bench.batch(1).time
                assert records[0].gap.last_time == bench.batch(last).time
                assert bench.numbers(records)[1:] == list(range(last + 1, 301))
                cursor = spool.cursor("cloud")
                cursor.rewind()
                again = await bench.drain(spool, cursor)
                assert bench.numbers(again) == bench.numbers(records), "until it is acknowledged"

    asyncio.run(main())


def test_a_failing_disk_is_logged_once_and_records_live_in_memory(virtual_bench, run_virtual, make_disk, caplog):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            spool.append(virtual_bench.batch(1))
            await spool.durable()
            disk.fault = failing("fdatasync")
            for n in range(2, 102):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(1)
            assert spool.status().state == "degraded"
            assert virtual_bench.numbers(await virtual_bench.drain(spool, cursor, commit=False)) == list(range(1, 102))
            waiting = asyncio.create_task(spool.durable())
            disk.fault = works
            await waiting
            assert spool.status().state == "ok"
            assert virtual_bench.numbers(stored(spool)) == list(range(1, 102))
        errors = [r.message for r in caplog.records if r.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert "the spool's disk fails ([Errno 5] the disk fails)" in errors[0]
        assert "the spool's disk works again" in caplog.text

    caplog.set_level(logging.INFO)
    run_virtual(main())


def stored(spool):
    """All records on the disk."""
    from gateway.spool.backlog import Backlog, Request

    backlog, position, place, found = Backlog(spool._store.reader), 0, None, []
    while (fetched := backlog.fetch(Request(position, True, (), place, 1000))).records:
        found += fetched.records
        position, place = found[-1].seq, fetched.place
    return found


def test_the_disk_is_tried_again_after_1_2_4_and_at_last_60_seconds(
    virtual_bench, run_virtual, virtual_clock, make_disk
):
    async def main():
        disk, tries = make_disk(), []
        async with virtual_bench.opened(disk) as spool:
            spool.cursor("cloud")

            def fault(what, name):
                if what == "pwrite" and name.endswith(".seg"):
                    tries.append(round(virtual_clock.monotonic()))
                    return OSError(errno.EIO, "the disk fails")
                return None

            disk.fault = fault
            spool.append(virtual_bench.batch(1))
            for _ in range(300):
                spool.append(virtual_bench.batch(2))
                await asyncio.sleep(1)
            moments = sorted(set(tries))
            pauses = [b - a for a, b in pairwise(moments)]
            assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
            assert len(tries) == 2 * len(moments), "the segment there is, and a fresh one"
            disk.fault = works

    run_virtual(main())


def test_when_memory_is_full_too_the_oldest_are_dropped_counted_and_leave_a_gap(
    virtual_bench, run_virtual, make_disk, caplog
):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, ram_bytes=40_000) as spool:
            cursor = spool.cursor("cloud")
            spool.append(virtual_bench.batch(1))
            await spool.durable()
            disk.fault = failing("fdatasync")
            for n in range(2, 1002):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(0.1)
                assert spool.status().ram_bytes <= 40_000
            status = spool.status()
            assert status.state == "degraded"
            disk.fault = works
            await spool.durable()
            found = virtual_bench.numbers(stored(spool))
            cause, first, last, count = found[1]
            assert (found[0], cause, first, count) == (1, "memory", 2, last - 1)
            assert found[2:] == list(range(last + 1, 1002))
            assert status.dropped == count
            assert virtual_bench.numbers(await virtual_bench.drain(spool, cursor)) == found
        assert len([r for r in caplog.records if "memory is full" in r.message]) == 1

    run_virtual(main())


def test_a_gap_in_memory_is_told_only_to_those_who_lost_something(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, ram_bytes=40_000) as spool:
            fast, slow = spool.cursor("fast"), spool.cursor("slow")
            disk.fault = failing("fdatasync")
            seen = []
            for n in range(1, 1001):
                spool.append(virtual_bench.batch(n))
                seen += await virtual_bench.drain(spool, fast)
                await asyncio.sleep(0.1)
                if n == 50:
                    await spool.read(slow, 20)
                    spool.commit(slow, 20)
            assert virtual_bench.numbers(seen) == list(range(1, 1001))
            slow.rewind()
            found = virtual_bench.numbers(await virtual_bench.drain(spool, slow))
            cause, first, last, count = found[0]
            assert (cause, first, count) == ("memory", 21, last - 20)
            assert found[1:] == list(range(last + 1, 1001))
            disk.fault = works

    run_virtual(main())


def test_a_gap_in_memory_begins_behind_what_a_reader_has_seen(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, ram_bytes=40_000) as spool:
            cursor = spool.cursor("cloud")
            disk.fault = failing("fdatasync")
            for n in range(1, 51):
                spool.append(virtual_bench.batch(n))
            await spool.read(cursor, 40)
            spool.commit(cursor, 20)
            for n in range(51, 501):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(0.1)
            found = virtual_bench.numbers(await virtual_bench.drain(spool, cursor, commit=False))
            cause, first, last, count = found[0]
            assert (cause, first, count) == ("memory", 41, last - 40)
            cursor.rewind()
            assert virtual_bench.numbers(spool.take(cursor, 1)) == [("memory", 21, last, last - 20)]
            disk.fault = works

    run_virtual(main())


def test_what_the_writer_has_in_its_hands_is_not_dropped(bench, make_disk):
    async def main():
        disk = make_disk()
        async with bench.opened(disk, ram_bytes=40_000, commit_interval_s=0.005) as spool:
            cursor = spool.cursor("cloud")
            await bench.until(lambda: any(n.startswith("spare") for n in disk.names_now), "the spare")
            await bench.until(lambda: spool._committer._job is None, "silence")
            disk.gate = threading.Event()
            for n in range(1, 11):
                spool.append(bench.batch(n))
            await bench.until(lambda: disk.log[-1][0] == "pwrite" and disk.log[-1][1].endswith(".seg"), "the write")
            for n in range(11, 501):
                spool.append(bench.batch(n))
            disk.gate.set()
            await spool.durable()
            found = bench.numbers(await bench.drain(spool, cursor))
            assert found[:10] == list(range(1, 11))
            assert found[10][:2] == ("memory", 11)
            assert spool.status().dropped == found[10][3]

    asyncio.run(main())


def test_a_disk_that_stalls_leaves_memory_flat_and_the_loop_awake(bench, make_disk):
    async def main():
        loop = asyncio.get_running_loop()
        disk = make_disk()
        async with bench.opened(disk, ram_bytes=200_000, commit_interval_s=0.005) as spool:
            cursor = spool.cursor("cloud")
            spool.append(bench.batch(1))
            await spool.durable()
            disk.gate = threading.Event()
            longest, last, n = 0.0, loop.time(), 1
            while spool.status().dropped < 500:
                for _ in range(10):
                    n += 1
                    spool.append(bench.batch(n))
                await asyncio.sleep(0)
                longest, last = max(longest, loop.time() - last), loop.time()
                assert spool.status().ram_bytes <= 200_000 + 50_000
            assert longest < 0.5
            disk.gate.set()
            disk.gate = None
            await spool.durable()
            found = bench.numbers(await bench.drain(spool, cursor))
            everything = []
            for one in found:
                everything += [one] if isinstance(one, int) else range(one[1], one[2] + 1)
            assert everything == list(range(1, n + 1)), "each record, or a gap over it, in order"

    asyncio.run(main())


def test_a_full_disk_goes_round_in_what_it_has_and_says_so_once(virtual_bench, run_virtual, make_disk, caplog):
    async def main():
        bench = virtual_bench
        disk = make_disk(room=131072 + 3 * bench.segment_size + 1000)
        async with bench.opened(disk, ram_bytes=100_000) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 401):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(0.1)
            status = spool.status()
            assert status.state == "full"
            assert status.dropped == 0
            found = bench.numbers(await bench.drain(spool, cursor))
            assert found[0][0] == "evicted"
            assert found[1:] == list(range(found[0][2] + 1, 401))

    run_virtual(main())


def test_a_disk_without_any_room_is_degraded_until_there_is_some(virtual_bench, run_virtual, make_disk, caplog):
    async def main():
        bench = virtual_bench
        disk = make_disk(room=1000)
        async with bench.opened(disk) as spool:
            assert spool.status().state == "degraded"
            cursor = spool.cursor("cloud")
            for n in range(1, 21):
                spool.append(bench.batch(n))
                await asyncio.sleep(1)
            assert spool.status().state == "degraded"
            assert bench.numbers(await bench.drain(spool, cursor, commit=False)) == list(range(1, 21))
            disk.room = 1 << 40
            await spool.durable()
            assert spool.status().state == "ok"
            epoch = spool.epoch
        async with bench.opened(disk) as spool:
            assert bench.numbers(await bench.drain(spool, spool.cursor("cloud"))) == list(range(1, 21))
            assert spool.epoch.split("-")[0] == epoch.split("-")[0]
        assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1

    run_virtual(main())


def test_a_start_that_could_not_be_stored_never_shares_its_epoch_with_another(bench, make_disk):
    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            epochs = {spool.epoch}
        for _ in range(3):
            disk.fault = failing("pwrite", error=errno.ENOSPC)
            spool = await bench.open(disk)
            epochs.add(spool.epoch)
            bench.abandon(spool)
        disk.fault = works
        async with bench.opened(disk) as spool:
            epochs.add(spool.epoch)
        assert len(epochs) == 5

    asyncio.run(main())


def test_a_record_that_no_segment_can_hold_is_a_gap_on_the_disk_and_stops_nobody(bench, make_disk, caplog):
    async def main():
        disk = make_disk()
        spool = await bench.open(disk)
        cursor = spool.cursor("cloud")
        spool.append(bench.batch(1))
        spool.append(bench.batch(2, size=2 * bench.segment_size))
        spool.append(bench.batch(3))
        await spool.durable()
        assert spool.status().dropped == 1
        assert bench.numbers(await bench.drain(spool, cursor, commit=False)) == [1, 2, 3], "memory has it still"
        await spool.close()
        async with bench.opened(disk) as spool:
            found = bench.numbers(await bench.drain(spool, spool.cursor("cloud")))
            assert found == [1, ("too large", 2, 2, 1), 3]
        assert "larger than a segment" in caplog.text

    asyncio.run(main())


def test_closing_on_a_failing_disk_ends_and_says_what_is_lost(bench, make_disk, caplog):
    async def main():
        disk = make_disk()
        spool = await bench.open(disk)
        spool.cursor("cloud")
        spool.append(bench.batch(1))
        await spool.durable()
        disk.fault = failing("pwrite")
        spool.append(bench.batch(2))
        await asyncio.wait_for(spool.close(), 5)
        assert "records 2 to 2 are lost" in caplog.text
        disk.fault = works
        async with bench.opened(disk.crash()) as spool:
            assert bench.numbers(await bench.drain(spool, spool.cursor("cloud"))) == [1]

    asyncio.run(main())


@pytest.mark.parametrize("is_flushed", [False, True], ids=["not on the medium", "on the medium after all"])
def test_what_a_failing_disk_costs_at_a_stop_is_told_behind_the_backlog_and_not_in_its_place(
    bench, make_disk, is_flushed
):
    async def main():
        disk = make_disk()
        for stop in range(3):
            spool = await bench.open(disk)
            spool.cursor("cloud")
            for n in range(100 * stop + 1, 100 * stop + 11):
                spool.append(bench.batch(n))
            await spool.durable()
            disk.fault = lambda what, name: (
                OSError(errno.EIO, "fails") if what == "fdatasync" and name.endswith(".seg") else None
            )
            for n in range(100 * stop + 11, 100 * stop + 21):
                spool.append(bench.batch(n))
            await spool.close()
            disk.fault = works
            disk = disk.copy() if is_flushed else disk.crash(stop)
        async with bench.opened(disk) as spool:
            cursor, found = spool.cursor("cloud"), []
            while cursor.position < spool.status().head:
                (record,) = await spool.read(cursor, 1)
                found += bench.numbers([record])
                spool.commit(cursor, record.seq)
                if cursor.position < spool.status().head:
                    await spool.read(cursor, 1)
                cursor.rewind()
            assert cursor.losses == ()
            told = [n for n in found if isinstance(n, int)]
            assert [n for n in told if n % 100 <= 10] == [100 * stop + n for stop in range(3) for n in range(1, 11)]
            lost = [first for cause, first, *_ in (g for g in found if not isinstance(g, int)) if cause == "memory"]
            assert len(lost) + (len(told) - 30) // 10 == 3, "each tail is there or told of"

    asyncio.run(main())


@pytest.mark.parametrize("spare", [False, True])
def test_a_spare_that_cannot_be_made_is_no_reason_to_worry(virtual_bench, run_virtual, make_disk, spare, caplog):
    async def main():
        disk = make_disk()
        disk.fault = lambda what, name: OSError(28, "full") if name.startswith("spare") and not spare else None
        async with virtual_bench.opened(disk) as spool:
            spool.cursor("cloud")
            await asyncio.sleep(1300)
            assert spool.status().state == "ok"
            assert any(name.startswith("spare") for name in disk.names_now) == spare
            tries = [name for what, name in disk.log if what == "create" and name.startswith("spare")]
            assert len(tries) == (1 if spare else 3), "once in ten minutes"

    run_virtual(main())


def test_a_mistake_of_ours_in_the_writer_thread_degrades_and_is_logged_with_its_trace(
    virtual_bench, run_virtual, make_disk, caplog
):
    async def main():
        async with virtual_bench.opened(make_disk()) as spool:
            cursor = spool.cursor("cloud")
            writer, write = spool._store.writer, spool._store.writer.write

            def broken(drafts, keeper):
                raise ZeroDivisionError("ours")

            writer.write = broken
            for n in range(1, 21):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(1)
            assert spool.status().state == "degraded"
            assert virtual_bench.numbers(await virtual_bench.drain(spool, cursor, commit=False)) == list(range(1, 21))
            writer.write = write
            await spool.durable()
        assert len([r for r in caplog.records if r.exc_info and r.exc_info[0] is ZeroDivisionError]) == 1

    run_virtual(main())
