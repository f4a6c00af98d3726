"""Frames: what goes in comes out, and what was touched is not believed."""

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal import compression, frame
from gateway.journal.frame import Body, Head

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
heads = st.builds(
    Head,
    record_class=st.integers(0, 255),
    clock=st.integers(0, 255),
    segment=u64,
    offset=u32,
    start=u32,
    store=st.integers(0, 2**24 - 1),
    count=u32,
    first_seq=u64,
    last_seq=u64,
    covers_from=u64,
    min_time=i64,
    max_time=i64,
    boot_id=st.binary(min_size=16, max_size=16),
    monotonic=i64,
    wall=i64,
    ordinal=u64,
    generation=u64,
)
bodies = st.builds(
    Body,
    st.dictionaries(st.binary(min_size=8, max_size=8), st.binary(max_size=200), max_size=5),
    st.binary(max_size=300),
    st.binary(max_size=9000),
)


def opened(data):
    head = frame.parse(data)
    return head, frame.unpack(head, data[head.length : head.length + head.body_length]) if head else None


@settings(deadline=None)
@given(heads, bodies)
def test_a_frame_reads_back_as_it_was_written(head, body):
    data = frame.seal(head, body)
    found, read = opened(data)
    assert read == body
    assert len(data) == found.extent
    assert len(data) % frame.BLOCK == 0
    flags = frame.HAS_ENTRIES if body.entries else 0
    assert replace(found, body_length=0, body_checksum=0) == replace(head, flags=flags)


@settings(deadline=None)
@given(heads, bodies, st.data())
def test_a_frame_with_any_bit_flipped_is_not_believed(head, body, data):
    sealed = bytearray(frame.seal(head, body))
    whole = frame.parse(bytes(sealed))
    at = data.draw(st.integers(0, whole.length + whole.body_length - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    found, read = opened(bytes(sealed))
    assert found is None or read is None


@settings(deadline=None)
@given(st.binary(max_size=5000))
def test_any_bytes_never_crash_the_reader(data):
    for start in (b"", frame.MAGIC):
        head = frame.parse(start + data)
        assert head is None or frame.unpack(head, data) is None


def test_a_body_that_is_well_summed_but_ill_formed_is_no_body():
    for raw in (b"\x05\x00\x00\x00", zlib.compress(b""), zlib.compress(struct.pack("<I", 3) + b"short")):
        head = Head(body_length=len(raw), body_checksum=zlib.crc32(raw))
        assert frame.unpack(head, raw) is None


def test_a_head_with_the_body_of_another_frame_is_not_believed():
    """A torn write over a recycled file: the new head reached the medium, the old body is still there."""
    old, new = (frame.seal(Head(), Body({}, b"", b"value %d" % n)) for n in (1, 2))
    torn = new[: frame.HEAD_LENGTH] + old[frame.HEAD_LENGTH :]
    assert frame.parse(torn).body_length == frame.parse(old).body_length
    assert opened(torn) == (frame.parse(new), None)


def test_the_worked_example_of_the_docstring_is_right():
    head = Head(flags=frame.EPOCH_START | frame.HAS_ENTRIES, clock=2, segment=7, body_length=300)
    packed = frame._pack(head)
    assert packed[:24].hex() == "48474a31 02 02 0300 8800 00 02 2c010000 0700000000000000".replace(" ", "")
    assert frame.__doc__ is not None
    assert "48474a31 02 02 0300 8800 00 02 2c010000 0700000000000000" in frame.__doc__
    assert len(packed) == 136 == frame.HEAD_LENGTH


def changed(sealed, **fields):
    """A frame as another version would have written it: some fields, or a longer head, under a right checksum."""
    head = bytearray(sealed[: frame.HEAD_LENGTH - 4])
    head[4] = fields.get("version", head[4])
    head[5] = fields.get("codec", head[5])
    length = fields.get("length", frame.HEAD_LENGTH)
    head[8:10] = struct.pack("<H", length)
    head += b"?" * (length - frame.HEAD_LENGTH)
    head += struct.pack("<I", zlib.crc32(head))
    return bytes(head) + sealed[frame.HEAD_LENGTH :]


SEALED = frame.seal(Head(segment=7, count=3), Body({}, b"", b"x"))


@pytest.mark.parametrize("fields", [{"version": 3}, {"codec": 4}, {"version": 200, "codec": 77, "length": 512}])
def test_a_whole_frame_of_a_later_version_is_left_alone_and_told_from_a_damaged_one(fields):
    data = changed(SEALED, **fields)
    assert frame.parse(data) is None
    head = frame.glance(data)
    assert (head.segment, head.count, head.version) == (7, 3, fields.get("version", 2))
    assert f"format version {head.version}" in frame.obstacle(head)
    assert "versions up to 2" in frame.obstacle(head)
    touched = bytearray(data)
    touched[20] ^= 1
    assert frame.glance(bytes(touched)) is None


def test_a_longer_head_of_this_version_is_read_and_the_body_is_found_behind_it():
    data = changed(SEALED, length=200)
    head = frame.parse(data)
    assert (head.length, head.count) == (200, 3)
    assert frame.unpack(head, data[200 : 200 + head.body_length]).payload == b"x"
    assert frame.parse(data[:150]) is None


@pytest.mark.parametrize("length", [0, 135, 513, 65535])
def test_a_head_of_an_impossible_length_is_none(length):
    assert frame.glance(changed(SEALED, length=length).ljust(70000, b"\0")) is None


def test_a_frame_of_version_1_is_read():
    data = changed(SEALED, version=1, codec=1)
    head = frame.parse(data)
    assert (head.version, head.codec, frame.obstacle(head)) == (1, 1, None)
    assert frame.unpack(head, data[head.length : head.length + head.body_length]).payload == b"x"


def test_what_is_packed_far_beyond_any_frame_is_no_body():
    raw = zlib.compress(bytes(compression.MOST + 1), 1)
    head = Head(body_length=len(raw), body_checksum=zlib.crc32(raw))
    assert frame.unpack(head, raw) is None


def test_the_epoch_is_six_hex_digits_and_the_count_of_starts():
    assert Head(store=0x9F31C2, start=3).epoch == "9f31c2-3"
    assert Head(store=0xC2, start=12).epoch == "0000c2-12"


@pytest.mark.parametrize("size", [16 * 1024, 64 * 1024, 8 * 1024 * 1024])
def test_what_capacity_allows_fits_even_if_it_cannot_be_compressed(size):
    import random

    payload = random.Random(1).randbytes(frame.capacity(size) - 8)
    assert len(frame.seal(Head(), Body({}, b"", payload))) <= size
