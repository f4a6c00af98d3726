"""The spool as its users see it: append, read, commit, rewind, restart."""

import asyncio
import os
import subprocess
import sys

import pytest

from gateway.errors import RefusedError
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue


def test_what_is_appended_is_read_in_order(bench):
    async def main():
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            assert [spool.append(bench.batch(n)) for n in range(1, 6)] == [1, 2, 3, 4, 5]
            found = await spool.read(cursor, 3)
            assert [r.seq for r in found] == [1, 2, 3]
            assert all(r.kind == "batch" and r.epoch == spool.epoch for r in found)
            assert cursor.position == 3
            assert bench.numbers(await spool.read(cursor, 10)) == [4, 5]
            assert spool.take(cursor, 10) == []

    asyncio.run(main())


def test_a_reader_waits_until_there_is_something_and_is_woken_once_for_many(bench):
    async def main():
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            reader = asyncio.create_task(spool.read(cursor, 100))
            await asyncio.sleep(0)
            assert not reader.done()
            for n in range(1, 51):
                spool.append(bench.batch(n))
            assert bench.numbers(await reader) == list(range(1, 51))

    asyncio.run(main())


def test_a_reader_that_is_cancelled_loses_nothing(bench):
    async def main():
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            reader = asyncio.create_task(spool.read(cursor, 100))
            await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            spool.append(bench.batch(1))
            assert bench.numbers(await spool.read(cursor, 100)) == [1]

    asyncio.run(main())


def test_rewind_hands_out_again_what_is_not_acknowledged(bench):
    async def main():
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(bench.batch(n))
            await spool.read(cursor, 8)
            spool.commit(cursor, 3)
            cursor.rewind()
            assert bench.numbers(await bench.drain(spool, cursor)) == list(range(4, 11))

    asyncio.run(main())


@pytest.mark.parametrize("stop", ["closed", "killed"])
def test_a_restart_goes_on_behind_what_was_acknowledged(bench, stop):
    async def main():
        spool = await bench.open()
        cursor = spool.cursor("cloud")
        for n in range(1, 101):
            spool.append(bench.batch(n))
        await spool.read(cursor, 40)
        spool.commit(cursor, 30)
        await spool.durable()
        first_epoch, head = spool.epoch, spool.status().head
        if stop == "closed":
            await spool.close()
        else:
            bench.abandon(spool)
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            assert cursor.position == cursor.committed == 30
            new = spool.append(bench.batch(101))
            found = await bench.drain(spool, cursor)
            assert bench.numbers(found) == list(range(31, 102))
            assert [r.epoch for r in found] == [first_epoch] * 70 + [spool.epoch]
            assert new == head + 1 if stop == "closed" else new > head
            assert spool.epoch.split("-") == [first_epoch.split("-")[0], "2"]

    asyncio.run(main())


def test_records_of_three_starts_come_in_order(bench):
    async def main():
        for start in range(3):
            spool = await bench.open()
            spool.cursor("cloud")
            for n in range(start * 10, start * 10 + 10):
                spool.append(bench.batch(n))
            await spool.durable()
            bench.abandon(spool)
        async with bench.opened() as spool:
            found = await bench.drain(spool, spool.cursor("cloud"))
            assert bench.numbers(found) == list(range(30)), "and no gap where the numbers jump"
            seqs = [r.seq for r in found]
            assert seqs == sorted(seqs)
            assert len({r.epoch for r in found}) == 3

    asyncio.run(main())


def test_a_slow_uplink_does_not_hold_up_a_fast_one_and_gets_everything(bench):
    async def main():
        async with bench.opened(ram_bytes=40_000) as spool:
            fast, slow = spool.cursor("fast"), spool.cursor("slow")
            seen = []
            for n in range(1, 1001):
                spool.append(bench.batch(n))
                seen += await bench.drain(spool, fast)
                if n % 40 == 0:
                    await spool.durable()
            assert bench.numbers(seen) == list(range(1, 1001))
            assert spool.status().ram_bytes < 40_000
            first = await spool.read(slow, 10)
            assert bench.numbers(first) == list(range(1, 11))
            spool.commit(slow, 10)
            slow.rewind()
            assert bench.numbers(await bench.drain(spool, slow)) == list(range(11, 1001))
            lags = {c.name: c.lag_records for c in spool.status().cursors}
            assert lags == {"fast": 0, "slow": 0}
            assert spool.status().dropped == 0

    asyncio.run(main())


