"""The writer: rolling, recycling, refusing disks. Frames of a few records in segments of a few frames."""

import errno
import random

import pytest

from gateway.journal.disk import FolderDisk
from gateway.journal.frame import BLOCK, EPOCH_START, Head
from gateway.journal.reader import Reader
from gateway.journal.segment import Tally, name_of
from gateway.journal.slots import FILE_SIZE
from gateway.journal.writer import Draft, Writer

SIZE = 4 * BLOCK


class Keeper:
    """An owner that needs everything above `floor`, and remembers what it lost."""

    firm = 0

    def __init__(self, floor=0):
        self.floor = floor
        self.lost = []

    def lose(self, heads):
        self.lost += heads

    def document(self):
        return b"floor %d, lost %d" % (self.floor, self.lost[-1].last_seq if self.lost else 0)


def draft(first, last=None, *, covers_from=None, entries=None, size=50):
    last = last or first
    head = Head(
        first_seq=first, last_seq=last, covers_from=covers_from or first, count=last - first + 1, min_time=first
    )
    return Draft(head, entries or {}, random.Random(first).randbytes(size))


def opened(disk, *, max_bytes=1 << 20, first_seq=None, start=1):
    writer = Writer(disk, segment_size=SIZE, max_bytes=max_bytes, tally=Tally())
    recovered = writer.recover()
    writer.begin(store=0xABCDEF, start=start, first_seq=first_seq or recovered.last_seq + 1)
    writer.save(b"state")
    return writer, recovered


def read_all(disk, writer, seq=0):
    reader, found, place = Reader(disk, lambda: writer.segments, Tally()), [], None
    while (next_ := reader.after(seq, place)).head is not None:
        found.append(next_)
        seq, place = next_.head.last_seq, next_.place
    return found


def numbers(disk, writer, seq=0):
    return [n for f in read_all(disk, writer, seq) for n in range(f.head.first_seq, f.head.last_seq + 1)]


@pytest.fixture(params=["simulated", "folder"])
def disk(request, make_disk, tmp_path):
    return make_disk() if request.param == "simulated" else FolderDisk(tmp_path)


def test_frames_come_back_in_order_through_many_segments(disk):
    writer, _ = opened(disk)
    keeper = Keeper()
    for first in range(1, 61, 3):
        writer.write([draft(first, first + 2)], keeper)
    assert writer.written == 60
    assert len(writer.segments) == 5
    assert numbers(disk, writer) == list(range(1, 61))
    assert numbers(disk, writer, 31) == list(range(31, 61))
    payloads = [f.body.payload for f in read_all(disk, writer)]
    assert payloads == [draft(first).payload for first in range(1, 61, 3)]
    writer.close()


def test_the_next_run_finds_all_of_it_and_never_appends_to_the_old_tail(disk):
    writer, _ = opened(disk)
    for first in range(1, 7):
        writer.write([draft(first)], Keeper())
    writer.close()
    old = writer.segments[-1]
    writer, recovered = opened(disk, start=2)
    assert recovered.last_seq == 6
    assert recovered.document == b"floor 0, lost 0"
    assert writer.ordinal == 6
    writer.write([draft(7)], Keeper())
    assert writer.segments[-1].id > old.id
    found = read_all(disk, writer)
    assert [f.head.epoch for f in found] == ["abcdef-1"] * 6 + ["abcdef-2"]
    assert [f.head.ordinal for f in found] == list(range(7))
    writer.close()


