"""Bounds of the pool: room for others, files that vanish, what is set aside, and never too few to go on."""

import errno
import random

import pytest

from gateway.journal.frame import BLOCK, Head
from gateway.journal.pool import Bounds, FullError
from gateway.journal.reader import Reader
from gateway.journal.segment import Tally, bytes_above, name_of
from gateway.journal.slots import FILE_SIZE
from gateway.journal.writer import Draft, Writer

SIZE = 4 * BLOCK
MIB = 1 << 20


class Keeper:
    firm = 0

    def __init__(self, floor=0):
        self.floor = floor
        self.lost = []

    def lose(self, heads):
        self.lost += heads

    def document(self):
        return b"floor %d" % self.floor


class HandClock:
    boot_id = "00000000-0000-4000-8000-000000000000"
    now = 1000.0

    def monotonic(self):
        return self.now

    def wall_ms(self):
        return 0

    def state(self):
        return "unsynced"


def draft(seq):
    head = Head(first_seq=seq, last_seq=seq, covers_from=seq, count=1)
    return Draft(head, {}, random.Random(seq).randbytes(50))


def opened(disk, *, limit=1 << 20, clock=None, **bounds):
    clock = clock or HandClock()
    writer = Writer(disk, segment_size=SIZE, max_bytes=limit, tally=Tally(), bounds=Bounds(**bounds), clock=clock)
    recovered = writer.recover()
    writer.begin(store=1, start=1, first_seq=recovered.last_seq + 1)
    writer.save(b"state")
    return writer


def write(writer, seqs, keeper):
    for seq in seqs:
        writer.write([draft(seq)], keeper)


def numbers(disk, writer):
    reader, seq, place, found = Reader(disk, lambda: writer.segments, Tally()), 0, None, []
    while (next_ := reader.after(seq, place)).head is not None:
        seq, place = next_.head.last_seq, next_.place
        found.append(seq)
    return found


def files(disk):
    return sorted(name for name in disk.names_now if name.endswith(".seg") or name.startswith("spare"))


# --- room for others --------------------------------------------------------------------------------------------------


def test_below_the_least_free_bytes_no_new_file_is_made_and_those_there_are_go_round(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk, min_free_bytes=100 * MIB)
    write(writer, range(1, 21), keeper)
    disk.free = 100 * MIB
    writer._pool._free_until = 0
    write(writer, range(21, 61), keeper)
    assert len(files(disk)) == 5
    assert numbers(disk, writer) == list(range(keeper.lost[-1].last_seq + 1, 61))


def test_what_holds_nothing_needed_is_given_back_the_spares_first(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk, min_free_bytes=100 * MIB)
    write(writer, range(1, 24), keeper)
    while writer.wants_spare(keeper.floor):
        writer.grow_spare()
    keeper.floor = 10
    assert not writer.tidy(keeper)
    disk.free = 100 * MIB - SIZE
    assert writer.tidy(keeper)
    assert not [name for name in disk.names_now if name.startswith("spare")]
    assert len(writer.segments) == 6
    disk.free = 100 * MIB - SIZE
    del disk.log[:]
    assert writer.tidy(keeper)
    assert [s.first.first_seq for s in writer.segments] == [5, 9, 13, 17, 21]
    what = [
        operation
        for operation, name in disk.log
        if (operation, name) in {("fdatasync", "slots"), ("unlink", name_of(1)), ("sync_folder", "")}
    ]
    assert what == ["fdatasync", "unlink", "sync_folder"], "the slots say first that nobody needs them"
    disk.free = 0
    assert writer.tidy(keeper)
    assert not writer.tidy(keeper), "needed records are never given up for that"
    assert numbers(disk, writer) == list(range(9, 24))