def test_a_cursor_rewound_into_the_backlog_while_it_is_fetched_starts_again_from_there(bench):
    async def main():
        async with bench.opened(ram_bytes=20_000) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 201):
                spool.append(bench.batch(n))
                if n % 20 == 0:
                    await spool.durable()
            await spool.read(cursor, 10)
            cursor.position = 50
            cursor.ahead.clear()
            reading = asyncio.create_task(spool.read(cursor, 10))
            await asyncio.sleep(0)
            cursor.rewind()
            assert bench.numbers(await reading) == list(range(1, 11))

    asyncio.run(main())


def test_with_no_cursor_nothing_is_kept_and_a_new_one_begins_with_the_next_record(bench, make_disk):
    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            written = disk.written
            for n in range(1, 101):
                assert spool.append(bench.batch(n)) == n
            await spool.durable()
            assert spool.status().ram_bytes == 0
            cursor = spool.cursor("cloud")
            assert cursor.position == 100
            spool.append(bench.batch(101))
            assert bench.numbers(await spool.read(cursor, 10)) == [101]
            assert disk.written == written

    asyncio.run(main())


def test_a_cursor_that_holds_nothing_stores_nothing_and_may_be_overtaken(bench, make_disk):
    async def main():
        disk = make_disk()
        async with bench.opened(disk, ram_bytes=20_000, commit_interval_s=0.001) as spool:
            cursor = spool.cursor("display", holds=False)
            written = disk.written
            for n in range(1, 201):
                spool.append(bench.batch(n))
            await spool.durable()
            assert spool.status().ram_bytes <= 20_000
            found = bench.numbers(await bench.drain(spool, cursor))
            cause, first, last, count = found[0]
            assert (cause, first, count) == ("overtaken", 1, last)
            assert found[1:] == list(range(last + 1, 201))
            assert disk.written == written
            assert spool.status().dropped == 0, "nobody held it"

    asyncio.run(main())


def test_a_cursor_that_holds_nothing_reads_what_others_left_on_the_disk(bench):
    async def main():
        spool = await bench.open()
        up, display = spool.cursor("cloud"), spool.cursor("display", holds=False)
        for n in range(1, 11):
            spool.append(bench.batch(n))
        await spool.durable()
        await bench.drain(spool, up)
        for n in range(11, 21):  # these never reach the disk
            spool.append(bench.batch(n))
        await bench.drain(spool, up)
        for n in range(21, 31):
            spool.append(bench.batch(n))
        await spool.close()
        async with bench.opened() as spool:
            display = spool.cursor("display", holds=False)
            found = bench.numbers(await bench.drain(spool, display))
            assert found == [*range(1, 11), ("overtaken", 11, 20, 10), *range(21, 31)]
            assert bench.numbers(await bench.drain(spool, spool.cursor("cloud"))) == list(range(21, 31))

    asyncio.run(main())


def test_numbers_acknowledged_by_all_leave_legitimate_holes_and_no_gaps(bench):
    async def main():
        spool = await bench.open()
        up = spool.cursor("cloud")
        for round_ in range(4):
            for n in range(20 * round_, 20 * round_ + 10):
                spool.append(bench.batch(n))
            await bench.drain(spool, up)
            for n in range(20 * round_ + 10, 20 * round_ + 20):
                spool.append(bench.batch(n))
            await spool.durable()
            if round_ < 3:
                await bench.drain(spool, up)
        bench.abandon(spool)
        async with bench.opened() as spool:
            assert bench.numbers(await bench.drain(spool, spool.cursor("cloud"))) == list(range(70, 80))
            fresh = spool._cursors.by_name["cloud"]
            fresh.committed, fresh.position, fresh.place = (
                0,
                0,
                None,
            )  # as if its position had been lost: duplicates, and no false gap
            assert bench.numbers(await bench.drain(spool, fresh)) == [
                *range(10, 20),
                *range(30, 40),
                *range(50, 60),
                *range(70, 80),
            ]

    asyncio.run(main())


