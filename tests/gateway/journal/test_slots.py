"""Slots: at any moment one whole document can be read."""

import errno

import pytest

from gateway.journal.segment import Tally
from gateway.journal.slots import FILE_SIZE, NAME, SLOT_SIZE, Slots


def written(disk, *documents):
    slots = Slots(disk, Tally())
    for generation, document in enumerate(documents, 1):
        slots.write(generation, document)
    return slots


def test_the_newest_document_is_read_back(make_disk):
    disk = make_disk()
    written(disk, b"one", b"two", b"three")
    assert Slots(disk.crash(), Tally()).read() == (3, b"three")


def test_an_empty_folder_has_no_document(make_disk):
    assert Slots(make_disk(), Tally()).read() is None


def test_documents_go_to_both_slots_by_turns(make_disk):
    disk = make_disk()
    slots = written(disk, b"one")
    before = disk.copy()
    slots.write(2, b"two")
    after = disk.copy()
    changed = [
        slot
        for slot in (0, 1)
        if before.names_now[NAME].cache[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE]
        != after.names_now[NAME].cache[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE]
    ]
    assert len(changed) == 1
    slots.write(3, b"three")
    assert Slots(disk.crash(), Tally()).read() == (3, b"three")


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_at_any_point_leaves_the_last_document_or_the_one_being_written(make_disk, seed):
    for cut_at in range(1, 12):
        disk = make_disk(cut_at=cut_at, seed=seed)
        slots, last = Slots(disk, Tally()), 0
        try:
            for generation in range(1, 6):
                slots.write(generation, b"%d" % generation)
                last = generation
        except OSError:
            pass
        found = Slots(disk.crash(seed), Tally()).read()
        if last:
            assert found is not None
            assert found[0] in (last, last + 1)
            assert found[1] == b"%d" % found[0]


def test_a_damaged_slot_gives_way_to_the_other(make_disk):
    disk = make_disk()
    written(disk, b"one", b"two")
    newest = next(s for s in (0, 1) if b"two" and Slots(disk, Tally())._read(disk.open(NAME), s) == (2, b"two"))
    disk.names_now[NAME].cache[newest * SLOT_SIZE + 140] ^= 4
    assert Slots(disk, Tally()).read() == (1, b"one")


def test_after_a_failed_flush_the_file_is_made_anew(make_disk):
    disk = make_disk()
    slots = written(disk, b"one", b"two")
    disk.fault = lambda what, name: OSError(errno.EIO, "bad block") if what == "fdatasync" else None
    with pytest.raises(OSError, match="bad block"):
        slots.write(3, b"three")
    disk.fault = lambda what, name: None
    del disk.log[:]
    slots.write(4, b"four")
    assert ("rename", NAME) in disk.log
    assert ("sync_folder", "") in disk.log
    assert Slots(disk.crash(), Tally()).read() == (4, b"four")
    assert disk.size(NAME) == FILE_SIZE


def test_a_document_too_large_for_a_slot_is_refused(make_disk):
    import random

    with pytest.raises(ValueError, match="does not fit"):
        Slots(make_disk(), Tally()).write(1, random.Random(1).randbytes(SLOT_SIZE))
