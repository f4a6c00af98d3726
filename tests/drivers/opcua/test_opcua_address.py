"""Addresses as people write them: node ids, paths, wildcards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.address import NodeAddress, PathAddress, Step, parse

GUID = "09087e75-8e5e-499b-954f-f2a9603db28a"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("i=85", NodeAddress(0, "i", 85)),
        ("ns=0;i=85", NodeAddress(0, "i", 85)),
        ("ns=2;i=4294967295", NodeAddress(2, "i", 4294967295)),
        ("ns=65535;s=x", NodeAddress(65535, "s", "x")),
        ("ns=2;s=Tank;1=a b", NodeAddress(2, "s", "Tank;1=a b")),
        ('ns=3;s="DB 1"."Level"', NodeAddress(3, "s", '"DB 1"."Level"')),
        ("nsu=urn:plant:line;s=Tank.Level", NodeAddress("urn:plant:line", "s", "Tank.Level")),
        ("nsu=urn:a%3Bb%253b;i=1", NodeAddress("urn:a;b%3b", "i", 1)),
        ("nsu=http://x/%20y;i=1", NodeAddress("http://x/%20y", "i", 1)),
        (f"ns=1;g={GUID.upper()}", NodeAddress(1, "g", GUID)),
        ("ns=1;b=M/RbKBsRVkePCePcx24oRA==", NodeAddress(1, "b", bytes.fromhex("33f45b281b1156478f09e3dcc76e2844"))),
    ],
)
def test_a_node_id_names_its_namespace_and_its_identifier(text, address):
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("/Plant", [Step(None, "Plant")]),
        ("/2:Plant/Tank", [Step(2, "Plant"), Step(None, "Tank")]),
        ("/0:Server", [Step(0, "Server")]),
        ("/A&/B/C", [Step(None, "A/B"), Step(None, "C")]),
        ("/2&:x", [Step(None, "2:x")]),
        ("/2:3:x", [Step(2, "3:x")]),
        ("/a:b/ns=2", [Step(None, "a:b"), Step(None, "ns=2")]),
        ("/&*&?&&", [Step(None, "*?&")]),
        ("/*/Le?el", [Step(None, "*", is_pattern=True), Step(None, "Le?el", is_pattern=True)]),
        ("/3:Tank*", [Step(3, "Tank*", is_pattern=True)]),
        ("/a&*b*&/", [Step(None, "a&*b*/", is_pattern=True)]),
        ("/Plant/**", [Step(None, "Plant"), Step(None, "**", is_deep=True)]),
        ("/**/Level", [Step(None, "**", is_deep=True), Step(None, "Level")]),
        ("/&*&*", [Step(None, "**")]),
    ],
)
def test_a_path_is_names_one_below_the_other(text, steps):
    assert parse(text) == PathAddress(tuple(steps))
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("text", "is_pattern"), [("/a/b", False), ("/a&*/b", False), ("/a*/b", True), ("/a/?", True), ("/**", True)]
)
def test_wildcards_make_a_pattern_of_a_path(text, is_pattern):
    assert parse(text).is_pattern is is_pattern


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is no address in an OPC UA server. Write a node id like nsu="),
        ("Tank", "'Tank' is no address"),
        ("holding:100", "'holding:100' is no address"),
        ("ns=2;Tank", "'ns=2;Tank' names a namespace and no identifier in it. Write a node id like"),
        ("ns=2", "names a namespace and no identifier"),
        ("nsu=;i=1", "nsu= names no namespace. Write its URI"),
        ("ns=65536;i=1", "ns=65536 is no namespace index: 0 to 65535. A URI is written nsu="),
        ("ns=urn:plant;i=1", "ns=urn:plant is no namespace index"),
        ("ns=-1;i=1", "ns=-1 is no namespace index"),
        ("ns=\u0662;i=1", "is no namespace index"),
        ("i=x", "i=x is no number from 0 to 4294967295. Text is written s="),
        ("i=4294967296", "i=4294967296 is no number"),
        ("ns=2;s=", "the identifier of 'ns=2;s=' is empty"),
        (f"s={'x' * 4097}", "is longer than 4096 characters"),
        ("q=1", "'q' is no kind of identifier: i, s, g or b"),
        ("g=1234", "g=1234 is no GUID. Write it like g=09087e75"),
        ("b=!", "b=! is no base64. Write it like b="),
        ("svr=1;i=85", "names another server by its index. Give that server a device of its own"),
        ("/", "'/' has a name that is empty. Take the slash too many out"),
        ("//a", "has a name that is empty"),
        ("/a/", "has a name that is empty"),
        ("/2:", "has a name that is empty"),
        ("/a&", "has & at the end of a name. Write && for the character itself"),
        ("/70000:a", "ns=70000 is no namespace index"),
        ("/a**", "'/a**' has ** within a name. Use *, or ** as a name of its own"),
        ("/2:**", "has ** within a name"),
        ("/a/**/**", "has ** twice in a row. Once is any number of levels already"),
        (f"/{'x' * 513}", "has more than 512 characters. No browse name is so long"),
        ("/x" * 101, "the path has 101 names, 100 are the most. Name the node by its id"),
    ],
)
def test_a_bad_address_says_why_and_what_to_write(text, reason):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


names = st.text(min_size=1, max_size=20) | st.just("**")
spaces = st.none() | st.integers(0, 65535)
kinds = st.one_of(
    st.tuples(st.just("i"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("s"), st.text(min_size=1, max_size=50)),
    st.tuples(st.just("g"), st.uuids().map(str)),
    st.tuples(st.just("b"), st.binary(min_size=1, max_size=50)),
)


@settings(deadline=None)
@given(st.integers(0, 65535) | st.text(min_size=1, max_size=40), kinds)
def test_any_node_id_reads_back_as_it_was_written(space, kind):
    address = NodeAddress(space, *kind)
    assert parse(str(address)) == address


@settings(deadline=None)
@given(st.lists(st.tuples(spaces, names), min_size=1, max_size=8))
def test_any_path_of_plain_names_reads_back_as_it_was_written(steps):
    address = PathAddress(tuple(Step(space, name) for space, name in steps))
    assert parse(str(address)) == address
    assert not parse(str(address)).is_pattern


@settings(deadline=None)
@given(st.text(alphabet="/*?&:02aXnsu=;%ib", max_size=25))
def test_whatever_is_an_address_reads_back_as_it_was_written(text):
    try:
        address = parse(text)
    except ValueError:
        return
    assert parse(str(address)) == address


def test_two_stars_can_be_the_name_of_a_node():
    assert parse("/&*&*") == PathAddress((Step(None, "**"),))
    assert str(parse("/&*&*")) == "/&*&*"
