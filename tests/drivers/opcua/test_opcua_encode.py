"""Values to write: what a node of each type takes, and that it reads back as it was given."""

import math
import re

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import variant_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.nodes.known import Known
from drivers.opcua.values.encode import encode
from drivers.opcua.values.variants import Decoder
from gateway.floats import shorten

SPACES = ("http://opcfoundation.org/UA/", "urn:plant", "urn:50%;odd")
LABELS = {0: "Off", 1: "On", 5: "Broken"}
RANGES = {
    2: (-(2**7), 2**7 - 1), 3: (0, 2**8 - 1), 4: (-(2**15), 2**15 - 1), 5: (0, 2**16 - 1), 6: (-(2**31), 2**31 - 1),
    7: (0, 2**32 - 1), 8: (-(2**63), 2**63 - 1), 9: (0, 2**64 - 1),
}  # fmt: skip
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = {
    1: st.booleans(),
    **{kind: st.integers(low, high) for kind, (low, high) in RANGES.items()},
    10: st.floats(width=32, allow_nan=False, allow_infinity=False),
    11: st.floats(allow_nan=False, allow_infinity=False),
    12: TEXT,
    13: st.sampled_from(["2026-11-02T10:00:00Z", "1601-01-01T00:00:00.000001Z", "2026-11-02T10:00:00.123456Z"]),
    14: st.uuids().map(str),
    15: st.binary(max_size=9),
    16: TEXT,
    17: st.sampled_from(["i=85", "nsu=urn:plant;s=Tank", "nsu=urn:50%25%3Bodd;b=AQID", "ns=7;i=9"]),
    18: st.sampled_from(["i=85", "nsu=urn:plant;g=72962b91-fa75-4ae6-8d28-b404dc7daf63"]),
    19: st.sampled_from(["Good", "BadSensorFailure", "UncertainLastUsableValue"]),
    20: st.sampled_from(["Level", "1:Level", "2:a:b", "x:y"]),
    21: TEXT,
}


def node(builtin, rank=-1, labels=None):
    return Known(node=ua.NodeId(1, 1), builtin=builtin, rank=rank, labels=labels)


def back(variant):
    data = variant_to_binary(variant)
    value, end = Decoder(SPACES).variant(data, 0)
    assert end == len(data)
    return value


@pytest.mark.parametrize("builtin", VALUES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_written_reads_back_as_it_was_given(builtin, data):
    value = data.draw(VALUES[builtin])
    variant = encode(value, node(builtin), namespaces=SPACES)
    assert variant.VariantType == builtin
    read = back(variant)
    assert read == value
    assert type(read) is type(value)
    rows = data.draw(st.lists(VALUES[builtin], min_size=1, max_size=4))
    own = encode(rows, node(builtin, rank=1), namespaces=SPACES)
    assert (own.VariantType, own.is_array) == (builtin, True)
    expected = [row.hex() if isinstance(row, bytes) else row for row in rows]
    assert back(own) == (shorten(expected) if builtin == 10 else expected)


@pytest.mark.parametrize(("builtin", "low", "high"), [(kind, *ends) for kind, ends in RANGES.items()])
def test_whole_numbers_are_held_to_their_range(builtin, low, high):
    assert back(encode(low, node(builtin))) == low
    assert back(encode(float(min(high, 2**52)), node(builtin))) == min(high, 2**52)
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=rf"does not fit into .*{low} to {high}"):
            encode(value, node(builtin))


