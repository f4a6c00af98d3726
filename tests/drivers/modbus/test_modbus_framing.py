"""Frames and PDUs: the specification's own example, and any bytes cut anywhere."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.frames.mbap import Framer
from drivers.modbus.frames.pdu import EXCEPTIONS, Failure, Request, refusal

ANSWER = bytes.fromhex("00 01 00 00 00 09 01 03 06 02 2B 00 00 00 64")


def frame(transaction, unit, pdu):
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


frames = st.tuples(st.integers(0, 65535), st.integers(0, 255), st.binary(min_size=1, max_size=253))


def cut(data, places):
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


# --- framing ---


def test_the_example_of_the_specification_comes_out_as_one_frame():
    assert Framer().receive(ANSWER) == [(1, 1, bytes.fromhex("03 06 02 2B 00 00 00 64"))]


def test_a_request_is_encoded_as_in_the_specification():
    request = Request(unit=1, function=3, address=107, count=3)
    assert b"\x00\x01" + request.tail == bytes.fromhex("00 01 00 00 00 06 01 03 00 6B 00 03")


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 2000)))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(sent, places):
    framer = Framer()
    heard = [f for part in cut(b"".join(frame(*f) for f in sent), places) for f in framer.receive(part)]
    assert heard == sent
    assert framer.broken == ""


@given(st.lists(frames, max_size=3), st.binary(max_size=700), st.lists(st.integers(0, 2000)))
def test_any_bytes_in_any_cuts_neither_crash_nor_pile_up(sent, noise, places):
    framer, whole = Framer(), Framer()
    data = b"".join(frame(*f) for f in sent) + noise
    heard = []
    for part in cut(data, places):
        heard += framer.receive(part)
        assert len(framer._rest) < 6 + 254
    assert heard == whole.receive(data)  # the cuts make no difference
    assert framer.broken == whole.broken
    assert heard[: len(sent)] == sent


@pytest.mark.parametrize(
    "header",
    [
        "00 01 00 01 00 09 01",  # not the protocol Modbus
        "00 01 00 00 00 00 01",  # no room for a unit
        "00 01 00 00 00 01 01",  # no room for a function
        "00 01 00 00 00 FF 01",  # longer than any frame
        "48 54 54 50 2F 31 2E",  # HTTP/1.
    ],
)
def test_a_header_that_cannot_be_one_breaks_the_stream_for_good(header):
    framer = Framer()
    good = frame(5, 1, b"\x03\x02\x00\x07")
    assert framer.receive(good + bytes.fromhex(header)) == [(5, 1, b"\x03\x02\x00\x07")]
    assert framer.broken == f"{header.lower()} is no Modbus TCP header"
    assert framer.receive(good) == []
    assert framer.broken in repr(framer)


def test_half_a_frame_is_not_enough_yet():
    framer = Framer()
    assert framer.receive(ANSWER[:-1]) == []
    assert framer.broken == ""
    assert "14 bytes" in repr(framer)


# --- answers ---

REGISTERS = Request(unit=1, function=3, address=0, count=2)
BITS = Request(unit=1, function=1, address=0, count=9)


@pytest.mark.parametrize(
    ("request_", "pdu", "values"),
    [(REGISTERS, "03 04 00 01 00 02", "00 01 00 02"), (BITS, "01 02 FF 01", "FF 01")],
)
def test_an_answer_with_our_function_and_exact_count_gives_its_values(request_, pdu, values):
    assert request_.values_of(bytes.fromhex(pdu)) == bytes.fromhex(values)


@pytest.mark.parametrize(
    ("request_", "pdu"),
    [
        (REGISTERS, "04 04 00 01 00 02"),  # another function
        (REGISTERS, "03 02 00 01"),  # fewer registers, in itself well formed
        (REGISTERS, "03 06 00 01 00 02 00 03"),  # more
        (REGISTERS, "03 04 00 01 00"),  # shorter than it says
        (REGISTERS, "03 04 00 01 00 02 00"),  # longer than it says
        (REGISTERS, "03 03 00 01 00 02"),  # count off by one
        (REGISTERS, "03"),
        (REGISTERS, "83"),  # an exception without a code
        (REGISTERS, "83 02 00"),  # and one with too much
        (REGISTERS, "81 02"),  # an exception to another function
        (BITS, "01 01 FF"),
        (BITS, "02 02 FF 01"),
    ],
)
def test_an_answer_that_does_not_fit_never_becomes_values(request_, pdu):
    answer = request_.values_of(bytes.fromhex(pdu))
    assert isinstance(answer, Failure)
    assert (answer.cause, answer.act) == ("decode", "unit")
    assert bytes.fromhex(pdu).hex(" ")[:23] in answer.text


@given(st.binary(max_size=260))
def test_no_bytes_but_the_right_ones_become_values(pdu):
    answer = REGISTERS.values_of(pdu)
    assert isinstance(answer, Failure) or (len(pdu) == 6 and pdu[:2] == b"\x03\x04")


# --- exceptions ---


@pytest.mark.parametrize(
    ("code", "act"),
    [(1, "skip"), (2, "split"), (3, "split"), (4, "split"), (5, "busy"), (6, "busy"), (8, "again"), (10, "unit"),
     (11, "unit"), (99, "again")],
)  # fmt: skip
def test_each_exception_has_its_cause_and_its_consequence(code, act):
    answer = REGISTERS.values_of(bytes((0x83, code)))
    assert answer == refusal(code)
    assert (answer.cause, answer.act) == (f"exception:{code}", act)
    assert f"exception {code}" in answer.text


def test_the_exceptions_are_those_of_the_specification_in_its_words():
    assert sorted(EXCEPTIONS) == [1, 2, 3, 4, 5, 6, 8, 10, 11]
    assert all(code.sentence.endswith(".") for code in EXCEPTIONS.values())
    assert refusal(2).text == (
        "exception 2 (Illegal Data Address: The data address received in the query is not an allowable address "
        "for the server.)"
    )
