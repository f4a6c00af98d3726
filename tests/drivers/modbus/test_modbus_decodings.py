"""All ways to read some registers, and the search for where a value lives."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.tools.decodings import decodings, rank
from gateway.driver import Expected, Patch

CODES = {
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}


def wire(kind, order, value):
    """The bytes of a value in that order, worked out the slow way."""
    data = struct.pack(">" + CODES[kind], value)
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


def patch(data, address="holding:100"):
    return Patch(address, len(data) // 2, data)


def noise(registers, seed=1):
    """Registers as devices have them: zeros, small numbers, text, and some that could be anything."""
    dice = random.Random(seed)
    words = [
        dice.choice([0, 0, dice.randrange(300), dice.randrange(65536), dice.randrange(0x2020, 0x7A7A)])
        for _ in range(registers)
    ]
    return b"".join(word.to_bytes(2) for word in words)


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
@pytest.mark.parametrize("kind", ["int32", "uint32", "int64", "uint64", "float32", "float64"])
def test_every_type_and_order_is_among_the_decodings(kind, order):
    found = decodings(patch(wire(kind, order, 1234)))
    assert [d.value for d in found if (d.type, d.order) == (kind, order)] == [1234]


def test_one_register_shows_what_fits_into_one_and_nothing_wider():
    kinds = {d.type for d in decodings(patch(b"\x12\x34"))}
    assert {"int16", "uint16", "float16", "bcd16", "string"} <= kinds
    assert not kinds & {"int32", "float32", "uint64"}
    assert [(d.order, d.value) for d in decodings(patch(b"\x12\x34")) if d.type == "bcd16"] == [
        ("ABCD", 1234),
        ("BADC", 3412),
    ]


def test_bytes_that_are_no_such_value_show_none():
    assert [d.value for d in decodings(patch(b"\xab\xcd")) if d.type == "bcd16"] == [None, None]


def test_text_shows_without_its_padding_and_in_both_orders():
    found = {d.order: d.value for d in decodings(patch(b"SDM6\x0130V2\0\0 "[:12])) if d.type == "string"}
    assert found["ABCD"] == "SDM6.30V2"
    assert found["BADC"].startswith("DS6M")


def test_one_type_is_shown_for_every_value_of_the_patch():
    data = b"".join(wire("float32", "CDAB", v) for v in (1.5, -2.0, 3.25))
    assert [d.value for d in decodings(patch(data), kind="float32", order="CDAB")] == [1.5, -2.0, 3.25]


def test_bits_are_bits():
    found = decodings(Patch("coil:0", 10, b"\x05\x02"))
    assert [d.value for d in found] == [True, False, True, False, False, False, False, False, False, True]


@pytest.mark.parametrize(
    ("kind", "order", "words"),
    [("float99", "", "no type 'float99'"), ("float64", "", "float64 needs 4 registers"), ("int16", "XY", "no order")],
)
def test_what_cannot_be_shown_says_why(kind, order, words):
    with pytest.raises(ValueError, match=words):
        decodings(patch(b"\0\0"), kind=kind, order=order)


CASES = [
    ("float32", "ABCD", 229.5, 1.0, 229.5),
    ("float32", "CDAB", 229.5, 1.0, 229.5),
    ("float32", "DCBA", 49.98, 1.0, 49.98),
    ("uint16", "ABCD", 2295, 0.1, 229.5),
    ("int16", "ABCD", -215, 0.1, -21.5),
    ("uint32", "CDAB", 123456789, 0.001, 123456.789),
    ("int32", "ABCD", -4321, 0.01, -43.21),
    ("uint64", "ABCD", 8765432109876, 0.001, 8765432109.876),
    ("float64", "ABCD", 17.25, 1.0, 17.25),
]


@pytest.mark.parametrize(("kind", "order", "raw", "scale", "seen"), CASES, ids=str)
def test_a_value_hidden_among_others_is_ranked_first_or_close(kind, order, raw, scale, seen):
    data = noise(60) + wire(kind, order, raw) + noise(60, seed=2)
    digits = len(str(seen).partition(".")[2])
    (found,) = rank([patch(data, "input:0")], [], [Expected(seen, digits, 0.01)])
    places = [(c.address, c.type.lstrip("u"), c.order or "ABCD", c.scale) for c in found]
    assert ("input:60", kind.lstrip("u"), order, scale) in places[:3]
    best = found[places.index(("input:60", kind.lstrip("u"), order, scale))]
    assert best.value == pytest.approx(seen)
    assert "exact" in best.notes


def test_a_float_wins_over_integers_that_come_near_by_chance():
    data = noise(100) + wire("float32", "CDAB", 229.5) + b"\x08\xf7" + noise(100, seed=3)
    (found,) = rank([patch(data)], [], [Expected(229.5, 1, 0.01)])
    assert (found[0].address, found[0].type, found[0].order) == ("holding:200", "float32", "CDAB")


def test_what_moves_away_in_the_second_reading_falls_behind():
    first = b"\x08\xf7\0\0\0\0\x08\xf7"
    second = b"\x20\x00\0\0\0\0\x08\xf6"
    (found,) = rank([patch(first)], [patch(second)], [Expected(229.5, 1, 0.01)])
    notes = {c.address: c.notes for c in found if c.type == "uint16"}
    assert "gone in the second reading" in notes["holding:100"]
    assert "steady" in notes["holding:103"]
    assert found[0].address == "holding:103"


def test_a_second_reading_may_hold_a_part_only():
    first = noise(20) + wire("float32", "ABCD", 229.5)
    second = [patch(wire("float32", "ABCD", 229.7), "holding:120")]
    (found,) = rank([patch(first)], second, [Expected(229.5, 1, 0.01)])
    assert found[0].type == "float32"
    assert "steady" in found[0].notes


def test_neighbours_of_the_same_size_speak_for_a_candidate():
    phases = b"".join(wire("uint16", "ABCD", v) for v in (2291, 2295, 2302))
    alone = noise(30) + b"\0\0\x08\xf7\0\0"
    data = alone + phases
    (found,) = rank([patch(data)], [], [Expected(229.5, 1, 0.001)])
    assert found[0].address == "holding:134"
    assert "neighbours alike" in found[0].notes


def test_several_values_of_one_device_are_found_by_their_common_habit():
    data = b"".join(wire("float32", "CDAB", v) for v in (229.5, 231.25, 6.5, 50.0, 1403.0)) + noise(50)
    found = rank([patch(data)], [], [Expected(229.5, 1, 0.01), Expected(6.5, 1, 0.01), Expected(50, 0, 0.01)])
    assert [(c[0].address, c[0].type, c[0].order) for c in found] == [
        ("holding:100", "float32", "CDAB"),
        ("holding:104", "float32", "CDAB"),
        ("holding:106", "float32", "CDAB"),
    ]
    assert "others found alike" in found[0][0].notes


def meter(order):
    """Voltages and currents in one register, powers in two, a frequency in one behind a register that is empty."""
    of_one = b"".join(wire("int16", "ABCD", v) for v in (2291, 2295, 2302, 1259, 1533, 1107))
    of_two = b"".join(wire("int32", order, v) for v in (21194, -31066, 18230))
    return of_one + of_two + bytes(4) + wire("uint16", "ABCD", 4998)


@pytest.mark.parametrize("order", ["ABCD", "CDAB"])
def test_a_device_may_keep_integers_in_one_register_and_in_two(order):
    seen = [Expected(230.2, 1, 0.01), Expected(15.33, 2, 0.01), Expected(-3106.6, 1, 0.01)]
    best = [found[0] for found in rank([patch(meter(order))], [patch(meter(order))], seen)]
    assert [(c.address, c.type.lstrip("u"), c.order) for c in best] == [
        ("holding:102", "int16", ""),
        ("holding:104", "int16", ""),
        ("holding:108", "int32", "" if order == "ABCD" else order),
    ]


@pytest.mark.parametrize(
    "seen", [Expected(49.98, 2, 0.01), Expected(12.59, 2, 0.01), Expected(11.07, 2, 0.01)], ids=str
)
@pytest.mark.parametrize("order", ["ABCD", "CDAB"])
def test_one_register_beside_an_empty_one_is_not_taken_for_two(order, seen):
    data = bytes(8) + meter(order)
    (found,) = rank([patch(data)], [patch(data)], [seen])
    assert found[0].type == "uint16"


def test_a_register_explains_one_of_several_values():
    floats = b"".join(wire("float32", "ABCD", v) for v in (229.53, 231.46))
    data = floats + noise(8) + b"".join(wire("int16", "ABCD", v) for v in (2295, 2301, 2289))
    seen = [Expected(229.5, 1, 0.01), Expected(230.1, 1, 0.01), Expected(228.9, 1, 0.01)]
    best = [found[0] for found in rank([patch(data)], [patch(data)], seen)]
    assert [c.type for c in best[1:]] == ["uint16", "uint16"]


def test_an_integer_too_coarse_for_what_was_seen_is_not_exact():
    (found,) = rank([patch(b"\x00\xe6")], [], [Expected(229.5, 1, 0.01)])
    assert "exact" not in found[0].notes


def test_zero_stands_everywhere_and_is_not_looked_for():
    assert rank([patch(b"\0\0\0\x05")], [], [Expected(0.0, 0, 0.01)]) == [[]]


def test_int_and_uint_of_the_same_bits_are_one_candidate():
    (found,) = rank([patch(b"\x08\xf7")], [], [Expected(229.5, 1, 0.01)])
    assert [c.type for c in found if c.order == ""].count("uint16") == 1
    assert all(c.type != "int16" for c in found)


@given(st.binary(min_size=2, max_size=40).filter(lambda b: len(b) % 2 == 0), st.floats(-1e6, 1e6), st.integers(0, 3))
def test_any_registers_and_any_value_give_candidates_within_the_tolerance(data, value, digits):
    wanted = Expected(round(value, digits), digits, 0.01)
    (found,) = rank([patch(data)], [patch(data)], [wanted])
    room = abs(wanted.value) * 0.01 + 0.5 * 10.0**-digits
    assert all(abs(c.value - wanted.value) <= room * 1.001 for c in found)
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    decodings(patch(data))
