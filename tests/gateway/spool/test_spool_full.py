"""What gives way when the disk is full: new records, or the detail of old ones; and everybody is told."""

import asyncio
import errno
import logging

import pytest

from gateway.model import Batch, Definition
from gateway.spool.record import Gap, Note
from gateway.spool.window import Window

SLOTS = 131072
METER = Definition("meter", ("power", "count"), ("float64", "uint32"), ("kW", ""), (None, None))
TEXT = Definition("reader", ("code",), ("string",), ("",), (None,))
T0 = 1_795_330_000_000


def works(_what, _name):
    return None


def told(bench, records):
    """Every number, each once: handed out, or told of in a gap."""
    found = []
    for one in bench.numbers(records):
        found += [one] if isinstance(one, int) else range(one[1], one[2] + 1)
    return found


# --- the newest give way ----------------------------------------------------------------------------------------------


def test_where_the_newest_give_way_nothing_old_is_lost_and_it_goes_on_by_itself(
    virtual_bench, run_virtual, make_disk, caplog
):
    bench = virtual_bench
    limit = 4 * bench.segment_size + SLOTS

    async def main():
        disk = make_disk()
        async with bench.opened(disk, max_bytes=limit, ram_bytes=60_000, full="drop_newest") as spool:
            fast, slow = spool.cursor("fast"), spool.cursor("slow")
            seen = []
            for n in range(1, 401):
                assert spool.append(bench.batch(n, size=1500)) == n
                await asyncio.sleep(0.05)
                seen += await bench.drain(spool, fast)
                assert spool.status().ram_bytes <= 60_000
            status = spool.status()
            assert (status.state, status.evicted, status.dropped) == ("full", 0, 0)
            assert status.refused > 50
            (lost,) = status.lost
            assert (lost.cause, lost.count, lost.last_seq) == ("refused", status.refused, 400)
            assert lost.first_time == bench.batch(lost.first_seq).time
            assert told(bench, seen) == list(range(1, 401))
            begun = await bench.drain(spool, slow, commit=False)
            slow.rewind()
            assert told(bench, begun) == list(range(1, 401))
            assert [r for r in bench.numbers(begun) if not isinstance(r, int)] == [
                ("refused", lost.first_seq, 400, status.refused)
            ]
            spool.commit(slow, 60)
            for n in range(401, 441):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(0.1)
            await bench.until(lambda: spool.status().durable == 440, "the disk to take the rest")
            assert spool.status().state == "ok"
            assert spool.status().refused == status.refused + 0 or spool.status().refused < status.refused + 40
        found = disk.copy()
        async with bench.opened(found, max_bytes=limit, full="drop_newest") as spool:
            records = await bench.drain(spool, spool.cursor("slow"))
            assert told(bench, records) == list(range(61, 441))
            assert {r.gap.cause for r in records if r.gap is not None} == {"refused"}
        begins = [r for r in caplog.records if "are not taken" in r.message]
        assert len(begins) == 1
        assert begins[0].levelno == logging.ERROR
        assert "of class data" in begins[0].message
        assert any("refused in all" in r.message for r in caplog.records)
        assert len([r for r in caplog.records if "new ones wait in memory" in r.message]) == 1

    run_virtual(main())


def test_a_disk_that_fails_makes_new_records_give_way_too_where_that_is_the_rule(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, ram_bytes=40_000, full="drop_newest") as spool:
            cursor = spool.cursor("cloud")
            disk.fault = lambda what, name: OSError(errno.EIO, "the disk fails") if what == "fdatasync" else None
            for n in range(1, 1001):
                spool.append(bench.batch(n))
                await asyncio.sleep(0.1)
            status = spool.status()
            assert (status.state, status.dropped) == ("degraded", 0)
            disk.fault = works
            await spool.durable()
            found = bench.numbers(await bench.drain(spool, cursor))
            kept = [n for n in found if isinstance(n, int)]
            assert kept == list(range(1, len(kept) + 1))
            assert told(bench, await bench.drain(spool, cursor)) == []
            assert {g[0] for g in found if not isinstance(g, int)} == {"refused"}
            assert sum(g[3] for g in found if not isinstance(g, int)) == status.refused

    run_virtual(main())


