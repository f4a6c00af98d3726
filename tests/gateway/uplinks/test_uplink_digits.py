"""Shortest digits of 32-bit floats, judged by numpy, and fixed decimals."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.floats import shorten
from gateway.uplinks.digits import Digits, fixed

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def judged(values):
    return [repr(float(str(np.float32(value)))) for value in values]


@given(st.lists(finite, min_size=1, max_size=40))
def test_digits_are_the_shortest_that_read_back(values):
    assert [repr(v) for v in shorten(values)] == judged(values)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200))
def test_digits_are_the_shortest_for_every_bit_pattern(patterns):
    floats = np.array(patterns, dtype=np.uint32).view(np.float32)
    values = [float(v) for v in floats[np.isfinite(floats)]]
    assert [repr(v) for v in shorten(values)] == judged(values)


def test_digits_hold_at_powers_of_two_and_borders_of_decades_and_among_subnormals():
    edges = [(e << 23) + d for e in range(255) for d in range(-2, 3) if (e << 23) + d >= 0]
    decades = np.array([float(f"1e{k}") for k in range(-45, 39)], dtype=np.float32).view(np.uint32)
    edges += [int(bits) + d for bits in decades for d in range(-40, 41) if int(bits) + d >= 0]
    edges += range(1, 400)
    floats = np.array(edges, dtype=np.uint32).view(np.float32)
    values = [float(v) for v in floats[np.isfinite(floats)]]
    values += [-v for v in values]
    assert [repr(v) for v in shorten(values)] == judged(values)


def test_digits_of_ordinary_magnitudes_are_the_shortest():
    random = np.random.default_rng(20260101)
    for spread in (0.001, 1.0, 128.0, 1024.0, 2e6, 5e9):
        for decimals in (1, 2, 3, 9):
            floats = np.round(random.uniform(-spread, spread, 4000), decimals).astype(np.float32)
            values = [float(v) for v in floats]
            assert [repr(v) for v in shorten(values)] == judged(values)


@pytest.mark.parametrize("beside", [[], [0.1], [1.5e7]], ids=["alone", "wide", "odd"])
def test_minus_zero_keeps_its_sign_and_zero_gets_none(beside):
    for values in ([0.0, -0.0], [-0.0, 0.0]):
        assert [repr(v) for v in shorten([*values, *beside])] == [repr(v) for v in [*values, *beside]]


def test_8_1_is_8_1(float32):
    assert shorten([float32(8.1)]) == [8.1]


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_what_is_no_32_bit_float_comes_back_unchanged(values):
    try:
        short = shorten(values)
    except OverflowError:
        assert any(abs(v) > 3.4e38 for v in values)
        return
    for value, digits in zip(values, short, strict=True):
        is_narrow = math.isnan(value) or struct.unpack("f", struct.pack("f", value))[0] == value
        assert is_narrow or repr(digits) == repr(value)


@pytest.mark.parametrize(
    ("value", "places", "rounded"),
    [
        (1.2345, 2, 1.23),
        (1.235, 2, 1.24),
        (-0.04, 1, 0.0),
        (1e300, 2, 1e300),
        (2.0**52 + 0.5, 1, 2.0**52 + 0.5),
        (1234.5, 0, 1234.0),
        (1.23456789, 17, 1.23456789),
        (7, 2, 7),
        (True, 2, True),
        ("text", 2, "text"),
        (None, 2, None),
    ],
)
def test_fixed_rounds_floats_and_nothing_else(value, places, rounded):
    result = fixed(value, places)
    assert result == rounded
    assert type(result) is type(rounded)
    assert str(result) != "-0.0"


@given(st.floats(-1e9, 1e9), st.integers(0, 6))
def test_fixed_is_within_half_a_unit_and_prints_no_more_places(value, places):
    result = fixed(value, places)
    assert abs(result - value) <= 0.5 * 10.0**-places + 4 * math.ulp(value)
    assert result == round(result, places)


def test_only_the_narrow_tags_without_decimals_are_shortened(define, float32):
    digits = Digits(define("a float32", "b float64", "c float32", "d uint16", decimals=(None, None, 1, None)))
    values = [float32(8.1), float32(8.1), float32(8.14), 7]
    assert digits.of(values, None) == [8.1, float32(8.1), 8.1, 7]


def test_a_sparse_batch_takes_the_digits_of_its_positions(define, float32):
    digits = Digits(define("a float32", "b float64", "c float32"))
    assert digits.of([float32(0.1), float32(0.3)], [1, 2]) == [float32(0.1), 0.3]


@pytest.mark.parametrize("hole", [None, "text", 1e300, float("inf"), 10**40, b"\x01"], ids=str)
def test_one_strange_value_does_not_cost_the_others_their_digits(define, float32, hole):
    digits = Digits(define("a float32", "b float32", "c float32"))
    assert digits.of([float32(8.1), hole, float32(0.3)], None) == [8.1, hole, 0.3]


def test_a_single_narrow_tag_among_others_is_shortened(define, float32):
    digits = Digits(define("a float32", "b uint16"))
    assert digits.of((float32(8.1), 7), None) == [8.1, 7]
