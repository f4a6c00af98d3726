"""verify finds every damaged place and nothing else, and tells a power cut from damage."""

from dataclasses import replace

import pytest

from gateway.journal import frame
from gateway.journal.frame import Head
from gateway.spool.payload import Payload
from gateway.upkeep.continuity import Hole, follow
from gateway.upkeep.records import Wanted, decoded, frames
from gateway.upkeep.survey import File, Seen
from gateway.upkeep.verify import Verified, verify


def found(yard, below=""):
    tally = Verified()
    return list(verify(yard.survey(below), tally)), tally


def test_a_whole_store_is_whole(yard):
    yard.fill(1, 60)
    damage, tally = found(yard)
    assert damage == []
    assert (tally.frames, tally.records, tally.doubled) == (15, 60, 0)


def test_a_store_of_several_starts_is_whole(yard):
    for n in range(4):
        yard.fill(1 + 20 * n, 20 + 20 * n)
    damage, tally = found(yard)
    assert damage == []
    assert tally.frames == 20


@pytest.mark.parametrize("hurt", ["body", "head", "zeros"])
def test_a_damaged_frame_is_named_with_its_records_times_and_place(yard, hurt):
    start = yard.fill(1, 40)
    victim = yard.heads()[4]
    {"body": lambda: yard.flip(victim, 200), "head": lambda: yard.flip(victim, 40), "zeros": lambda: yard.wipe(victim)}[
        hurt
    ]()
    (damage,), tally = found(yard)
    assert (damage.kind, damage.first_seq, damage.last_seq, damage.count) == ("lost", start + 16, start + 19, 4)
    assert damage.is_serious
    assert damage.first_time <= yard.t0 + 17_000
    assert damage.last_time >= yard.t0 + 20_000
    (site,) = damage.sites
    assert (site.file, site.offset, site.size) == (yard.path_of(victim).name, victim.offset, victim.extent)
    assert tally.records == 36


def test_two_damaged_frames_side_by_side_are_one_hole_with_two_sites(yard):
    start = yard.fill(1, 40)
    yard.flip(yard.heads()[2], 300)
    yard.flip(yard.heads()[3], 300)
    (damage,), _ = found(yard)
    assert (damage.first_seq, damage.last_seq, damage.count) == (start + 8, start + 15, 8)
    assert len(damage.sites) == 2


def test_a_missing_file_is_told_by_the_numbers(yard):
    yard.fill(1, 120)
    files = yard.survey().files
    gone = [h for h in yard.heads() if h.segment == files[1].number]
    (yard.folder / files[1].name).unlink()
    (damage,), _ = found(yard)
    assert (damage.kind, damage.sites) == ("lost", ())
    assert (damage.first_seq, damage.last_seq) == (gone[0].first_seq, gone[-1].last_seq)
    assert damage.count == sum(h.count for h in gone)


def test_what_was_recycled_in_front_is_no_damage(yard):
    yard.fill(1, 120)
    (yard.folder / yard.survey().files[0].name).unlink()
    assert found(yard)[0] == []


def test_the_last_frame_of_all_may_have_been_torn_and_is_open(yard):
    yard.fill(1, 40)
    yard.flip(yard.heads()[-1], 300)
    (damage,), _ = found(yard)
    assert damage.kind == "open"
    assert damage.is_serious


def test_a_frame_torn_by_a_power_cut_is_no_damage_once_a_later_start_did_not_count_it(yard):
    yard.fill(1, 40)
    torn = yard.heads()[-1]
    yard.flip(torn, 300)
    yard.fill(41, 60)
    (damage,), _ = found(yard)
    assert (damage.kind, damage.first_seq, damage.last_seq) == ("torn", torn.first_seq, torn.last_seq)
    assert not damage.is_serious


@pytest.mark.parametrize("hurt", ["flip", "wipe"])
def test_a_last_frame_damaged_after_a_later_start_had_counted_it_is_a_loss(yard, hurt):
    yard.fill(1, 40)
    victim = yard.heads()[-1]
    yard.fill(41, 60)
    getattr(yard, hurt)(victim)
    (damage,), _ = found(yard)
    assert (damage.kind, damage.count) == ("lost", 4)


