"""Damage on the disk: every start succeeds, what is whole is handed out, and what is not is a gap."""

import asyncio

import pytest

from gateway.journal.frame import LONGEST_HEAD, parse
from gateway.journal.segment import name_of
from gateway.journal.slots import SLOT_SIZE


async def filled(bench, disk, *, records=120, stop="killed"):
    """About thirty frames of four records, in several segments; nobody has acknowledged anything."""
    spool = await bench.open(disk, commit_interval_s=60.0)
    spool.cursor("cloud")
    for n in range(1, records + 1):
        spool.append(bench.batch(n, size=1500))
        if n % 4 == 0:
            await spool.durable()
    if stop == "killed":
        bench.abandon(spool)
    else:
        await spool.close()
    return spool


async def reread(bench, disk):
    async with bench.opened(disk) as spool:
        records = await bench.drain(spool, spool.cursor("cloud"))
        spool.append(bench.batch(1000))
        await spool.durable()
        return bench.numbers(records), spool.status()


def batches(found):
    return [n for n in found if isinstance(n, int)]


def gaps(found):
    return [g for g in found if not isinstance(g, int)]


def test_a_damaged_frame_in_the_middle_costs_its_records_and_is_a_gap(bench, make_disk, caplog):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk)
        heads = list(walk(spool))
        victim = heads[len(heads) // 2]
        cache = disk.names_now[name_of(victim.segment)].cache
        cache[victim.offset + victim.length + 5] ^= 1
        found, status = await reread(bench, disk.copy())
        lost = range(victim.first_seq, victim.last_seq + 1)
        assert gaps(found) == [("damaged", victim.first_seq, victim.last_seq, victim.count)]
        assert batches(found) == [n for n in range(1, 121) if n not in lost]
        assert status.corrupt == 1
        assert f"records {victim.first_seq} to {victim.last_seq}" in caplog.text

    asyncio.run(main())


def walk(spool):
    reader, seq, place = spool._store.reader, 0, None
    while (found := reader.after(seq, place)).head is not None:
        yield found.head
        seq, place = found.head.last_seq, found.place


def test_a_damaged_head_is_told_by_the_frame_that_follows(bench, make_disk):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk)
        victims = list(walk(spool))[5:8]
        for victim in victims:
            disk.names_now[name_of(victim.segment)].cache[victim.offset + 40] ^= 1
        found, status = await reread(bench, disk.copy())
        assert gaps(found) == [("damaged", victims[0].first_seq, victims[-1].last_seq, 12)]
        assert status.corrupt == 3

    asyncio.run(main())


def test_a_damaged_frame_at_the_end_of_a_start_is_told_by_its_own_head(bench, make_disk):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk)
        last = list(walk(spool))[-1]
        disk.names_now[name_of(last.segment)].cache[last.offset + last.length] ^= 1
        found, _ = await reread(bench, disk.copy())
        assert batches(found) == list(range(1, 117))
        assert gaps(found) == [("damaged", 117, 120, 4)]

    asyncio.run(main())


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("damage", ["zeroed", "missing", "garbage"])
def test_a_lost_segment_is_a_gap_unless_it_was_the_end_of_all(bench, make_disk, which, damage):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk, records=240)
        segment = spool._store.writer.segments[which]
        lost = range(segment.first.first_seq, segment.last_seq + 1)
        if damage == "missing":
            disk.unlink(segment.name)
        else:
            junk = bytes(segment.size) if damage == "zeroed" else b"\xa5" * segment.size
            disk.put(segment.name, junk)
        found, _ = await reread(bench, disk.copy())
        assert batches(found) == [n for n in range(1, 241) if n not in lost]
        if which == -1:
            assert gaps(found) == [], "behind the last frame of a start nothing can be claimed"
        else:
            assert gaps(found) == [("damaged", lost.start, lost.stop - 1, len(lost))]

    asyncio.run(main())


def test_a_cut_off_segment_gives_what_is_left_of_it(bench, make_disk):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk)
        victim = list(walk(spool))[3]
        name = name_of(victim.segment)
        disk.put(name, bytes(disk.names_now[name].cache[: victim.offset + 1000]))
        found, _ = await reread(bench, disk.copy())
        second = spool._store.writer.segments[1].first.first_seq
        assert batches(found) == [*range(1, victim.first_seq), *range(second, 121)]
        assert gaps(found) == [("damaged", victim.first_seq, second - 1, second - victim.first_seq)]

    asyncio.run(main())


