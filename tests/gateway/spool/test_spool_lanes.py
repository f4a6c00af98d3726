"""A queue read by several heads: what is new goes past a backlog, and nothing is lost, doubled or written for it."""

import asyncio
import itertools

import pytest

from gateway.spool.cursor import Span


def connect(spool, cursor):
    """What a connection does: everything up to now is backlog."""
    cursor.rewind(until=spool.head)
    return cursor.branch(spool.head)


async def some(spool, reading, n):
    """Up to `n` records, from memory or disk."""
    while (found := spool.take(reading, n)) is None:
        await spool.fetch(reading, n)
    return list(found)


def data(records):
    return [r.batch.values[1] for r in records if r.batch is not None]


# --- what is acknowledged out of order --------------------------------------------------------------------------------


def test_what_goes_past_a_backlog_is_not_written(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        spool = await bench.open(disk, commit_interval_s=1.0, ram_bytes=200_000)
        cursor = spool.cursor("cloud")
        for n in range(1, 201):
            spool.append(bench.batch(n))
        await spool.durable()
        live = connect(spool, cursor)
        before = spool.status().frames
        for n in range(201, 5001):
            spool.append(bench.batch(n))
            spool.commit(live, data(await some(spool, live, 10))[-1])
            assert spool.status().ram_bytes < 100_000
            await asyncio.sleep(0.05)
        assert spool.status().frames == before
        assert (cursor.committed, cursor.islands) == (0, [(201, 5000)])
        assert spool.status().durable == 5000
        assert spool.status().cursors[0].lag_records == 200
        await asyncio.sleep(100)  # positions are stored now and then, islands with them
        bench.abandon(spool)
        async with bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            assert data(await bench.drain(spool, cursor)) == list(range(1, 201))
            assert cursor.islands == []
            assert cursor.committed >= 5000

    run_virtual(main())


def test_what_one_uplink_has_out_of_order_is_written_for_one_that_lags(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        spool = await bench.open(disk, commit_interval_s=1.0)
        fast, slow = spool.cursor("fast"), spool.cursor("slow")
        for n in range(1, 11):
            spool.append(bench.batch(n))
        await spool.durable()
        live = connect(spool, fast)
        for n in range(11, 101):
            spool.append(bench.batch(n))
            spool.commit(live, n)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        bench.abandon(spool)
        async with bench.opened(disk.crash()) as spool:
            assert data(await bench.drain(spool, spool.cursor("slow"))) == list(range(1, 101))
            assert set(data(await bench.drain(spool, spool.cursor("fast")))) >= set(range(1, 11))
        assert slow.islands == []

    run_virtual(main())


def test_the_backlog_goes_on_after_many_connections_and_hands_out_each_record_once(
    run_virtual, virtual_bench, make_disk
):
    bench = virtual_bench

    async def main():
        async with bench.opened(make_disk(), commit_interval_s=1.0, ram_bytes=40_000) as spool:
            cursor = spool.cursor("cloud")
            seen, n = [], 0
            for _ in range(300):
                n += 1
                spool.append(bench.batch(n))
                if n % 30 == 0:
                    await spool.durable()
            for _ in range(20):
                live = connect(spool, cursor)
                for _ in range(7):
                    n += 1
                    spool.append(bench.batch(n))
                    found = await some(spool, live, 10)
                    seen += data(found)
                    spool.commit(live, found[-1].seq)
                    await asyncio.sleep(0.3)
                found = await some(spool, cursor, 5)
                seen += data(found)
                spool.commit(cursor, found[-1].seq)
                n += 1
                spool.append(bench.batch(n))  # the connection is lost, and this waits
                await asyncio.sleep(2)
            assert len(cursor.islands) == 20
            live = connect(spool, cursor)
            seen += data(await bench.drain(spool, cursor))
            assert sorted(seen) == list(range(1, n + 1))
            spool.commit(cursor, cursor.until)
            assert cursor.islands == []
            assert spool.status().cursors[0].lag_records == 0

    run_virtual(main())


def test_an_island_at_the_very_end_of_the_backlog_ends_it(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        async with bench.opened(make_disk(), commit_interval_s=1.0) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(bench.batch(n))
            live = connect(spool, cursor)
            for n in range(11, 21):
                spool.append(bench.batch(n))
            spool.commit(live, 20)
            connect(spool, cursor)
            assert data(await bench.drain(spool, cursor)) == list(range(1, 11))
            assert cursor.committed == 20
            assert cursor.is_done

    run_virtual(main())


def test_what_was_acknowledged_out_of_order_is_not_handed_out_again_after_a_restart(
    run_virtual, virtual_bench, make_disk
):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, persist="always") as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 101):
                if n in (31, 71):
                    live = connect(spool, cursor)
                spool.append(bench.batch(n))
                if n in (50, 90):
                    spool.commit(live, n)
            await spool.durable()
        async with bench.opened(disk) as spool:
            cursor = spool.cursor("cloud")
            assert cursor.islands == [(31, 50), (71, 90)]
            assert spool.status().cursors[0].lag_records in (60, 100), "an estimate, of an earlier start"
            found = await bench.drain(spool, cursor)
            assert bench.numbers(found) == [*range(1, 31), *range(51, 71), *range(91, 101)]
            assert cursor.islands == []

    run_virtual(main())


# --- what is lost meanwhile -------------------------------------------------------------------------------------------


def test_no_gap_covers_what_is_acknowledged_out_of_order(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        limit = 4 * bench.segment_size + 131072
        async with bench.opened(disk, max_bytes=limit, ram_bytes=40_000) as spool:
            cursor, other = spool.cursor("cloud"), spool.cursor("other")
            acknowledged = set()
            live = connect(spool, cursor)
            for n in range(1, 401):
                spool.append(bench.batch(n, size=1500))
                if n % 40 == 1:
                    live = connect(spool, cursor)
                if 10 < n % 40 < 30:
                    found = await some(spool, live, 100)
                    spool.commit(live, found[-1].seq)
                    acknowledged |= set(data(found))
                if n % 10 == 0:
                    await spool.durable()
            connect(spool, cursor)
            found = await bench.drain(spool, cursor)
            gaps = [r.gap for r in found if r.gap is not None]
            assert {gap.cause for gap in gaps} == {"evicted"}
            lost = {seq for gap in gaps for seq in range(gap.first_seq, gap.last_seq + 1)}
            assert not lost & acknowledged
            assert not lost & set(data(found))
            assert lost | acknowledged | set(data(found)) == set(range(1, 401))
            assert sum(gap.count for gap in gaps) == len(lost)
            assert [r.seq for r in found] == sorted(r.seq for r in found)
            other.rewind()
            assert [r.gap.cause for r in await bench.drain(spool, other) if r.gap is not None] == ["evicted"]

    run_virtual(main())


def test_damage_where_everything_is_acknowledged_is_nobody_s_loss(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            cursor, other = spool.cursor("cloud"), spool.cursor("other")
            live = connect(spool, cursor)
            for n in range(1, 61):
                if n == 21:
                    live = connect(spool, cursor)
                spool.append(bench.batch(n))
                if n % 10 == 0:
                    await spool.durable()
            spool.commit(live, 40)
            connect(spool, cursor)
            spool._window.release(60)
            (segment,) = [s for s in spool._store.writer.segments if s.first is not None]
            heads = spool._store.writer._heads(segment)
            file = disk.open(segment.name)
            for head in heads:
                if 21 <= head.first_seq <= 40:
                    disk.pwrite(file, b"x" * 10, head.offset + head.length + 5)
            found = await bench.drain(spool, cursor)
            assert [r.gap for r in found if r.gap is not None] == []
            assert data(found) == [*range(1, 21), *range(41, 61)]
            found = await bench.drain(spool, other)
            assert sum(r.gap.count for r in found if r.gap is not None) == 20

    run_virtual(main())


# --- power cuts -------------------------------------------------------------------------------------------------------


class Witness:
    """What the outside world knows: what was called durable, and what the uplink acknowledged."""

    def __init__(self):
        self.durable = 0
        self.appended = 0
        self.acknowledged = set()


async def work(bench, disk, witness, *, rounds):
    """An uplink that comes and goes: what is new goes first, the backlog a few records a round."""
    spool = await bench.open(disk, commit_interval_s=60.0, max_bytes=bench.max_bytes, ram_bytes=30_000)
    try:
        cursor = spool.cursor("cloud")
        live = connect(spool, cursor)
        for turn in range(rounds):
            for _ in range(3):
                witness.appended += 1
                spool.append(bench.batch(witness.appended, size=1500))
            is_down = turn % 10 < 5
            if turn % 10 == 5:
                live = connect(spool, cursor)
            if not is_down:
                for reading, n in ((live, 10), (cursor, 2)):
                    found = await some(spool, reading, n)
                    for record in found:
                        witness.acknowledged.add(record.batch.values[1])
                        spool.commit(reading, record.seq)
            if turn % 3 == 0:
                waiting = asyncio.ensure_future(spool.durable())
                while not waiting.done() and not disk.is_off:  # noqa: ASYNC110 - the disk knows no events
                    await asyncio.sleep(0)
                if not waiting.done():
                    waiting.cancel()
                    return
                witness.durable = witness.appended
    finally:
        bench.abandon(spool)


async def verify(bench, disk, witness):
    async with bench.opened(disk, max_bytes=bench.max_bytes) as spool:
        cursor = spool.cursor("cloud")
        records = await bench.drain(spool, cursor)
        found = [r.batch.values[1] for r in records if r.batch is not None]
        assert found == sorted(set(found)), "in order, each once"
        gaps = [r.gap for r in records if r.gap is not None]
        assert [gap for gap in gaps if gap.first_seq <= witness.durable] == [], "nothing is told of falsely"
        assert set(range(1, witness.durable + 1)) <= set(found) | witness.acknowledged


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.timeout(300)
def test_nothing_durable_is_lost_wherever_the_power_fails_while_new_records_go_first(virtual_bench, make_disk, seed):
    from gateway.clock import SystemClock

    bench = virtual_bench
    bench.clock, bench.max_bytes = SystemClock(), 20 * 64 * 1024 + 131072
    for cut_at in itertools.count(1, 2):
        disk, witness = make_disk(cut_at=cut_at, seed=seed), Witness()
        asyncio.run(work(bench, disk, witness, rounds=50))
        if not disk.is_off:
            assert cut_at > 60
            break
        asyncio.run(verify(bench, disk.crash(seed + cut_at), witness))


# --- names that go and come back --------------------------------------------------------------------------------------


def test_a_name_that_is_gone_keeps_what_it_had_and_holds_nothing_new(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, commit_interval_s=1.0) as spool:
            spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(bench.batch(n))
        async with bench.opened(disk, commit_interval_s=1.0) as spool:
            spool.retire()
            assert spool.status().cursors[0].retired
            assert spool.status().cursors[0].lag_records == 10
            frames = spool.status().frames
            for n in range(11, 21):
                spool.append(bench.batch(n))
            await asyncio.sleep(10)
            assert spool.status().frames == frames, "nobody wants them"
            assert spool.status().cursors[0].lag_records == 10
            assert spool.status().used_bytes > 0
        async with bench.opened(disk, commit_interval_s=1.0) as spool:
            cursor = spool.cursor("cloud")
            assert not spool.status().cursors[0].retired
            spool.append(bench.batch(21))
            found = await bench.drain(spool, cursor)
            assert bench.numbers(found) == [*range(1, 11), ("overtaken", 11, 20, 10), 21]
            cursor.rewind()
            assert await bench.drain(spool, cursor) == []
            assert cursor.losses == ()

    run_virtual(main())


def test_a_name_that_is_gone_gets_nothing_of_what_others_hold(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, commit_interval_s=1.0) as spool:
            spool.cursor("cloud")
            spool.cursor("other")
            for n in range(1, 11):
                spool.append(bench.batch(n))
        async with bench.opened(disk, commit_interval_s=1.0) as spool:
            other = spool.cursor("other")
            spool.retire()
            for n in range(11, 21):
                spool.append(bench.batch(n))
            await spool.durable()
            spool.commit(other, 13)
        async with bench.opened(disk, commit_interval_s=1.0) as spool:
            cloud = spool.cursor("cloud")
            spool.append(bench.batch(21))
            found = await bench.drain(spool, cloud)
            assert bench.numbers(found) == [*range(1, 11), ("overtaken", 11, 20, 10), 21]
            assert bench.numbers(await bench.drain(spool, spool.cursor("other"))) == list(range(14, 22))

    run_virtual(main())


def test_a_name_that_is_gone_for_good_is_forgotten_by_command_only(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk) as spool:
            spool.cursor("cloud")
            spool.append(bench.batch(1))
        for _ in range(3):
            async with bench.opened(disk) as spool:
                spool.retire()
                assert [c.lag_records for c in spool.status().cursors] == [1]
        async with bench.opened(disk) as spool:
            spool.forget("cloud")
            assert spool.status().used_bytes == 0
        async with bench.opened(disk) as spool:
            assert spool.status().cursors == ()

    run_virtual(main())


# --- once more --------------------------------------------------------------------------------------------------------


def test_what_is_on_the_disk_or_in_memory_of_a_time_is_handed_out_once_more(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        async with bench.opened(make_disk(), persist="always", ram_bytes=40_000) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 301):
                spool.append(bench.batch(n))
                if n % 20 == 0 and n < 300:
                    await spool.durable()
            found = await bench.drain(spool, cursor)
            start = bench.batch(0).time
            again = cursor.branch(0, spool.head, Span(start + 100, start + 299))
            assert data(await bench.drain(spool, again, commit=False)) == list(range(100, 300))
            assert again.is_done
            assert cursor.committed == 300
            again = cursor.branch(0, spool.head, Span(0, 1))
            assert await bench.drain(spool, again, commit=False) == []
            assert again.is_done
            assert data(found) == list(range(1, 301))

    run_virtual(main())


def test_once_more_tells_of_no_gaps_and_stops_at_what_was_newest_then(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        async with bench.opened(make_disk(), commit_interval_s=1.0) as spool:
            cursor, fast = spool.cursor("cloud"), spool.cursor("fast")
            for n in range(1, 11):
                spool.append(bench.batch(n))
            await spool.durable()
            spool.commit(cursor, 10)
            spool.commit(fast, 10)
            for n in range(11, 21):
                spool.append(bench.batch(n))
            spool.commit(cursor, 20)
            spool.commit(fast, 20)  # never written
            for n in range(21, 31):
                spool.append(bench.batch(n))
            again = cursor.branch(0, spool.head, Span(0, 1 << 60))
            spool.append(bench.batch(31))
            assert data(await bench.drain(spool, again, commit=False)) == [*range(1, 11), *range(21, 31)]

    run_virtual(main())


def test_a_gap_in_a_frame_is_told_of_on_both_sides_of_what_was_acknowledged_in_it(
    run_virtual, virtual_bench, make_disk
):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, commit_interval_s=60.0, ram_bytes=20_000) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 11):
                spool.append(bench.batch(n))
            live = connect(spool, cursor)
            for n in range(11, 21):
                spool.append(bench.batch(n))
            spool.commit(live, 20)
            disk.fault = lambda what, name: OSError(5, "input/output error") if what == "fdatasync" else None
            for n in range(21, 161):
                spool.append(bench.batch(n))
            disk.fault = lambda what, name: None
            await spool.durable()
            spool._window.release(160)
            cursor.rewind()
            gaps = [r.gap for r in await bench.drain(spool, cursor) if r.gap is not None]
            assert {gap.cause for gap in gaps} == {"memory"}
            assert gaps[0].first_seq == 1
            assert gaps[0].last_seq == 10
            assert gaps[1].first_seq == 21

    run_virtual(main())


def test_a_name_that_is_gone_is_told_what_it_missed_though_that_start_was_killed(run_virtual, virtual_bench, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, commit_interval_s=60.0) as spool:
            spool.cursor("cloud")
            spool.cursor("other")
            spool.append(bench.batch(1))
        spool = await bench.open(disk, commit_interval_s=60.0)
        other = spool.cursor("other")
        await asyncio.sleep(100)  # whatever else is to be stored is
        spool.retire()
        spool.append(bench.batch(2))
        await bench.drain(spool, other)
        await asyncio.sleep(0.1)
        bench.abandon(spool)
        for name in ("other", "cloud"):  # still gone at the next start, and back at the one after it
            async with bench.opened(disk, commit_interval_s=60.0) as spool:
                cursor = spool.cursor(name)
                spool.retire()
                found = await bench.drain(spool, cursor, commit=False)
        assert data(found) == [1]
        assert [(r.gap.cause, r.gap.first_seq) for r in found if r.gap is not None] == [("overtaken", 2)]

    run_virtual(main())
