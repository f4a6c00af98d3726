"""Every built-in type against the library's own encoder, which is told the same values [Part 6 5.2.2]."""

import math
import struct
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary, variant_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.values.layouts import Layout, Member
from drivers.opcua.values.status import BAD_DECODING_ERROR
from drivers.opcua.values.variants import MOST_LAYOUTS, MOST_MISSING, Decoder, MisfitError
from drivers.opcua.values.wire import time_text
from gateway.floats import shorten

SPACES = ("http://opcfoundation.org/UA/", "urn:plant", "urn:50%;odd")
INTEGERS = {
    "SByte": (-(2**7), 2**7 - 1), "Byte": (0, 2**8 - 1), "Int16": (-(2**15), 2**15 - 1), "UInt16": (0, 2**16 - 1),
    "Int32": (-(2**31), 2**31 - 1), "UInt32": (0, 2**32 - 1), "Int64": (-(2**63), 2**63 - 1), "UInt64": (0, 2**64 - 1),
}  # fmt: skip
TEXTS = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.datetimes(datetime(1601, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - as asked
NODES = st.one_of(
    st.builds(ua.NodeId, st.integers(0, 2**32 - 1), st.integers(0, 3)),
    st.builds(ua.NodeId, st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), st.integers(0, 3)),
    st.builds(ua.NodeId, st.uuids(), st.integers(0, 3)),
    st.builds(ua.NodeId, st.binary(min_size=1, max_size=9), st.integers(0, 3)),
)
SCALARS = {
    "Boolean": st.booleans(),
    **{name: st.integers(low, high) for name, (low, high) in INTEGERS.items()},
    "Float": st.floats(width=32),
    "Double": st.floats(),
    "String": TEXTS,
    "DateTime": TIMES,
    "Guid": st.uuids(),
    "ByteString": st.none() | st.binary(max_size=20),
    "XmlElement": st.builds(ua.XmlElement, TEXTS),
    "NodeId": NODES,
    "StatusCode": st.sampled_from([0, 0x80340000, 0x40920000, 0x8FFF0000, 0x7FFF0000]).map(ua.StatusCode),
    "QualifiedName": st.builds(ua.QualifiedName, TEXTS, st.integers(0, 3)),
    "LocalizedText": st.builds(ua.LocalizedText, TEXTS, TEXTS),
}


def node_text(node):
    own = node.Identifier
    kind = "i" if isinstance(own, int) else "g" if isinstance(own, UUID) else "b" if isinstance(own, bytes) else "s"
    shown = b64encode(own).decode() if kind == "b" else own
    space = {0: "", 1: "nsu=urn:plant;", 2: "nsu=urn:50%25%3Bodd;", 3: "ns=3;"}[node.NamespaceIndex]
    return f"{space}{kind}={shown}"


def shown(value, *, inside=False):
    """What the library's value is in JSON."""
    if isinstance(value, bytes):
        return value.hex() if inside else value
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat().rstrip("0" if value.microsecond else "") + "Z"
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, ua.XmlElement):
        return value.Value
    if isinstance(value, ua.NodeId):
        return node_text(value)
    if isinstance(value, ua.StatusCode):
        names = {0: "Good", 0x80340000: "BadNodeIdUnknown", 0x40920000: "UncertainInitialValue"}
        return names.get(value.value, f"0x{value.value:08X}")
    if isinstance(value, ua.QualifiedName):
        return f"{value.NamespaceIndex}:{value.Name or ''}" if value.NamespaceIndex else value.Name
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, list):
        return [shown(one, inside=True) for one in value]
    return value


def packed(value, kind, **more):
    return variant_to_binary(ua.Variant(value, ua.VariantType[kind], **more))


def alike(one, other):
    """Equal, and of equal types, with NaN equal to itself."""
    if isinstance(one, list):
        return type(other) is list and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return type(other) is float and (one == other or (math.isnan(one) and math.isnan(other)))
    return type(one) is type(other) and one == other


def decoded(data, decoder=None):
    value, end = (decoder or Decoder(SPACES)).variant(data, 0)
    assert end == len(data)
    return value