def test_a_duplicated_segment_is_handed_out_once(bench, make_disk):
    async def main():
        disk = make_disk()
        await filled(bench, disk)
        disk.put(name_of(77), bytes(disk.names_now[name_of(2)].cache))
        found, _ = await reread(bench, disk.copy())
        assert found == list(range(1, 121))

    asyncio.run(main())


def test_the_first_frame_of_a_segment_lost_the_others_find_its_definitions_elsewhere(bench, make_disk):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk)
        second = spool._store.writer.segments[1]
        disk.names_now[second.name].cache[second.first.length + 9] ^= 1
        async with bench.opened(disk.copy()) as again:
            cursor = again.cursor("cloud")
            again.commit(cursor, second.first.first_seq - 1)
            found = bench.numbers(await bench.drain(again, cursor))
            assert batches(found) == list(range(second.first.last_seq + 1, 121))
            assert again.status().corrupt == 1

    asyncio.run(main())


def test_a_definition_that_is_nowhere_makes_gaps_of_its_records(bench, make_disk):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk, records=24)
        (segment,) = spool._store.writer.segments
        disk.names_now[segment.name].cache[segment.first.length + 9] ^= 1
        found, _ = await reread(bench, disk.copy())
        assert not batches(found)
        assert sum(count for _, _, _, count in gaps(found)) == 24

    asyncio.run(main())


@pytest.mark.parametrize("lost", ["slots", "frames", "both", "all files"])
def test_a_lost_state_begins_a_new_identity_with_higher_numbers(bench, make_disk, lost):
    async def main():
        disk = make_disk()
        spool = await filled(bench, disk)
        if lost in ("slots", "both"):
            disk.put("slots", b"\xff" * disk.size("slots"))
        if lost in ("frames", "both"):
            for segment in spool._store.writer.segments:
                disk.put(segment.name, bytes(segment.size))
        if lost == "all files":
            disk = make_disk()
        async with bench.opened(disk) as again:
            cursor = again.cursor("cloud")
            assert again.append(bench.batch(1)) > (0 if lost in ("both", "all files") else 120)
            found = bench.numbers(await bench.drain(again, cursor))
            assert batches(found) == ([*range(1, 121), 1] if lost == "slots" else [1])
            same = again.epoch.split("-")[0] == spool.epoch.split("-")[0]
            assert same == (lost == "frames")
            assert again.epoch != spool.epoch

    asyncio.run(main())


def test_a_frame_whose_state_is_of_another_shape_does_not_stop_the_start(bench, make_disk):
    async def main():
        from gateway.journal.segment import Tally
        from gateway.journal.slots import Slots

        disk = make_disk()
        await filled(bench, disk)
        slots = Slots(disk, Tally())
        slots.read()
        slots.write(1 << 40, b'{"store":"zz"}')
        async with bench.opened(disk) as spool:
            first = spool.append(bench.batch(1))
            assert first > 120 + (1 << 20), "the last run may have used as many numbers without storing them"
            assert spool.cursor("cloud").position == first

    asyncio.run(main())


def test_a_closed_spool_with_everything_acknowledged_reports_nothing_after_any_damage(bench, make_disk):
    async def main():
        disk = make_disk()
        spool = await bench.open(disk)
        cursor = spool.cursor("cloud")
        for n in range(1, 41):
            spool.append(bench.batch(n, size=1500))
        await spool.durable()
        await bench.drain(spool, cursor)
        await spool.close()
        for segment in spool._store.writer.segments:
            disk.put(segment.name, b"\x00" * segment.size)
        found, _ = await reread(bench, disk.copy())
        assert found == []

    asyncio.run(main())


async def two_starts(bench, disk):
    """Eight frames of one start, killed, then four of the next; the epochs and where the second begins."""
    first = await filled(bench, disk, records=32)
    async with bench.opened(disk, commit_interval_s=60.0) as second:
        cursor = second.cursor("cloud")
        begin = second.head + 1
        for n in range(33, 49):
            second.append(bench.batch(n, size=1500))
            if n % 4 == 0:
                await second.durable()
        assert cursor.committed == 0
        heads = list(walk(second))
    return first.epoch, begin, heads


