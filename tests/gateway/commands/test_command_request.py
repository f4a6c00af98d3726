"""Payloads into requests, and values into what may be written."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.limits import holds, permitted
from gateway.commands.request import LARGEST, RefusalError, Request, parse
from gateway.model import Tag, WriteRules

ANY = WriteRules()


@pytest.mark.parametrize(
    ("payload", "request_"),
    [
        (b"true", Request(value=True, text="true")),
        (b"1", Request(value=1, text="1")),
        (b" 2.5 ", Request(value=2.5, text=" 2.5 ")),
        (b"auto", Request(value="auto", text="auto")),
        (b'"auto"', Request(value="auto")),
        ("Störung".encode(), Request(value="Störung", text="Störung")),
        (b'{"value":1}', Request(value=1)),
        (b'{"value":false,"id":"7f"}', Request(value=False, id="7f")),
        (b'{"value":1,"id":7}', Request(value=1, id=7)),
        (
            b'{"value":1,"expires":"5s","ts":1795330000000}',
            Request(value=1, expires_s=5.0, made_ms=1_795_330_000_000),
        ),
        (b'{"value":18446744073709551615}', Request(value=2**64 - 1)),
        (b'{"value":[1,2]}', Request(value=[1, 2])),
    ],
)
def test_a_payload_is_a_bare_value_or_an_object_with_one(payload, request_):
    assert parse(payload) == request_


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "the payload is empty"),
        (b" \n", "the payload is empty"),
        (b"\xff\xfe", "the payload is no text"),
        (b'{"value":1', "the payload is no JSON"),
        (b'{"valu":1}', 'unknown key "valu". Known here: expires, id, ts, value'),
        (b"{}", "there is no `value`"),
        (b'{"value":1,"expire":"5s"}', 'unknown key "expire"'),
        (b'{"value":1,"expires":5}', "`expires`: '5' is no duration. Write a number and its unit"),
        (b'{"value":1,"ts":"now"}', "`ts` is ms since 1970"),
        (b'{"value":1,"ts":true}', "`ts` is ms since 1970"),
        (b'{"value":1,"id":""}', "an `id` is a text of 1 to 128 characters"),
        (b'{"value":1,"id":[1]}', "an `id` is a text of 1 to 128 characters"),
        (b'{"value":1,"id":true}', "an `id` is a text of 1 to 128 characters"),
        (b"1" * (LARGEST + 1), "bytes are too many"),
        (b"[" * 10_000, "the payload is no JSON"),
    ],
)
def test_what_is_no_command_is_refused_with_the_cure(payload, said):
    with pytest.raises(RefusalError) as caught:
        parse(payload)
    assert caught.value.code == "invalid"
    assert said in str(caught.value)


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_no_payload_crashes(payload):
    try:
        request = parse(payload)
    except RefusalError:
        return
    for kind in ("bool", "int16", "float64", "string", "bits"):
        with suppress(RefusalError):
            permitted(request, Tag(name="t", address="a", min=-5, max=5), kind, ANY)


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        ("bool", b"true", True),
        ("bool", b"OFF", False),
        ("bool", b"1", True),
        ("bool", b'{"value":0}', False),
        ("bool", b'"on"', True),
        ("int16", b"5", 5),
        ("int16", b"5.0", 5),
        ("float32", b"5", 5),
        ("float32", b"1e-3", 0.001),
        ("string", b"5", "5"),
        ("string", b"true", "true"),
        ("string", b'{"value":"5"}', "5"),
        ("bits", b"[true,false]", [True, False]),
        ("enum", b"auto", "auto"),
    ],
)
def test_a_value_is_taken_as_its_type_wants_it(kind, payload, value):
    got = permitted(parse(payload), Tag(name="t", address="a"), kind, ANY)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("payload", "rules", "value"),
    [
        (b"5", ANY, "5"),
        (b"true", ANY, "true"),
        (b"Auto", ANY, "Auto"),
        (b'{"value":5}', ANY, 5),
        (b'{"value":"5"}', ANY, "5"),
        (b"5", WriteRules(max=5), 5),
        (b"5", WriteRules(values=(4, 5)), 5),
        (b"5", WriteRules(values=("5", "6")), "5"),
        (b"[1,2]", ANY, [1, 2]),
    ],
)
def test_a_text_by_what_the_device_told_may_be_an_enumerations_number(payload, rules, value):
    got = permitted(parse(payload), Tag(name="t", address="a"), "string", rules, is_told=True)
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("payload", "rules"), [(b"6", WriteRules(max=5)), (b'{"value":6}', WriteRules(values=(4, 5))), (b"null", ANY)]
)
def test_the_number_of_an_enumeration_is_held_to_its_bounds(payload, rules):
    with pytest.raises(RefusalError, match=r"is above 5|is none of 4, 5|null"):
        permitted(parse(payload), Tag(name="t", address="a"), "string", rules, is_told=True)


@pytest.mark.parametrize("bounds", [{"max": 2}, {"min": 1}])
@pytest.mark.parametrize("kind", ["string", "enum"])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_name_that_may_stand_for_a_number_beyond_the_limits_is_refused(bounds, kind, is_told):
    tag, own = Tag(name="t", address="a", type="uint16"), Tag(name="t", address="a", type="uint16", **bounds)
    for made, rules in ((tag, WriteRules(**bounds)), (own, ANY)):
        with pytest.raises(RefusalError, match="write the number") as caught:
            permitted(parse(b"Fault"), made, kind, rules, is_told=is_told)
        assert caught.value.code == "invalid"
        assert permitted(parse(b"1"), made, kind, rules, is_told=is_told) == 1


def test_what_reads_as_a_label_may_be_written_as_its_number():
    tag = Tag(name="mode", address="a", type="uint16")
    assert permitted(parse(b"1"), tag, "string", ANY) == 1
    assert permitted(parse(b"auto"), tag, "string", ANY) == "auto"
    assert permitted(parse(b'{"value":"1"}'), tag, "string", ANY) == "1"
    with pytest.raises(RefusalError, match="expected text or a number, got true"):
        permitted(parse(b"true"), tag, "string", ANY)


@pytest.mark.parametrize(
    ("kind", "payload", "said"),
    [
        ("bool", b"2", "expected true or false, got 2"),
        ("bool", b"1.0", "expected true or false, got 1.0"),
        ("bool", b"ja", 'expected true or false, got "ja"'),
        ("int16", b"5.5", "expected a whole number, got 5.5"),
        ("int16", b"true", "expected a number, got true"),
        ("float32", b'"5"', 'expected a number, got "5"'),
        ("float32", b"nan", 'expected a number, got "nan"'),
        ("string", b'{"value":5}', "expected text, got 5"),
        ("int16", b"null", "null cannot be written"),
    ],
)
def test_a_value_of_another_type_is_refused(kind, payload, said):
    with pytest.raises(RefusalError) as caught:
        permitted(parse(payload), Tag(name="t", address="a"), kind, ANY)
    assert (caught.value.code, said in str(caught.value)) == ("invalid", True), str(caught.value)


@pytest.mark.parametrize(
    ("tag", "rules", "good", "wrong"),
    [
        ({"min": 0, "max": 10}, {}, [0, 5, 10], [-1, 11, -0.001]),
        ({}, {"min": 0, "max": 10}, [0, 10], [-1, 11]),
        ({"min": 0, "max": 10}, {"min": 2, "max": 99}, [2, 10], [1, 11]),
        ({}, {"values": (1, 2.5)}, [1, 2.5], [2, 0]),
        ({"min": 5}, {"values": (1,)}, [1], [5]),
    ],
)
def test_limits_of_the_tag_and_of_its_rules_both_hold(tag, rules, good, wrong):
    made = Tag(name="t", address="a", **tag)
    for value in good:
        assert permitted(Request(value=value), made, "float32", WriteRules(**rules)) == value
    for value in wrong:
        with pytest.raises(RefusalError) as caught:
            permitted(Request(value=value), made, "float32", WriteRules(**rules))
        assert caught.value.code == "range"


def test_values_of_the_file_mean_the_same_to_a_bool():
    tag, rules = Tag(name="t", address="a"), WriteRules(values=(True,))
    assert permitted(parse(b"on"), tag, "bool", rules) is True
    assert permitted(parse(b"1"), tag, "bool", WriteRules(values=(1,))) is True
    with pytest.raises(RefusalError, match="false is none of true"):
        permitted(parse(b"off"), tag, "bool", rules)
    with pytest.raises(RefusalError, match="1 is none of true"):
        permitted(Request(value=1), tag, "int16", rules)


@pytest.mark.parametrize(
    ("read", "written", "kind", "same"),
    [
        (5, 5, "int16", True),
        (5, 6, "int16", False),
        (True, True, "bool", True),
        (0.10000000149011612, 0.1, "float32", True),
        (0.1001, 0.1, "float32", False),
        (0.0999755859375, 0.1, "float16", True),
        (0.0, 0.0, "float32", True),
        (5, 5.0, "int16", True),
        (None, 5.0, "float32", False),
        ("auto\0\0", "auto", "string", True),
        ("auto", "aut", "string", False),
        ([True, False], [True, False], "bits", True),
    ],
)
def test_what_was_read_back_is_compared_as_its_type_rounds(read, written, kind, same):
    assert holds(read, written, kind) is same


@pytest.mark.parametrize("kind", ["bool", "int16", "float32", "string", "list", "bits"])
@pytest.mark.parametrize("depth", [3, 300, 1000])
def test_a_value_that_is_nested_is_refused_and_never_crashes(kind, depth):
    payload = b'{"value":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(RefusalError) as caught:
        permitted(parse(payload), Tag(name="t", address="a"), kind, ANY)
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"value":1,"value":2}',
        b'{"value":1,"expires":"1s","expires":"1h"}',
        b'{"id":"a","id":"b","value":1}',
        b'{"value":1,"val\\u0075e":2}',
    ],
)
def test_a_command_that_says_a_thing_twice_is_refused(payload):
    with pytest.raises(RefusalError, match="twice") as caught:
        parse(payload)
    assert caught.value.code == "invalid"


def test_limits_hold_for_each_value_of_a_list():
    tag = Tag(name="t", address="a", type="int16")
    rules = WriteRules(min=0, max=10)
    assert permitted(parse(b"[0,10]"), tag, "list", rules) == [0, 10]
    for payload in (b"[0,11]", b"[-1,5]", b"[0.5,1e9]"):
        with pytest.raises(RefusalError) as caught:
            permitted(parse(payload), tag, "list", rules)
        assert caught.value.code == "range"