@pytest.mark.parametrize("kind", SCALARS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_value_of_each_type_reads_as_the_library_wrote_it(kind, data):
    value = data.draw(SCALARS[kind].filter(lambda own: own is not None or kind in {"String", "ByteString"}))
    assert alike(decoded(packed(value, kind)), shown(value))


@pytest.mark.parametrize("kind", SCALARS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_an_array_of_each_type_reads_as_the_library_wrote_it(kind, data):
    values = data.draw(st.lists(SCALARS[kind], max_size=6))
    own = decoded(packed(values, kind, is_array=True))
    assert alike(own, shorten(values) if kind == "Float" else shown(values))
    orjson.dumps(own)  # no bytes in a list


@pytest.mark.parametrize("kind", SCALARS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_value_that_breaks_off_is_refused(kind, data):
    value = data.draw(SCALARS[kind].filter(lambda own: own is not None))
    for packing in (packed(value, kind), packed([value] * 2, kind)):
        for end in range(len(packing)):
            with pytest.raises((ValueError, struct.error, IndexError)):
                Decoder().variant(packing[:end], 0)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    layers=st.integers(1, 3),
    kind=st.sampled_from(["Int16", "String"]),
)
def test_a_matrix_is_lists_in_lists(rows, columns, layers, kind):
    flat = [n if kind == "Int16" else str(n) for n in range(rows * columns * layers)]
    data = packed(flat, kind, Dimensions=[layers, rows, columns], is_array=True)
    at = iter(flat)
    assert decoded(data) == [[[next(at) for _ in range(columns)] for _ in range(rows)] for _ in range(layers)]


@pytest.mark.parametrize(
    "dimensions",
    [
        [2, 2],
        [2, -3],
        [-2, -3],
        [7],
        [0, 6, 5],
        [2**31 - 1, 2**31 - 1],
        [6, 1, 1, 0],
        [6] + [1] * 200,
        [2**31 - 1] * 9000,
    ],
)
def test_dimensions_that_do_not_fit_spoil_one_value_and_nothing_behind_it(dimensions):
    data = (
        b"\xc4" + struct.pack("<i6h", 6, *range(6)) + struct.pack(f"<i{len(dimensions)}i", len(dimensions), *dimensions)
    )
    if len(dimensions) == 1:  # one dimension says nothing that the length does not say
        assert decoded(data) == list(range(6))
        return
    with pytest.raises(MisfitError):
        decoded(data)
    sample, end = Decoder().data_value(b"\x03" + data + struct.pack("<I", 0), 0)
    assert (sample, end) == ((None, BAD_DECODING_ERROR, 0, 0), 1 + len(data) + 4)
    inner = b"\x98" + struct.pack("<i", 2) + data + b"\x04\x05\x00"
    assert decoded(inner) == [None, 5]


@pytest.mark.parametrize("kind", [*range(26), 26, 31])
def test_null_and_empty_arrays_are_none_and_empty(kind):
    assert decoded(bytes([0x80 | kind]) + b"\xff\xff\xff\xff") is None
    assert decoded(bytes([0x80 | kind]) + b"\0\0\0\0") == []
    assert decoded(bytes([0xC0 | kind]) + b"\0\0\0\0" + struct.pack("<3i", 2, 0, 5)) == []


def test_floats_within_a_value_have_the_digits_they_deserve():
    tenth = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert decoded(packed(tenth, "Float")) == tenth  # by itself its tag says what it is
    assert decoded(packed([[0.1], [0.3]], "Float")) == [[0.1], [0.3]]
    assert decoded(packed([0.1], "Double")) == [0.1]
    assert decoded(packed([ua.Variant(0.1, ua.VariantType.Float)], "Variant")) == [0.1]
    assert decoded(packed([ua.DataValue(ua.Variant(0.1, ua.VariantType.Float))], "DataValue")) == [{"value": 0.1}]
    odd = decoded(packed([math.inf, math.nan, -0.0, 16_777_217.0], "Float"))
    assert alike(odd, [math.inf, math.nan, -0.0, 16_777_216.0])


def test_values_hold_values():
    inner = ua.DataValue(
        ua.Variant(5, ua.VariantType.Byte), ua.StatusCode(0x40920000), datetime(2026, 11, 2, tzinfo=UTC)
    )
    assert decoded(packed(inner, "DataValue")) == {
        "value": 5, "status": "UncertainInitialValue", "source": "2026-11-02T00:00:00Z",
    }  # fmt: skip
    mixed = [ua.Variant(5, ua.VariantType.Byte), ua.Variant([True]), ua.Variant(b"\1"), ua.Variant()]
    assert decoded(packed(mixed, "Variant", is_array=True)) == [5, [True], "01", None]


def test_what_another_stack_wrote_is_read():
    """node-opcua's bytes, for what the library writes otherwise than the standard says, or not at all."""
    value = bytes.fromhex("3f0b000000000000f83f0000904000c07e1a5d6add017b008056171b5d6add01c801")
    times = 134_380_512_000_000_000
    assert Decoder().data_value(value, 0) == ((1.5, 0x40900000, times, times + 10_000_000), len(value))
    info = "7f01000000020000000300000004000000040000006d6f726500000a801002000000696e"
    assert decoded(b"\x19" + bytes.fromhex(info)) == {
        "symbolic_id": 1, "namespace": 2, "locale": 3, "text": 4, "info": "more", "status": "BadTimeout",
        "inner": {"info": "in"},
    }  # fmt: skip
    node = bytes.fromhex("12c300000400000054616e6b0b00000075726e3a6f746865723b7803000000")
    assert decoded(node) == "svr=3;nsu=urn:other%3Bx;s=Tank"
    matrix = "c80400000001000000000000000200000000000000ffffffffffffffff0000000001000000020000000200000002000000"
    assert decoded(bytes.fromhex(matrix)) == [[1, 2], [-1, 2**32]]


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (-5, "1601-01-01T00:00:00Z"),
        (0, "1601-01-01T00:00:00Z"),
        (1, "1601-01-01T00:00:00.0000001Z"),
        (134_380_512_000_000_000, "2026-11-02T00:00:00Z"),
        (134_380_512_012_300_000, "2026-11-02T00:00:01.23Z"),
        (2**63 - 1, "9999-12-31T23:59:59Z"),
        (-(2**63), "1601-01-01T00:00:00Z"),
    ],
)
def test_times_are_iso_8601_and_end_where_the_standard_ends_them(ticks, text):
    assert time_text(ticks) == text
    assert decoded(b"\x0d" + struct.pack("<q", ticks)) == text


