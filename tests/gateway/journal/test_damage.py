"""Damaged files: every start succeeds, and what is whole comes back."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.frame import BLOCK, Head
from gateway.journal.reader import Reader
from gateway.journal.segment import Tally, name_of
from gateway.journal.writer import Draft, Writer

SIZE = 4 * BLOCK
FRAMES = 20


class Keeper:
    firm = 0
    floor = 0

    def lose(self, heads):
        raise AssertionError("nothing need go")

    def document(self):
        return b"state"


def filled(make_disk, start=1):
    """Twenty frames of one record each, four to a segment; a second record of 5,000 bytes in some."""
    disk = make_disk()
    writer = Writer(disk, segment_size=SIZE, max_bytes=1 << 20, tally=Tally())
    writer.recover()
    writer.begin(store=1, start=start, first_seq=1)
    for n in range(1, FRAMES + 1):
        payload = random.Random(n).randbytes(100)
        writer.write([Draft(Head(first_seq=n, last_seq=n, covers_from=n, count=1), {}, payload)], Keeper())
    writer.save(b"state")
    return disk


def reopened(disk):
    tally = Tally()
    writer = Writer(disk, segment_size=SIZE, max_bytes=1 << 20, tally=tally)
    recovered = writer.recover()
    reader, place, seq, found, damaged = Reader(disk, lambda: writer.segments, tally), None, 0, [], 0
    while True:
        next_ = reader.after(seq, place)
        damaged += next_.damaged is not None
        if next_.head is None:
            break
        assert next_.body.payload == random.Random(next_.head.first_seq).randbytes(100)
        found.append(next_.head.first_seq)
        seq, place = next_.head.last_seq, next_.place
    writer.begin(store=1, start=2, first_seq=max(recovered.last_seq, 100) + 1)
    writer.write([Draft(Head(first_seq=200, last_seq=200, covers_from=200, count=1), {}, b"")], Keeper())
    return writer, found, tally


@pytest.mark.parametrize("n", range(1, FRAMES + 1))
@pytest.mark.parametrize("where", [3, 50, 134, 150], ids=["magic", "field", "checksum", "body"])
def test_a_flipped_bit_costs_its_frame_and_no_other(make_disk, n, where):
    disk = filled(make_disk)
    segment, frame = divmod(n - 1, 4)
    disk.names_now[name_of(segment + 1)].cache[frame * BLOCK + where] ^= 16
    _, found, tally = reopened(disk)
    assert found == [k for k in range(1, FRAMES + 1) if k != n]
    assert tally.corrupt.value == (0 if where == 3 else 1), "a broken magic looks like no frame at all"


@pytest.mark.parametrize("segment", range(1, 6))
@pytest.mark.parametrize("damage", ["zeroed", "missing", "garbage", "cut short", "empty", "unreadable"])
def test_a_lost_segment_costs_its_records_and_no_others(make_disk, segment, damage):
    disk = filled(make_disk)
    name = name_of(segment)
    kept = []
    if damage == "zeroed":
        disk.put(name, bytes(SIZE))
    elif damage == "missing":
        disk.unlink(name)
    elif damage == "garbage":
        disk.put(name, random.Random(1).randbytes(SIZE))
    elif damage == "cut short":
        disk.put(name, bytes(disk.names_now[name].cache[: 2 * BLOCK + 77]))
        kept = [4 * segment - 3, 4 * segment - 2]
    elif damage == "empty":
        disk.put(name, b"")
    else:
        disk.fault = lambda what, n: OSError(5, "bad block") if n == name and what in ("pread", "open") else None
    _, found, _ = reopened(disk)
    lost = set(range(4 * segment - 3, 4 * segment + 1)) - set(kept)
    assert found == [k for k in range(1, FRAMES + 1) if k not in lost]


def test_a_copy_of_a_segment_under_another_name_is_not_read_twice(make_disk):
    disk = filled(make_disk)
    disk.put(name_of(9), bytes(disk.names_now[name_of(2)].cache))
    writer, found, _ = reopened(disk)
    assert found == list(range(1, FRAMES + 1))
    assert writer.segments[-1].id > 9


def test_segments_that_changed_their_names_are_not_taken_for_each_other(make_disk):
    disk = filled(make_disk)
    one, two = (bytes(disk.names_now[name_of(n)].cache) for n in (1, 2))
    disk.put(name_of(1), two)
    disk.put(name_of(2), one)
    _, found, _ = reopened(disk)
    assert found == list(range(9, FRAMES + 1))


def test_a_block_that_landed_in_the_wrong_place_is_not_believed(make_disk):
    disk = filled(make_disk)
    cache = disk.names_now[name_of(1)].cache
    cache[BLOCK : 2 * BLOCK] = cache[3 * BLOCK : 4 * BLOCK]
    _, found, _ = reopened(disk)
    assert found == [1, *range(3, FRAMES + 1)], "not 4 in the place of 2, and 3 skipped for it"


def test_frames_of_another_start_that_used_the_same_number_are_not_believed(make_disk):
    disk, other = filled(make_disk), filled(make_disk, start=7)
    theirs = other.names_now[name_of(5)].cache
    disk.names_now[name_of(5)].cache[BLOCK:] = theirs[BLOCK:]
    _, found, _ = reopened(disk)
    assert found == list(range(1, 18))


def test_what_cannot_be_read_is_set_aside_and_only_the_newest_few_are_kept(make_disk):
    disk = filled(make_disk)
    for n in (1, 2, 3):
        disk.put(name_of(n), b"\xff" * SIZE)
    reopened(disk)
    assert sorted(n for n in disk.names_now if n.endswith(".bad")) == [
        "0000000000000002.bad",
        "0000000000000003.bad",
    ]


def test_strangers_files_are_left_alone(make_disk):
    disk = filled(make_disk)
    for name in ("lock", "control.sock", "notes.txt", "1.seg", "0000000000000001.seg.bak"):
        disk.put(name, b"mine")
    _, found, _ = reopened(disk)
    assert found == list(range(1, FRAMES + 1))
    assert {"lock", "control.sock", "notes.txt", "1.seg", "0000000000000001.seg.bak"} <= set(disk.names_now)


def test_both_slots_damaged_leaves_the_document_of_the_newest_frame(make_disk):
    disk = filled(make_disk)
    disk.put("slots", b"\xff" * disk.size("slots"))
    writer = Writer(disk, segment_size=SIZE, max_bytes=1 << 20, tally=Tally())
    assert writer.recover().document == b"state"


def test_a_block_that_cannot_be_read_costs_its_frame_and_no_other(make_disk):
    disk = filled(make_disk)
    disk.bad_blocks = {(name_of(1), 0), (name_of(3), 2), (name_of(5), 3)}
    _, found, tally = reopened(disk)
    assert found == [n for n in range(1, FRAMES + 1) if n not in (1, 11, 20)]
    assert tally.corrupt.value == 3


def test_a_dying_card_is_given_up_after_a_few_blocks_of_a_segment(make_disk):
    disk = filled(make_disk)
    big = make_disk()
    big.put(name_of(1), bytes(disk.names_now[name_of(1)].cache) + bytes(SIZE * 100))
    reads = []

    def fault(what, name):
        if what == "pread" and name.endswith(".seg"):
            reads.append(name)
            return OSError(5, "bad block")
        return None

    big.fault = fault
    writer = Writer(big, segment_size=SIZE, max_bytes=1 << 20, tally=Tally())
    writer.recover()
    assert len(reads) < 40


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_damaged_the_start_succeeds_and_the_rest_is_read_in_order(make_disk, data):
    disk = filled(make_disk)
    touched = set()
    for _ in range(data.draw(st.integers(1, 6))):
        segment = data.draw(st.integers(1, 5))
        at = data.draw(st.integers(0, SIZE - 1))
        junk = data.draw(st.binary(min_size=1, max_size=3 * BLOCK))[: SIZE - at]
        cache = disk.names_now[name_of(segment)].cache
        cache[at : at + len(junk)] = junk
        touched |= {4 * (segment - 1) + k // BLOCK + 1 for k in range(at, at + len(junk))}
    _, found, _ = reopened(disk)
    assert found == sorted(set(found))
    assert set(range(1, FRAMES + 1)) - touched <= set(found)
