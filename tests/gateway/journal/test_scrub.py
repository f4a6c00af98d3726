"""The scrub finds what is damaged before it is needed, and disturbs nobody."""

import random

import pytest

from gateway.journal.frame import BLOCK, LONGEST_HEAD, Head
from gateway.journal.scrub import SLICE, Progress, Scrub
from gateway.journal.segment import Tally
from gateway.journal.writer import Draft, Writer

SIZE = 4 * BLOCK


class Keeper:
    firm = 0
    floor = 0

    def lose(self, heads):
        pass

    def document(self):
        return b"state"


def filled(make_disk, frames=22, size=SIZE, payload=50):
    disk, tally = make_disk(), Tally()
    writer = Writer(disk, segment_size=size, max_bytes=100 * size, tally=tally)
    writer.recover()
    writer.begin(store=1, start=1, first_seq=1)
    for n in range(1, frames + 1):
        head = Head(first_seq=2 * n - 1, last_seq=2 * n, covers_from=2 * n - 1, count=2, min_time=n, max_time=n)
        writer.write([Draft(head, {}, random.Random(n).randbytes(payload))], Keeper())
    return disk, writer, tally


def whole_pass(scrub):
    found, steps = [], 0
    while True:
        goes_on, more = scrub.step()
        found += more
        steps += 1
        assert steps < 1000
        if not goes_on:
            return found


def test_a_store_without_damage_is_read_through_and_counts_nothing(make_disk):
    disk, writer, tally = filled(make_disk)
    scrub = Scrub(disk, lambda: writer.segments, tally)
    assert scrub.progress == Progress(0, 5, 0)
    assert whole_pass(scrub) == []
    assert scrub.progress == Progress(0, 5, 1)
    assert tally.corrupt.value == 0
    assert whole_pass(scrub) == []
    assert scrub.progress == Progress(0, 5, 2)
    assert not [name for _, name in disk.handles.values() if name != writer.segments[-1].name and name != "slots"]


def test_a_damaged_body_is_found_counted_once_and_told_by_its_range(make_disk, caplog):
    disk, writer, tally = filled(make_disk)
    disk.names_now[writer.segments[2].name].cache[BLOCK + 150] ^= 1
    scrub = Scrub(disk, lambda: writer.segments, tally)
    (head,) = whole_pass(scrub)
    assert (head.first_seq, head.last_seq, head.count, head.min_time) == (19, 20, 2, 10)
    assert tally.corrupt.value == 1
    whole_pass(scrub)
    assert tally.corrupt.value == 1
    assert "records 19 to 20" in caplog.text


def test_a_damaged_head_is_told_by_what_stands_around_it(make_disk):
    disk, writer, tally = filled(make_disk)
    disk.names_now[writer.segments[2].name].cache[BLOCK + 50] ^= 1
    (head,) = whole_pass(Scrub(disk, lambda: writer.segments, tally))
    assert (head.first_seq, head.last_seq, head.count) == (19, 20, 2)


def test_a_damaged_head_at_the_start_of_a_segment_is_told_by_the_one_before(make_disk):
    disk, writer, tally = filled(make_disk)
    disk.names_now[writer.segments[2].name].cache[50] ^= 1
    (head,) = whole_pass(Scrub(disk, lambda: writer.segments, tally))
    assert (head.first_seq, head.last_seq, head.count) == (17, 18, 2)


def test_what_was_acknowledged_between_two_segments_is_no_damage(make_disk):
    disk, writer, tally = filled(make_disk)
    segments = writer.segments[:2] + writer.segments[3:]
    scrub = Scrub(disk, lambda: segments, tally)
    assert [h.first_seq for h in whole_pass(scrub)] == [17], "a file is missing"
    scrub = Scrub(disk, lambda: writer.segments, tally)
    scrub.step()
    scrub.step()
    rest = writer.segments[2:]
    scrub._segments = lambda: rest
    assert whole_pass(scrub) == [], "what was read last went meanwhile"


def test_a_block_that_cannot_be_read_is_found(make_disk):
    disk, writer, tally = filled(make_disk)
    disk.bad_blocks = {(writer.segments[1].name, 2)}
    assert [h.first_seq for h in whole_pass(Scrub(disk, lambda: writer.segments, tally))] == [13]


def test_the_segment_that_is_being_written_is_left_alone(make_disk):
    disk, writer, tally = filled(make_disk)
    disk.names_now[writer.segments[-1].name].cache[150] ^= 1
    assert whole_pass(Scrub(disk, lambda: writer.segments, tally)) == []


def test_a_step_reads_no_more_than_a_slice_and_a_frame(make_disk):
    disk, writer, tally = filled(make_disk, frames=200, size=128 * BLOCK, payload=3 * BLOCK)
    read, pread = [0], disk.pread

    def counting(file, size, offset):
        read[-1] += size
        return pread(file, size, offset)

    disk.pread = counting
    scrub = Scrub(disk, lambda: writer.segments, tally)
    while scrub.step()[0]:
        read.append(0)
    assert max(read) <= SLICE + 16 * BLOCK
    assert sum(read) > 100 * BLOCK


@pytest.mark.parametrize("what", ["recycled", "unlinked"])
def test_a_segment_that_is_used_again_meanwhile_is_no_damage(make_disk, what):
    disk, writer, tally = filled(make_disk)
    segment = writer.segments[1]
    scrub = Scrub(disk, lambda: writer.segments, tally)
    pread = disk.pread

    def recycled_meanwhile(file, size, offset):
        name = disk.handles[file][1]
        if name == segment.name and offset >= BLOCK and size != LONGEST_HEAD and not segment.is_gone:
            segment.is_gone = True
            if what == "recycled":
                disk.names_now[name].cache[:] = b"\x55" * SIZE
            else:
                del disk.names_now[name]
        return pread(file, size, offset)

    disk.pread = recycled_meanwhile
    assert whole_pass(scrub) == []
    assert tally.corrupt.value == 0


def test_segments_that_come_and_go_between_the_steps_do_not_stop_it(make_disk):
    disk, writer, tally = filled(make_disk)
    scrub = Scrub(disk, lambda: writer.segments, tally)
    scrub.step()
    keeper = Keeper()
    keeper.floor = 40
    for n in range(23, 60):
        head = Head(first_seq=2 * n - 1, last_seq=2 * n, covers_from=2 * n - 1, count=2)
        writer.write([Draft(head, {}, b"x")], keeper)
    assert whole_pass(scrub) == []
    assert tally.corrupt.value == 0
    scrub.close()
