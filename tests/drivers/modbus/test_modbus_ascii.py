"""Frames of ASCII found anywhere: character by character, in noise, begun anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.frames.ascii import Framer, lrc
from drivers.modbus.frames.pdu import Request

ASKED = Request(1, 3, 107, 3)
ANSWER = b":010306022B0000006465\r\n"
VALUES = (1, bytes.fromhex("03 06 02 2B 00 00 00 64"))


def hear(data, step=1):
    framer = Framer()
    return [frame for i in range(0, len(data), step) for frame in framer.receive(data[i : i + step], [ASKED])], framer


def test_a_request_is_framed_as_in_the_worked_example():
    assert Framer.frame(1, ASKED.pdu) == b":0103006B00038E\r\n"
    assert Framer.length(8) == len(ANSWER)
    assert lrc(bytes.fromhex("02 07")) == 0xF7


@pytest.mark.parametrize("step", [1, 4, 100])
def test_an_answer_is_found_however_it_is_cut(step):
    frames, framer = hear(ANSWER + ANSWER, step=step)
    assert frames == [VALUES, VALUES]
    assert framer.rest == framer.clear() == 0
    assert repr(framer) == "<ascii framer holds 0 characters>"


def test_lower_case_is_understood():
    assert hear(b":" + ANSWER[1:].lower())[0] == [VALUES]


@pytest.mark.parametrize("noise", [b"\0", b":", b":01", b"0103", b"\r\n", b":zz\r\n", b":0103\r\n", b"::", b":" * 600])
def test_noise_before_an_answer_does_no_harm(noise):
    frames, framer = hear(noise + ANSWER)
    assert frames == [VALUES]
    assert framer.clear() == len(noise)


@given(st.binary(max_size=700), st.integers(1, 90))
def test_no_bytes_break_it_and_what_it_gives_has_a_right_lrc(data, step):
    frames, framer = hear(data, step)
    for unit, pdu in frames + framer.settle([ASKED]):
        assert Framer.frame(unit, pdu) in data.upper()
    assert framer.receive(b"\r\n" + ANSWER, [ASKED])[-1] == VALUES


@given(st.text("0123456789ABCDEF:\r\n", max_size=100), st.integers(1, 90))
def test_nothing_that_looks_like_frames_breaks_it_either(text, step):
    frames, framer = hear(text.encode() + ANSWER, step)
    assert frames[-1] == VALUES
    found = sum(len(Framer.frame(*frame)) for frame in frames)
    assert framer.clear() == len(text) + len(ANSWER) - found


def test_a_line_of_pure_noise_does_not_fill_the_memory():
    framer = Framer()
    for _ in range(1000):
        framer.receive(b":" + b"0" * 99, [ASKED])
    assert framer.rest <= 1026
    assert framer.clear() == 100_000


@pytest.mark.parametrize("at", range(len(ANSWER)))
def test_an_answer_with_a_bit_changed_or_a_character_lost_is_none(at):
    changed = [ANSWER[:at] + bytes((ANSWER[at] ^ 1 << bit,)) + ANSWER[at + 1 :] for bit in range(8)]
    for data in (*changed, ANSWER[:at] + ANSWER[at + 1 :]):
        assert hear(data)[0] in ([], [VALUES] if data.upper() == ANSWER else [])


def test_patience_is_long_only_where_a_frame_has_begun():
    framer = Framer()
    assert framer.patience_s == 0.05
    framer.receive(b":01", [ASKED])
    assert framer.patience_s == 1.0
    framer.settle([ASKED])
    assert framer.patience_s == 0.05


DAMAGED = {
    "a digit": b":010306022B0000006565\r\n",
    "the lrc": b":010306022B0000006466\r\n",
    "the end is missing": b":010306022B",
    "no digit": b":01030602zB0000006465\r\n",
    "the colon": b";010306022B0000006465\r\n",
    "the byte count": b":010307022B0000006465\r\n",
    "an exception": b":018302FF\r\n",
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_answer_is_known_by_what_is_left_of_it(what):
    frames, framer = hear(DAMAGED[what])
    assert frames + framer.settle([ASKED]) == []
    assert framer.is_damaged(ASKED)


@pytest.mark.parametrize("data", [b"", b":", b":01", b":0203060", b"\xff" * 30, b":020306022B0000006466\r\n"])
def test_other_characters_prove_nothing(data):
    _, framer = hear(data)
    framer.settle([ASKED])
    assert not framer.is_damaged(ASKED)
