"""Which packet may say which code, held against another implementation's table."""

import paho.mqtt.reasoncodes as theirs
import pytest
from paho.mqtt.packettypes import PacketTypes

from gateway.mqtt import reasons
from gateway.mqtt.decode import decode
from gateway.mqtt.encode import encode
from gateway.mqtt.errors import LocalProtocolError, RemoteProtocolError
from gateway.mqtt.packets import V5, V311, Auth, Connack, Disconnect, Puback, Pubcomp, Pubrec, Pubrel, Suback, Unsuback
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason

MISSING_THERE = {(PacketTypes.CONNACK, 0x99)}  # 3.2.2.2 lists it: a will whose payload is not the text it claims to be

# By packet: bytes before and behind the code, and how the packet is made with a code.
BODIES = {
    PacketTypes.CONNACK: (0x20, "00", "00", lambda code: Connack(reason=code)),
    PacketTypes.PUBACK: (0x40, "0001", "", lambda code: Puback(1, code)),
    PacketTypes.PUBREC: (0x50, "0001", "", lambda code: Pubrec(1, code)),
    PacketTypes.PUBREL: (0x62, "0001", "", lambda code: Pubrel(1, code)),
    PacketTypes.PUBCOMP: (0x70, "0001", "", lambda code: Pubcomp(1, code)),
    PacketTypes.SUBACK: (0x90, "0001 00", "", lambda code: Suback(1, (code,))),
    PacketTypes.UNSUBACK: (0xB0, "0001 00", "", lambda code: Unsuback(1, (code,))),
    PacketTypes.DISCONNECT: (0xE0, "", "", lambda code: Disconnect(reason=code)),
    PacketTypes.AUTH: (
        0xF0,
        "",
        "04 15 0001 6d",
        lambda code: Auth(reason=code, properties=Properties(authentication_method="m")),
    ),
}


@pytest.fixture
def legal():
    """Pairs of packet type and code that 5.0 knows."""
    names = theirs.ReasonCode(PacketTypes.CONNACK).names
    listed = {(packet, code) for code, by_name in names.items() for packets in by_name.values() for packet in packets}
    return listed | MISSING_THERE


@pytest.mark.parametrize("packet", BODIES, ids=lambda packet: PacketTypes.Names[packet])
def test_a_packet_says_its_own_codes_and_no_others(packet, legal):
    first, before, behind, make = BODIES[packet]
    for code in range(256):
        body = bytes.fromhex(before) + bytes((code,)) + bytes.fromhex(behind)
        if (packet, code) in legal:
            assert decode(first, body, V5) == make(Reason(code))
            assert decode(first, encode(make(Reason(code)), V5)[2:], V5) == make(Reason(code))
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            decode(first, body, V5)
        assert caught.value.reason == Reason.PROTOCOL_ERROR
        if code in set(Reason):
            with pytest.raises(LocalProtocolError, match="can't say"):
                encode(make(Reason(code)), V5)


def test_a_connack_of_3_1_1_says_what_it_has_a_number_for():
    said = {}
    for reason in Reason:
        try:
            said[reason] = encode(Connack(reason=reason), V311)[3]
        except LocalProtocolError:
            assert reason not in reasons.RETURN_CODES
    assert said == reasons.RETURN_CODES
    assert {said[decode(0x20, bytes((0, code)), V311).reason] for code in range(6)} == set(range(6))
    assert all(decode(0x20, bytes((0, code)), V311).reason & 0x80 for code in range(1, 6))
