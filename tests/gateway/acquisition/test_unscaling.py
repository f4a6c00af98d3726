"""Engineering to raw: the exact way back of scaling, and what lies between two steps."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.acquisition.scaling import scaler
from gateway.acquisition.unscaling import unscale
from gateway.model import Tag


def tag(scale=1.0, offset=0.0, kind="int16"):
    return Tag(name="t", address="holding:0", type=kind, scale=scale, offset=offset)


SCALES = st.one_of(
    st.sampled_from([0.1, 0.01, 0.001, 0.0001, 10.0, 100.0, -0.1, 0.5, 0.25, 3.0, 1 / 3, 0.3, 2.54]),
    st.decimals("0.0001", "1000", places=4).map(float),
)
OFFSETS = st.one_of(
    st.just(0.0), st.sampled_from([-273.15, -40.0, 32.0, 0.5]), st.decimals(-500, 500, places=2).map(float)
)


@settings(deadline=None)
@given(SCALES.filter(bool), OFFSETS, st.integers(-(2**31), 2**32))
def test_what_was_read_is_what_is_written(scale, offset, raw):
    mine = tag(scale, offset, "int64")
    assert unscale(mine, scaler(mine)(raw)) == raw
    assert type(unscale(mine, scaler(mine)(raw))) is int


@settings(deadline=None)
@given(SCALES.filter(bool), OFFSETS, st.floats(-1e6, 1e6))
def test_a_float_comes_back_as_near_as_floats_are(scale, offset, value):
    mine = tag(scale, offset, "float64")
    back = scaler(mine)(unscale(mine, value))
    assert math.isclose(back, value, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("scale", "offset", "value", "raw"),
    [
        (0.1, 0, 0.3, 3),
        (0.1, 0, 0.30000000000000004, 3),
        (0.1, 0, 1, 10),
        (0.01, 0, 81.27, 8127),
        (0.1, -40, 21.5, 615),
        (10, 0, 50, 5),
        (0.5, 0, -1.5, -3),
        (-0.1, 0, 0.3, -3),
    ],
)
def test_the_digits_that_people_write_are_meant(scale, offset, value, raw):
    found = unscale(tag(scale, offset), value)
    assert found == raw
    assert type(found) is int


@pytest.mark.parametrize(
    ("scale", "offset", "value", "reason"),
    [
        (0.1, 0, 0.25, r"int16 holds steps of 0\.1, got 0\.25\. The nearest are 0\.2 and 0\.3"),
        (0.1, 0, -0.25, r"The nearest are -0\.3 and -0\.2"),
        (-0.1, 0, 0.25, r"steps of -0\.1, got 0\.25\. The nearest are 0\.2 and 0\.3"),
        (10, 0, 55, "int16 holds steps of 10, got 55. The nearest are 50 and 60"),
        (0.1, -40, 21.55, r"The nearest are 21\.5 and 21\.6"),
        (0.1, 0, 0.3000001, r"The nearest are 0\.3 and 0\.4"),
    ],
)
def test_a_value_between_two_steps_is_refused_with_both(scale, offset, value, reason):
    with pytest.raises(ValueError, match=reason):
        unscale(tag(scale, offset), value)


def test_a_float_register_takes_any_value():
    assert unscale(tag(0.1, kind="float32"), 0.25) == 2.5
    assert unscale(tag(0.1, kind=""), 0.25) == 2.5  # the driver knows what it holds


@pytest.mark.parametrize("value", [True, "auto", None, {"a": 1}, math.nan, math.inf])
def test_what_is_no_number_is_left_to_the_driver(value):
    assert unscale(tag(0.1), value) is value


def test_of_an_array_each_number_is_unscaled_at_any_depth():
    assert unscale(tag(0.1), [1, [2.5, None]]) == [10, [25, None]]
    with pytest.raises(ValueError, match=r"steps of 0\.1"):
        unscale(tag(0.1), [1, 0.25])


def test_a_tag_without_scale_is_written_as_it_is():
    assert unscale(tag(), 0.25) == 0.25
