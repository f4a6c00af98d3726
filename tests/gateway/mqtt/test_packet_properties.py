"""Properties: each in each place, given twice, cut off; and the memory of those of PUBLISH."""

import dataclasses

import paho.mqtt.properties as theirs
import pytest
from paho.mqtt.packettypes import PacketTypes

from gateway.mqtt import properties as ours
from gateway.mqtt import wire
from gateway.mqtt.errors import LocalProtocolError, RemoteProtocolError
from gateway.mqtt.properties import MOST, NONE, Place, Properties, decode_properties, encode_properties
from gateway.mqtt.reasons import Reason

# By identifier: name, a value, and its bytes. Two of a kind would hide a mistaken identifier, so no two are alike.
EACH = {
    0x01: ("payload_format", 1, "01"),
    0x02: ("message_expiry", 2, "00000002"),
    0x03: ("content_type", "c", "0001 63"),
    0x08: ("response_topic", "r/t", "0003 722f74"),
    0x09: ("correlation_data", b"\x00\xff", "0002 00ff"),
    0x0B: ("subscription_identifiers", (16384,), "808001"),
    0x11: ("session_expiry", 0xFFFFFFFF, "ffffffff"),
    0x12: ("assigned_client_id", "id", "0002 6964"),
    0x13: ("server_keep_alive", 0, "0000"),
    0x15: ("authentication_method", "", "0000"),
    0x16: ("authentication_data", b"", "0000"),
    0x17: ("request_problem_information", 0, "00"),
    0x18: ("will_delay", 0, "00000000"),
    0x19: ("request_response_information", 1, "01"),
    0x1A: ("response_information", "ri", "0002 7269"),
    0x1C: ("server_reference", "sr", "0002 7372"),
    0x1F: ("reason_string", "\ufeff", "0003 efbbbf"),
    0x21: ("receive_maximum", 1, "0001"),
    0x22: ("topic_alias_maximum", 0, "0000"),
    0x23: ("topic_alias", 65535, "ffff"),
    0x24: ("maximum_qos", 0, "00"),
    0x25: ("retain_available", 1, "01"),
    0x26: ("user", (("n", ""),), "0001 6e 0000"),
    0x27: ("maximum_packet_size", 1, "00000001"),
    0x28: ("wildcard_available", 0, "00"),
    0x29: ("subscription_identifiers_available", 1, "01"),
    0x2A: ("shared_available", 0, "00"),
}
WILL = 99  # what paho calls a will


@pytest.fixture
def places():
    """By identifier, the places where another implementation allows it."""
    listed = theirs.Properties(PacketTypes.CONNECT).properties
    return {
        identifier: {Place.WILL if packet == WILL else Place(packet) for packet in packets}
        for identifier, (_kind, packets) in listed.items()
    }


def field(*identifiers):
    raw = b"".join(bytes((identifier,)) + bytes.fromhex(EACH[identifier][2]) for identifier in identifiers)
    return wire.varint_bytes(len(raw)) + raw


def method_for(identifier):
    return [0x15] if identifier == 0x16 else []


def test_the_table_names_every_property():
    assert {name for name, _, _ in EACH.values()} == {each.name for each in dataclasses.fields(Properties)} - {"raw"}


@pytest.mark.parametrize("identifier", EACH, ids=lambda identifier: EACH[identifier][0])
@pytest.mark.parametrize("place", Place, ids=lambda place: place.name)
def test_a_property_is_taken_where_it_belongs_and_nowhere_else(identifier, place, places):
    name = EACH[identifier][0]
    both = [*method_for(identifier), identifier]
    said = Properties(**{EACH[each][0]: EACH[each][1] for each in both})
    if place in places[identifier]:
        assert decode_properties(field(*both), 0, place) == (said, len(field(*both)))
        assert encode_properties(said, place) == field(*both)
    else:
        with pytest.raises(RemoteProtocolError, match="has no place") as caught:
            decode_properties(field(identifier), 0, place)
        assert caught.value.reason == Reason.PROTOCOL_ERROR
        with pytest.raises(LocalProtocolError, match=f"{place.name} has no place for .*{name}"):
            encode_properties(said, place)


@pytest.mark.parametrize("identifier", EACH, ids=lambda identifier: EACH[identifier][0])
def test_a_property_given_twice_is_an_error(identifier, places):
    name, value, _ = EACH[identifier]
    for place in places[identifier]:
        raw = field(*method_for(identifier), identifier, identifier)
        if name == "user" or (name == "subscription_identifiers" and place is Place.PUBLISH):
            assert getattr(decode_properties(raw, 0, place)[0], name) == value * 2
            continue
        with pytest.raises(RemoteProtocolError, match=f"{name} is given twice") as caught:
            decode_properties(raw, 0, place)
        assert caught.value.reason == Reason.PROTOCOL_ERROR