def test_kept_segments_are_given_back_when_nothing_else_is_left(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk, min_free_bytes=100 * MIB, keep_bytes=3 * SIZE)
    write(writer, range(1, 41), keeper)
    keeper.floor = 40
    disk.free = 0
    assert writer.tidy(keeper)
    assert len(writer.segments) == 3, "those beyond what is kept go in the first round"
    assert writer.tidy(keeper)
    assert len(writer.segments) == 2, "never fewer than two, so that writing goes on"
    assert not writer.tidy(keeper)


def test_with_no_room_on_the_file_system_two_files_go_on_for_ever(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk)
    write(writer, range(1, 6), keeper)
    keeper.floor = 4
    disk.free = 0
    writer.tidy(keeper)
    disk.room = sum(len(f.cache) for f in disk.names_now.values())
    for seq in range(6, 200):
        keeper.floor = seq - 1
        writer.write([draft(seq)], keeper)
    assert keeper.lost == []
    assert len(files(disk)) == 2
    assert writer.written == 199


def test_room_that_comes_back_is_used_again(make_disk):
    disk, keeper, clock = make_disk(), Keeper(), HandClock()
    writer = opened(disk, clock=clock, min_free_bytes=100 * MIB)
    write(writer, range(1, 10), keeper)
    disk.free = 0
    writer.tidy(keeper)
    write(writer, range(10, 20), keeper)
    assert len(files(disk)) == 3
    disk.free = 1 << 40
    writer.tidy(keeper)
    clock.now += 60
    write(writer, range(20, 60), keeper)
    assert len(files(disk)) > 8


def test_the_file_system_is_asked_once_in_a_while_and_not_at_each_roll(make_disk):
    disk, keeper, clock, asked = make_disk(), Keeper(), HandClock(), []
    disk.free_bytes = lambda: asked.append(1) or 1 << 40
    writer = opened(disk, clock=clock)
    write(writer, range(1, 101), keeper)
    assert len(asked) == 1
    clock.now += 11
    write(writer, range(101, 111), keeper)
    assert len(asked) == 2


# --- the newest give way ----------------------------------------------------------------------------------------------


def test_where_the_newest_give_way_nothing_is_given_up_and_the_owner_is_told(make_disk):
    disk, keeper = make_disk(), Keeper()
    limit = 4 * SIZE + FILE_SIZE
    writer = opened(disk, limit=limit, full="drop_newest")
    write(writer, range(1, 17), keeper)
    assert writer.left(keeper.floor) == 0
    for _ in range(3):
        with pytest.raises(FullError):
            writer.write([draft(17)], keeper)
    assert keeper.lost == []
    assert writer.written == 16
    assert numbers(disk, writer) == list(range(1, 17))
    keeper.floor = 4
    assert writer.left(keeper.floor) == 1
    write(writer, range(17, 21), keeper)
    assert numbers(disk, writer) == list(range(5, 21))
    assert sum(len(f.cache) for f in disk.names_now.values()) <= limit


def test_a_lowered_limit_gives_up_nothing_needed_either(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk, full="drop_newest")
    write(writer, range(1, 41), keeper)
    writer.close()
    writer = opened(disk, limit=4 * SIZE + FILE_SIZE, full="drop_newest")
    with pytest.raises(FullError):
        writer.write([draft(41)], keeper)
    assert numbers(disk, writer) == list(range(1, 41))
    keeper.floor = 30
    write(writer, range(41, 43), keeper)
    assert keeper.lost == []
    assert len(writer.segments) <= 4


def test_what_is_durable_of_a_commit_that_did_not_fit_is_told(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk, limit=4 * SIZE + FILE_SIZE, full="drop_newest")
    with pytest.raises(FullError):
        writer.write([draft(seq) for seq in range(1, 30)], keeper)
    assert writer.written == 16
    assert numbers(disk.crash(1), opened(disk.crash(1))) == list(range(1, 17))


# --- files that vanish ------------------------------------------------------------------------------------------------


