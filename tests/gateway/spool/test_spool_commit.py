"""When something is written: on age, at once, always, and mostly not at all."""

import asyncio

import pytest

from gateway.journal.frame import BLOCK


def data_writes(disk):
    return [(what, name) for what, name in disk.log if name.endswith(".seg") and what in ("pwrite", "fdatasync")]


def settle(disk):
    """Start counting from here."""
    disk.log.clear()


def test_a_record_is_written_when_it_is_as_old_as_the_interval_and_not_before(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=1.0) as spool:
            spool.cursor("cloud")
            settle(disk)
            spool.append(virtual_bench.batch(1))
            await asyncio.sleep(0.6)
            spool.append(virtual_bench.batch(2))
            await asyncio.sleep(0.39)
            assert not data_writes(disk)
            assert spool.status().durable == 0
            await asyncio.sleep(0.02)
            assert [what for what, _ in data_writes(disk)] == ["pwrite", "fdatasync"]
            assert spool.status().durable == 2, "one frame takes along what is younger"
            await asyncio.sleep(10)
            assert len(data_writes(disk)) == 2, "it is a deadline, not a tick"

    run_virtual(main())


def test_a_link_that_acknowledges_in_time_writes_nothing(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=1.0) as spool:
            cursor = spool.cursor("cloud")
            settle(disk)
            written = disk.written
            for n in range(1, 36_001):  # an hour at ten batches a second, acknowledged 0.9 s later
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(0.1)
                if n >= 9:
                    spool.take(cursor, 1)
                    spool.commit(cursor, n - 8)
            assert not data_writes(disk)
            assert disk.written - written <= 60 * BLOCK, "a cursor a minute"
            assert spool.status().frames == 0

    run_virtual(main())


def test_what_all_have_acknowledged_is_not_written_with_the_rest(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=1.0) as spool:
            one, two = spool.cursor("one"), spool.cursor("two")
            for n in range(1, 11):
                spool.append(virtual_bench.batch(n))
            spool.commit(one, 9)
            spool.commit(two, 4)
            await asyncio.sleep(1.1)
            assert spool.status().durable == 10
            head = spool._store.reader.after(0).head
            assert (head.covers_from, head.first_seq, head.last_seq, head.count) == (1, 5, 10, 6)

    run_virtual(main())


def test_persist_always_writes_what_is_acknowledged_too(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=1.0, persist="always") as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(virtual_bench.batch(n))
                spool.commit(cursor, n)
            await asyncio.sleep(1.1)
            head = spool._store.reader.after(0).head
            assert (head.first_seq, head.last_seq) == (1, 10)
            assert spool.status().ram_bytes == 0

    run_virtual(main())


def test_durable_does_not_wait_for_the_interval(virtual_bench, run_virtual, virtual_clock, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=60.0) as spool:
            cursor = spool.cursor("cloud")
            spool.append(virtual_bench.batch(1))
            before = virtual_clock.monotonic()
            await spool.durable()
            assert virtual_clock.monotonic() - before < 1
            assert spool._store.writer.written == 1
            spool.append(virtual_bench.batch(2))
            spool.commit(cursor, 2)
            settle(disk)
            await spool.durable()
            assert not data_writes(disk), "acknowledged by all who hold is as good"

    run_virtual(main())


def test_durable_returns_when_the_acknowledgement_comes_first(bench, make_disk):
    import threading

    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            disk.gate = threading.Event()
            spool.append(bench.batch(1))
            waiting = asyncio.create_task(spool.durable())
            await asyncio.sleep(0)
            assert not waiting.done()
            spool.commit(cursor, 1)
            await asyncio.wait_for(waiting, 5)
            disk.gate.set()

    asyncio.run(main())


def test_durable_is_not_true_before_the_flush(bench, make_disk):
    import threading

    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            spool.cursor("cloud")
            spool.append(bench.batch(1))
            await spool.durable()
            disk.gate = threading.Event()
            spool.append(bench.batch(2))
            waiting = asyncio.create_task(spool.durable())
            await bench.until(lambda: disk.log[-1][0] == "pwrite" and disk.log[-1][1].endswith(".seg"), "the write")
            await asyncio.sleep(0.02)
            assert not waiting.done()
            disk.gate.set()
            await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_an_interval_of_nothing_writes_every_turn_of_the_loop(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=0.0) as spool:
            spool.cursor("cloud")
            for n in range(1, 6):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(0.001)
                assert spool.status().durable == n

    run_virtual(main())


