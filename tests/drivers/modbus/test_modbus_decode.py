"""Types and orders: golden bytes, and every mixture in one block against unpacking each value by itself."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.values.decode import ORDERS, Field, decode_bits, decode_registers
from drivers.modbus.values.kinds import KINDS

# type, order, bytes on the wire, value
GOLDEN = [
    ("int16", "ABCD", "FF FE", -2),
    ("int16", "BADC", "FE FF", -2),
    ("uint16", "ABCD", "12 34", 0x1234),
    ("uint16", "BADC", "34 12", 0x1234),
    ("int32", "ABCD", "FF FF FF FE", -2),
    ("int32", "CDAB", "FF FE FF FF", -2),
    ("int32", "BADC", "FF FF FE FF", -2),
    ("int32", "DCBA", "FE FF FF FF", -2),
    ("uint32", "ABCD", "12 34 56 78", 0x12345678),
    ("uint32", "CDAB", "56 78 12 34", 0x12345678),
    ("uint32", "BADC", "34 12 78 56", 0x12345678),
    ("uint32", "DCBA", "78 56 34 12", 0x12345678),
    ("int64", "ABCD", "80 00 00 00 00 00 00 01", -(2**63) + 1),
    ("int64", "DCBA", "01 00 00 00 00 00 00 80", -(2**63) + 1),
    ("uint64", "ABCD", "01 23 45 67 89 AB CD EF", 0x0123456789ABCDEF),
    ("uint64", "CDAB", "CD EF 89 AB 45 67 01 23", 0x0123456789ABCDEF),
    ("uint64", "BADC", "23 01 67 45 AB 89 EF CD", 0x0123456789ABCDEF),
    ("uint64", "DCBA", "EF CD AB 89 67 45 23 01", 0x0123456789ABCDEF),
    ("float16", "ABCD", "3E 00", 1.5),
    ("float16", "BADC", "00 3E", 1.5),
    ("float32", "ABCD", "3F C0 00 00", 1.5),
    ("float32", "CDAB", "00 00 3F C0", 1.5),
    ("float32", "BADC", "C0 3F 00 00", 1.5),
    ("float32", "DCBA", "00 00 C0 3F", 1.5),
    ("float64", "ABCD", "3F F8 00 00 00 00 00 01", 1.5000000000000002),
    ("float64", "CDAB", "00 01 00 00 00 00 3F F8", 1.5000000000000002),
    ("float64", "BADC", "F8 3F 00 00 00 00 01 00", 1.5000000000000002),
    ("float64", "DCBA", "01 00 00 00 00 00 F8 3F", 1.5000000000000002),
    ("float32", "ABCD", "7F 80 00 00", math.inf),
    ("bcd16", "ABCD", "12 34", 1234),
    ("bcd16", "BADC", "34 12", 1234),
    ("bcd16", "ABCD", "00 00", 0),
    ("bcd16", "ABCD", "12 3A", None),
    ("bcd32", "ABCD", "12 34 56 78", 12345678),
    ("bcd32", "CDAB", "56 78 12 34", 12345678),
    ("bcd32", "BADC", "34 12 78 56", 12345678),
    ("bcd32", "DCBA", "78 56 34 12", 12345678),
    ("bcd32", "ABCD", "F0 00 00 00", None),
    ("bcd64", "ABCD", "12 34 56 78 90 12 34 56", 1234567890123456),
    ("bcd64", "DCBA", "56 34 12 90 78 56 34 12", 1234567890123456),
    ("datetime6", "ABCD", "07 EA 00 01 00 02 00 03 00 04 00 05", (2026, 1, 2, 3, 4, 5)),
    ("datetime3", "BADC", "01 1A 03 02 05 04", (26, 1, 2, 3, 4, 5)),
    ("string", "ABCD", "41 42 43 44", "ABCD"),
    ("string", "BADC", "42 41 44 43", "ABCD"),
    ("string", "ABCD", "20 41 20 42 20 00", "A B"),
    ("string", "ABCD", "41 00 42 43", "A"),
    ("string", "ABCD", "00 00", ""),
    ("string", "ABCD", "41 B0", None),
    ("bits", "ABCD", "80 01", [True] + [False] * 14 + [True]),
    ("bits", "BADC", "01 80", [True] + [False] * 14 + [True]),
    ("bits", "ABCD", "0A 00", [False] * 9 + [True, False, True] + [False] * 4),
]


@pytest.mark.parametrize(("kind", "order", "wire", "value"), GOLDEN)
def test_golden_bytes(kind, order, wire, value):
    payload = bytes.fromhex(wire)
    field = Field(0, KINDS[kind], order, len(payload))
    assert list(decode_registers([field], len(payload) // 2)(payload)) == [value]


@pytest.mark.parametrize(("kind", "order", "wire", "value"), GOLDEN)
def test_golden_bytes_in_the_midst_of_others(kind, order, wire, value):
    payload = b"\xaa\xbb" * 3 + bytes.fromhex(wire) + b"\xcc\xdd\x11\x22"
    size = len(payload) - 10
    fields = [
        Field(3 + size // 2 + 1, KINDS["uint16"], "ABCD", 2),  # not in order of address
        Field(3, KINDS[kind], order, size),
        Field(0, KINDS["uint16"], "ABCD", 2),
    ]
    assert list(decode_registers(fields, len(payload) // 2)(payload)) == [0x1122, value, 0xAABB]


def test_not_a_number_stays_a_float_for_the_frame_to_judge():
    (value,) = decode_registers([Field(0, KINDS["float32"], "ABCD", 4)], 2)(bytes.fromhex("7F C0 00 00"))
    assert math.isnan(value)


def test_a_string_of_odd_length_takes_the_first_byte_of_its_last_register():
    for order, wire in (("ABCD", b"ABCDEF"), ("BADC", b"BADCFE")):
        assert list(decode_registers([Field(0, KINDS["string"], order, 5)], 3)(wire)) == ["ABCDE"]


@pytest.mark.parametrize(
    ("encoding", "wire", "value"),
    [("latin-1", b"21 \xb0C", "21 °C"), ("utf-8", "21 °C".encode(), "21 °C"), ("utf-8", b"\xb0C", None),
     ("ascii", b"\xb0C", None)],
)  # fmt: skip
def test_the_encoding_decides_how_bytes_become_text(encoding, wire, value):
    wire += b"\0" * (len(wire) % 2)
    field = Field(0, KINDS["string"], "ABCD", len(wire), encoding=encoding)
    assert list(decode_registers([field], len(wire) // 2)(wire)) == [value]


@pytest.mark.parametrize("order", ["ABCD", "BADC"])
def test_each_bit_of_a_register_is_found(order):
    for bit in range(16):
        word = (1 << bit).to_bytes(2, "big" if order == "ABCD" else "little")
        fields = [Field(1, KINDS["bool"], order, 2, bit=b) for b in range(16)]
        decode = decode_registers(fields, 2)
        assert list(decode(b"\xff\xff" + word)) == [b == bit for b in range(16)]
        (one,) = decode_registers([fields[bit]], 2)(b"\x00\x00" + word)
        assert one is True


def test_values_that_overlap_are_each_read_from_the_same_bytes():
    payload = bytes.fromhex("3F C0 00 00 12 34")
    fields = [
        Field(0, KINDS["float32"], "ABCD", 4),
        Field(0, KINDS["uint16"], "ABCD", 2),
        Field(1, KINDS["uint32"], "CDAB", 4),
        Field(0, KINDS["float32"], "ABCD", 4),
        Field(0, KINDS["bool"], "ABCD", 2, bit=13),
        Field(0, KINDS["uint16"], "BADC", 2),
    ]
    assert list(decode_registers(fields, 3)(payload)) == [1.5, 0x3FC0, 0x12340000, 1.5, True, 0xC03F]


def test_plain_floats_are_one_unpacking_and_nothing_else():
    fields = [Field(2 * i, KINDS["float32"], "ABCD", 4) for i in range(62)]
    decode = decode_registers(fields, 124)
    assert decode.__name__ == "unpack"
    assert decode(struct.pack(">62f", *range(62))) == tuple(map(float, range(62)))


# --- every mixture ---


def reference(field, payload):
    """One value by itself, by another way: bytes are put in order one by one."""
    part = bytearray(payload[field.at * 2 : field.at * 2 + field.size + field.size % 2])
    if field.order in ("BADC", "DCBA"):
        part = bytearray(b for i in range(0, len(part), 2) for b in (part[i + 1], part[i]))
    if field.order in ("CDAB", "DCBA"):
        part = bytearray(b for i in reversed(range(0, len(part), 2)) for b in (part[i], part[i + 1]))
    name = field.kind.name
    if name == "bool":
        return bool(int.from_bytes(part) >> field.bit & 1)
    if name == "bits":
        return [bool(int.from_bytes(part) >> i & 1) for i in range(16)]
    if name == "bcd8":
        part = part[:1] if field.bit else part[1:]
    if name.startswith("bcd"):
        return int(part.hex()) if part.hex().isdecimal() else None
    if name.startswith("datetime"):
        return tuple(part) if name == "datetime3" else struct.unpack(">6H", part)
    if kind_of_byte(field):
        byte = part[0] if field.bit else part[1]
        return struct.unpack(f">{field.kind.code}", bytes((byte,)))[0]
    if name == "string":
        text = bytes(part[: field.size]).split(b"\0")[0]
        return text.decode().strip(" ") if text.isascii() else None
    return struct.unpack(f">{field.kind.code}", part)[0]


def kind_of_byte(field):
    return field.kind.name in ("int8", "uint8")


REGISTERS = 12


@st.composite
def fields(draw):
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    size = kind.registers * 2 or draw(st.integers(1, 9))
    order = draw(st.sampled_from(ORDERS if kind.wide else ("ABCD", "BADC")))
    at = draw(st.integers(0, REGISTERS - (size + 1) // 2))
    if kind.octets == 1:
        return Field(at, kind, order, size, bit=draw(st.sampled_from([0, 8])), width=8)
    return Field(at, kind, order, size, bit=draw(st.integers(0, 15)) if kind.name == "bool" else None)


def same(a, b):
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


@given(st.lists(fields(), min_size=1, max_size=12), st.binary(min_size=REGISTERS * 2, max_size=REGISTERS * 2))
def test_any_mixture_of_types_and_orders_decodes_as_each_value_by_itself(mixture, payload):
    got = list(decode_registers(mixture, REGISTERS)(payload))
    expected = [reference(field, payload) for field in mixture]
    assert len(got) == len(expected)
    assert all(map(same, got, expected)), (got, expected)


@given(st.data(), st.integers(1, 60))
def test_coils_come_out_one_by_one_in_the_order_asked_for(data, count):
    payload = data.draw(st.binary(min_size=(count + 7) // 8, max_size=(count + 7) // 8))
    offsets = data.draw(st.lists(st.integers(0, count - 1), min_size=1))
    bits = [bool(payload[at // 8] >> at % 8 & 1) for at in offsets]
    assert list(decode_bits(offsets, count)(payload)) == bits