def test_a_document_in_a_frame_and_one_in_a_slot_the_newer_wins(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    writer.write([draft(1)], Keeper(floor=5))
    assert Writer(disk.crash(), segment_size=SIZE, max_bytes=1 << 20, tally=Tally()).recover().document == (
        b"floor 5, lost 0"
    )
    writer.save(b"newer")
    again = Writer(disk.crash(), segment_size=SIZE, max_bytes=1 << 20, tally=Tally())
    assert again.recover().document == b"newer"


def test_dictionary_entries_are_written_once_a_segment_and_again_in_the_next(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    entry = {b"12345678": b"definition"}
    for first in range(1, 10):
        writer.write([draft(first, entries=entry)], Keeper())
    carriers = [(f.head.segment, f.head.offset) for f in read_all(disk, writer) if f.body.entries]
    assert len({segment for segment, _ in carriers}) == len(carriers) == len(writer.segments) == 3
    assert {offset for _, offset in carriers} == {0}


def test_a_reader_that_starts_in_the_middle_of_a_segment_still_learns_its_dictionary(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    for first in range(1, 4):
        writer.write([draft(first, entries={b"12345678": b"definition"})], Keeper())
    reader = Reader(disk, lambda: writer.segments, Tally())
    assert reader.after(2).entries == {b"12345678": b"definition"}
    assert reader.entry(b"12345678", near=1) == b"definition"
    assert reader.entry(b"87654321", near=1) is None


def test_readers_do_not_move_the_end_of_what_the_writer_is_writing(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    writer.write([draft(1)], Keeper())
    segment = writer.segments[-1]
    segment.end += BLOCK  # as if the writer had just finished another, behind the walker's back
    assert Reader(disk, lambda: writer.segments, Tally()).entry(b"no entry", near=1) is None
    assert segment.end == 2 * BLOCK


def test_a_segment_recycled_while_it_is_read_is_not_called_damaged(make_disk):
    disk, tally = make_disk(), Tally()
    writer, _ = opened(disk)
    for first in range(1, 10):
        writer.write([draft(first)], Keeper())
    reader = Reader(disk, lambda: before, tally)
    before = writer.segments
    assert reader.after(0).head.first_seq == 1
    read, pread = [], disk.pread

    def overwritten_meanwhile(file, size, offset):
        data = pread(file, size, offset)
        if not read and size == 136:  # the head is read, and before its body is, the file serves another segment
            read.append(data)
            for first in range(10, 20):
                writer.write([draft(first)], Keeper(floor=9))
        return data

    disk.pread = overwritten_meanwhile
    found = reader.after(0)
    assert found.damaged is None
    assert tally.corrupt.value == 0


def test_the_folder_is_synced_before_the_first_frame_of_a_segment_is_written(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    for first in range(1, 10):
        writer.write([draft(first)], Keeper())
    fresh = None
    for what, name in disk.log:
        if what == "rename":
            fresh = name
        elif what == "sync_folder":
            fresh = None
        else:
            assert name != fresh, "written to before its name was on the medium"


def test_several_frames_of_one_commit_share_a_flush(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    writer.write([draft(1)], Keeper())
    del disk.log[:]
    writer.write([draft(2), draft(3), draft(4)], Keeper())
    assert [what for what, _ in disk.log] == ["pwrite", "pwrite", "pwrite", "fdatasync"]
    assert writer.written == 4


def test_a_segment_nobody_needs_is_used_again_and_its_old_frames_are_not_read(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    for first in range(1, 9):
        writer.write([draft(first)], Keeper())
    files = len(disk.names_now)
    written = disk.written
    for first in range(9, 200):
        writer.write([draft(first)], Keeper(floor=first - 1))
    assert len(disk.names_now) == files
    assert disk.written - written < 300 * BLOCK  # no zeros were written again
    assert numbers(disk, writer)[-1] == 199
    assert len(numbers(disk, writer)) <= 8
    writer.close()
    writer, recovered = opened(disk.crash(3))
    assert recovered.last_seq == 199
    assert numbers(disk, writer)[-1] == 199


def test_a_file_of_zeros_is_filled_before_it_is_used(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    assert writer.wants_spare(0)
    while writer.wants_spare(0):
        writer.grow_spare()
    (spare,) = [n for n in disk.names_now if n.startswith("spare")]
    assert bytes(disk.names_now[spare].medium) == bytes(SIZE)
    writer.write([draft(1)], Keeper())
    assert not [n for n in disk.names_now if n.startswith("spare")]
    assert not writer.wants_spare(0)  # a quarter full: not yet
    writer.write([draft(2)], Keeper())
    assert writer.wants_spare(0)
    assert not writer.wants_spare(2)  # the next file will be this one again


def test_a_spare_that_was_not_finished_is_removed_at_the_next_start(make_disk):
    disk = make_disk()
    opened(disk)
    disk.put("spare-9", bytes(SIZE - 1))
    disk.put("spare-10", bytes(SIZE))
    writer, _ = opened(disk)
    assert [n for n in disk.names_now if n.startswith("spare")] == ["spare-10"]
    writer.write([draft(1)], Keeper())
    assert [s.name for s in writer.segments] == [name_of(1)]
    writer.grow_spare()
    assert [n for n in disk.names_now if n.startswith("spare")] == ["spare-11"]


# --- the disk refuses -------------------------------------------------------------------------------------------------


def failing(*operations, times=1, error=errno.EIO):
    left = [times]

    def fault(what, name):
        if what in operations and name.endswith(".seg") and left[0]:
            left[0] -= 1
            return OSError(error, "the disk fails")
        return None

    return fault


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
def test_after_a_failure_everything_since_the_last_durable_frame_goes_to_a_fresh_segment(make_disk, operation):
    disk = make_disk()
    writer, _ = opened(disk)
    writer.write([draft(1)], Keeper())
    failed = writer.segments[-1].name
    disk.fault = failing(operation)
    del disk.log[:]
    writer.write([draft(2), draft(3)], Keeper())
    assert writer.written == 3
    fail = next(i for i, (what, name) in enumerate(disk.log) if (what, name) == (operation, failed))
    assert failed not in {name for _, name in disk.log[fail + 1 :]}, "asked again"
    disk.drop_cache()
    assert numbers(disk, writer) == [1, 2, 3]
    again, _ = opened(disk.crash(1), start=2)
    assert numbers(disk.crash(1), again) == [1, 2, 3]


def test_a_failed_flush_is_never_followed_by_a_second_one_that_would_lie(make_disk):
    """The kernel says ok to the second flush though the medium has nothing: who believes it loses records."""
    disk = make_disk()
    writer, _ = opened(disk)
    disk.fault = failing("fdatasync")
    writer.write([draft(1)], Keeper())
    crashed = disk.crash(5)
    again, recovered = opened(crashed, start=2)
    assert recovered.last_seq == 1
    assert numbers(crashed, again) == [1]


def test_when_the_fresh_segment_fails_too_the_owner_hears_of_it_and_nothing_is_called_written(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    writer.write([draft(1)], Keeper())
    disk.fault = failing("fdatasync", times=2)
    with pytest.raises(OSError, match="the disk fails"):
        writer.write([draft(2)], Keeper())
    assert writer.written == 1
    assert numbers(disk, writer) == [1]
    writer.write([draft(2)], Keeper())
    assert numbers(disk, writer) == [1, 2]
    assert [f.head.ordinal for f in read_all(disk, writer)] == [0, 1]


def test_a_failing_disk_costs_no_old_records_however_often_it_is_tried(make_disk):
    disk = make_disk()
    writer, _ = opened(disk, max_bytes=4 * SIZE + FILE_SIZE)
    keeper = Keeper()
    for first in range(1, 17):
        writer.write([draft(first)], keeper)
    assert len(writer.segments) == 4
    disk.fault = failing("fdatasync", times=40)
    for _ in range(20):
        with pytest.raises(OSError, match="the disk fails"):
            writer.write([draft(17)], keeper)
    disk.fault = lambda what, name: None
    writer.write([draft(17)], keeper)
    lost = keeper.lost[-1].last_seq
    assert lost <= 4, "one segment had to go, as always when the limit is reached; the failures took no more"
    assert numbers(disk, writer) == list(range(lost + 1, 18))


def test_failures_leave_no_files_behind(make_disk):
    disk = make_disk()
    writer, _ = opened(disk)
    writer.write([draft(1)], Keeper())
    disk.fault = failing("fdatasync", times=40)
    for _ in range(20):
        with pytest.raises(OSError, match="the disk fails"):
            writer.write([draft(2)], Keeper())
    assert len(disk.names_now) <= 3
    assert not [h for h, (_, name) in disk.handles.items() if name.endswith(".seg")]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_beyond_max_bytes_the_oldest_segment_goes_and_the_slots_say_so_first(make_disk):
    disk = make_disk()
    limit = 4 * SIZE + FILE_SIZE
    writer, _ = opened(disk, max_bytes=limit)
    keeper = Keeper()
    for first in range(1, 40):
        writer.write([draft(first)], keeper)
        assert sum(len(f.cache) for f in disk.names_now.values()) <= limit
        assert writer.allocated_bytes <= limit
    assert writer.is_evicting
    lost = keeper.lost[-1].last_seq
    assert [n for h in keeper.lost for n in range(h.first_seq, h.last_seq + 1)] == list(range(1, lost + 1))
    assert numbers(disk, writer) == list(range(lost + 1, 40))
    slots = [i for i, (what, name) in enumerate(disk.log) if (what, name) == ("fdatasync", "slots")]
    renames = [i for i, (what, _) in enumerate(disk.log) if what == "rename"]
    assert slots[-1] < renames[-1]


def test_a_lowered_limit_gives_up_the_oldest_segments(make_disk):
    disk = make_disk()
    writer, _ = opened(disk, max_bytes=10 * SIZE + FILE_SIZE)
    for first in range(1, 40):
        writer.write([draft(first)], Keeper())
    writer.close()
    writer, _ = opened(disk, max_bytes=3 * SIZE + FILE_SIZE, start=2)
    keeper = Keeper()
    for first in range(40, 46):
        writer.write([draft(first)], keeper)
    assert writer.allocated_bytes <= 3 * SIZE + FILE_SIZE
    lost = keeper.lost[-1].last_seq
    assert numbers(disk, writer) == list(range(lost + 1, 46))


def test_a_full_disk_lets_the_segments_there_are_go_round(make_disk):
    disk = make_disk(room=FILE_SIZE + 3 * SIZE + 100)
    writer, _ = opened(disk)
    keeper = Keeper()
    for first in range(1, 40):
        writer.write([draft(first)], keeper)
    assert writer.is_evicting
    assert len(writer.segments) == 3
    assert not [n for n in disk.names_now if n.startswith("spare")]
    lost = keeper.lost[-1].last_seq
    assert numbers(disk, writer) == list(range(lost + 1, 40))
    disk.room = 1 << 40
    for first in range(40, 60):
        writer.write([draft(first)], keeper)
    assert not writer.is_evicting
    assert keeper.lost[-1].last_seq == lost, "room is used again as soon as there is some"


def test_a_disk_with_no_room_at_all_is_an_error(make_disk):
    disk = make_disk(room=FILE_SIZE + SIZE // 2)
    writer, _ = opened(disk)
    with pytest.raises(OSError, match="no space") as caught:
        writer.write([draft(1)], Keeper())
    assert caught.value.errno == errno.ENOSPC
    assert list(disk.names_now) == ["slots"]


def test_the_last_of_the_file_system_is_left_to_others(make_disk):
    disk = make_disk()
    disk.free = 60 << 20
    writer, _ = opened(disk)
    for first in range(1, 40):
        writer.write([draft(first)], Keeper())
    assert len(writer.segments) == 2, "more would take what others may need: less than 64 MiB are free"


def test_a_frame_larger_than_a_segment_is_a_mistake_of_the_caller(make_disk):
    writer, _ = opened(make_disk())
    with pytest.raises(ValueError, match="larger than a segment"):
        writer.write([draft(1, size=SIZE)], Keeper())


def test_the_first_frame_of_an_epoch_says_so(make_disk):
    disk = make_disk()
    writer, _ = opened(disk, first_seq=100)
    writer.write([draft(105, covers_from=100), draft(106)], Keeper())
    assert [bool(f.head.flags & EPOCH_START) for f in read_all(disk, writer)] == [True, False]


def test_a_name_is_sixteen_hex_digits(make_disk):
    assert name_of(255) == "00000000000000ff.seg"
