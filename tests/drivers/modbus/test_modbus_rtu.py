"""Frames of RTU found anywhere: byte by byte, in noise, after beginnings that lead nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.frames import requests
from drivers.modbus.frames.pdu import Request
from drivers.modbus.frames.rtu import Framer, crc

ASKED = Request(1, 3, 107, 3)
ANSWER = bytes.fromhex("01 03 06 02 2B 00 00 00 64 05 7A")
VALUES = (1, ANSWER[1:-2])


def bitwise(data):
    """The CRC as the standard describes it, a bit at a time [V1.02 6.2.2]."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


def hear(data, wanted=(ASKED,), step=1):
    framer = Framer()
    frames = [frame for i in range(0, len(data), step) for frame in framer.receive(data[i : i + step], wanted)]
    return frames, framer


@given(st.binary(max_size=300))
def test_the_crc_is_that_of_the_standard_and_zero_over_a_whole_frame(data):
    assert crc(data) == bitwise(data)
    assert crc(data + crc(data).to_bytes(2, "little")) == 0


def test_the_crc_of_the_standards_example():
    assert crc(bytes.fromhex("02 07")) == 0x1241


def test_a_request_is_framed_as_in_the_worked_example():
    assert Framer.frame(1, ASKED.pdu).hex(" ") == "01 03 00 6b 00 03 74 17"
    assert Framer.length(8) == len(ANSWER)


@pytest.mark.parametrize("step", [1, 4, 100])
def test_an_answer_is_found_however_it_is_cut(step):
    frames, framer = hear(ANSWER + ANSWER, step=step)
    assert frames == [VALUES, VALUES]
    assert framer.rest == framer.clear() == 0
    assert repr(framer) == "<rtu framer holds 0 bytes>"


def test_it_is_found_at_once_and_not_a_byte_later():
    framer = Framer()
    assert framer.receive(ANSWER[:-1], [ASKED]) == []
    assert framer.receive(ANSWER[-1:], [ASKED]) == [VALUES]


@pytest.mark.parametrize("unit", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 15, 16, 17, 20, 22, 23, 24, 43, 10, 100, 247])
@pytest.mark.parametrize("noise", [b"\0", b"\xff", b"\1", b"\1\3", b"\1\3\6", b"\x83\2", b"\1\x83", bytes(7)])
def test_noise_before_an_answer_does_no_harm_whatever_the_unit(unit, noise):
    asked = Request(unit, 3, 107, 3)
    frames, framer = hear(noise + Framer.frame(unit, VALUES[1]), [asked])
    assert (frames or framer.settle([asked])) == [(unit, VALUES[1])]
    assert framer.clear() == len(noise)


@given(st.binary(max_size=40), st.binary(max_size=20), st.integers(1, 60))
def test_any_noise_around_an_answer_is_survived_and_counted(before, after, step):
    frames, framer = hear(before + ANSWER + after, step=step)
    frames += framer.settle([ASKED])
    assert VALUES in frames
    found = sum(len(pdu) + 3 for _, pdu in frames)
    assert framer.clear() == len(before) + len(ANSWER) + len(after) - found


@given(st.binary(max_size=600), st.integers(1, 50))
def test_no_bytes_break_it_and_what_it_gives_has_a_right_crc(data, step):
    frames, framer = hear(data, step=step)
    for unit, pdu in frames + framer.settle([ASKED]):
        assert Framer.frame(unit, pdu) in data
    assert framer.receive(ANSWER, [ASKED]) == [VALUES]


def test_a_line_of_pure_noise_does_not_fill_the_memory():
    framer = Framer()
    for _ in range(1000):
        framer.receive(b"\1\3\xf0" + bytes(97), [ASKED])
    assert framer.rest <= 1024
    assert framer.clear() == 100_000


@pytest.mark.parametrize("at", range(len(ANSWER)))
def test_an_answer_with_a_byte_changed_or_lost_is_none(at):
    for data in (ANSWER[:at] + bytes((ANSWER[at] ^ 0x10,)) + ANSWER[at + 1 :], ANSWER[:at] + ANSWER[at + 1 :]):
        frames, framer = hear(data)
        assert frames + framer.settle([ASKED]) == []


