"""What is read is what was written: every type in every order, there and back, and what does not fit says its range."""

import math
import struct
from datetime import datetime
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drivers.modbus.values.decode import ORDERS, Field, decode_registers, shortest
from drivers.modbus.values.encode import arrange, encode, encode_bits, encode_coils
from drivers.modbus.values.kinds import KINDS
from drivers.modbus.values.meaning import Date, Flawed, Labels, Moment

EVERY = [
    (name, order)
    for name, order in product(KINDS, ORDERS)
    if KINDS[name].registers
    and KINDS[name].octets > 1
    and name != "bool"
    and (KINDS[name].wide or order in ("ABCD", "BADC"))
]


def field_of(name, order="ABCD", **more):
    kind = KINDS[name]
    if name.startswith("datetime"):
        more = {"meaning": Date(2000 if name == "datetime3" else 0)} | more
    return Field(0, kind, order, kind.registers * 2 * (more.get("count") or 1), **more)


def decoded(field, wire):
    (value,) = decode_registers([field], len(wire) // 2)(wire)
    return value


def values_of(name):
    """Everything that a type can hold."""
    kind = KINDS[name]
    if kind.is_whole:
        return st.integers(kind.low, kind.high)
    if kind.name.startswith("float"):
        width = {"e": 16, "f": 32, "d": 64}[kind.code]
        return st.floats(width=width, allow_nan=False)
    if name == "bits":
        return st.lists(st.booleans(), min_size=16, max_size=16)
    first, last = (2000, 2255) if name == "datetime3" else (1, 9999)
    moments = st.datetimes(datetime(first, 1, 1), datetime(last, 12, 31, 23, 59, 59))  # noqa: DTZ001 - all are UTC
    return moments.map(lambda moment: moment.replace(microsecond=0).isoformat() + "Z")


@pytest.mark.parametrize(("name", "order"), EVERY)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_value_that_is_written_is_read_back_the_same(name, order, data):
    field = field_of(name, order)
    value = data.draw(values_of(name))
    wire = encode(field, value)
    assert len(wire) == field.size
    assert decoded(field, wire) == value


@pytest.mark.parametrize(("name", "order"), EVERY)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_registers_that_are_a_value_are_written_back_the_same(name, order, data):
    field = field_of(name, order)
    wire = data.draw(st.binary(min_size=field.size, max_size=field.size))
    value = decoded(field, wire)
    if value is None or (
        isinstance(value, float) and math.isnan(value)
    ):  # many bytes are no number, one of them is ours
        return
    assert encode(field, value) == wire


@pytest.mark.parametrize(("name", "order"), [e for e in EVERY if KINDS[e[0]].is_number])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_lists_come_back_element_by_element(name, order, data):
    field = field_of(name, order, count=3)
    values = data.draw(st.lists(values_of(name), min_size=3, max_size=3))
    back = decoded(field, encode(field, values))
    for value, found in zip(values, back, strict=True):
        if isinstance(value, float) and not math.isfinite(value):
            assert found is None
        elif name == "float32":
            assert struct.pack(">f", found) == struct.pack(">f", value)
        else:
            assert found == value


@pytest.mark.parametrize(("order", "wire"), [("ABCD", "1234"), ("CDAB", "3412"), ("BADC", "2143"), ("DCBA", "4321")])
def test_the_letters_of_an_order_say_where_each_byte_goes(order, wire):
    assert arrange(b"1234", order) == wire.encode()
    assert arrange(wire.encode(), order) == b"1234"


@pytest.mark.parametrize("order", ORDERS)
def test_a_list_in_any_order_is_each_of_its_values_in_that_order(order):
    field = field_of("float32", order, count=2)
    assert encode(field, [1.5, -2.0]) == encode(field_of("float32", order), 1.5) + encode(
        field_of("float32", order), -2.0
    )


# --- bits of a register ---


@pytest.mark.parametrize("order", ["ABCD", "BADC"])
@settings(deadline=None)
@given(first=st.integers(0, 15), width=st.integers(2, 16), word=st.integers(0, 0xFFFF), signed=st.booleans())
def test_a_field_of_bits_changes_its_bits_and_no_others(order, first, width, word, signed):
    width = min(width, 16 - first)
    if width < 2:
        return
    field = Field(0, KINDS["int16" if signed else "uint16"], order, 2, bit=first, width=width)
    wire = word.to_bytes(2)
    value = decoded(field, wire)
    assert (value < 0) == (
        signed and bool(int.from_bytes(wire if order == "ABCD" else wire[::-1]) >> first + width - 1 & 1)
    )
    mask, bits = encode_bits(field, value)
    assert bits == word & mask
    assert bits & ~mask == 0
    assert mask.bit_count() == width
    other = (word ^ mask).to_bytes(2)
    changed = int.from_bytes(other) & ~mask | bits
    assert changed == word


@pytest.mark.parametrize("name", ["int8", "uint8", "bcd8"])
@pytest.mark.parametrize("high", [False, True])
@settings(deadline=None)
@given(word=st.integers(0, 0xFFFF))
def test_half_a_register_is_written_without_the_other_half(name, high, word):
    field = Field(0, KINDS[name], "ABCD", 2, bit=8 if high else 0, width=8)
    value = decoded(field, word.to_bytes(2))
    if value is None:
        assert name == "bcd8"
        return
    assert encode_bits(field, value) == (0xFF00 if high else 0xFF, word & (0xFF00 if high else 0xFF))


@pytest.mark.parametrize("order", ["ABCD", "BADC"])
@pytest.mark.parametrize("bit", range(16))
def test_a_single_bit_is_the_same_bit_when_it_is_written(order, bit):
    field = Field(0, KINDS["bool"], order, 2, bit=bit)
    mask, bits = encode_bits(field, value=True)
    assert decoded(field, bits.to_bytes(2)) is True
    assert encode_bits(field, value=False) == (mask, 0)
    assert mask == bits


# --- texts ---


@st.composite
def texts(draw):
    encoding = draw(st.sampled_from(["ascii", "latin-1", "utf-8"]))
    codec = {"ascii": "ascii", "latin-1": "latin-1", "utf-8": "utf-8"}[encoding]
    alphabet = st.characters(codec=codec, exclude_characters="\0")
    text = draw(st.text(alphabet, max_size=12)).strip(" ")
    room = max(len(text.encode(encoding)) + draw(st.integers(0, 4)), 1)
    layout = draw(st.sampled_from(["both", "low", "high"]))
    order = draw(st.sampled_from(["ABCD", "BADC"]))
    size = room if layout == "both" else room * 2
    padding = draw(st.sampled_from(["nul", "space"]))
    return text, Field(0, KINDS["string"], order, size, encoding=encoding, layout=layout, padding=padding)


@settings(deadline=None)
@given(texts())
def test_any_text_comes_back_in_any_layout_encoding_and_order(case):
    text, field = case
    wire = encode(field, text)
    assert len(wire) == (field.size + 1) // 2 * 2
    assert decoded(field, wire) == text


@pytest.mark.parametrize(
    ("layout", "order", "wire"),
    [
        ("both", "ABCD", b"ABC\0"),
        ("both", "BADC", b"BA\0C"),
        ("high", "ABCD", b"A\0B\0C\0\0\0"),
        ("low", "ABCD", b"\0A\0B\0C\0\0"),
        ("low", "BADC", b"A\0B\0C\0\0\0"),
    ],
)
def test_a_text_stands_in_its_registers_as_layout_and_order_say(layout, order, wire):
    field = Field(0, KINDS["string"], order, 4 if layout == "both" else 8, layout=layout)
    assert encode(field, "ABC") == wire
    assert decoded(field, wire) == "ABC"


def test_padding_says_what_fills_the_rest():
    field = Field(0, KINDS["string"], "ABCD", 5, padding="space")
    assert encode(field, "AB") == b"AB   \0"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ABCDE", "the text has 5 bytes, its registers hold 4"),
        ("é", "'é' is no character of ascii. Leave it out, or choose encoding"),
        (" A", "spaces around a text and NULs in it are lost"),
        ("A\0B", "spaces around a text and NULs in it are lost"),
        (5, "string holds text, got 5"),
    ],
)
def test_a_text_that_would_not_come_back_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        encode(Field(0, KINDS["string"], "ABCD", 4), text)