def test_a_stop_while_there_is_no_room_says_what_is_lost(virtual_bench, run_virtual, make_disk, caplog):
    bench = virtual_bench
    limit = 3 * bench.segment_size + SLOTS

    async def main():
        disk = make_disk()
        spool = await bench.open(disk, max_bytes=limit, full="drop_newest")
        spool.cursor("cloud")
        for n in range(1, 301):
            spool.append(bench.batch(n, size=1500))
            await asyncio.sleep(0.05)
        durable = spool.status().durable
        assert durable < 300
        await spool.close()
        assert "is full" in caplog.text
        async with bench.opened(disk, max_bytes=limit, full="drop_newest") as spool:
            records = await bench.drain(spool, spool.cursor("cloud"))
            assert told(bench, records) == list(range(1, 301))
            assert [r.gap.first_seq for r in records if r.gap is not None] == [durable + 1]

    run_virtual(main())


def test_refused_records_are_one_gap_until_somebody_has_it_in_his_hands(bench):
    from gateway.spool.record import Record

    window = Window(0)
    for n in range(1, 4):
        window.append(Record(n, "e", bench.batch(n)), 100, float(n))
    assert window.refuse(0, "e") == Gap(3, 3, bench.batch(3).time, bench.batch(3).time, 1, "refused")
    window.append(Record(4, "e", bench.batch(4)), 100, 4.0)
    window.refuse(0, "e")
    assert bench.numbers(window.after(0, 10)) == [1, 2, ("refused", 3, 4, 2)]
    assert window.bytes == 500
    window.append(Record(5, "e", bench.batch(5)), 100, 5.0)
    window.refuse(4, "e")
    assert bench.numbers(window.after(0, 10)) == [1, 2, ("refused", 3, 4, 2), ("refused", 5, 5, 1)]
    assert window.time_after(3) == 3.0
    assert window.head == 5


# --- detail gives way -------------------------------------------------------------------------------------------------


def sample(n):
    """A second's values: a ripple with a spike in five minutes."""
    return Batch(METER, T0 + 1000 * n, [1000.0 if n % 300 == 150 else (n * 7919 % 1000) / 7, n])


async def outage(bench, spool, seconds, begin=1):
    for n in range(begin, begin + seconds):
        spool.append(sample(n))
        if n % 5 == 0:
            await asyncio.sleep(1.0)
    await spool.durable()
    await asyncio.sleep(30)


def limits(bench, **more):
    return {
        "max_bytes": 8 * bench.segment_size + SLOTS,
        "ram_bytes": 20_000,
        "full": "thin",
        "thin_s": 10.0,
        "commit_interval_s": 0.5,
    } | more


def check_thinned(records, seconds):
    """Spikes are there, the ends of windows too; numbers only grow; gaps tell of what went."""
    seqs = [r.seq for r in records]
    assert seqs == sorted(set(seqs))
    batches = [r for r in records if r.batch is not None]
    powers = {n: value for r in batches for n, value in at_positions(r.batch) if n == 0 and value == 1000.0}
    assert powers
    spikes = [r.seq for r in batches if (0, 1000.0) in at_positions(r.batch)]
    assert spikes == [n for n in range(1, seconds + 1) if n % 300 == 150]
    assert any(r.is_thinned for r in batches)
    for record in batches:
        assert record.batch.time == T0 + 1000 * record.seq
        for position, value in at_positions(record.batch):
            assert value == sample(record.seq).values[position]
    there = {r.seq for r in batches}
    gone = [n for n in range(1, seconds + 1) if n not in there]
    gaps = [r.gap for r in records if r.gap is not None]
    assert {g.cause for g in gaps} == {"thinned"}
    assert sum(g.count for g in gaps) == len(gone)
    assert all(g.first_seq in gone and g.last_seq in gone for g in gaps)
    assert all(any(g.first_seq <= n <= g.last_seq for g in gaps) for n in gone)


def at_positions(batch):
    return list(zip(range(2) if batch.index is None else batch.index, batch.values, strict=True))


