"""Kept although acknowledged: for how long, how much of it, and what goes first when room is short."""

import pytest

from gateway.journal.frame import BLOCK, Head
from gateway.journal.pool import Bounds
from gateway.journal.segment import Tally
from gateway.journal.slots import FILE_SIZE
from gateway.journal.writer import Draft, Writer

SIZE = 4 * BLOCK
HOUR = 3600.0


class Keeper:
    firm = 0

    def __init__(self, floor=0):
        self.floor = floor
        self.lost = []

    def lose(self, heads):
        self.lost += heads

    def document(self):
        return b"state"


class HandClock:
    boot_id = "00000000-0000-4000-8000-000000000000"

    def __init__(self, now=1000.0, wall_s=1_795_330_000, state="synced"):
        self.now, self.wall_s, self.worth = now, wall_s, state

    def monotonic(self):
        return self.now

    def wall_ms(self):
        return round(self.wall_s * 1000)

    def state(self):
        return self.worth

    def sleep(self, seconds):
        self.now += seconds
        self.wall_s += seconds


def opened(disk, clock, *, files=20, start=1, **bounds):
    limit = files * SIZE + FILE_SIZE
    tally = Tally()
    writer = Writer(disk, segment_size=SIZE, max_bytes=limit, tally=tally, bounds=Bounds(**bounds), clock=clock)
    recovered = writer.recover()
    writer.begin(store=1, start=start, first_seq=recovered.last_seq + 1)
    writer.save(b"state")
    return writer


def write(writer, clock, seqs, keeper, *, acks=True, each_s=60.0):
    for seq in seqs:
        wall, mono = clock.wall_ms(), round(clock.monotonic() * 1000)
        worth = 2 if clock.state() == "synced" else 0
        head = Head(first_seq=seq, last_seq=seq, covers_from=seq, count=1, wall=wall, monotonic=mono, clock=worth)
        if acks:
            keeper.floor = seq - 1
        writer.write([Draft(head, {}, b"%d" % seq)], keeper)
        clock.sleep(each_s)


def oldest(writer):
    return writer.segments[0].first.first_seq


def test_without_it_a_segment_is_used_again_as_soon_as_nobody_needs_it(make_disk):
    clock, keeper = HandClock(), Keeper()
    writer = opened(make_disk(), clock)
    write(writer, clock, range(1, 101), keeper)
    assert len(writer.segments) <= 2


def test_acknowledged_segments_stay_for_their_time_and_then_go_round(make_disk):
    clock, keeper, disk = HandClock(), Keeper(), make_disk()
    writer = opened(disk, clock, keep_s=HOUR)
    write(writer, clock, range(1, 401), keeper)
    assert 400 - 60 - 12 <= oldest(writer) <= 400 - 60, "an hour of one a minute, by whole segments"
    files = len(disk.names_now)
    write(writer, clock, range(401, 801), keeper)
    assert len(disk.names_now) == files, "they go round"


def test_acknowledged_segments_stay_up_to_their_bytes(make_disk):
    clock, keeper = HandClock(), Keeper()
    writer = opened(make_disk(), clock, keep_bytes=5 * SIZE)
    write(writer, clock, range(1, 201), keeper)
    assert len(writer.segments) in (6, 7)


@pytest.mark.parametrize(("keep_s", "keep_bytes"), [(HOUR, 100 * SIZE), (1000 * HOUR, 15 * SIZE)])
def test_whichever_ends_first_ends_it(make_disk, keep_s, keep_bytes):
    clock, keeper = HandClock(), Keeper()
    writer = opened(make_disk(), clock, files=200, keep_s=keep_s, keep_bytes=keep_bytes)
    write(writer, clock, range(1, 301), keeper)
    assert len(writer.segments) in (16, 17, 18)


def test_kept_segments_go_before_any_needed_record(make_disk):
    clock, keeper, disk = HandClock(), Keeper(), make_disk()
    writer = opened(disk, clock, files=8, keep_s=1000 * HOUR)
    write(writer, clock, range(1, 33), keeper)
    assert len(writer.segments) == 8
    assert writer.left(keeper.floor) == 7
    write(writer, clock, range(33, 33 + 4 * 7), keeper, acks=False)
    assert keeper.lost == []
    assert oldest(writer) in range(29, 33)
    write(writer, clock, range(61, 66), keeper, acks=False)
    assert keeper.lost, "now there was nothing else"


def test_a_new_file_is_made_rather_than_a_kept_segment_used_again(make_disk):
    clock, keeper, disk = HandClock(), Keeper(), make_disk()
    writer = opened(disk, clock, files=8, keep_s=1000 * HOUR)
    write(writer, clock, range(1, 29), keeper)
    assert len(writer.segments) == 7
    assert oldest(writer) == 1
    disk.room = sum(len(f.cache) for f in disk.names_now.values())
    write(writer, clock, range(29, 41), keeper)
    assert len(writer.segments) == 7, "where no new one can be made, the oldest kept goes"
    assert keeper.lost == []


def test_age_is_not_judged_by_a_clock_that_is_not_synchronised(make_disk):
    clock, keeper = HandClock(state="unsynced", wall_s=0), Keeper()
    writer = opened(make_disk(), clock, files=100, keep_s=HOUR)
    write(writer, clock, range(1, 21), keeper)
    clock.wall_s += 10 * 365 * 86400  # a jump, still not synchronised
    write(writer, clock, range(21, 41), keeper)
    assert oldest(writer) == 1
    clock.worth = "synced"
    write(writer, clock, range(41, 45), keeper)
    assert oldest(writer) == 1, "of this run the monotonic clock knows better"
    write(writer, clock, range(45, 121), keeper)
    assert oldest(writer) > 40


def test_what_earlier_runs_left_is_as_old_as_it_was_written_if_the_clock_can_tell(make_disk):
    clock, keeper, disk = HandClock(), Keeper(), make_disk()
    writer = opened(disk, clock, files=100, keep_s=10 * HOUR)
    write(writer, clock, range(1, 201), keeper)
    writer.close()
    assert oldest(writer) == 1
    for state, is_kept in (("unsynced", True), ("synced", False)):
        later = HandClock(now=5.0, wall_s=clock.wall_s + 20 * HOUR, state=state)
        again, keeper = opened(disk.copy(), later, files=100, start=2, keep_s=10 * HOUR), Keeper(200)
        write(again, later, range(201, 206), keeper)
        assert (oldest(again) == 1) == is_kept
        write(again, later, range(206, 206 + 700), keeper)
        assert oldest(again) > 200, "after ten hours of this run they go in any case"


def test_what_was_written_by_a_clock_that_was_not_synchronised_counts_from_this_start(make_disk):
    clock, keeper, disk = HandClock(state="unsynced", wall_s=0), Keeper(), make_disk()
    writer = opened(disk, clock, files=100, keep_s=10 * HOUR)
    write(writer, clock, range(1, 41), keeper)
    writer.close()
    later = HandClock(now=5.0)
    again, keeper = opened(disk.copy(), later, files=100, start=2, keep_s=10 * HOUR), Keeper(40)
    write(again, later, range(41, 61), keeper)
    assert oldest(again) == 1
