"""Integers, texts and binary data: their edges, and what is no such thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt import wire
from gateway.mqtt.errors import LocalProtocolError, RemoteProtocolError
from gateway.mqtt.reasons import Reason

VARINTS = [  # 1.5.5, table 1-1
    (0, "00"),
    (127, "7f"),
    (128, "8001"),
    (16_383, "ff7f"),
    (16_384, "808001"),
    (2_097_151, "ffff7f"),
    (2_097_152, "80808001"),
    (268_435_455, "ffffff7f"),
]


@pytest.mark.parametrize(("value", "raw"), VARINTS)
def test_a_varint_is_read_and_written_at_its_edges(value, raw):
    assert wire.varint_bytes(value).hex() == raw
    assert wire.varint(b"\xff" + bytes.fromhex(raw) + b"\xff", 1) == (value, 1 + len(raw) // 2)


@pytest.mark.parametrize(
    "raw", ["", "80", "8080", "ffffff", "8000", "ff00", "808000", "80808000", "80808080", "8080808001", "ffffffff7f"]
)
def test_a_varint_that_is_cut_off_too_long_or_not_the_shortest_is_malformed(raw):
    with pytest.raises(RemoteProtocolError) as caught:
        wire.varint(bytes.fromhex(raw), 0)
    assert caught.value.reason == Reason.MALFORMED_PACKET


@given(st.integers(0, wire.LARGEST_VARINT))
def test_a_varint_that_was_written_is_read(value):
    raw = wire.varint_bytes(value)
    assert wire.varint(raw, 0) == (value, len(raw))


@pytest.mark.parametrize("value", [-1, wire.LARGEST_VARINT + 1])
def test_a_varint_that_does_not_exist_is_our_error(value):
    with pytest.raises(LocalProtocolError):
        wire.varint_bytes(value)


@pytest.mark.parametrize(
    ("read", "write", "size"),
    [(wire.u8, wire.u8_bytes, 1), (wire.u16, wire.u16_bytes, 2), (wire.u32, wire.u32_bytes, 4)],
)
def test_an_integer_is_whole_or_malformed(read, write, size):
    largest = (1 << 8 * size) - 1
    for value in (0, 1, largest - 1, largest):
        assert read(b"\xaa" + write(value), 1) == (value, 1 + size)
    for there in range(size):
        with pytest.raises(RemoteProtocolError):
            read(b"\xaa" + bytes(there), 1)
    for value in (-1, largest + 1):
        with pytest.raises(LocalProtocolError):
            write(value)


@pytest.mark.parametrize("text", ["", "a", "\ufeffa", "\x01\x1f\x7f\x80", "\uffff", "\U0010ffff", "é", "e\u0301"])
def test_a_text_is_kept_to_the_character(text):
    raw = wire.utf8_bytes(text)
    assert wire.utf8(raw, 0) == (text, len(raw))


def test_a_byte_order_mark_is_data():
    assert wire.utf8(bytes.fromhex("0004 efbbbf61"), 0)[0] != wire.utf8(bytes.fromhex("0001 61"), 0)[0]


@pytest.mark.parametrize(
    "raw",
    ["00", "6100", "eda080", "edbfbf", "eda081edb081", "c080", "c1bf", "e08080", "f08080af", "f4908080", "f5808080"],
)
def test_u_0000_surrogates_and_overlong_forms_are_malformed(raw):
    raw = bytes.fromhex(raw)
    with pytest.raises(RemoteProtocolError) as caught:
        wire.utf8(wire.binary_bytes(raw), 0)
    assert caught.value.reason == Reason.MALFORMED_PACKET


def test_the_longest_text_and_the_first_that_is_too_long():
    assert wire.utf8(wire.utf8_bytes("a" * 65535), 0) == ("a" * 65535, 65537)
    assert wire.binary(wire.binary_bytes(bytes(65535)), 0) == (bytes(65535), 65537)
    with pytest.raises(LocalProtocolError, match="65535 go"):
        wire.utf8_bytes("é" * 32768)
    with pytest.raises(LocalProtocolError, match="65535 go"):
        wire.binary_bytes(bytes(65536))


@pytest.mark.parametrize("raw", ["", "00", "0001", "0003 6162", "ffff 61"])
def test_binary_data_that_is_cut_off_is_malformed(raw):
    with pytest.raises(RemoteProtocolError):
        wire.binary(bytes.fromhex(raw), 0)