def test_a_file_that_somebody_removes_is_noticed_at_the_next_flush_and_its_records_are_written_again(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk)
    write(writer, range(1, 7), keeper)
    del disk.names_now[writer.segments[-1].name]
    write(writer, [7], keeper)
    assert writer.written == 7
    assert numbers(disk, writer) == [1, 2, 3, 4, 7]
    write(writer, range(8, 20), keeper)
    assert numbers(disk, writer) == [1, 2, 3, 4, *range(7, 20)]


def test_a_folder_that_vanishes_is_an_error_until_it_is_back(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk)
    write(writer, range(1, 7), keeper)
    disk.names_now.clear()
    names, open_ = disk.names, disk.open

    def gone(*args, **options):
        raise FileNotFoundError(errno.ENOENT, "no such folder", "spool")

    disk.names = disk.open = gone
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            writer.write([draft(7)], keeper)
    assert writer.written == 6
    disk.names, disk.open = names, open_
    write(writer, range(7, 12), keeper)
    assert numbers(disk, writer) == list(range(7, 12))
    writer.save(b"state")
    assert "slots" in disk.names_now


def test_slots_that_somebody_removes_are_made_anew(make_disk):
    disk = make_disk()
    writer = opened(disk)
    writer.save(b"one")
    del disk.names_now["slots"]
    writer.save(b"two")
    assert Writer(disk.crash(), segment_size=SIZE, max_bytes=MIB, tally=Tally()).recover().document == b"two"


def test_a_failing_disk_is_logged_once_for_however_many_tries(make_disk, caplog):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk)
    disk.fault = lambda what, name: OSError(5, "broken") if what == "fdatasync" else None
    for _ in range(10):
        with pytest.raises(OSError, match="broken"):
            writer.write([draft(1)], keeper)
    disk.fault = lambda what, name: None
    writer.write([draft(1)], keeper)
    disk.fault = lambda what, name: OSError(5, "broken") if what == "fdatasync" else None
    with pytest.raises(OSError, match="broken"):
        writer.write([draft(2)], keeper)
    assert len([r for r in caplog.records if "trying once more" in r.message]) == 2


# --- what is set aside ------------------------------------------------------------------------------------------------


def test_damaged_files_are_kept_within_a_share_of_the_limit_and_count(make_disk):
    disk = make_disk()
    for n, size in ((1, SIZE), (2, 10 * SIZE), (3, SIZE)):
        disk.put(name_of(n), b"\xff" * size)
    writer = opened(disk, limit=8 * SIZE + FILE_SIZE)
    assert [n for n in disk.names_now if n.endswith(".bad")] == ["0000000000000003.bad"]
    assert writer.allocated_bytes == SIZE + FILE_SIZE
    assert writer.capacity_bytes == 7 * SIZE
    keeper = Keeper()
    write(writer, range(1, 61), keeper)
    assert sum(len(f.cache) for f in disk.names_now.values()) <= 8 * SIZE + FILE_SIZE


def test_the_newest_damaged_file_stays_whatever_its_size(make_disk):
    disk = make_disk()
    disk.put(name_of(1), b"\xff" * 3 * SIZE)
    writer = opened(disk, limit=8 * SIZE + FILE_SIZE)
    assert writer.allocated_bytes == 3 * SIZE + FILE_SIZE
    assert writer.capacity_bytes == 5 * SIZE


# --- how much is behind a number --------------------------------------------------------------------------------------


def test_the_bytes_above_a_number_are_exact_at_borders_and_in_proportion_between(make_disk):
    disk, keeper = make_disk(), Keeper()
    writer = opened(disk)
    write(writer, range(1, 11), keeper)
    assert [bytes_above(writer.segments, seq) for seq in (0, 4, 6, 8, 10, 99)] == [
        10 * BLOCK,
        6 * BLOCK,
        4 * BLOCK,
        2 * BLOCK,
        0,
        0,
    ]
    assert bytes_above((), 0) == 0