def test_a_backlog_keeps_its_definition_when_the_mapping_changes(bench):
    async def main():
        spool = await bench.open()
        spool.cursor("cloud")
        old = Definition("pump", ("a", "b"), ("float32", "string"), ("bar", ""), (2, None), {"site": "north"})
        spool.append(Batch(old, 5, [1.5, "x"]))
        await spool.close()
        async with bench.opened() as spool:
            new = Definition("pump", ("b", "c"), ("string", "bool"), ("", ""), (None, None), {"site": "south"})
            cursor = spool.cursor("cloud")
            spool.append(Batch(new, 6, ["y", True]))
            before, after = await bench.drain(spool, cursor)
            group = before.batch.group
            assert (group.device, group.names, group.types) == ("pump", ("a", "b"), ("float32", "string"))
            assert (group.units, group.decimals, group.fields) == (("bar", ""), (2, None), {"site": "north"})
            assert group.hash == old.hash
            assert after.batch.group is new

    asyncio.run(main())


def test_a_forgotten_cursor_holds_no_more(bench):
    async def main():
        spool = await bench.open()
        spool.cursor("cloud")
        spool.cursor("gone")
        for n in range(1, 11):
            spool.append(bench.batch(n))
        await spool.close()
        async with bench.opened() as spool:
            up = spool.cursor("cloud")
            await bench.drain(spool, up)
            assert {c.name for c in spool.status().cursors} == {"cloud", "gone"}, "a typing error deletes no backlog"
            assert spool.status().used_bytes > 0
            spool.forget("gone")
            spool.forget("never there")
            assert spool.status().used_bytes == 0
        async with bench.opened() as spool:
            assert {c.name for c in spool.status().cursors} == {"cloud"}
            assert spool.cursor("gone").position == spool.status().head

    asyncio.run(main())


def test_there_is_a_limit_to_the_number_of_cursors(bench):
    async def main():
        async with bench.opened() as spool:
            for n in range(64):
                assert spool.cursor(f"u{n}") is spool.cursor(f"u{n}")
            with pytest.raises(ValueError, match="forget"):
                spool.cursor("one too many")

    asyncio.run(main())


def test_commit_beyond_the_head_or_backwards_does_no_harm(bench):
    async def main():
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            spool.append(bench.batch(1))
            spool.commit(cursor, 1000)
            assert (cursor.committed, cursor.position) == (1, 1)
            spool.commit(cursor, 0)
            assert cursor.committed == 1
            spool.append(bench.batch(2))
            assert bench.numbers(await spool.read(cursor, 9)) == [2]

    asyncio.run(main())


def test_a_second_run_is_refused_and_told_who_has_the_folder(bench):
    async def main():
        async with bench.opened():
            code = (
                "import asyncio, sys; from pathlib import Path;"
                "from gateway.spool.queue import Queue, Limits;"
                "from gateway.clock import SystemClock; from gateway.metrics import Metrics;"
                "asyncio.run(Queue.open(Path(sys.argv[1]), Limits(), clock=SystemClock(), metrics=Metrics()))"
            )
            second = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code, str(bench.folder)], capture_output=True, text=True
            )
            assert second.returncode == 1
            assert f"RefusedError: {bench.folder}/lock: process {os.getpid()} uses this spool" in second.stderr
            with pytest.raises(RefusedError, match=str(os.getpid())):
                await bench.open()
        async with bench.opened():
            assert (bench.folder / "lock").read_text() == f"{os.getpid()}\n"

    asyncio.run(main())