# --- what does not fit ---


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("int16", 40000, r"int16 holds -32768\.\.32767, got 40000"),
        ("uint16", -1, r"uint16 holds 0\.\.65535, got -1"),
        ("uint32", 2**32, r"uint32 holds 0\.\.4294967295, got 4294967296"),
        ("int64", 2**63, r"int64 holds -9223372036854775808\.\.9223372036854775807, got 9223372036854775808"),
        ("uint64", 1e30, r"uint64 holds 0\.\.18446744073709551615, got 1000000000000000019884624838656"),
        ("bcd16", 10000, r"bcd16 holds 0\.\.9999, got 10000"),
        ("bcd32", -1, r"bcd32 holds 0\.\.99999999, got -1"),
        ("int16", 2.5, r"int16 holds whole numbers, got 2\.5\. The nearest are 2 and 3"),
        ("int16", -2.5, r"int16 holds whole numbers, got -2\.5\. The nearest are -3 and -2"),
        ("int16", math.nan, "int16 holds whole numbers, got nan"),
        ("int16", math.inf, "int16 holds whole numbers, got inf"),
        ("int16", True, "int16 holds whole numbers, got true"),
        ("int16", None, "int16 holds whole numbers, got null"),
        ("int16", "5", "int16 holds whole numbers, got '5'"),
        ("float16", 70000, r"float16 holds -65504\.\.65504, got 70000"),
        ("float32", 1e39, r"float32 holds -3\.40282e\+38\.\.3\.40282e\+38, got 1e\+39"),
        ("float64", 10**400, r"float64 holds -1\.79769e\+308\.\.1\.79769e\+308, got 10000"),
        ("float32", "1.5", r"float32 holds numbers, got '1\.5'"),
        ("float32", False, "float32 holds numbers, got false"),
        ("bits", [True], "bits are a list of 16 times true or false"),
        ("bits", 7, "bits are a list of 16 times true or false, bit 0 first, got 7"),
        ("datetime3", "1999-12-31T00:00:00Z", r"datetime3 holds years of 0\.\.255 from its first, got -1"),
        ("datetime6", "2026-01-02T03:04:05.5Z", "the device counts in seconds"),
        ("datetime6", 5, "a time is written as text like 2026-01-02T03:04:05Z, got 5"),
        ("datetime6", "yesterday", "'yesterday' is no time. Write it like"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_does_not_fit_says_the_range(name, value, reason):
    with pytest.raises(ValueError, match=reason):
        encode(field_of(name), value)


def test_a_float_that_is_a_whole_number_may_be_written_to_integers():
    assert encode(field_of("int16"), 5.0) == b"\0\5"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (Field(0, KINDS["uint16"], "ABCD", 2, bit=4, width=4), 16, r"a field of 4 bits holds 0\.\.15, got 16"),
        (Field(0, KINDS["int16"], "ABCD", 2, bit=4, width=4), 8, r"a field of 4 bits holds -8\.\.7, got 8"),
        (Field(0, KINDS["uint8"], "ABCD", 2, bit=0, width=8), 256, r"uint8 holds 0\.\.255, got 256"),
        (Field(0, KINDS["bool"], "ABCD", 2, bit=0), 2, "bool holds true or false, got 2"),
    ],
    ids=["unsigned", "signed", "byte", "bool"],
)
def test_what_does_not_fit_into_bits_says_the_range(field, value, reason):
    with pytest.raises(ValueError, match=reason):
        encode_bits(field, value)