def wipe(disk, *heads):
    for head in heads:
        cache = disk.names_now[name_of(head.segment)].cache
        cache[head.offset : head.offset + head.extent] = bytes(head.extent)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("committed", [0, 24, 30])
def test_a_zeroed_frame_at_the_border_of_two_starts_is_proved_by_the_count_of_the_next(
    bench, make_disk, frames, committed
):
    async def main():
        disk = make_disk()
        epoch, begin, heads = await two_starts(bench, disk)
        wipe(disk, *heads[8 - frames : 8])
        gone = 32 - max(committed, 32 - 4 * frames)
        async with bench.opened(disk.copy()) as spool:
            cursor = spool.cursor("cloud")
            spool.commit(cursor, committed)
            records = await bench.drain(spool, cursor)
            found = bench.numbers(records)
            assert batches(found) == [*range(committed + 1, 33 - 4 * frames), *range(33, 49)]
            assert gaps(found) == [("damaged", 33 - gone, begin - 1, gone)]
            assert [r.epoch for r in records if r.gap is not None] == [epoch]

    asyncio.run(main())


def test_who_had_acknowledged_the_zeroed_frame_at_the_border_is_told_of_nothing(bench, make_disk):
    async def main():
        disk = make_disk()
        _, _, heads = await two_starts(bench, disk)
        wipe(disk, heads[7])
        async with bench.opened(disk.copy()) as spool:
            cursor = spool.cursor("cloud")
            spool.commit(cursor, 32)
            assert bench.numbers(await bench.drain(spool, cursor)) == list(range(33, 49))

    asyncio.run(main())


def test_a_zeroed_frame_before_one_with_a_wrong_body_at_the_border_is_told_with_it(bench, make_disk):
    async def main():
        disk = make_disk()
        _, begin, heads = await two_starts(bench, disk)
        wipe(disk, heads[6])
        disk.names_now[name_of(heads[7].segment)].cache[heads[7].offset + heads[7].length] ^= 1
        found, _ = await reread(bench, disk.copy())
        assert gaps(found) == [("damaged", 25, begin - 1, 8)]

    asyncio.run(main())


def test_a_border_of_two_starts_where_nothing_is_missing_tells_of_nothing(bench, make_disk):
    async def main():
        disk = make_disk()
        await two_starts(bench, disk)
        found, _ = await reread(bench, disk.copy())
        assert found == list(range(1, 49))

    asyncio.run(main())


def test_the_first_frame_of_a_start_zeroed_is_a_gap_that_counts_records_and_not_numbers(bench, make_disk):
    async def main():
        disk = make_disk()
        _, begin, heads = await two_starts(bench, disk)
        wipe(disk, *heads[7:9])
        found, _ = await reread(bench, disk.copy())
        assert gaps(found) == [("damaged", 29, begin + 3, 8)]

    asyncio.run(main())


@pytest.mark.parametrize("damage", ["gone", "newest"])
def test_no_epoch_is_used_twice_though_the_state_of_a_start_without_frames_is_lost(bench, make_disk, damage):
    async def main():
        disk = make_disk()
        first = await filled(bench, disk, records=4)
        second = await bench.open(disk, commit_interval_s=60.0)
        cursor = second.cursor("cloud")
        second.append(bench.batch(5))
        await bench.drain(second, cursor)
        bench.abandon(second)
        if damage == "gone":
            disk.unlink("slots")
        else:
            cache = disk.names_now["slots"].cache
            newest = max((0, 1), key=lambda slot: parse(cache[slot * SLOT_SIZE :][:LONGEST_HEAD]).generation)
            cache[newest * SLOT_SIZE + 140] ^= 1
        async with bench.opened(disk) as third:
            assert third.epoch not in (first.epoch, second.epoch)
            assert third.append(bench.batch(6)) > second.head
            assert bench.numbers(await bench.drain(third, third.cursor("cloud"))) == [1, 2, 3, 4, 6]

    asyncio.run(main())