def test_thinning_multiplies_the_reach_and_what_matters_is_still_there(virtual_bench, run_virtual, make_disk, caplog):
    bench, seconds = virtual_bench, 4000

    async def main():
        disk = make_disk()
        async with bench.opened(disk, **limits(bench)) as spool:
            cursor = spool.cursor("cloud")
            await outage(bench, spool, seconds)
            status = spool.status()
            assert (status.evicted, status.dropped, status.refused) == (0, 0, 0)
            assert status.thinned > seconds / 10
            assert status.state == "full"
            assert status.allocated_bytes <= status.max_bytes
            assert sum(len(f.cache) for f in disk.names_now.values()) <= status.max_bytes
            records = await bench.drain(spool, cursor, commit=False)
            check_thinned(records, seconds)
            cursor.rewind()
            again = await bench.drain(spool, cursor)
            assert [(r.seq, r.gap) for r in again] == [(r.seq, r.gap) for r in records]
        (lost,) = [loss for loss in status.lost if loss.cause == "thinned"]
        assert lost.count == status.thinned
        assert len([r for r in caplog.records if "only the main values are left of" in r.message]) == 1

    run_virtual(main())


def test_after_a_restart_it_reads_the_same_and_thinning_goes_on(virtual_bench, run_virtual, make_disk):
    bench, seconds = virtual_bench, 4000

    async def main():
        disk = make_disk()
        spool = await bench.open(disk, **limits(bench))
        spool.cursor("cloud")
        await outage(bench, spool, seconds)
        head = spool.status().head
        bench.abandon(spool)
        disk = disk.crash(3)
        spool = await bench.open(disk, **limits(bench))
        cursor = spool.cursor("cloud")
        records = await bench.drain(spool, cursor, commit=False)
        check_thinned(records, head)
        cursor.rewind()
        first = spool.head + 1
        await outage(bench, spool, 1000, begin=first)
        assert spool.status().evicted == 0
        again = await bench.drain(spool, cursor)
        assert {r.seq for r in again if r.batch and r.seq <= head} <= {r.seq for r in records if r.batch}
        assert {r.epoch for r in again} == {records[0].epoch, spool.epoch}
        await spool.close()

    run_virtual(main())


def test_a_reader_in_the_backlog_goes_on_while_it_is_thinned_under_its_feet(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, **limits(bench)) as spool:
            slow = spool.cursor("slow")
            seen = []
            for n in range(1, 4001):
                spool.append(sample(n))
                if n % 5 == 0:
                    await asyncio.sleep(1.0)
                if n % 40 == 0:  # reads a tenth of what comes, without acknowledging
                    found = spool.take(slow, 4)
                    if found is None:
                        await spool.fetch(slow, 4)
                        found = spool.take(slow, 4)
                    seen += found
            assert spool.status().thinned
            seen += await bench.drain(spool, slow, commit=False)
            seqs = [r.seq for r in seen]
            assert seqs == sorted(set(seqs))
            assert {r.gap.cause for r in seen if r.gap is not None} <= {"thinned"}
            there = {r.seq for r in seen if r.batch is not None}
            gone = set(range(1, 4001)) - there
            covered = {n for r in seen if r.gap is not None for n in range(r.gap.first_seq, r.gap.last_seq + 1)}
            assert gone <= covered

    run_virtual(main())


def test_what_is_no_batch_survives_thinning(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, **limits(bench)) as spool:
            cursor = spool.cursor("cloud")
            notes = []
            for n in range(1, 3001):
                if n % 100 == 0:
                    notes.append(spool.add(Note(T0 + 1000 * n, "door", {"n": n}), "event"))
                spool.append(sample(n))
                if n % 5 == 0:
                    await asyncio.sleep(1.0)
            assert spool.status().thinned
            records = await bench.drain(spool, cursor)
            assert [r.seq for r in records if r.kind == "event"] == notes
            assert [r.other.fields["n"] for r in records if r.kind == "event"] == list(range(100, 3001, 100))

    run_virtual(main())