@pytest.mark.parametrize("value", [[1, 2], [1, 2, 3, 4], 5, "123"])
def test_a_list_of_another_length_is_refused(value):
    with pytest.raises(ValueError, match="the tag is a list of 3 values, got"):
        encode(field_of("int16", count=3), value)


def test_coils_are_true_or_false_and_as_many_as_there_are():
    one, three = Field(0, KINDS["bool"], "ABCD", 2), Field(0, KINDS["bool"], "ABCD", 2, count=3)
    assert encode_coils(one, 1) == [True]
    assert encode_coils(three, [True, False, 1]) == [True, False, True]
    for field, value in ((one, "on"), (three, [True]), (three, True), (three, [True, 2, False])):
        with pytest.raises(ValueError, match="true or false"):
            encode_coils(field, value)


# --- sentinels and meanings ---


@pytest.mark.parametrize("order", ORDERS)
def test_a_sentinel_is_recognised_in_any_order_and_cannot_be_written(order):
    field = field_of("int32", order, sentinels=frozenset({0x80000000}))
    assert decoded(field, arrange(b"\x80\0\0\0", order)) == Flawed(None, "bad:sentinel")
    assert decoded(field, arrange(b"\x80\0\0\1", order)) == -(2**31) + 1
    with pytest.raises(ValueError, match="is the number by which the device says that it has no value"):
        encode(field, -(2**31))


def test_a_float_sentinel_is_known_by_its_very_bits():
    field = field_of("float32", sentinels=frozenset({0x80000000}))  # minus zero, which equals zero as a number
    assert decoded(field, b"\0\0\0\0") == 0.0
    assert decoded(field, b"\x80\0\0\0") == Flawed(None, "bad:sentinel")