@settings(deadline=None)
@given(TIMES)
def test_a_time_means_the_same_as_the_librarys(time):
    text = time_text(ua.datetime_to_win_epoch(time))
    assert datetime.fromisoformat(text) == time


def test_text_that_is_no_utf_8_can_still_be_published():
    text = decoded(b"\x0c" + struct.pack("<i", 3) + b"a\xff\xfe")
    assert text == "a\ufffd\ufffd"
    orjson.dumps(text)


# --- structures nobody knows


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("16 0000 00", None),
        ("16 0102 4d03 00", {"type": "nsu=urn:50%25%3Bodd;i=845"}),
        ("16 0101 4d03 01 02000000 abcd", {"type": "nsu=urn:plant;i=845", "body": "abcd"}),
        ("16 0101 4d03 01 ffffffff", {"type": "nsu=urn:plant;i=845"}),
        ("16 0101 4d03 02 04000000 3c612f3e", {"type": "nsu=urn:plant;i=845", "body": "<a/>"}),
        ("96 02000000 000000 0109 4d03 01 01000000 ff", [None, {"type": "ns=9;i=845", "body": "ff"}]),
    ],
)
def test_an_unknown_structure_is_its_type_and_its_bytes(data, value):
    assert decoded(bytes.fromhex(data)) == value


def test_an_unknown_structure_is_asked_for_once_and_not_without_end():
    decoder = Decoder()
    data = b"\x16" + ua.ua_binary.nodeid_to_binary(ua.NodeId("T", 1)) + b"\x01" + struct.pack("<i", 0)
    decoded(data, decoder)
    assert decoder.missing == {(1, "s", "T")}
    decoder.missing.clear()
    decoder.layouts[1, "s", "T"] = None
    decoded(data, decoder)
    assert not decoder.missing
    for number in range(MOST_MISSING + 50):
        decoded(b"\x16\x02" + struct.pack("<HI", 1, number) + b"\x01" + struct.pack("<i", 0), decoder)
    assert len(decoder.missing) == MOST_MISSING
    decoder.missing.clear()
    decoder.layouts = dict.fromkeys(range(MOST_LAYOUTS))
    decoded(data, decoder)
    assert not decoder.missing