def test_an_exception_is_an_answer():
    assert hear(bytes.fromhex("01 83 02 C0 F1"))[0] == [(1, b"\x83\2")]


def test_a_frame_inside_the_values_of_our_answer_is_no_frame():
    inner = Framer.frame(1, b"\x83\2") + b"\0"
    asked = Request(1, 3, 0, 3)
    answer = Framer.frame(1, b"\3\6" + inner)
    assert hear(answer, [asked])[0] == [(1, b"\3\6" + inner)]
    frames, framer = hear(answer[:-1], [asked])  # it never was an answer: what is inside stands for itself
    assert frames == []
    assert framer.settle([asked]) == [(1, b"\x83\2")]


FOREIGN = [
    (9, "03 00 10 00 02"), (9, "03 04 00 01 00 02"), (9, "84 02"), (9, "05 00 01 FF 00"), (9, "06 00 01 00 03"),
    (9, "10 00 01 00 02 04 00 01 00 02"), (9, "10 00 01 00 02"), (9, "0F 00 00 00 0A 02 CD 01"), (9, "0F 00 00 00 0A"),
    (9, "16 00 04 00 F2 00 25"), (9, "11"), (9, "11 03 41 FF 00"), (9, "07"), (9, "07 6D"), (9, "2B 0E 01 00"),
    (9, "17 00 03 00 06 00 0E 00 03 06 00 FF 00 FF 00 FF"), (9, "18 04 DE"), (1, "04 02 00 01"), (1, "03 02 00 01"),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "pdu"), FOREIGN, ids=lambda value: str(value).replace(" ", ""))
def test_frames_of_others_are_cut_out_and_our_answer_stands_behind_them(unit, pdu):
    frames, framer = hear(Framer.frame(unit, bytes.fromhex(pdu)) + ANSWER)
    assert frames == [(unit, bytes.fromhex(pdu)), VALUES]
    assert framer.clear() == 0


def test_answers_of_variable_size_say_themselves_how_long_they_are():
    asked = requests.server_id(1)
    assert hear(Framer.frame(1, bytes.fromhex("11 03 41 FF 00")), [asked])[0] == [(1, bytes.fromhex("11 03 41 FF 00"))]
    asked = requests.read_identity(1, 0)
    content = bytes.fromhex("2B 0E 01 01 00 00 02 00 03 41 42 43 01 01 44")
    assert hear(b"\1" + Framer.frame(1, content), [asked])[0] == [(1, content)]
    asked = requests.read_fifo(1, 0x4DE)
    content = bytes.fromhex("18 00 06 00 02 01 B8 12 84")
    assert hear(Framer.frame(1, content), [asked])[0] == [(1, content)]


DAMAGED = {
    "a byte of the values": "01 03 06 02 2B 00 00 01 64 05 7A",
    "the crc": "01 03 06 02 2B 00 00 00 64 05 7B",
    "the end is missing": "01 03 06 02 2B",
    "the byte count": "01 03 07 02 2B 00 00 00 64 05 7A",
    "the unit": "09 03 06 02 2B 00 00 00 64 05 7A",
    "the first byte is missing": "03 06 02 2B 00 00 00 64 05 7A",
    "an exception": "01 83 02 C0 F0",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_answer_is_known_by_what_is_left_of_it(what):
    frames, framer = hear(bytes.fromhex(DAMAGED[what]))
    assert frames + framer.settle([ASKED]) == []
    assert framer.is_damaged(ASKED)


PROVE_NOTHING = ["", "00", "01", "01 03", "FF FF FF FF FF FF FF FF FF FF FF FF", "02 03 06 02 2B 00 00 00 64 05 7B"]


@pytest.mark.parametrize("data", PROVE_NOTHING)
def test_other_bytes_prove_nothing(data):
    _, framer = hear(bytes.fromhex(data))
    framer.settle([ASKED])
    assert not framer.is_damaged(ASKED)


def test_our_own_request_come_back_damaged_proves_nothing():
    asked = Request(1, 3, 0x0200, 1)  # begins as its answer does: 01 03 02
    echo = bytearray(Framer.frame(1, asked.pdu))
    echo[5] ^= 1
    _, framer = hear(bytes(echo), [asked])
    framer.settle([asked])
    assert not framer.is_damaged(asked)