def test_values_that_cannot_be_thinned_are_given_up_as_ever(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        async with bench.opened(disk, **limits(bench, max_bytes=6 * bench.segment_size + SLOTS)) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 601):
                text = bench.batch(n, size=1500).values[0]  # each another
                spool.append(Batch(TEXT, T0 + 1000 * n, [text]))
                await asyncio.sleep(0.5)
            status = spool.status()
            assert status.evicted
            assert sum(len(f.cache) for f in disk.names_now.values()) <= status.max_bytes
            found = await bench.drain(spool, cursor)
            assert found[0].gap.cause == "evicted"
            assert [r.seq for r in found] == list(range(found[0].seq, 601))
            assert not any(r.is_thinned for r in found)
            zeros = 6 * bench.segment_size
            assert disk.written < 2.2 * 600 * 1500 + zeros + 2 * 600 * 4096, "not written again and again in vain"

    run_virtual(main())


@pytest.mark.parametrize(
    ("seed", "step"), [(0, 23), *(pytest.param(seed, 7, marks=pytest.mark.long) for seed in range(7))]
)
@pytest.mark.timeout(300)
def test_wherever_the_power_fails_nothing_is_missing_that_is_not_told_of(
    virtual_bench, run_virtual, make_disk, seed, step
):
    bench = virtual_bench
    cuts = iter(range(250 + seed, 100_000, step))
    found = {"thinned": 0}

    async def run(disk):
        spool = await bench.open(disk, **limits(bench, max_bytes=6 * bench.segment_size + SLOTS))
        spool.cursor("cloud")
        durable = 0
        try:
            for n in range(1, 2001):
                spool.append(sample(n))
                if n % 10 == 0:
                    await asyncio.sleep(2.0)
                    durable = spool.status().durable
                    if disk.is_off:
                        break
        finally:
            bench.abandon(spool)
        return durable

    async def verify(disk, durable):
        async with bench.opened(disk, **limits(bench, max_bytes=6 * bench.segment_size + SLOTS)) as spool:
            records = await bench.drain(spool, spool.cursor("cloud"))
        seqs = [r.seq for r in records]
        assert seqs == sorted(set(seqs))
        there = {r.seq for r in records if r.batch is not None}
        gaps = [r.gap for r in records if r.gap is not None and r.gap.first_seq <= durable]
        assert {g.cause for g in gaps} <= {"thinned"}
        covered = {n for g in gaps for n in range(g.first_seq, g.last_seq + 1)}
        assert not set(range(1, durable + 1)) - there - covered
        assert all(n in there for n in range(1, durable + 1) if n % 300 == 150), "the spikes"
        found["thinned"] += bool(gaps)

    for cut_at in cuts:
        disk = make_disk(cut_at=cut_at, seed=seed)
        durable = run_virtual(run(disk))
        if not disk.is_off:
            break
        run_virtual(verify(disk.crash(seed + cut_at), durable))
    assert found["thinned"] > 10


# --- kept although acknowledged, and folders that vanish --------------------------------------------------------------


def on_the_disk(bench, spool):
    """The numbers of all records that a second look would find."""
    from gateway.spool.backlog import Backlog, Request

    backlog, position, place, found = Backlog(spool._store.reader), 0, None, []
    while (fetched := backlog.fetch(Request(position, True, (), place, 1000))).records:
        found += [r.seq for r in fetched.records if r.batch is not None]
        position, place = fetched.records[-1].seq, fetched.place
    return found


def test_what_is_acknowledged_stays_for_a_second_look_as_long_as_there_is_room(virtual_bench, run_virtual, make_disk):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        more = {"max_bytes": 60 * bench.segment_size + SLOTS, "persist": "always", "keep_s": 600.0}
        async with bench.opened(disk, commit_interval_s=1.0, **more) as spool:
            cursor = spool.cursor("cloud")
            for n in range(1, 1501):
                spool.append(bench.batch(n, size=1500))
                await bench.drain(spool, cursor)
                await asyncio.sleep(1.0)
            found = on_the_disk(bench, spool)
            assert found == list(range(found[0], 1501))
            assert 600 <= len(found) <= 700
            assert spool.status().used_bytes <= bench.segment_size
            assert spool.status().state == "ok"
            assert spool.status().fill < 0.1, "what is only kept makes nothing full"

    run_virtual(main())