def test_a_folder_that_cannot_be_made_is_refused(bench, tmp_path):
    (tmp_path / "file").write_text("")
    bench.folder = tmp_path / "file" / "spool"
    with pytest.raises(RefusedError, match="cannot be made"):
        asyncio.run(bench.open())


def test_a_folder_that_cannot_be_locked_or_listed_is_refused(bench, make_disk):
    bench.folder.mkdir()
    (bench.folder / "lock").mkdir()
    with pytest.raises(RefusedError, match="cannot be written"):
        asyncio.run(bench.open())
    (bench.folder / "lock").rmdir()
    disk = make_disk()

    def names():
        raise OSError(13, "permission denied")

    disk.names = names
    with pytest.raises(RefusedError, match="cannot be read"):
        asyncio.run(bench.open(disk))
    asyncio.run(_opens(bench))


async def _opens(bench):
    async with bench.opened():
        pass


def test_the_representation_tells_the_state(bench):
    async def main():
        async with bench.opened() as spool:
            spool.cursor("cloud")
            spool.append(bench.batch(1))
            assert repr(spool) == f"Queue(epoch='{spool.epoch}', head=1, durable=0)"

    asyncio.run(main())


def test_status_tells_lag_and_sizes(bench):
    async def main():
        spool = await bench.open()
        up = spool.cursor("cloud")
        for n in range(1, 101):
            spool.append(bench.batch(n))
        await spool.durable()
        spool.commit(up, 40)
        status = spool.status()
        (cursor,) = status.cursors
        assert (status.state, status.head, status.durable) == ("ok", 100, 100)
        assert (cursor.name, cursor.holds, cursor.committed, cursor.lag_records) == ("cloud", True, 40, 60)
        assert 0 < cursor.lag_s < 60, "since it was accepted, whatever time it has"
        assert status.used_bytes == bench.segment_size
        assert 2 * bench.segment_size <= status.allocated_bytes + bench.segment_size <= status.max_bytes
        assert status.frames >= 1
        bench.abandon(spool)
        async with bench.opened() as spool:
            (cursor,) = spool.status().cursors
            assert 55 <= cursor.lag_records <= 100, "an estimate after a restart, not a million skipped numbers"
            await bench.drain(spool, spool.cursor("cloud"))
            (cursor,) = spool.status().cursors
            assert (cursor.lag_records, cursor.lag_s) == (0, 0.0)

    asyncio.run(main())


def test_the_metrics_have_names(bench):
    async def main():
        async with bench.opened() as spool:
            spool.cursor("cloud")
            spool.append(bench.batch(1))
            await spool.durable()
            values = {name: value for name, _, value in bench.metrics if name.startswith("spool_")}
            assert set(values) == {
                "spool_accepted_seq",
                "spool_acked_seq",
                "spool_bytes_written_total",
                "spool_commit_seconds_max",
                "spool_commit_seconds_p50",
                "spool_commit_seconds_p99",
                "spool_corrupt_frames_total",
                "spool_damaged_records_total",
                "spool_degraded",
                "spool_dropped_records_total",
                "spool_durable_seq",
                "spool_evicted_records_total",
                "spool_fill_ratio",
                "spool_flushes_today",
                "spool_flushes_total",
                "spool_frames_total",
                "spool_hours_left",
                "spool_memory_bytes",
                "spool_readonly",
                "spool_refused_records_total",
                "spool_thinned_records_total",
                "spool_used_bytes",
                "spool_written_today_bytes",
            }
            assert (values["spool_accepted_seq"], values["spool_durable_seq"], values["spool_acked_seq"]) == (1, 1, 0)
            assert values["spool_frames_total"] == 1
            assert values["spool_bytes_written_total"] >= 4096
            assert values["spool_commit_seconds_max"] > 0

    asyncio.run(main())


def test_the_usual_limits_are_those_of_the_documentation():
    assert Limits() == Limits(
        max_bytes=1024**3, ram_bytes=16 * 1024**2, commit_interval_s=1.0, commit_bytes=256 * 1024, persist="on_age"
    )
    assert Queue.open.__doc__ is not None