def test_a_structure_whose_bytes_are_not_what_its_definition_says_stays_bytes():
    decoder = Decoder(SPACES)
    decoder.layouts[1, "i", 845] = Layout(members=[Member("x", 6)])
    good, bad = (bytes.fromhex(f"160101 4d03 01 {body}") for body in ("04000000 01000000", "03000000 010000"))
    assert decoded(good, decoder) == {"x": 1}
    assert decoded(bad, decoder) == {"type": "nsu=urn:plant;i=845", "body": "010000"}


# --- hostile bytes


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_refused(data):
    for read in (Decoder().variant, Decoder().data_value):
        try:
            value, end = read(data, 0)
        except (ValueError, struct.error, IndexError):
            continue
        assert 0 <= end <= len(data)
        orjson.dumps(value, default=bytes.hex)


@pytest.mark.parametrize("kind", range(32))
@pytest.mark.parametrize("length", [2**31 - 1, 2**24, 100, -2, -(2**31)])
def test_a_length_is_no_reason_to_make_room(kind, length):
    data = bytes([0x80 | kind]) + struct.pack("<i", length) + bytes(50)
    if length < 0:
        assert Decoder().variant(data, 0) == (None, 5)
        return
    with pytest.raises((ValueError, struct.error)):
        Decoder().variant(data, 0)


@pytest.mark.parametrize(("kind", "size"), [(17, 2), (21, 1), (22, 3), (23, 1), (24, 1), (25, 1)])
def test_what_a_byte_can_mean_is_bounded_by_the_message(kind, size, monkeypatch):
    """An element takes a byte or three, and hundreds of bytes of memory: not for every byte of 64 MB."""
    monkeypatch.setattr("drivers.opcua.values.variants.MOST_VALUES", 1000)

    def array(count):
        return bytes([0x80 | kind]) + struct.pack("<i", count) + bytes(size * count)

    assert len(Decoder().variant(array(250), 0)[0]) == 250
    with pytest.raises(ValueError, match="values in one message"):
        Decoder().variant(array(251), 0)
    with pytest.raises(ValueError, match="values in one message"):
        Decoder().variant(b"\x98" + struct.pack("<i", 5) + array(50) * 5, 0)


def test_each_message_may_hold_as_much_as_any(monkeypatch):
    monkeypatch.setattr("drivers.opcua.values.variants.MOST_VALUES", 1000)
    decoder = Decoder()
    for _ in range(3):
        assert len(decoder.alone(b"\x95" + struct.pack("<i", 200) + bytes(200))) == 200


@pytest.mark.parametrize("head", [b"\x18", b"\x17\x01", b"\x98\x01\0\0\0", b"\x97\x01\0\0\0\x01"])
def test_values_that_hold_one_another_too_deep_are_refused(head):
    value, _ = Decoder().variant(head * 90 + b"\x03\x05", 0)
    orjson.dumps(value)
    with pytest.raises(ValueError, match="deep"):
        Decoder().variant(head * 5000 + b"\x03\x05", 0)


def test_diagnostics_that_hold_one_another_too_deep_are_refused():
    with pytest.raises(ValueError, match="deep"):
        Decoder().variant(b"\x19" + b"\x40" * 5000, 0)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["Boolean", "Int32", "Double", "String", "DateTime"]),
    code=st.none() | st.sampled_from([0, 0x80340000, 0x00000480]),
    source=st.none() | TIMES,
    server=st.none() | TIMES,
    has_value=st.booleans(),
    data=st.data(),
)
def test_a_data_value_has_what_its_mask_says(kind, code, source, server, has_value, data):
    value = ua.Variant(data.draw(SCALARS[kind]), ua.VariantType[kind]) if has_value else ua.Variant()
    own = ua.DataValue(value, None if code is None else ua.StatusCode(code), source, server)
    body = struct_to_binary(own)
    sample, end = Decoder().data_value(body + b"\xee", 0)
    assert end == len(body)
    assert alike(sample[0], shown(value.Value))
    assert sample[1:] == (code or 0, *(ua.datetime_to_win_epoch(t) if t else 0 for t in (source, server)))


def test_a_time_of_the_library_keeps_its_tenths_of_microseconds():
    ticks = ua.datetime_to_win_epoch(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=5)) + 7
    sample, _ = Decoder().data_value(b"\x04" + struct.pack("<q", ticks), 0)
    assert sample[2] == ticks
