from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.acquisition.scaling import NAN, Scaling, coefficients
from gateway.model import GOOD, Device, Quality, ScanGroup, Tag, bad, uncertain


def group(*tags, types):
    return ScanGroup.of(Device(name="d", driver="x", url=""), tags, types=types, every_s=1.0, plan=None)


def scaled(kind, raw, **options):
    scaling = Scaling(group(Tag(name="t", address="a", **options), types=[kind]))
    values, quality = scaling.apply([raw], GOOD, None)
    return values[0], quality


@pytest.mark.parametrize(
    ("raw", "scale", "offset", "value"),
    [
        (3, 0.1, 0.0, 0.3),
        (300, 0.001, 0.0, 0.3),
        (215, 0.1, -40.0, -18.5),
        (7, 10.0, 5.0, 75),
        (2**64 - 1, 1.0, -1.0, 2**64 - 2),
        (1, 0.25, 0.125, 0.375),
        (-32768, 0.01, 0.0, -327.68),
        (1.5, 2.0, 0.0, 3.0),
        (1000, 1e-30, 0.0, 1e-27),
    ],
)
def test_a_register_gives_the_decimal_number_that_is_meant(raw, scale, offset, value):
    got, quality = scaled("int64", raw, scale=scale, offset=offset)
    assert got == value
    assert type(got) is type(value)
    assert quality is GOOD


@given(st.integers(-(2**31), 2**31), st.decimals("0.0001", "1000", places=4), st.decimals("-100", "100", places=2))
def test_integers_scale_as_exact_decimals(raw, scale, offset):
    got, _ = scaled("int32", raw, scale=float(scale), offset=float(offset))
    assert got == float(Decimal(raw) * scale + offset)


@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_coefficients_are_whole_and_mean_the_same(scale, offset):
    found = coefficients(scale, offset)
    if found is not None:
        a, b, c = found
        assert Fraction(a, c) == Fraction(repr(scale))
        assert Fraction(b, c) == Fraction(repr(offset))


def test_a_scaled_tag_is_published_as_float64_and_an_unscaled_one_as_it_is():
    g = group(Tag(name="a", address="", scale=0.1), Tag(name="b", address=""), types=["float32", "float32"])
    assert g.types == ("float64", "float32")


