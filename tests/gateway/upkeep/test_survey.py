"""A walk through a folder sees every frame and every damaged place, and changes nothing."""

import asyncio
import os
import shutil
from dataclasses import replace

import pytest

from gateway.errors import FileError
from gateway.journal import frame
from gateway.journal.disk import FolderDisk
from gateway.upkeep.folder import parts
from gateway.upkeep.survey import Scar, Seen, Survey, Vanished


def kinds(items):
    return [type(item).__name__ for item in items]


def test_every_frame_is_seen_once_in_order(yard):
    yard.fill(1, 60)
    items = list(yard.survey().walk())
    assert kinds(items) == ["Seen"] * 15
    assert [i.head.count for i in items] == [4] * 15
    assert len({i.head.segment for i in items}) > 1
    assert all(i.body is not None for i in items)


def test_looking_changes_no_byte_and_opens_nothing_for_writing(yard, monkeypatch):
    yard.fill(1, 40)
    before = yard.bytes()
    modes = []
    real = os.open

    def watched(path, flags, *rest, **more):
        modes.append(flags)
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    survey = yard.survey()
    list(survey.walk())
    survey.state()
    assert modes
    assert not any(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) for flags in modes)
    assert yard.bytes() == before


def test_a_disk_opened_for_reading_only_changes_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    disk = FolderDisk(tmp_path, writable=False)
    file = disk.open("a")
    with pytest.raises(OSError):
        disk.pwrite(file, b"y", 0)
    disk.close(file)
    for change in (lambda: disk.open("b", create=True), lambda: disk.rename("a", "b"), lambda: disk.unlink("a")):
        with pytest.raises(PermissionError, match="reading only"):
            change()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("at", [140, 3, 20, 130])
def test_a_flipped_bit_is_a_damaged_place_and_costs_nothing_behind_it(yard, at):
    yard.fill(1, 40)
    victim = yard.heads()[4]
    yard.flip(victim, at)
    items = list(yard.survey().walk())
    assert len([i for i in items if isinstance(i, Seen) and i.body is not None]) == 9
    (bad,) = [i for i in items if isinstance(i, Scar) or i.body is None]
    offset = bad.offset if isinstance(bad, Scar) else bad.head.offset
    assert offset == victim.offset


def test_zeros_between_frames_are_a_scar_and_behind_the_last_are_none(yard):
    yard.fill(1, 40)
    victim = yard.heads()[4]
    yard.wipe(victim)
    scars = [i for i in yard.survey().walk() if isinstance(i, Scar)]
    assert [(s.offset, s.size, s.what, s.is_end) for s in scars] == [(victim.offset, victim.extent, "zeros", False)]


def test_what_an_earlier_life_left_behind_the_last_frame_is_no_scar(yard):
    yard.fill(1, 400, acknowledge=390, max_bytes=5 * 64 * 1024 + 128 * 1024)
    yard.fill(401, 600, acknowledge=195, max_bytes=5 * 64 * 1024 + 128 * 1024)
    survey = yard.survey()
    assert max(file.number for file in survey.files) > len(survey.files) + 2  # files went round
    assert not [i for i in survey.walk() if not isinstance(i, Seen) or i.body is None]


def test_a_file_that_was_cut_short_says_so(yard):
    yard.fill(1, 40)
    victim = yard.heads()[5]
    os.truncate(yard.path_of(victim), victim.offset + 4096)
    scars = [i for i in yard.survey().walk() if isinstance(i, Scar)]
    assert [(s.offset, s.is_end) for s in scars] == [(victim.offset, True)]
    assert "longer than what is left of the file" in scars[0].what


def test_a_file_recycled_between_listing_and_reading_is_no_damage(yard):
    yard.fill(1, 60)
    survey = yard.survey()
    first = yard.folder / survey.files[0].name
    first.rename(yard.folder / f"{99:016x}.seg")
    items = list(survey.walk())
    assert isinstance(items[0], Vanished)
    assert not [i for i in items if isinstance(i, Scar)]


@pytest.mark.parametrize("hurt", ["body", "head"])
def test_a_file_recycled_while_it_is_read_is_no_damage(yard, monkeypatch, hurt):
    monkeypatch.setattr("gateway.upkeep.survey._PIECE", 4096)
    yard.fill(1, 60)
    survey = yard.survey()
    heads = [h for h in yard.heads() if h.segment == survey.files[0].number]
    walk = survey.walk_file(survey.files[0])
    first = next(walk)
    path = yard.path_of(first.head)
    data = bytearray(path.read_bytes())
    data[:8192] = bytes(8192)  # the writer begins at the front
    at = 600 if hurt == "body" else 20
    data[heads[1].offset + at] ^= 1
    path.write_bytes(data)
    assert [type(item) for item in walk] == [Vanished]


