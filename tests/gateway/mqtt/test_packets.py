"""The packet table, both ways: bytes of every packet, and every way to get one wrong."""

import pytest

from gateway.mqtt import wire
from gateway.mqtt.decode import decode
from gateway.mqtt.encode import encode
from gateway.mqtt.errors import RemoteProtocolError


def body_of(raw):
    size, at = wire.varint(raw, 1)
    assert size == len(raw) - at, f"the row's remaining length is {size}, its bytes are {len(raw) - at}"
    return raw[at:]


def test_every_packet_is_read(good_packet):
    assert decode(good_packet.raw[0], body_of(good_packet.raw), good_packet.level) == good_packet.packet


def test_every_packet_is_written(good_packet):
    written = encode(good_packet.packet, good_packet.level)
    if good_packet.is_ours:
        assert written.hex() == good_packet.raw.hex()
    assert decode(written[0], body_of(written), good_packet.level) == good_packet.packet


def test_every_broken_packet_is_refused_with_its_code(broken_packet):
    with pytest.raises(RemoteProtocolError) as caught:
        decode(broken_packet.raw[0], body_of(broken_packet.raw), broken_packet.level)
    assert caught.value.reason == broken_packet.reason, caught.value


def test_a_packet_cut_anywhere_is_refused_or_another_packet(good_packet):
    body = body_of(good_packet.raw)
    for end in range(min(len(body), 300)):
        try:
            packet = decode(good_packet.raw[0], body[:end], good_packet.level)
        except RemoteProtocolError:
            continue
        assert packet != good_packet.packet or not good_packet.is_ours
