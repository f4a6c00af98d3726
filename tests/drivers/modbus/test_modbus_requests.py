"""Requests beside the four reads: golden bytes, what a good answer to each is, and answers of variable length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.frames import pdu, requests
from drivers.modbus.frames.pdu import Failure, Request

# request, its PDU, a good answer, the payload; the worked examples of V1.1b3 where a section has one
GOLDEN = [
    (requests.write_coil(1, 172, on=True), "05 00 AC FF 00", "05 00 AC FF 00", ""),  # 6.5
    (requests.write_coil(1, 172, on=False), "05 00 AC 00 00", "05 00 AC 00 00", ""),
    (requests.write_register(1, 1, b"\0\3"), "06 00 01 00 03", "06 00 01 00 03", ""),  # 6.6
    (requests.exception_status(1), "07", "07 6D", "6D"),  # 6.7
    (requests.diagnostic(1, 11), "08 00 0B 00 00", "08 00 0B 12 34", "12 34"),  # 6.8
    (requests.event_counter(1), "0B", "0B FF FF 01 08", "FF FF 01 08"),  # 6.9
    (
        requests.write_coils(1, 19, [True, False, True, True, False, False, True, True, True, False]),
        "0F 00 13 00 0A 02 CD 01",
        "0F 00 13 00 0A",
        "",
    ),  # 6.11
    (requests.write_registers(1, 1, b"\0\x0a\1\2"), "10 00 01 00 02 04 00 0A 01 02", "10 00 01 00 02", ""),  # 6.12
    (requests.server_id(1), "11", "11 03 B4 FF 41", "03 B4 FF 41"),  # 6.13
    (
        requests.read_file(1, 4, 1, 2),
        "14 07 06 00 04 00 01 00 02",
        "14 06 05 06 0D FE 00 20",
        "0D FE 00 20",
    ),  # the first group of 6.14
    (requests.mask_register(1, 4, mask=0x000D, bits=0x0005), "16 00 04 FF F2 00 05", "16 00 04 FF F2 00 05", ""),
    (
        requests.write_and_read(1, 14, b"\0\xff\0\xff\0\xff", read=3, count=6),
        "17 00 03 00 06 00 0E 00 03 06 00 FF 00 FF 00 FF",
        "17 0C 00 FE 0A CD 00 01 00 03 00 0D 00 FF",
        "00 FE 0A CD 00 01 00 03 00 0D 00 FF",
    ),  # 6.17
    (requests.read_fifo(1, 1246), "18 04 DE", "18 00 06 00 02 01 B8 12 84", "00 06 00 02 01 B8 12 84"),  # 6.18
    (
        requests.read_identity(1, 0),
        "2B 0E 01 00",
        "2B 0E 01 01 00 00 02 00 02 41 42 01 01 43",
        "01 00 00 02 00 02 41 42 01 01 43",
    ),  # 6.21
    (requests.read_identity(1, 4), "2B 0E 02 04", "2B 0E 02 02 00 00 00", "02 00 00 00"),
    (requests.read_identity(1, 128), "2B 0E 03 80", "2B 0E 03 03 00 00 01 80 00", "03 00 00 01 80 00"),
]
IDS = [f"function-{request.function}-{i}" for i, (request, *_) in enumerate(GOLDEN)]


@pytest.mark.parametrize(("request_", "asked", "answer", "payload"), GOLDEN, ids=IDS)
def test_golden_bytes(request_, asked, answer, payload):
    assert request_.pdu == bytes.fromhex(asked)
    assert request_.values_of(bytes.fromhex(answer)) == bytes.fromhex(payload)


@pytest.mark.parametrize(("request_", "asked", "answer", "payload"), GOLDEN, ids=IDS)
def test_an_exception_is_a_refusal_whatever_was_asked(request_, asked, answer, payload):
    failure = request_.values_of(bytes((request_.function | 0x80, 2)))
    assert isinstance(failure, Failure)
    assert failure.cause == "exception:2"


@pytest.mark.parametrize(("request_", "asked", "answer", "payload"), GOLDEN, ids=IDS)
def test_an_answer_that_is_cut_short_or_too_long_is_none(request_, asked, answer, payload):
    whole = bytes.fromhex(answer)
    for wrong in (whole[:-1], whole + b"\0", b"", whole[:1]):
        failure = request_.values_of(wrong)
        assert isinstance(failure, Failure)
        assert failure.cause == "decode"


@pytest.mark.parametrize(("request_", "asked", "answer", "payload"), GOLDEN, ids=IDS)
def test_the_length_of_an_answer_is_known_before_it_ends_and_never_wrong(request_, asked, answer, payload):
    whole = bytes.fromhex(answer)
    for end in range(len(whole) + 1):
        assert request_.measure(whole[:end]) in (None, len(whole))
    assert request_.measure(whole) == len(whole)


@pytest.mark.parametrize(("request_", "asked", "answer", "payload"), GOLDEN, ids=IDS)
def test_the_echo_of_a_request_could_pass_for_its_answer_with_these_functions_alone(request_, asked, answer, payload):
    could = isinstance(request_.values_of(request_.pdu), bytes)
    assert could == (request_.function in (pdu.WRITE_COIL, pdu.WRITE_REGISTER, pdu.DIAGNOSTICS, pdu.MASK_WRITE))


@pytest.mark.parametrize(
    "request_", [request for request, *_ in GOLDEN if not request.size], ids=lambda r: str(r.function)
)
@settings(deadline=None)
@given(noise=st.binary(max_size=300))
def test_any_bytes_have_a_length_or_none_yet(request_, noise):
    for start in (noise, request_.head + noise):
        size = request_.measure(start)
        assert size is None or size >= len(request_.head)
        request_.values_of(start)


def test_reads_and_writes_are_told_apart():
    writes = {request.function for request, *_ in GOLDEN if request.is_write}
    assert writes == {5, 6, 15, 16, 22, 23}
    assert not any(Request(1, function, 0, 1).is_write for function in (1, 2, 3, 4))


def test_a_server_id_is_all_that_follows_its_byte_count():
    assert requests.server_id_of(bytes.fromhex("03 B4 FF 41")) == b"\xb4\xffA"


def test_a_queue_holds_the_registers_that_its_counts_say():
    assert requests.fifo_of(bytes.fromhex("00 06 00 02 01 B8 12 84")) == bytes.fromhex("01 B8 12 84")
    assert requests.fifo_of(bytes.fromhex("00 02 00 00")) == b""


@pytest.mark.parametrize(
    "wrong", ["", "00 06", "00 06 00 02 01 B8", "00 06 00 03 01 B8 12 84", "00 42 00 20" + "00" * 64]
)
def test_a_queue_whose_counts_contradict_each_other_is_none(wrong):
    with pytest.raises(ValueError, match="queue"):
        requests.fifo_of(bytes.fromhex(wrong))


def test_an_identity_holds_objects_and_says_where_to_go_on():
    identity = requests.identity_of(bytes.fromhex("01 FF 03 02 00 02 41 42 01 00"))
    assert identity.conformity == 1
    assert identity.objects == {0: b"AB", 1: b""}
    assert identity.next == 3
    assert requests.identity_of(bytes.fromhex("83 00 00 00")).next is None
    assert requests.identity_of(bytes.fromhex("83 01 03 00")).next is None  # only FF says that more follows


@pytest.mark.parametrize("wrong", ["", "01 00 00", "01 00 00 01", "01 00 00 01 00 02 41", "01 00 00 02 00 00"])
def test_an_identity_that_is_cut_short_is_none(wrong):
    with pytest.raises(ValueError, match="identity"):
        requests.identity_of(bytes.fromhex(wrong))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=requests.MAX_WRITTEN_BITS))
def test_coils_that_are_written_stand_as_those_that_are_read(bits):
    from drivers.modbus.values.decode import decode_bits

    request = requests.write_coils(1, 0, bits)
    values = request.pdu[6:]
    assert request.pdu[5] == len(values) == (len(bits) + 7) // 8
    assert list(decode_bits(range(len(bits)), len(bits))(values)) == bits


@settings(deadline=None)
@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_mask_changes_what_it_covers_as_the_standard_defines_it(held, mask, bits):
    body = requests.mask_register(1, 7, mask=mask, bits=bits).pdu
    conjunct, disjunct = int.from_bytes(body[3:5]), int.from_bytes(body[5:7])
    result = held & conjunct | disjunct & ~conjunct  # [V1.1b3 6.16]
    assert result == held & ~mask | bits & mask


def test_the_largest_requests_are_the_largest_that_fit_into_a_frame():
    assert len(requests.write_registers(1, 0, bytes(2 * requests.MAX_WRITTEN_REGISTERS)).pdu) == 252
    assert len(requests.write_coils(1, 0, [True] * requests.MAX_WRITTEN_BITS).pdu) == 252
    largest = requests.write_and_read(1, 0, bytes(2 * requests.MAX_WRITTEN_WITH_READ), read=0, count=1)
    assert len(largest.pdu) == 252
    assert requests.read_file(1, 1, 0, requests.MAX_FILE_REGISTERS).head[1] == 0xF4
