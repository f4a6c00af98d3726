"""What a later version wrote, or takes what is not installed, is named and never touched."""

import struct
import zlib

import pytest

from gateway.journal import foreign, frame
from gateway.journal.disk import FolderDisk
from gateway.journal.frame import Body, FormatError, Head
from gateway.journal.slots import SLOT_SIZE


def sealed(version=frame.VERSION, **fields):
    data = bytearray(frame.seal(Head(**fields), Body({}, b"", b"x")))
    data[4] = version
    data[132:136] = struct.pack("<I", zlib.crc32(data[:132]))
    return bytes(data)


@pytest.fixture
def folder(tmp_path):
    def write(name, *blocks, size=65536):
        (tmp_path / name).write_bytes(b"".join(blocks).ljust(size, b"\0"))

    write.disk = FolderDisk(tmp_path)
    return write


def test_a_folder_of_ours_passes(folder):
    folder("0000000000000001.seg", sealed(segment=1))
    folder("0000000000000002.seg", sealed(version=1, segment=2, codec=1))
    folder("0000000000000003.seg")
    folder("spare-1")
    folder("slots", sealed(flags=frame.SLOT), size=2 * SLOT_SIZE)
    foreign.check(folder.disk)


def test_a_segment_of_a_later_version_is_named_with_both_versions_and_the_cure(folder):
    folder("0000000000000001.seg", sealed(segment=1))
    folder("0000000000000002.seg", sealed(version=3, segment=2))
    with pytest.raises(FormatError, match=r"0000000000000002\.seg: .* version 3 .* up to 2: run the version .* newer"):
        foreign.check(folder.disk)


@pytest.mark.parametrize("start", [bytes(4096), b"damage".ljust(4096, b"?")])
def test_it_is_found_behind_damage_too(folder, start):
    folder("0000000000000002.seg", start, start, sealed(version=3, segment=2, offset=8192))
    with pytest.raises(FormatError, match="version 3"):
        foreign.check(folder.disk)


def test_slots_of_a_later_version_are_named(folder):
    folder("slots", bytes(SLOT_SIZE), sealed(version=3, flags=frame.SLOT, offset=SLOT_SIZE), size=2 * SLOT_SIZE)
    with pytest.raises(FormatError, match=r"slots: .* version 3"):
        foreign.check(folder.disk)


def test_what_an_earlier_life_of_a_file_left_does_not_count(folder):
    folder("0000000000000002.seg", sealed(version=3, segment=1))
    folder("0000000000000003.seg", bytes(4096), sealed(version=3, segment=3))
    folder("0000000000000004.bad", sealed(version=3, segment=4))
    folder("spare-1", sealed(version=3))
    foreign.check(folder.disk)


def test_a_frame_whose_checksum_is_wrong_is_damage_and_nothing_foreign(folder):
    data = bytearray(sealed(segment=1))
    data[4] = 3
    folder("0000000000000001.seg", bytes(data))
    foreign.check(folder.disk)


def test_nothing_is_written(folder, tmp_path):
    folder("0000000000000002.seg", sealed(version=3, segment=2))
    (tmp_path / "spare-1").write_bytes(b"too short")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    with pytest.raises(FormatError):
        foreign.check(folder.disk)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
