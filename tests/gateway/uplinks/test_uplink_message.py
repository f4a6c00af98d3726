"""User properties, byte for byte."""

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.uplinks.message import Room, UserProperties


def test_user_properties_are_these_bytes():
    assert UserProperties("g").pack("d", "e", 7) == (
        b"\x2d\x26\x00\x07gateway\x00\x01g\x26\x00\x06device\x00\x01d\x26\x00\x05epoch\x00\x01e\x26\x00\x03seq\x00\x017"
    )


@pytest.mark.parametrize("gateway", ["g", "plant7", "p" * 64])
@pytest.mark.parametrize("device", ["", "boiler", "b" * 64])
@pytest.mark.parametrize("seq", [0, 1, 4711, 2**64 - 1])
def test_user_properties_are_what_paho_would_write(gateway, device, seq):
    expected = Properties(PacketTypes.PUBLISH)
    expected.UserProperty = [("gateway", gateway)]
    for key, value in (("device", device), ("epoch", "9f31c2-3"), ("seq", str(seq))):
        if value:
            expected.UserProperty = (key, value)
    properties = UserProperties(gateway)
    for _ in range(2):  # the second comes from the cache
        assert properties.pack(device, "9f31c2-3", seq) == bytes(expected.pack())


def test_no_more_heads_are_kept_than_the_bound():
    properties = UserProperties("g")
    for i in range(3000):
        properties.pack(f"device{i}", "e", i)
    assert len(properties._heads) <= 1024


def test_room_shrinks():
    assert Room(10, 5).less(3) == Room(7, 2)