@pytest.mark.parametrize("identifier", EACH, ids=lambda identifier: EACH[identifier][0])
def test_a_value_that_is_cut_off_is_malformed(identifier, places):
    whole = field(identifier)[1:]
    for place in places[identifier]:
        for end in range(1, len(whole)):
            with pytest.raises(RemoteProtocolError) as caught:
                decode_properties(bytes((end,)) + whole[:end] + b"\0" * 9, 0, place)
            assert caught.value.reason == Reason.MALFORMED_PACKET


@pytest.mark.parametrize("place", Place, ids=lambda place: place.name)
def test_a_field_longer_than_the_packet_is_malformed(place):
    for raw in (b"\x07" + field(0x26)[1:], b"\x80\x01" + field(0x26)[1:], b"\x01", b"\x80", b""):
        with pytest.raises(RemoteProtocolError) as caught:
            decode_properties(raw, 0, place)
        assert caught.value.reason == Reason.MALFORMED_PACKET


@pytest.mark.parametrize("identifier", sorted(set(range(256)) - set(EACH)))
def test_an_unknown_identifier_is_malformed_everywhere(identifier):
    for place in Place:
        with pytest.raises(RemoteProtocolError) as caught:
            decode_properties(bytes((3, identifier, 0, 0)), 0, place)
        assert caught.value.reason == Reason.MALFORMED_PACKET


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("payload_format", (2, -1, 256)),
        ("message_expiry", (-1, 1 << 32)),
        ("topic_alias", (0, -1, 65536)),
        ("response_topic", ("", "+", "a/#", "\0", "\ud800")),
        ("content_type", ("\0", "\udfff", "x" * 65536)),
        ("correlation_data", (bytes(65536),)),
        ("subscription_identifiers", ((0,), (wire.LARGEST_VARINT + 1,), (-1,))),
        ("user", ((("\0", ""),), (("", "\0"),))),
    ],
)
def test_what_a_property_cannot_say_is_our_error(name, values):
    for value in values:
        with pytest.raises(LocalProtocolError):
            encode_properties(Properties(**{name: value}), Place.PUBLISH)


def test_a_subscribe_takes_one_identifier_and_data_needs_a_method():
    with pytest.raises(LocalProtocolError, match="one subscription identifier"):
        encode_properties(Properties(subscription_identifiers=(1, 2)), Place.SUBSCRIBE)
    with pytest.raises(LocalProtocolError, match="without a method"):
        encode_properties(Properties(authentication_data=b"x"), Place.CONNECT)


def test_no_properties_are_one_object():
    assert decode_properties(b"\0", 0, Place.PUBLISH) == (NONE, 1)
    assert decode_properties(b"\0", 0, Place.CONNECT)[0] is NONE


def test_properties_can_be_compared_and_be_keys():
    one, other = Properties(content_type="a"), Properties(content_type="a")
    assert one == other
    assert len({one, other, NONE}) == 2


def test_properties_of_a_publish_are_remembered_within_bounds():
    raw = field(0x03)
    assert decode_properties(raw, 0, Place.PUBLISH)[0] is decode_properties(raw, 0, Place.PUBLISH)[0]
    long = b"\x80\x01\x03" + wire.utf8_bytes("x" * 125)
    assert decode_properties(long, 0, Place.PUBLISH)[0] is not decode_properties(long, 0, Place.PUBLISH)[0]
    for number in range(10_000):
        decode_properties(b"\x05\x02" + number.to_bytes(4, "big"), 0, Place.PUBLISH)
        assert len(ours.known) <= ours._KNOWN


def test_properties_of_a_publish_go_on_byte_for_byte_until_they_are_changed():
    raw = field(0x26, 0x03, 0x26, 0x01)  # not the order in which they would be written
    said = decode_properties(raw, 0, Place.PUBLISH)[0]
    assert encode_properties(said, Place.PUBLISH) == raw
    changed = dataclasses.replace(said, content_type=None)
    assert encode_properties(changed, Place.PUBLISH) == field(0x01, 0x26, 0x26)
    with pytest.raises(LocalProtocolError, match="PUBACK has no place"):
        encode_properties(said, Place.PUBACK)
    written = Properties(payload_format=1, content_type="c", user=(("n", ""),) * 2)
    assert (said, hash(said)) == (written, hash(written))


def test_properties_of_another_packet_are_not_taken_from_memory():
    raw = field(0x01)
    decode_properties(raw, 0, Place.PUBLISH)
    with pytest.raises(RemoteProtocolError, match="no place in CONNECT"):
        decode_properties(raw, 0, Place.CONNECT)


@pytest.mark.parametrize("one", ["26 0000 0000", "0b 01"])
def test_a_packet_of_very_many_properties_is_refused_before_it_holds_the_loop(one):
    one = bytes.fromhex(one)
    decode_properties(wire.varint_bytes(len(one) * MOST) + one * MOST, 0, Place.PUBLISH)
    body = one * (MOST + 1) + b"\xff" * 1000  # nonsense that is not looked at: it would be malformed
    with pytest.raises(RemoteProtocolError) as caught:
        decode_properties(wire.varint_bytes(len(body)) + body, 0, Place.PUBLISH)
    assert caught.value.reason == Reason.QUOTA_EXCEEDED
