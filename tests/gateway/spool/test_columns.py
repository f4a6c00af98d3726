"""Columns: what goes into a stream comes out of it, and other bytes are refused."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.spool import columns
from gateway.spool.columns import F32, F64, FARTHEST, FLAG, I64, OBJECT, U64

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
far = st.integers(-FARTHEST, FARTHEST)
of_kind = {
    FLAG: st.sampled_from([False, True, None]),
    I64: i64,
    U64: u64,
    F32: st.floats(width=32, allow_nan=False),
    F64: st.floats(),
    OBJECT: st.text(),
}
pairs = st.integers(FLAG, OBJECT).flatmap(lambda kind: st.tuples(st.just(kind), of_kind[kind]))


def exact(value):
    return (float, struct.pack("<d", value)) if type(value) is float else (type(value), value)


@given(st.lists(far))
def test_numbers_come_back(given_numbers):
    written = columns.numbers(given_numbers)
    assert len(written) == 8 * len(given_numbers)
    assert columns.numbers_of(written) == given_numbers


def test_the_example_of_the_docstring_is_right():
    assert columns.numbers([5, 6, 6]).hex() == "050100" + "000000" * 7
    assert columns.numbers([5, 4]).hex() == "05ff" + "00ff" * 7


@given(st.lists(st.integers(-(2**80), 2**80)))
def test_numbers_too_far_away_are_drawn_near(given_numbers):
    found = columns.numbers_of(columns.numbers(columns.near(given_numbers)))
    assert found == [max(-FARTHEST, min(FARTHEST, number)) for number in given_numbers]


@given(st.lists(st.binary(min_size=8, max_size=8)), st.sampled_from([1, 2, 4, 8]))
def test_what_was_shuffled_comes_back(values, width):
    data = b"".join(values)
    shuffled = columns.shuffled(data, width)
    assert sorted(shuffled) == sorted(data)
    assert columns.unshuffled(shuffled, width) == data


def test_shuffled_bytes_stand_in_planes():
    assert columns.shuffled(b"abcdABCD1234", 4) == b"aA1bB2cC3dD4"


@given(st.binary(), st.sampled_from([4, 8]))
def test_bytes_of_another_length_are_refused(data, width):
    if len(data) % width:
        with pytest.raises(ValueError, match="no whole number"):
            columns.unshuffled(data, width)
        with pytest.raises(ValueError):
            columns.numbers_of(data + bytes(8 - len(data) % 8 + 1))


@given(st.binary(), st.randoms())
def test_what_was_xored_twice_is_as_it_was(data, draw):
    other = draw.randbytes(len(data))
    assert columns.xored(columns.xored(data, other), other) == data
    assert columns.xored(data, data) == bytes(len(data))


@settings(deadline=None)
@given(st.lists(pairs, max_size=20))
def test_a_row_of_any_kinds_comes_back_value_for_value(row):
    kinds, values = bytes(kind for kind, _ in row), [value for _, value in row]
    form = columns.layout(kinds)
    packed = form.pack(values)
    assert packed is not None
    assert [len(data) for data in packed] == [part.size for part in form.parts]
    found = form.unpack(packed, form.objects_of(values))
    assert list(map(exact, found)) == list(map(exact, values))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (I64, 2**63),
        (I64, -(2**63) - 1),
        (U64, -1),
        (U64, 2**64),
        (F32, 0.1),
        (F32, 1e300),
        (F32, float("nan")),
        (F32, 5e-324),
    ],
)
def test_a_value_that_does_not_fit_into_its_kind_is_not_packed_and_another_kind_is_found(kind, value):
    assert columns.layout(bytes([kind, FLAG])).pack([value, True]) is None
    fitting = columns.fitting(kind, value)
    assert fitting != kind
    form = columns.layout(bytes([fitting]))
    (found,) = form.unpack(form.pack([value]), form.objects_of([value]))
    assert exact(found) == exact(value)


@given(st.integers(FLAG, OBJECT), st.one_of(*of_kind.values(), st.integers(), st.binary()))
def test_every_value_finds_a_kind_that_holds_it(kind, value):
    form = columns.layout(bytes([columns.fitting(kind, value)]))
    packed = form.pack([value])
    assert packed is not None
    assert exact(form.unpack(packed, form.objects_of([value]))[0]) == exact(value)


def test_what_is_derived_from_a_number_is_an_object():
    class Count(int):
        pass

    class Measure(float):
        pass

    assert [columns.kind_of(value) for value in (Count(1), Measure(1), "", b"", [], {})] == [OBJECT] * 6


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no kind 6"):
        columns.layout(bytes([FLAG, 6]))


def test_too_few_bytes_and_too_few_objects_are_refused():
    form = columns.layout(bytes([FLAG, OBJECT, FLAG]))
    assert form.unpack([b"\x00\x02"], ["x"]) == [False, "x", None]
    for packed, objects in (([b"\x00"], ["x"]), ([b"\x00\x02"], []), ([b"\x00\x02"], ["x", "y"]), ([], ["x"])):
        with pytest.raises(ValueError):
            form.unpack(packed, objects)
    with pytest.raises(IndexError):
        form.unpack([b"\x00\x03"], ["x"])