def test_a_folder_that_somebody_removes_is_told_of_and_it_goes_on_when_it_is_back(bench, caplog):
    import shutil

    async def main():
        async with bench.opened() as spool:
            cursor = spool.cursor("cloud")
            spool.append(bench.batch(1))
            await spool.durable()
            aside = bench.folder.with_name("aside")
            bench.folder.rename(aside)
            spool.append(bench.batch(2))
            await bench.until(lambda: spool.status().state == "degraded", "the loss to be noticed")
            assert "No such file or directory" in caplog.text
            bench.folder.mkdir()
            await bench.until(lambda: spool.status().state == "ok", "the folder to be used again")
            spool.append(bench.batch(3))
            await spool.durable()
            assert on_the_disk(bench, spool) == [2, 3]
            assert bench.numbers(await bench.drain(spool, cursor)) == [1, 2, 3], "memory had the first"
            shutil.rmtree(aside)
        assert (bench.folder / "slots").exists()
        async with bench.opened() as spool:
            assert bench.numbers(await bench.drain(spool, spool.cursor("cloud"))) == []

    asyncio.run(main())


def test_records_for_an_uplink_that_is_gone_give_way_before_new_ones_are_refused(
    virtual_bench, run_virtual, make_disk, caplog
):
    bench = virtual_bench
    more = {"max_bytes": 4 * bench.segment_size + SLOTS, "ram_bytes": 60_000, "full": "drop_newest"}

    async def main():
        disk = make_disk()
        async with bench.opened(disk, **more) as spool:
            spool.cursor("old")
            spool.cursor("new")
            for n in range(1, 61):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(0.05)
        async with bench.opened(disk, **more) as spool:
            cursor = spool.cursor("new")
            spool.retire()
            await bench.drain(spool, cursor)
            begin = spool.head + 1
            for n in range(begin, begin + 60):
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(0.5)
            status = spool.status()
            assert (status.refused, status.durable) == (0, begin + 59)
            assert 0 < status.evicted <= 60
            for n in range(begin + 60, begin + 260):  # from here on it is the newest again that give way
                spool.append(bench.batch(n, size=1500))
                await asyncio.sleep(0.5)
            assert spool.status().refused
            assert spool.status().evicted <= 60
        assert len([r for r in caplog.records if "no uplink has that name now" in r.message]) == 1
        async with bench.opened(disk, **more) as spool:
            found = await bench.drain(spool, spool.cursor("new"), commit=False)
            assert told(bench, found) == list(range(begin, begin + 260))
            assert {r.gap.cause for r in found if r.gap is not None} == {"memory"}, (
                "at the stop nothing could be written"
            )
            first = (await bench.drain(spool, spool.cursor("old")))[0].gap
            assert (first.cause, first.first_seq) == ("evicted", 1)

    run_virtual(main())


def test_what_two_identities_wrote_is_thinned_apart_and_nothing_of_it_becomes_unreadable(
    virtual_bench, run_virtual, make_disk
):
    bench = virtual_bench

    async def main():
        disk = make_disk()
        first = await bench.open(disk, **limits(bench))
        first.cursor("cloud")
        await outage(bench, first, 800)
        await first.close()
        disk.fault = lambda what, name: OSError(errno.EIO, "the disk fails") if name.startswith("slots") else None
        second = await bench.open(disk, **limits(bench))
        disk.fault = works
        cursor = second.cursor("cloud")
        begin = second.head + 1
        await outage(bench, second, 3000, begin)
        records = await bench.drain(second, cursor)
        there = {r.seq for r in records if r.batch is not None}
        gaps = [r.gap for r in records if r.gap is not None]
        assert {gap.cause for gap in gaps} == {"thinned"}
        gone = {*range(1, 801), *range(begin, begin + 3000)} - there
        assert all(any(gap.first_seq <= n <= gap.last_seq for gap in gaps) for n in gone)
        assert {r.epoch for r in records} == {first.epoch, second.epoch}
        await second.close()

    run_virtual(main())