@pytest.mark.parametrize("raw", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinities_become_null_with_their_cause(raw):
    tags = [Tag(name="a", address=""), Tag(name="b", address=""), Tag(name="c", address="")]
    values, quality = Scaling(group(*tags, types=["float32", "float32", "uint16"])).apply([1.0, raw, 7], GOOD, None)
    assert list(values) == [1.0, None, 7]
    assert list(quality) == [GOOD, NAN, GOOD]


def test_large_doubles_whose_sum_overflows_are_not_taken_for_infinity():
    tags = [Tag(name="a", address=""), Tag(name="b", address="")]
    values, quality = Scaling(group(*tags, types=["float64", "float64"])).apply([1.7e308, 1.7e308], GOOD, None)
    assert list(values) == [1.7e308, 1.7e308]
    assert quality is GOOD


def test_tags_without_a_value_are_left_alone():
    tags = [Tag(name="a", address="", scale=2.0), Tag(name="b", address="", scale=2.0)]
    quality = [bad("exception:2"), GOOD]
    values, after = Scaling(group(*tags, types=["uint16", "uint16"])).apply([None, 4], quality, None)
    assert list(values) == [None, 8]
    assert list(after) == quality


def test_strings_beside_floats_are_left_alone():
    tags = [Tag(name="a", address=""), Tag(name="b", address="")]
    values, quality = Scaling(group(*tags, types=["string", "float32"])).apply(["x", float("nan")], GOOD, None)
    assert list(values) == ["x", None]
    assert list(quality) == [GOOD, NAN]


def test_sparse_values_are_scaled_by_their_positions():
    tags = [Tag(name="a", address="", scale=2.0), Tag(name="b", address="", scale=10.0)]
    values, quality = Scaling(group(*tags, types=["uint16", "uint16"])).apply([3], GOOD, [1])
    assert list(values) == [30]
    assert quality is GOOD


@pytest.mark.parametrize(
    ("value", "quality"), [(4.0, GOOD), (20.0, GOOD), (3.9, uncertain("range")), (20.1, uncertain("range"))]
)
def test_a_value_outside_its_limits_is_kept_and_says_so(value, quality):
    tags = [Tag(name="a", address="", min=4.0, max=20.0), Tag(name="b", address="")]
    values, grades = Scaling(group(*tags, types=["float32", "float32"])).apply([value, 99.0], GOOD, None)
    assert list(values) == [value, 99.0]
    assert ([grades] * 2 if grades is GOOD else list(grades)) == [quality, GOOD]


def test_limits_are_of_the_engineering_value_and_of_one_side_if_need_be():
    tag = Tag(name="a", address="", scale=0.1, max=10.0)
    scaling = Scaling(group(tag, types=["int16"]))
    assert scaling.apply([100], GOOD, None) == ([10.0], GOOD)
    assert scaling.apply([-9000], GOOD, None) == ([-900.0], GOOD)
    assert scaling.apply([101], GOOD, [0]) == ([10.1], [uncertain("range")])


def test_good_plain_values_pass_without_a_copy():
    values = [1.0, 2.0]
    tags = [Tag(name="a", address=""), Tag(name="b", address="")]
    assert Scaling(group(*tags, types=["float32", "float32"])).apply(values, GOOD, None)[0] is values


def test_values_with_one_quality_that_is_not_bad_are_scaled_and_looked_at():
    scaling = Scaling(group(Tag(name="t", address="a", scale=0.1, max=5.0), types=["float64"]))
    clamped = Quality("good:GoodClamped")
    assert scaling.apply([3], clamped, None) == ([0.3], clamped)
    assert scaling.apply([70], clamped, None) == ([7.0], [uncertain("range")])
    assert scaling.apply([70], uncertain("stale"), None) == ([7.0], [uncertain("stale")])
    assert scaling.apply([float("nan")], clamped, None) == ([None], [NAN])
    assert scaling.apply([70], bad("x"), None) == ([70], bad("x")), "of what is bad nothing is made"


@pytest.mark.parametrize("types", [["float64", "float64"], ["float64", "string"], ["float64", ""]])
@pytest.mark.parametrize("odd", [None, "on", [1.0], {"a": 1}])
def test_a_device_may_hold_something_else_than_its_group_says(types, odd):
    scaling = Scaling(group(*(Tag(name=n, address="a") for n in "ab"), types=types))
    assert scaling.apply([1.5, odd], GOOD, None) == ([1.5, odd], GOOD)
    assert scaling.apply([float("inf"), odd], GOOD, None) == ([None, odd], [NAN, GOOD])


def test_a_value_whose_type_nobody_knows_may_be_nan():
    scaling = Scaling(group(Tag(name="t", address="a"), types=[""]))
    assert scaling.apply([float("nan")], GOOD, None) == ([None], [NAN])


def test_of_an_array_each_number_is_scaled_at_any_depth():
    value, quality = scaled("", [1, [2, None, "x"], 2.5], scale=0.1)
    assert value == [0.1, [0.2, None, "x"], 0.25]
    assert quality is GOOD
    scaling = Scaling(group(Tag(name="t", address="a", scale=0.1), types=[""]))
    assert scaling.apply([[3]], GOOD, [0]) == ([[0.3]], GOOD)
    assert scaling.apply(["on"], GOOD, [0]) == (["on"], GOOD)


@pytest.mark.parametrize("kind", ["", "float32", "float64"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_nan_within_an_array_or_a_structure_is_null_alone_and_makes_its_tag_uncertain(number, kind):
    tags = [Tag(name=name, address="a") for name in ("array", "structure", "number", "text")]
    scaling = Scaling(group(*tags, types=[kind, "", "float64", "string"]))
    raw = [[1.5, [number, 2]], {"x": number, "y": [1.0, "t"]}, 1.5, "x"]
    values, quality = scaling.apply(raw, GOOD, None)
    assert values == [[1.5, [None, 2]], {"x": None, "y": [1.0, "t"]}, 1.5, "x"]
    assert quality == [NAN, NAN, GOOD, GOOD]
    assert raw[0][1] == [number, 2], "what the driver keeps is not touched"


def test_arrays_of_numbers_that_are_all_finite_pass_as_they_are():
    scaling = Scaling(group(Tag(name="t", address="a"), types=[""]))
    values = [[1e308, 1e308, 10**400]]
    assert scaling.apply(values, GOOD, None) == (values, GOOD)