def test_a_number_used_again_by_another_start_does_not_mix_two_lives(yard):
    yard.fill(1, 20)
    last = yard.heads()[-1]
    path = yard.path_of(last)
    data = bytearray(path.read_bytes())
    strange = frame.seal(
        replace(last, start=9, offset=last.offset + last.extent), frame.Body({}, b"", b"what another start left")
    )
    data[last.offset + last.extent : last.offset + last.extent + len(strange)] = strange
    path.write_bytes(data)
    assert yard.heads()[-1] == last


def test_the_state_in_a_frame_counts_where_the_slots_are_older(yard, tmp_path):
    async def main():
        async with yard.opened() as queue:
            queue.cursor("cloud")
            queue.append(yard.batch(1))
            await queue.durable()
            shutil.copytree(yard.folder, tmp_path / "cut")

    asyncio.run(main())
    yard.folder = tmp_path / "cut"
    frame_document = yard.survey().document()
    (yard.folder / "slots").unlink()
    assert yard.survey().document() == frame_document
    assert [m.name for m in yard.survey().state().marks] == ["cloud"]


def test_a_frame_of_a_newer_version_is_whole_and_named(yard):
    yard.fill(1, 20)
    victim = yard.heads()[2]
    path = yard.path_of(victim)
    data = bytearray(path.read_bytes())
    data[victim.offset + 4] = 9
    head = bytes(data[victim.offset : victim.offset + victim.length - 4])
    data[victim.offset + victim.length - 4 : victim.offset + victim.length] = frame.zlib.crc32(head).to_bytes(
        4, "little"
    )
    path.write_bytes(data)
    strange = [i for i in yard.survey().walk() if isinstance(i, Seen) and i.obstacle]
    assert [i.head.first_seq for i in strange] == [victim.first_seq]
    assert "format version 9" in strange[0].obstacle
    assert strange[0].is_whole


def test_definitions_are_found_in_any_file(yard):
    yard.fill(1, 60)
    first = next(i for i in yard.survey().walk() if isinstance(i, Seen))
    yard.wipe(first.head)
    assert yard.survey().definition(yard.pump.hash).names == yard.pump.names
    assert yard.survey().definition(b"12345678") is None


def test_the_newest_state_is_found_in_slots_or_frames(yard):
    start = yard.fill(1, 20, acknowledge=8)
    state = yard.survey().state()
    assert [(m.name, m.committed) for m in state.marks] == [("cloud", start + 7)]
    (yard.folder / "slots").unlink()
    assert yard.survey().state().store == state.store


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda p: None, "there is no such folder"),
        (lambda p: p.mkdir(), "is empty"),
        (lambda p: (p.mkdir(), (p / "photo.jpg").touch()), "neither segments nor slots"),
        (lambda p: ((p / "spool").mkdir(parents=True), (p / "spool" / "slots").touch()), "spool is. Name that"),
    ],
)
def test_a_folder_that_is_no_spool_is_refused_with_the_cure(tmp_path, prepare, text):
    prepare(tmp_path / "x")
    with pytest.raises(FileError, match=text):
        parts(tmp_path / "x")


def test_the_classes_of_a_spool_are_found_most_important_first(yard):
    yard.fill(1, 4)
    yard.fill(1, 4, below="alarm")
    assert [part.record_class for part in parts(yard.folder)] == ["alarm", "data"]
    assert [part.record_class for part in parts(yard.folder, "alarm")] == ["alarm"]
    with pytest.raises(FileError, match="no class 'diag' here; there are: alarm, data"):
        parts(yard.folder, "diag")


def test_a_block_that_cannot_be_read_costs_only_its_frame(yard):
    yard.fill(1, 40)
    victim = yard.heads()[3]

    class Sick(FolderDisk):
        def pread(self, file, size, offset):
            if offset <= victim.offset < offset + size:
                raise OSError(5, "Input/output error")
            return super().pread(file, size, offset)

    survey = Survey(yard.survey().part, disk=Sick(yard.folder, writable=False))
    one = survey.files[0]
    other = [i for i in survey.walk_file(one) if isinstance(i, Scar)]
    assert [(s.offset, s.size) for s in other] == [(victim.offset, victim.extent)]
    assert "Input/output error" in other[0].what
