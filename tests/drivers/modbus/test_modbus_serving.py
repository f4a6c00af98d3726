"""The server's side: requests cut out of bytes, and answers as frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.frames import requests
from drivers.modbus.frames.pdu import Request
from drivers.modbus.tools.serving import Asked, Cutter, answer_size, answers_in, exception, frame, request_size

FRAMINGS = ["tcp", "rtu", "ascii"]

ALL = {
    "coils": Request(1, 1, 5, 9),
    "holding": Request(1, 3, 100, 2),
    "write coil": requests.write_coil(1, 5, on=True),
    "write register": requests.write_register(1, 5, b"\x12\x34"),
    "exception status": requests.exception_status(1),
    "diagnostic": requests.diagnostic(1, 11),
    "event counter": requests.event_counter(1),
    "write coils": requests.write_coils(1, 5, [True] * 11),
    "write registers": requests.write_registers(1, 5, bytes(8)),
    "server id": requests.server_id(1),
    "file": requests.read_file(1, 4, 1, 2),
    "mask": requests.mask_register(1, 4, mask=8, bits=8),
    "write and read": requests.write_and_read(1, 5, bytes(4), read=7, count=3),
    "fifo": requests.read_fifo(1, 9),
    "identity": requests.read_identity(1, 0),
}


def asked_frame(framing, unit, pdu, transaction=0):
    return frame(framing, Asked(unit, pdu, transaction), pdu)


@pytest.mark.parametrize("request_", ALL.values(), ids=ALL)
def test_each_request_says_how_long_it_is(request_):
    assert request_size(request_.pdu) == len(request_.pdu)
    assert all(request_size(request_.pdu[:n]) in (None, len(request_.pdu)) for n in range(len(request_.pdu)))


def test_an_unknown_function_is_no_request():
    assert request_size(b"\x63\0\0") == 0


@pytest.mark.parametrize("framing", FRAMINGS)
@given(data=st.data())
def test_requests_are_found_however_the_bytes_are_cut(framing, data):
    wanted = data.draw(st.lists(st.sampled_from(list(ALL.values())), min_size=1, max_size=5))
    stream = b"".join(asked_frame(framing, r.unit, r.pdu, i) for i, r in enumerate(wanted))
    cutter = Cutter(framing)
    found = []
    while stream:
        n = data.draw(st.integers(1, len(stream)))
        found += cutter.receive(stream[:n])
        stream = stream[n:]
    assert [asked.pdu for asked in found] == [r.pdu for r in wanted]
    assert cutter.skipped == 0


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
@given(noise=st.binary(max_size=40))
def test_noise_before_a_request_is_skipped_at_the_latest_when_the_line_is_idle(framing, noise):
    cutter = Cutter(framing)
    request = ALL["holding"]
    found = cutter.receive(noise + asked_frame(framing, 1, request.pdu))
    for _ in range(3):
        found += cutter.idle()
    assert request.pdu in [asked.pdu for asked in found]


@given(st.lists(st.binary(max_size=400), max_size=8), st.sampled_from(FRAMINGS))
def test_any_bytes_never_break_a_cutter_and_never_fill_it(chunks, framing):
    cutter = Cutter(framing)
    for chunk in chunks:
        for asked in cutter.receive(chunk):
            assert asked.pdu or framing == "tcp"
        assert len(cutter._rest) <= 1024
        repr(cutter)


@pytest.mark.parametrize("framing", ["rtu", "ascii"])
def test_an_answer_is_found_among_noise_echo_and_foreign_frames(framing):
    asked = Request(17, 3, 100, 2).pdu
    answer = b"\x03\x04\x41\x45\x70\xa4"
    heard = (
        b"\x00\xff:"
        + asked_frame(framing, 17, asked)
        + frame(framing, Asked(18, asked), answer)
        + frame(framing, Asked(17, asked), answer)
    )
    assert [pdu for pdu, _ in answers_in(heard, framing, 17, asked)] == [answer]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (ALL["holding"].pdu, b"\x03\x04\0\1\0\2"),
        (ALL["holding"].pdu, b"\x83\x02"),
        (ALL["write register"].pdu, ALL["write register"].pdu),
        (ALL["write registers"].pdu, b"\x10\0\5\0\4"),
        (ALL["server id"].pdu, b"\x11\x03abc"),
        (ALL["identity"].pdu, b"\x2b\x0e\x01\x01\0\0\1\0\2ab"),
        (ALL["fifo"].pdu, b"\x18\0\4\0\1\0\7"),
        (ALL["exception status"].pdu, b"\x07\x55"),
        (ALL["event counter"].pdu, b"\x0b\0\0\0\7"),
        (ALL["write and read"].pdu, b"\x17\x06\0\1\0\2\0\3"),
    ],
    ids=lambda b: b.hex(),
)
def test_answers_say_how_long_they_are(asked, answer):
    assert answer_size(asked)(answer) == len(answer)
    assert answer_size(asked)(b"") is None
    assert answer_size(asked)(b"\x63") == 0


def test_an_exception_carries_the_function_and_the_code():
    assert exception(b"\x03\0\0\0\1", 2) == b"\x83\x02"


def test_a_stream_that_is_no_modbus_tcp_is_broken():
    cutter = Cutter("tcp")
    assert cutter.receive(b"GET / HTTP/1.1\r\n") == []
    assert cutter.is_broken