def test_a_moved_cursor_is_stored_after_ten_seconds_while_there_is_a_backlog(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(virtual_bench.batch(n))
            await asyncio.sleep(1)
            settle(disk)
            spool.commit(cursor, 5)
            await asyncio.sleep(9.9)
            assert not disk.log
            spool.commit(cursor, 6)
            await asyncio.sleep(0.2)
            assert [entry for entry in disk.log if entry[1] == "slots"] == [("pwrite", "slots"), ("fdatasync", "slots")]
            again = await crashed(virtual_bench, disk)
            assert again.cursor("cloud").position == 6
            await again.close()

    run_virtual(main())


async def crashed(bench, disk, seed=1):
    """The spool as it opens beside the running one, on what a power cut would leave."""
    folder, bench.folder = bench.folder, bench.folder.with_name("crashed")
    try:
        return await bench.open(disk.crash(seed))
    finally:
        bench.folder = folder


def test_a_frame_carries_the_cursors(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(virtual_bench.batch(n))
            await asyncio.sleep(1)
            spool.commit(cursor, 5)
            spool.append(virtual_bench.batch(11))
            await asyncio.sleep(1)
            again = await crashed(virtual_bench, disk)
            assert again.cursor("cloud").position == 5
            await again.close()

    run_virtual(main())


def test_a_lost_cursor_only_means_duplicates(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(virtual_bench.batch(n))
            await asyncio.sleep(1)
            spool.commit(cursor, 10)  # and the power fails before this is stored
            again = await crashed(virtual_bench, disk)
            found = await virtual_bench.drain(again, again.cursor("cloud"))
            assert virtual_bench.numbers(found) == list(range(1, 11))
            await again.close()

    run_virtual(main())


def test_numbers_are_reserved_on_the_medium_before_they_are_used(virtual_bench, run_virtual, make_disk):
    async def main():
        disk, used = make_disk(), 0
        for _ in range(3):
            spool = await virtual_bench.open(disk)
            first = spool.append(virtual_bench.batch(1))
            assert first > used, "a number is never used twice, whatever the last run had not stored"
            for n in range(600_000):
                used = spool.append(virtual_bench.batch(n))
            await asyncio.sleep(0)
            virtual_bench.abandon(spool)
            disk = disk.crash()
        assert used > 1_800_000

    run_virtual(main())


@pytest.mark.parametrize("commit_bytes", [4000, 20_000])
def test_a_large_commit_is_cut_into_frames_and_flushed_once(virtual_bench, run_virtual, make_disk, commit_bytes):
    async def main():
        disk = make_disk()
        async with virtual_bench.opened(disk, commit_interval_s=1.0, commit_bytes=commit_bytes) as spool:
            cursor = spool.cursor("cloud")
            settle(disk)
            for n in range(1, 41):
                spool.append(virtual_bench.batch(n, size=1000))
            await asyncio.sleep(1.5)
            writes = [what for what, _ in data_writes(disk)]
            assert writes.count("pwrite") >= 40_000 // commit_bytes
            assert writes.count("fdatasync") <= 1 + writes.count("pwrite") // 10
            cursor.rewind()
            assert virtual_bench.numbers(await virtual_bench.drain(spool, cursor)) == list(range(1, 41))

    run_virtual(main())


def test_records_written_and_not_read_soon_leave_memory(virtual_bench, run_virtual, make_disk):
    async def main():
        async with virtual_bench.opened(make_disk(), ram_bytes=80_000) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 1001):
                spool.append(virtual_bench.batch(n))
                await asyncio.sleep(0.01)
            assert spool.status().ram_bytes <= 21_000
            assert virtual_bench.numbers(await virtual_bench.drain(spool, cursor)) == list(range(1, 1001))

    run_virtual(main())


def test_definitions_are_in_every_segment_that_uses_them(virtual_bench, run_virtual, make_disk):
    async def main():
        disk = make_disk()
        spool = await virtual_bench.open(disk)
        spool.cursor("cloud")
        for n in range(1, 201):
            spool.append(virtual_bench.batch(n, size=2000))
            if n % 10 == 0:
                await spool.durable()
        segments = spool._store.writer.segments
        assert len(segments) >= 4
        for kept in segments:
            alone = disk.copy()
            for other in segments:
                if other is not kept:
                    alone.unlink(other.name)
            alone.put("slots", b"")
            again = await crashed(virtual_bench, alone.copy())
            lonely = again.cursor("cloud")
            lonely.committed = lonely.position = kept.first.first_seq - 1
            found = await virtual_bench.drain(again, lonely)
            assert virtual_bench.numbers(found) == list(range(kept.first.first_seq, kept.last_seq + 1))
            await again.close()
        await spool.close()

    run_virtual(main())