def test_a_sentinel_need_not_be_a_value_of_the_type():
    field = field_of("bcd16", sentinels=frozenset({0xFFFF}))
    assert decoded(field, b"\xff\xff") == Flawed(None, "bad:sentinel")
    assert decoded(field, b"\xff\xfe") is None


def test_in_a_list_what_has_no_value_is_null_and_when_all_have_none_nor_has_the_list():
    field = field_of("uint16", count=3, sentinels=frozenset({0xFFFF}))
    assert decoded(field, b"\0\1\xff\xff\0\3") == [1, None, 3]
    assert decoded(field, b"\xff" * 6) == Flawed(None, "bad:sentinel")


def test_a_list_with_an_element_that_is_no_value_has_none():
    assert decoded(field_of("bcd16", count=2), b"\0\1\0\x0a") is None


def test_floats_of_32_bits_in_a_list_have_no_more_digits_than_they_deserve():
    assert decoded(field_of("float32", count=2), struct.pack(">2f", 8.1, math.nan)) == [8.1, None]


@settings(deadline=None)
@example(999999986991104.0)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_digits_are_the_same_number_as_float32(value):
    short = shortest(value)
    assert struct.pack(">f", short) == struct.pack(">f", value)
    digits = [len(Decimal(repr(number)).normalize().as_tuple().digits) for number in (short, float(f"{value:.9g}"))]
    assert digits[0] <= digits[1]


def test_labels_go_both_ways_and_an_unknown_number_stays_visible():
    field = field_of("uint16", meaning=Labels({0: "off", 1: "on", -1: "never"}))
    assert decoded(field, b"\0\1") == "on"
    assert decoded(field, b"\0\7") == Flawed("7", "uncertain:range")
    assert encode(field, "on") == encode(field, 1) == encode(field, 1.0) == b"\0\1"
    for unknown in ("7", 7, "", None, [1]):
        with pytest.raises(ValueError, match=r"the enum knows off \(0\), on \(1\), never \(-1\); got"):
            encode(field, unknown)


def test_a_bit_can_have_labels_too():
    field = Field(0, KINDS["bool"], "ABCD", 2, bit=3, meaning=Labels({0: "closed", 1: "open"}))
    assert decoded(field, b"\0\x08") == "open"
    assert encode_bits(field, "closed") == (8, 0)
    assert encode_bits(field, "open") == (8, 8)


def test_an_unknown_label_in_a_list_makes_the_list_uncertain():
    field = field_of("uint16", count=2, meaning=Labels({0: "off"}))
    assert decoded(field, b"\0\0\0\2") == Flawed(["off", "2"], "uncertain:range")


@pytest.mark.parametrize(("unit", "number", "text"), [
    ("s", 0, "1970-01-01T00:00:00Z"),
    ("s", 1767323045, "2026-01-02T03:04:05Z"),
    ("ms", 1767323045678, "2026-01-02T03:04:05.678Z"),
    ("s", 2**32 - 1, "2106-02-07T06:28:15Z"),
])  # fmt: skip
def test_times_are_iso_8601_in_utc(unit, number, text):
    moment = Moment(unit)
    assert moment.read(number) == text
    assert moment.write(text) == number


@settings(deadline=None)
@given(st.sampled_from(["s", "ms"]), st.integers(0, 2**32))
def test_any_time_comes_back(unit, number):
    moment = Moment(unit)
    assert moment.write(moment.read(number)) == number


def test_a_time_is_written_with_any_offset_and_without_one_it_is_utc():
    assert Moment("s").write("2026-01-02T05:04:05+02:00") == Moment("s").write("2026-01-02T03:04:05") == 1767323045


def test_a_time_finer_than_the_device_counts_is_refused():
    with pytest.raises(ValueError, match="the device counts in seconds, got 2026"):
        Moment("s").write("2026-01-02T03:04:05.5Z")


def test_a_time_beyond_all_years_is_no_value():
    assert decoded(field_of("uint64", meaning=Moment("s")), b"\xff" * 8) is None


def test_a_date_that_is_no_day_is_no_value():
    assert decoded(field_of("datetime6"), struct.pack(">6H", 2026, 2, 30, 0, 0, 0)) is None
    assert decoded(field_of("datetime3"), bytes(6)) is None
    assert decoded(field_of("datetime3"), bytes((26, 1, 2, 3, 4, 5))) == "2026-01-02T03:04:05Z"
