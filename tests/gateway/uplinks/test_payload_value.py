"""Payload `value`: one topic a tag."""

import pytest

from gateway.image import Image
from gateway.model import GOOD, Batch, Quality, bad, uncertain
from gateway.uplinks.message import Message, Room
from gateway.uplinks.payload_value import ValuePayload
from gateway.uplinks.topics import Template, TopicError

TS = 1795330000123
ROOMY = Room(1 << 28, 1 << 28)


@pytest.fixture
def skipped():
    return []


@pytest.fixture
def encode(skipped):
    def run(batch, *, template="h/{device}/{tag}", retain=True, replay=False, room=ROOMY):
        payload = ValuePayload(Template(template, {}), retain=retain, skipped=lambda *what: skipped.append(what))
        return list(payload.encode(batch, 1, "e", replay=replay, room=room))

    return run


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (1.5, b"1.5"),
        (8.100000381469727, b"8.1"),
        (7, b"7"),
        (2**70, b"1180591620717411303424"),
        (True, b"true"),
        (False, b"false"),
        ("open", b"open"),
        ('"ä"', '"ä"'.encode()),
        ("", b""),
        ("\ud800", b"?"),
        (b"\x01\xff", b"01ff"),
        ([1, 2], b"[1,2]"),
        ({"a": b"\x01"}, b'{"a":"01"}'),
        (None, b"null"),
        (float("nan"), b"null"),
        (object(), b"null"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_value_is_the_whole_payload(encode, define, value, payload):
    kind = "float32" if type(value) is float else "string"
    assert encode(Batch(define(f"t {kind}"), TS, [value])) == [Message("h/boiler/t", payload, retain=True)]


def test_a_bad_value_is_null_and_an_uncertain_one_keeps_what_is_known(encode, define):
    batch = Batch(define("a uint16", "b uint16", "c uint16"), TS, [1, 2, 3], [GOOD, bad("timeout"), uncertain("stale")])
    assert [m.payload for m in encode(batch)] == [b"1", b"null", b"3"]


def test_each_tag_has_its_topic_in_dense_and_sparse_batches(encode, define):
    group = define("a uint16", "line1/b uint16", "c uint16", site="north")
    assert [m.topic for m in encode(Batch(group, TS, [1, 2, 3]), template="{site}/{device}/{tag}")] == [
        "north/boiler/a",
        "north/boiler/line1/b",
        "north/boiler/c",
    ]
    assert [(m.topic, m.payload) for m in encode(Batch(group, TS, [1, 3], index=[0, 2]))] == [
        ("h/boiler/a", b"1"),
        ("h/boiler/c", b"3"),
    ]


def test_a_backlog_is_never_retained_and_retaining_can_be_left_off(encode, define):
    batch = Batch(define("a uint16"), TS, [1])
    assert [encode(batch, **o)[0].retain for o in ({}, {"replay": True}, {"retain": False})] == [True, False, False]


@pytest.mark.parametrize("replay", [False, True])
def test_history_is_left_out_for_nobody_could_tell_it_from_what_is_true_now(encode, skipped, define, replay):
    batch = Batch(define("a uint16"), TS, [1], is_history=True)
    assert encode(batch, replay=replay) == []
    assert skipped == [], "it is meant so"


def test_a_good_value_with_a_status_of_its_own_is_a_value(encode, define):
    assert [m.payload for m in encode(Batch(define("a uint16"), TS, [1], Quality("good:GoodClamped")))] == [b"1"]


def test_a_value_too_large_is_left_out_and_told(encode, skipped, define):
    batch = Batch(define("a string", "b uint16"), TS, ["x" * 1000, 1])
    assert [m.payload for m in encode(batch, room=Room(300, 300))] == [b"1"]
    assert skipped[0][0] == "h/boiler/a"


def test_tags_that_were_never_read_are_left_out(encode, define):
    image = Image()
    image.add(define("a uint16", "b uint16"))
    (batch,) = image.batches()
    assert encode(batch) == []


def test_the_image_gives_its_values_as_batches(define):
    image = Image()
    group = define("a uint16", "b uint16")
    image.add(group)
    image.note(Batch(group, TS, [1, 2]))
    image.note(Batch(group, TS + 5, [3], bad("range"), index=[1]))
    (batch,) = image.batches()
    assert (batch.group, batch.values, batch.quality, batch.times) == (
        group,
        [1, 3],
        [GOOD, bad("range")],
        [TS, TS + 5],
    )


def test_a_definition_that_makes_no_topic_is_an_error(encode, define):
    with pytest.raises(TopicError):
        encode(Batch(define("a uint16", site="#"), TS, [1]), template="{site}/{tag}")


def test_no_more_definitions_are_kept_than_the_bound(define):
    payload = ValuePayload(Template("{tag}", {}), retain=False, skipped=print)
    for i in range(1500):
        list(payload.encode(Batch(define(f"t{i} uint16"), TS, [1]), 1, "e", replay=False, room=ROOMY))
    assert len(payload._forms) <= 1024