@pytest.mark.parametrize(
    ("builtin", "value", "fault"),
    [
        (1, 2, "no Boolean. Give true or false"),
        (1, "true", "no Boolean. Give true or false"),
        (6, 1.5, "no Int32. Give a whole number"),
        (6, True, "no Int32. Give a whole number"),
        (6, "5", "no Int32. Give a whole number"),
        (6, None, "no Int32. Give a whole number"),
        (10, 3.5e38, "does not fit into Float"),
        (10, 10**400, "does not fit into Float"),
        (11, math.inf, "does not fit into Double"),
        (11, math.nan, "does not fit into Double"),
        (11, "1.5", "no Double. Give a number"),
        (11, True, "no Double. Give a number"),
        (12, 5, "no String. Give text"),
        (12, "\ud800", "no String. Give text that is UTF-8"),
        (13, "2026-11-02T10:00:00", "no DateTime. Give a time as ISO 8601 with its zone"),
        (13, "yesterday", "no DateTime. Give a time as ISO 8601"),
        (13, 5, "no DateTime"),
        (13, "1600-01-01T00:00:00Z", "no DateTime. Give a time after 1601"),
        (13, "0001-01-01T00:00:00+05:00", "no DateTime"),
        (14, "12", "no Guid. Give 32 hexadecimal digits"),
        (15, "abc", "no ByteString. Give hexadecimal digits, two a byte"),
        (17, "Tank", "no NodeId. Give one like i=85"),
        (17, "/Plant/Tank", "no NodeId. Give one like i=85"),
        (17, "nsu=urn:other;i=1", "no namespace urn:other"),
        (19, "BadLuck", "no StatusCode. Give a name of the standard"),
        (19, 2**32, "no StatusCode"),
        (20, "9:x", "no QualifiedName. The number before the colon"),
        (21, 5, "no LocalizedText. Give text"),
        (22, {"x": 1}, "a structure cannot be written as a whole. Write to the node of one of its fields"),
        (23, 1, "a DataValue cannot be written"),
        (99, 1, "cannot be written as a whole"),
        (6, [1], "the node holds one value, not a list"),
        (6, {"x": 1}, "no Int32"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_cure(builtin, value, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        encode(value, node(builtin), namespaces=SPACES)


def test_a_time_of_another_zone_is_the_same_moment():
    assert back(encode("2026-11-02T12:00:00+02:00", node(13))) == "2026-11-02T10:00:00Z"


def test_an_enumeration_is_written_by_name_or_by_number():
    known = node(6, labels=LABELS)
    assert [back(encode(value, known)) for value in ("On", 5, "5", 0.0)] == [1, 5, 5, 0]
    assert back(encode(["On", 0], node(6, rank=1, labels=LABELS))) == [1, 0]
    for value in ("Up", 2, "2", "-1"):
        with pytest.raises(ValueError, match=r"Give one of Off \(0\), On \(1\), Broken \(5\)"):
            encode(value, known)
    with pytest.raises(ValueError, match=r"n11 \(11\), …"):
        encode("x", node(6, labels={n: f"n{n}" for n in range(50)}))


def test_a_node_of_any_type_takes_what_the_value_looks_like():
    kinds = [encode(value, node(builtin)).VariantType for builtin in (0, 24) for value in (True, 5, 2**40, 1.5, "x")]
    assert kinds == [1, 6, 8, 11, 12] * 2
    assert encode([1.5], node(0, rank=1)).VariantType == 11


@pytest.mark.parametrize("builtin", [0, 24])
def test_no_values_for_a_node_of_any_type_are_no_texts(builtin):
    variant = encode([], Known(node=ua.NodeId(1, 1), builtin=builtin, rank=-2))
    assert (variant.Value, variant.VariantType) == ([], ua.VariantType.String)


def test_a_matrix_is_written_with_its_dimensions():
    rows = [[1, 2, 3], [4, 5, 6]]
    assert back(encode(rows, node(4, rank=2))) == rows
    assert encode(rows, node(4, rank=2)).Dimensions == [2, 3]
    assert back(encode([[[1], [2]]], node(4, rank=0))) == [[[1], [2]]]
    assert back(encode([], node(4, rank=1))) == []
    for crooked in ([[1, 2], [3]], [[1], 2], [1, [2]]):
        with pytest.raises(ValueError, match=r"one length|no Int16|holds an array"):
            encode(crooked, node(4, rank=2))


@pytest.mark.parametrize(
    ("rank", "value", "is_taken"),
    [(1, 5, False), (1, [5], True), (1, [[5]], False), (2, [5], False), (0, 5, False), (0, [5], True), (-2, 5, True),
     (-2, [[5]], True), (-3, 5, True), (-3, [5], True), (-3, [[5]], False)],
)  # fmt: skip
def test_the_value_rank_says_how_many_lists_there_are(rank, value, is_taken):
    if is_taken:
        assert back(encode(value, node(4, rank=rank))) == value
    else:
        with pytest.raises(ValueError, match="the node holds an array"):
            encode(value, node(4, rank=rank))


def test_a_wrong_value_in_a_list_is_named_by_its_place():
    with pytest.raises(ValueError, match="value 2 of 3: 70000 does not fit into Int16"):
        encode([1, 70000, 3], node(4, rank=1))


@pytest.mark.parametrize(
    ("part", "builtin", "rank", "value", "sent"),
    [
        ("2", 4, 1, 5, [5]),
        ("2", 4, 1, [5], [5]),
        ("1:3", 4, 1, [5, 6, 7], [5, 6, 7]),
        ("0:1,1:2", 4, 2, [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("1,2", 4, 2, 9, [[9]]),
        ("0:2", 12, -1, "abc", "abc"),
        ("0:2", 15, -1, "0102ff", b"\1\2\xff"),
    ],
)
def test_a_part_of_an_array_takes_as_many_values_as_it_is_long(part, builtin, rank, value, sent):
    assert back(encode(value, node(builtin, rank=rank), part)) == sent


@pytest.mark.parametrize(
    ("part", "builtin", "rank", "value", "fault"),
    [
        ("1:3", 4, 1, [5, 6], "names 3 values"),
        ("1:3", 4, 1, 5, "names 3 values"),
        ("0:1,0:1", 4, 2, [[1, 2], [3]], "names 2 x 2 values"),
        ("3:1", 4, 1, [1], "Write the lower number first"),
        ("3:3", 4, 1, [1], "Write the lower number first"),
        ("0:2", 12, -1, "ab", "is 3 long, not 2"),
        ("1", 4, -1, 5, "Take index_range out"),
    ],
)
def test_a_part_that_the_value_does_not_fill_is_refused(part, builtin, rank, value, fault):
    with pytest.raises(ValueError, match=fault):
        encode(value, node(builtin, rank=rank), part)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda own: st.lists(own, max_size=3) | st.dictionaries(st.text(max_size=3), own, max_size=2),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    value=JSON,
    builtin=st.integers(0, 26),
    rank=st.integers(-3, 3),
    labels=st.sampled_from([None, LABELS]),
    part=st.sampled_from([None, "1", "0:1", "0:1,2"]),
)
def test_any_value_for_any_node_is_sent_as_something_or_refused(value, builtin, rank, labels, part):
    try:
        variant = encode(value, node(builtin, rank, labels), part, SPACES)
    except ValueError as error:
        fault = error
    else:
        back(variant)
        return
    assert len(str(fault)) < 400