def test_the_first_frame_of_a_start_damaged_is_a_loss(yard):
    yard.fill(1, 40)
    yard.fill(41, 60)
    victim = next(h for h in yard.heads() if h.epoch.endswith("-2"))
    yard.flip(victim, 300)
    (damage,), _ = found(yard)
    assert (damage.kind, damage.count) == ("lost", 4)
    assert damage.first_seq <= victim.first_seq <= victim.last_seq <= damage.last_seq


def test_a_file_set_aside_is_named_with_what_can_be_read_in_it(yard):
    yard.fill(1, 120)
    name = yard.survey().files[1].name
    (yard.folder / name).rename(yard.folder / name.replace(".seg", ".bad"))
    lost, aside = found(yard)[0]
    assert lost.kind == "lost"
    assert (aside.kind, aside.count) == ("set aside", lost.count)
    assert (aside.first_seq, aside.last_seq) == (lost.first_seq, lost.last_seq)


def test_a_place_that_is_whole_at_a_second_look_is_no_damage(yard):
    yard.fill(1, 40)
    victim = yard.heads()[-1]
    before = yard.path_of(victim).read_bytes()
    yard.flip(victim, 300)
    survey = yard.survey()
    items = list(survey.walk())
    yard.path_of(victim).write_bytes(before)  # the running gateway has finished its write
    survey.walk = lambda **_: iter(items)
    assert list(verify(survey, Verified())) == []


def test_each_class_is_looked_at_by_itself(yard):
    yard.fill(1, 20)
    yard.fill(1, 20, below="alarm")
    assert found(yard)[1].records == 20
    assert found(yard, "alarm")[1].records == 20


def test_a_file_recycled_in_the_middle_of_a_look_is_no_loss(yard):
    yard.fill(1, 160)
    survey = yard.survey()
    (yard.folder / survey.files[1].name).rename(yard.folder / f"{99:016x}.seg")
    assert list(verify(survey, Verified())) == []


def test_records_that_stand_there_twice_in_part_are_counted_once(yard):
    yard.fill(1, 8)
    first, second = yard.heads()
    survey = yard.survey()
    payload = Payload(first.first_seq)
    for item in survey.walk():
        for record in decoded(survey, item):
            payload.add(record, 0, 1 << 20)
    yard.wipe(second)
    again = replace(first, segment=2, offset=0, count=8, last_seq=second.last_seq, max_time=second.max_time)
    body = frame.Body(payload.entries, b"", payload.sealed())
    (yard.folder / f"{2:016x}.seg").write_bytes(frame.seal(again, body))
    damage, tally = found(yard)
    assert damage == []
    assert tally.doubled == 4
    assert [r.seq for _, records in frames(yard.survey(), Wanted()) for r in records] == list(range(1, 9))


def test_between_thinned_frames_of_two_starts_nothing_is_called_lost():
    """A thinned frame has fewer records than were once written: the ordinals say nothing there."""
    file = File("0000000000000001.seg", 1, 1 << 16)
    thinned = Head(
        segment=1, start=1, store=7, first_seq=1, last_seq=90, covers_from=1, count=9, flags=1 << frame.LEVEL_SHIFT
    )
    later = replace(thinned, start=2, first_seq=200, last_seq=210, covers_from=200, ordinal=90)
    start = replace(later, flags=later.flags | frame.EPOCH_START)
    body = frame.Body({}, b"", b"")
    kinds = [f.kind for f in follow([Seen(file, thinned, body), Seen(file, start, body)]) if isinstance(f, Hole)]
    assert kinds == ["between"]
    kinds = [f.kind for f in follow([Seen(file, thinned, body), Seen(file, later, body)]) if isinstance(f, Hole)]
    assert kinds == ["lost"]  # the beginning of that start is not there
