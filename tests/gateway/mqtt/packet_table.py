"""Packets as a table: what the bytes are, what they say, and what is wrong with them. Shared by all tests of this room.

The bytes were put together by hand from the standard, field by field; a blank stands between fields. A test that takes
`good_packet` or `broken_packet` runs once for each row.
"""

from dataclasses import dataclass

from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason


@dataclass(frozen=True)
class Good:
    """A packet and its bytes. `is_ours`: `encode` gives exactly these; else they say the same another way."""

    name: str
    level: int
    raw: bytes
    packet: Packet
    is_ours: bool = True


@dataclass(frozen=True)
class Broken:
    """Bytes that end the connection with `reason`. The framing is right: what is wrong lies within the packet."""

    name: str
    level: int
    raw: bytes
    reason: Reason


def good(name, level, raw, packet, **more):
    return Good(f"{name} ({'5.0' if level == V5 else '3.1.1'})", level, bytes.fromhex(raw), packet, **more)


def broken(name, level, raw, reason):
    return Broken(f"{name} ({'5.0' if level == V5 else '3.1.1'})", level, bytes.fromhex(raw), reason)


ANY = (V311, V5)
MALFORMED = Reason.MALFORMED_PACKET
ERROR = Reason.PROTOCOL_ERROR
VERSION = Reason.UNSUPPORTED_PROTOCOL_VERSION
TOPIC = Reason.TOPIC_NAME_INVALID
ALIAS = Reason.TOPIC_ALIAS_INVALID

CONNECTS = [
    good("the least CONNECT", V311, "10 0c 0004 4d515454 04 02 0000 0000", Connect(level=V311)),
    good("the least CONNECT", V5, "10 0d 0004 4d515454 05 02 0000 00 0000", Connect()),
    good(
        "CONNECT with everything",
        V311,
        "10 1d 0004 4d515454 04 f4 001e 0002 6331 0003 612f62 0001 78 0001 75 0002 7077",
        Connect(
            level=V311,
            client_id="c1",
            clean_start=False,
            keep_alive=30,
            username="u",
            password=b"pw",
            will=Will(topic="a/b", payload=b"x", qos=2, retain=True),
        ),
    ),
    good(
        "CONNECT with everything",
        V5,
        "10 61 0004 4d515454 05 ee ffff"
        " 23 11 ffffffff 21 000a 27 00010000 22 0005 19 01 17 00 26 0001 61 0001 62 15 0001 6d 16 0001 64"
        " 0002 6331"
        " 1f 18 0000003c 01 01 02 00000078 03 0001 74 08 0001 72 09 0001 63 26 0001 6b 0001 76"
        " 0003 612f62 0001 78 0001 75 0002 7077",
        Connect(
            client_id="c1",
            clean_start=True,
            keep_alive=65535,
            username="u",
            password=b"pw",
            will=Will(
                topic="a/b",
                payload=b"x",
                qos=1,
                retain=True,
                properties=Properties(
                    will_delay=60,
                    payload_format=1,
                    message_expiry=120,
                    content_type="t",
                    response_topic="r",
                    correlation_data=b"c",
                    user=(("k", "v"),),
                ),
            ),
            properties=Properties(
                session_expiry=0xFFFFFFFF,
                receive_maximum=10,
                maximum_packet_size=65536,
                topic_alias_maximum=5,
                request_response_information=1,
                request_problem_information=0,
                user=(("a", "b"),),
                authentication_method="m",
                authentication_data=b"d",
            ),
        ),
        is_ours=False,
    ),
    good(
        "CONNECT with the least will",
        V311,
        "10 11 0004 4d515454 04 06 0000 0000 0001 61 0000",
        Connect(level=V311, will=Will(topic="a", payload=b"")),
    ),
    good(
        "CONNECT with a will that is retained",
        V5,
        "10 14 0004 4d515454 05 24 0000 00 0000 00 0001 61 0001 78",
        Connect(clean_start=False, will=Will(topic="a", payload=b"x", retain=True)),
    ),
    good(
        "CONNECT with a password but no user name",
        V5,
        "10 11 0004 4d515454 05 42 0000 00 0000 0002 7077",
        Connect(password=b"pw"),
    ),
    good(
        "CONNECT with an empty user name and an empty password",
        V311,
        "10 10 0004 4d515454 04 c2 0000 0000 0000 0000",
        Connect(level=V311, username="", password=b""),
    ),
    good(
        "CONNECT with a byte order mark in the client id",
        V5,
        "10 11 0004 4d515454 05 02 0000 00 0004 efbbbf61",
        Connect(client_id="\ufeffa"),
    ),
    good(
        "CONNECT without client id and clean session",
        V311,
        "10 0c 0004 4d515454 04 00 0000 0000",
        Connect(level=V311, clean_start=False),
    ),
]

CONNACKS = [
    good("CONNACK", V311, "20 02 00 00", Connack()),
    good("CONNACK with a session", V311, "20 02 01 00", Connack(session_present=True)),
    good("CONNACK 1", V311, "20 02 00 01", Connack(reason=Reason.UNSUPPORTED_PROTOCOL_VERSION)),
    good("CONNACK 2", V311, "20 02 00 02", Connack(reason=Reason.CLIENT_IDENTIFIER_NOT_VALID)),
    good("CONNACK 3", V311, "20 02 00 03", Connack(reason=Reason.SERVER_UNAVAILABLE)),
    good("CONNACK 4", V311, "20 02 00 04", Connack(reason=Reason.BAD_USER_NAME_OR_PASSWORD)),
    good("CONNACK 5", V311, "20 02 00 05", Connack(reason=Reason.NOT_AUTHORIZED)),
    good("CONNACK", V5, "20 03 00 00 00", Connack()),
    good("CONNACK with a session", V5, "20 03 01 00 00", Connack(session_present=True)),
    good("CONNACK 0x84", V5, "20 03 00 84 00", Connack(reason=Reason.UNSUPPORTED_PROTOCOL_VERSION)),
    good(
        "CONNACK with everything",
        V5,
        "20 43 00 00 40 11 0000003c 21 0014 24 01 25 00 27 00001000 12 0002 6967 22 0003 1f 0001 72 26 0001 61 0001 62"
        " 28 00 29 01 2a 00 13 001e 1a 0001 69 1c 0001 73 15 0003 6d6d6d 16 0002 6464",
        Connack(
            properties=Properties(
                session_expiry=60,
                receive_maximum=20,
                maximum_qos=1,
                retain_available=0,
                maximum_packet_size=4096,
                assigned_client_id="ig",
                topic_alias_maximum=3,
                reason_string="r",
                user=(("a", "b"),),
                wildcard_available=0,
                subscription_identifiers_available=1,
                shared_available=0,
                server_keep_alive=30,
                response_information="i",
                server_reference="s",
                authentication_method="mmm",
                authentication_data=b"dd",
            )
        ),
        is_ours=False,
    ),
]

PUBLISHES = [
    good("PUBLISH", V311, "30 07 0003 612f62 6f6e", Publish("a/b", b"on")),
    good("PUBLISH", V5, "30 08 0003 612f62 00 6f6e", Publish("a/b", b"on")),
    good("PUBLISH without payload", V311, "30 03 0001 61", Publish("a", b"")),
    good("PUBLISH without payload", V5, "31 04 0001 61 00", Publish("a", b"", retain=True)),
    good("PUBLISH with QoS 1", V311, "32 07 0001 61 000a 6f6e", Publish("a", b"on", 1, packet_id=10)),
    good("PUBLISH with QoS 2, again", V311, "3d 07 0001 61 ffff 6f6e", Publish("a", b"on", 2, True, True, 65535)),
    good("PUBLISH with QoS 2, again", V5, "3c 08 0001 61 0100 00 6f6e", Publish("a", b"on", 2, False, True, 256)),
    good("PUBLISH to a topic of one slash", V311, "30 03 0001 2f", Publish("/", b"")),
    good("PUBLISH to a topic with control characters", V311, "30 05 0003 61017f", Publish("a\x01\x7f", b"")),
    good("PUBLISH to a topic of four byte characters", V5, "30 07 0004 f09f9aa7 00", Publish("\U0001f6a7", b"")),
    good("PUBLISH with a length of two bytes", V311, "30 8001 0001 61" + "78" * 125, Publish("a", b"x" * 125)),
    good("PUBLISH with a length of three bytes", V5, "30 808001 0001 61 00" + "78" * 16380, Publish("a", b"x" * 16380)),
    good("PUBLISH to the longest topic", V311, "30 818004 ffff" + "61" * 65535, Publish("a" * 65535, b"")),
    good(
        "PUBLISH with everything",
        V5,
        "32 34 0001 61 0007"
        " 2d 01 00 02 0000000a 03 0001 74 08 0003 722f73 09 0002 00ff 0b 01 0b ffffff7f 23 0001"
        " 26 0001 61 0001 62 26 0001 61 0000"
        " ff",
        Publish(
            "a",
            b"\xff",
            1,
            packet_id=7,
            properties=Properties(
                payload_format=0,
                message_expiry=10,
                content_type="t",
                response_topic="r/s",
                correlation_data=b"\0\xff",
                subscription_identifiers=(1, 268_435_455),
                topic_alias=1,
                user=(("a", "b"), ("a", "")),
            ),
        ),
        is_ours=False,
    ),
    good(
        "PUBLISH to an alias",
        V5,
        "30 07 0000 03 23 ffff 78",
        Publish("", b"x", properties=Properties(topic_alias=65535)),
    ),
]

ACKNOWLEDGEMENTS = [
    *[
        good(name, level, raw, packet)
        for level in ANY
        for name, raw, packet in (
            ("PUBACK", "40 02 000a", Puback(10)),
            ("PUBREC", "50 02 ffff", Pubrec(65535)),
            ("PUBREL", "62 02 0001", Pubrel(1)),
            ("PUBCOMP", "70 02 0100", Pubcomp(256)),
        )
    ],
    good("PUBACK with a code", V5, "40 03 000a 10", Puback(10, Reason.NO_MATCHING_SUBSCRIBERS)),
    good("PUBREC with a code", V5, "50 03 000a 97", Pubrec(10, Reason.QUOTA_EXCEEDED)),
    good("PUBREL with a code", V5, "62 03 000a 92", Pubrel(10, Reason.PACKET_IDENTIFIER_NOT_FOUND)),
    good("PUBCOMP with a code", V5, "70 03 000a 92", Pubcomp(10, Reason.PACKET_IDENTIFIER_NOT_FOUND)),
    good("PUBACK that says success", V5, "40 03 000a 00", Puback(10), is_ours=False),
    good("PUBACK that says success and no more", V5, "40 04 000a 00 00", Puback(10), is_ours=False),
    good("PUBACK with a code and no more", V5, "40 04 000a 87 00", Puback(10, Reason.NOT_AUTHORIZED), is_ours=False),
    *[
        good(
            f"{packet.__name__.upper()} with all properties",
            V5,
            f"{first} 0f 000a 00 0b 1f 0001 72 26 0001 61 0001 62",
            packet(10, properties=Properties(reason_string="r", user=(("a", "b"),))),
        )
        for first, packet in (("40", Puback), ("50", Pubrec), ("62", Pubrel), ("70", Pubcomp))
    ],
]

SUBSCRIPTIONS = [
    good("SUBSCRIBE", V311, "82 08 000a 0003 612f23 01", Subscribe(10, (Subscription("a/#", 1),))),
    good("SUBSCRIBE", V5, "82 09 000a 00 0003 612f23 01", Subscribe(10, (Subscription("a/#", 1),))),
    good(
        "SUBSCRIBE to three",
        V311,
        "82 0f 000a 0001 61 00 0001 2b 02 0002 2423 01",
        Subscribe(10, (Subscription("a"), Subscription("+", 2), Subscription("$#", 1))),
    ),
    good(
        "SUBSCRIBE with everything",
        V5,
        "82 18 000a 09 0b 8001 26 0001 61 0000 0001 61 0c 0001 62 1a 0001 63 20",
        Subscribe(
            10,
            (
                Subscription("a", 0, True, True, 0),
                Subscription("b", 2, False, True, 1),
                Subscription("c", 0, False, False, 2),
            ),
            Properties(subscription_identifiers=(128,), user=(("a", ""),)),
        ),
    ),
    good(
        "SUBSCRIBE to a shared subscription",
        V5,
        "82 10 000a 00 000a 2473686172652f672f61 29",
        Subscribe(10, (Subscription("$share/g/a", 1, False, True, 2),)),
    ),
    good("SUBSCRIBE to an empty filter", V5, "82 06 000a 00 0000 00", Subscribe(10, (Subscription(""),))),
    good("SUBACK", V311, "90 06 000a 00 01 02 80", Suback(10, tuple(map(Reason, (0, 1, 2, 0x80))))),
    good(
        "SUBACK",
        V5,
        "90 0f 000a 00 00 01 02 80 83 87 8f 91 97 9e a1 a2",
        Suback(10, tuple(map(Reason, (0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)))),
    ),
    good(
        "SUBACK with all properties",
        V5,
        "90 0f 000a 0b 1f 0001 72 26 0001 61 0001 62 00",
        Suback(10, (Reason.SUCCESS,), Properties(reason_string="r", user=(("a", "b"),))),
    ),
    good("UNSUBSCRIBE", V311, "a2 08 000a 0001 61 0001 62", Unsubscribe(10, ("a", "b"))),
    good(
        "UNSUBSCRIBE with all properties",
        V5,
        "a2 0d 000a 07 26 0001 61 0001 62 0001 61",
        Unsubscribe(10, ("a",), Properties(user=(("a", "b"),))),
    ),
    good("UNSUBACK", V311, "b0 02 000a", Unsuback(10, ())),
    good(
        "UNSUBACK",
        V5,
        "b0 0a 000a 00 00 11 80 83 87 8f 91",
        Unsuback(10, tuple(map(Reason, (0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91)))),
    ),
    good(
        "UNSUBACK with all properties",
        V5,
        "b0 0f 000a 0b 1f 0001 72 26 0001 61 0001 62 11",
        Unsuback(10, (Reason.NO_SUBSCRIPTION_EXISTED,), Properties(reason_string="r", user=(("a", "b"),))),
    ),
]

OTHERS = [
    *[
        good(name, level, raw, packet)
        for level in ANY
        for name, raw, packet in (
            ("PINGREQ", "c0 00", Pingreq()),
            ("PINGRESP", "d0 00", Pingresp()),
            ("DISCONNECT", "e0 00", Disconnect()),
        )
    ],
    good("DISCONNECT with a code", V5, "e0 01 04", Disconnect(reason=Reason.DISCONNECT_WITH_WILL)),
    good("DISCONNECT that says success", V5, "e0 01 00", Disconnect(), is_ours=False),
    good("DISCONNECT that says success and no more", V5, "e0 02 00 00", Disconnect(), is_ours=False),
    good(
        "DISCONNECT with all properties",
        V5,
        "e0 16 9d 14 11 00000001 1c 0001 73 1f 0001 72 26 0001 61 0001 62",
        Disconnect(
            reason=Reason.SERVER_MOVED,
            properties=Properties(session_expiry=1, server_reference="s", reason_string="r", user=(("a", "b"),)),
        ),
    ),
    good("AUTH of nothing", V5, "f0 00", Auth()),
    good("AUTH that says success and no more", V5, "f0 02 00 00", Auth(), is_ours=False),
    good(
        "AUTH with all properties",
        V5,
        "f0 15 18 13 15 0001 6d 16 0001 64 1f 0001 72 26 0001 61 0001 62",
        Auth(
            reason=Reason.CONTINUE_AUTHENTICATION,
            properties=Properties(
                authentication_method="m", authentication_data=b"d", reason_string="r", user=(("a", "b"),)
            ),
        ),
    ),
]

GOOD = [*CONNECTS, *CONNACKS, *PUBLISHES, *ACKNOWLEDGEMENTS, *SUBSCRIPTIONS, *OTHERS]

FLAGS = [  # [MQTT-2.1.3-1]: a packet of every kind with a reserved bit that is wrong
    *[
        broken(f"{name} with flags {flags:04b}", level, f"{first | flags:02x} {raw}", MALFORMED)
        for level in ANY
        for name, first, raw, legal in (
            ("CONNECT", 0x10, "0c 0004 4d515454 04 02 0000 0000", 0),
            ("CONNACK", 0x20, "02 00 00", 0),
            ("PUBACK", 0x40, "02 0001", 0),
            ("PUBREC", 0x50, "02 0001", 0),
            ("PUBREL", 0x60, "02 0001", 2),
            ("PUBCOMP", 0x70, "02 0001", 0),
            ("SUBSCRIBE", 0x80, "06 0001 0001 61 00", 2),
            ("SUBACK", 0x90, "03 0001 00", 0),
            ("UNSUBSCRIBE", 0xA0, "05 0001 0001 61", 2),
            ("UNSUBACK", 0xB0, "02 0001", 0),
            ("PINGREQ", 0xC0, "00", 0),
            ("PINGRESP", 0xD0, "00", 0),
            ("DISCONNECT", 0xE0, "00", 0),
        )
        for flags in range(16)
        if flags != legal
    ],
    *[broken(f"AUTH with flags {flags:04b}", V5, f"{0xF0 | flags:02x} 00", MALFORMED) for flags in range(1, 16)],
    *[
        broken(f"a packet of type 0, flags {flags:04b}", level, f"{flags:02x} 00", MALFORMED)
        for level in ANY
        for flags in (0, 15)
    ],
    broken("AUTH", V311, "f0 00", MALFORMED),
]

BROKEN_CONNECTS = [
    broken("CONNECT of 3.1", V311, "10 0e 0006 4d5149736470 03 02 0000 0000", VERSION),
    broken("CONNECT with level 3", V311, "10 0c 0004 4d515454 03 02 0000 0000", VERSION),
    broken("CONNECT with level 6", V5, "10 0d 0004 4d515454 06 02 0000 00 0000", VERSION),
    broken("CONNECT with level 0x84, a bridge of mosquitto", V311, "10 0c 0004 4d515454 84 02 0000 0000", VERSION),
    broken("CONNECT with a name in small letters", V311, "10 0c 0004 6d717474 04 02 0000 0000", VERSION),
    broken("CONNECT with an empty name", V311, "10 08 0000 04 02 0000 0000", VERSION),
    broken("CONNECT with a name that is no UTF-8", V311, "10 0c 0004 ff515454 04 02 0000 0000", MALFORMED),
    broken("CONNECT of nothing", V311, "10 00", MALFORMED),
    broken("CONNECT cut behind the name", V311, "10 06 0004 4d515454", MALFORMED),
    broken("CONNECT cut behind the level", V311, "10 07 0004 4d515454 04", MALFORMED),
    broken("CONNECT cut behind the flags", V311, "10 08 0004 4d515454 04 02", MALFORMED),
    broken("CONNECT cut in the keep-alive", V311, "10 09 0004 4d515454 04 02 00", MALFORMED),
    broken("CONNECT without client id", V311, "10 0a 0004 4d515454 04 02 0000", MALFORMED),
    broken("CONNECT without properties", V5, "10 0a 0004 4d515454 05 02 0000", MALFORMED),
    broken("CONNECT with the reserved flag", V311, "10 0c 0004 4d515454 04 03 0000 0000", MALFORMED),
    broken("CONNECT with the reserved flag", V5, "10 0d 0004 4d515454 05 03 0000 00 0000", MALFORMED),
    broken("CONNECT with QoS of no will", V311, "10 0c 0004 4d515454 04 0a 0000 0000", MALFORMED),
    broken("CONNECT with QoS 2 of no will", V5, "10 0d 0004 4d515454 05 12 0000 00 0000", MALFORMED),
    broken("CONNECT with retain of no will", V311, "10 0c 0004 4d515454 04 22 0000 0000", MALFORMED),
    broken("CONNECT with retain of no will", V5, "10 0d 0004 4d515454 05 22 0000 00 0000", MALFORMED),
    broken("CONNECT with a will of QoS 3", V311, "10 12 0004 4d515454 04 1e 0000 0000 0001 61 0001 62", MALFORMED),
    broken("CONNECT with a will of QoS 3", V5, "10 14 0004 4d515454 05 1e 0000 00 0000 00 0001 61 0001 62", MALFORMED),
    broken("CONNECT with a will to +", V311, "10 12 0004 4d515454 04 06 0000 0000 0001 2b 0001 62", TOPIC),
    broken("CONNECT with a will to #", V5, "10 14 0004 4d515454 05 06 0000 00 0000 00 0001 23 0001 62", TOPIC),
    broken("CONNECT with a will to an empty topic", V311, "10 11 0004 4d515454 04 06 0000 0000 0000 0001 62", TOPIC),
    broken("CONNECT with a will that is not there", V311, "10 0c 0004 4d515454 04 06 0000 0000", MALFORMED),
    broken("CONNECT with a will without payload", V311, "10 0f 0004 4d515454 04 06 0000 0000 0001 61", MALFORMED),
    broken(
        "CONNECT with a will topic that holds U+0000",
        V311,
        "10 12 0004 4d515454 04 06 0000 0000 0001 00 0001 62",
        MALFORMED,
    ),
    broken("CONNECT with a user name that is not there", V311, "10 0c 0004 4d515454 04 82 0000 0000", MALFORMED),
    broken("CONNECT with a user name nobody announced", V311, "10 0f 0004 4d515454 04 02 0000 0000 0001 75", MALFORMED),
    broken("CONNECT with a password that is not there", V311, "10 0f 0004 4d515454 04 c2 0000 0000 0001 75", MALFORMED),
    broken(
        "CONNECT with a password but no user name", V311, "10 10 0004 4d515454 04 42 0000 0000 0002 7077", MALFORMED
    ),
    broken("CONNECT with a byte too many", V311, "10 0d 0004 4d515454 04 02 0000 0000 00", MALFORMED),
    broken("CONNECT with a byte too many", V5, "10 0e 0004 4d515454 05 02 0000 00 0000 00", MALFORMED),
    broken("CONNECT with a client id that holds U+0000", V311, "10 0d 0004 4d515454 04 02 0000 0001 00", MALFORMED),
    broken(
        "CONNECT with a client id that holds a surrogate",
        V5,
        "10 10 0004 4d515454 05 02 0000 00 0003 eda080",
        MALFORMED,
    ),
    broken("CONNECT with a client id of an overlong form", V311, "10 0e 0004 4d515454 04 02 0000 0002 c0af", MALFORMED),
    broken("CONNECT with a client id beyond U+10FFFF", V311, "10 10 0004 4d515454 04 02 0000 0004 f4908080", MALFORMED),
    broken("CONNECT with a user name that is no UTF-8", V311, "10 0f 0004 4d515454 04 82 0000 0000 0001 ff", MALFORMED),
    broken(
        "CONNECT with a client id longer than the packet", V311, "10 0d 0004 4d515454 04 02 0000 0002 61", MALFORMED
    ),
]

BROKEN_PUBLISHES = [
    *[
        row
        for level, none in ((V311, ""), (V5, "00"))
        for row in (
            broken("PUBLISH of nothing", level, "30 00", MALFORMED),
            broken("PUBLISH of one byte", level, "30 01 00", MALFORMED),
            broken("PUBLISH with a topic longer than the packet", level, "30 04 0005 6162", MALFORMED),
            broken("PUBLISH with half a packet id", level, "32 04 0001 61 00", MALFORMED),
            broken("PUBLISH without packet id", level, "34 03 0001 61", MALFORMED),
            broken("PUBLISH with QoS 3", level, f"36 {5 + len(none) // 2:02x} 0001 61 0001 {none}", MALFORMED),
            broken(
                "PUBLISH with QoS 3, DUP and retain",
                level,
                f"3f {5 + len(none) // 2:02x} 0001 61 0001 {none}",
                MALFORMED,
            ),
            broken("PUBLISH with QoS 0 and DUP", level, f"38 {3 + len(none) // 2:02x} 0001 61 {none}", MALFORMED),
            broken(
                "PUBLISH with packet id 0 and QoS 1", level, f"32 {5 + len(none) // 2:02x} 0001 61 0000 {none}", ERROR
            ),
            broken(
                "PUBLISH with packet id 0 and QoS 2", level, f"34 {5 + len(none) // 2:02x} 0001 61 0000 {none}", ERROR
            ),
            broken("PUBLISH to an empty topic", level, f"30 {2 + len(none) // 2:02x} 0000 {none}", ERROR),
            broken("PUBLISH to +", level, f"30 {4 + len(none) // 2:02x} 0002 612b {none}", TOPIC),
            broken("PUBLISH to #", level, f"30 {4 + len(none) // 2:02x} 0002 2f23 {none}", TOPIC),
            broken("PUBLISH to U+0000", level, f"30 {4 + len(none) // 2:02x} 0002 6100 {none}", MALFORMED),
            broken("PUBLISH to a surrogate", level, f"30 {5 + len(none) // 2:02x} 0003 edbfbf {none}", MALFORMED),
            broken("PUBLISH to an overlong slash", level, f"30 {4 + len(none) // 2:02x} 0002 c0af {none}", MALFORMED),
            broken("PUBLISH to half a character", level, f"30 {3 + len(none) // 2:02x} 0001 c3 {none}", MALFORMED),
        )
    ],
    broken("PUBLISH with QoS 0, DUP and retain", V311, "39 03 0001 61", MALFORMED),
    broken("PUBLISH with QoS 0, DUP and retain", V5, "39 04 0001 61 00", MALFORMED),
    broken("PUBLISH without properties", V5, "30 03 0001 61", MALFORMED),
    broken("PUBLISH with QoS 1 without properties", V5, "32 05 0001 61 0001", MALFORMED),
    broken("PUBLISH to an empty topic beside other properties", V5, "30 05 0000 02 01 00", ERROR),
    broken("PUBLISH with alias 0", V5, "30 07 0001 61 03 23 0000", ALIAS),
]


def in_publish(name, field, reason=ERROR):
    """A PUBLISH to "a" with this property field."""
    size = len(bytes.fromhex(field))
    return broken(f"PUBLISH with {name}", V5, f"30 {size + 3:02x} 0001 61 {field}", reason)


def in_connect(name, field, reason=ERROR):
    """A CONNECT with this property field."""
    size = len(bytes.fromhex(field))
    return broken(f"CONNECT with {name}", V5, f"10 {size + 12:02x} 0004 4d515454 05 02 0000 {field} 0000", reason)


def in_connack(name, field, reason=ERROR):
    """A CONNACK with this property field."""
    size = len(bytes.fromhex(field))
    return broken(f"CONNACK with {name}", V5, f"20 {size + 2:02x} 00 00 {field}", reason)


BROKEN_PROPERTIES = [
    in_publish("a property length that is cut off", "80", MALFORMED),
    in_publish("a property length that is too long", "8000", MALFORMED),
    in_publish("a property length of five bytes", "8080808001", MALFORMED),
    in_publish("a property length beyond the packet", "03 01 00", MALFORMED),
    in_publish("a property without value", "01 01", MALFORMED),
    in_publish("a value that reaches beyond the properties", "03 02 0000 00 00 00", MALFORMED),
    in_publish("a text that reaches beyond the properties", "04 03 0005 61 62 63 64 65", MALFORMED),
    in_publish("half a length", "02 03 00", MALFORMED),
    in_publish("property 0", "02 00 00", MALFORMED),
    in_publish("property 0x7f", "02 7f 00", MALFORMED),
    in_publish("an identifier in two bytes", "03 81 00 01", MALFORMED),
    in_publish("payload format 2", "02 01 02"),
    in_publish("two payload formats", "04 01 01 01 01"),
    in_publish("two message expiries", "0a 02 00000001 02 00000001"),
    in_publish("two content types", "08 03 0001 61 03 0001 61"),
    in_publish("two response topics", "08 08 0001 61 08 0001 61"),
    in_publish("two correlations", "08 09 0001 61 09 0001 61"),
    in_publish("two aliases", "06 23 0001 23 0001"),
    in_publish("a response topic with +", "04 08 0001 2b"),
    in_publish("a response topic with #", "05 08 0002 2f23"),
    in_publish("an empty response topic", "03 08 0000"),
    in_publish("a response topic that is no UTF-8", "04 08 0001 ff", MALFORMED),
    in_publish("a content type that holds U+0000", "04 03 0001 00", MALFORMED),
    in_publish("a user property whose name is no UTF-8", "07 26 0001 ff 0001 61", MALFORMED),
    in_publish("a user property whose value holds U+0000", "07 26 0001 61 0001 00", MALFORMED),
    in_publish("a user property without value", "04 26 0001 61", MALFORMED),
    in_publish("subscription identifier 0", "02 0b 00"),
    in_publish("a subscription identifier longer than need be", "04 0b 818000", MALFORMED),
    in_publish("a subscription identifier of five bytes", "06 0b 8080808001", MALFORMED),
    in_connect("receive maximum 0", "03 21 0000"),
    in_connect("maximum packet size 0", "05 27 00000000"),
    in_connect("request problem information 2", "02 17 02"),
    in_connect("request response information 2", "02 19 02"),
    in_connect("authentication data without a method", "04 16 0001 61"),
    in_connect("two session expiries", "0a 11 00000000 11 00000000"),
    in_connect("two receive maxima", "06 21 0001 21 0001"),
    in_connect("two maximum packet sizes", "0a 27 00000001 27 00000001"),
    in_connect("two topic alias maxima", "06 22 0001 22 0001"),
    in_connect("two methods", "08 15 0001 61 15 0001 61"),
    in_connect("authentication data twice", "0c 15 0001 61 16 0001 61 16 0001 61"),
    in_connect("request problem information twice", "04 17 01 17 01"),
    in_connack("receive maximum 0", "03 21 0000"),
    in_connack("maximum packet size 0", "05 27 00000000"),
    in_connack("maximum QoS 2", "02 24 02"),
    in_connack("retain available 2", "02 25 02"),
    in_connack("wildcard available 2", "02 28 02"),
    in_connack("subscription identifiers available 2", "02 29 02"),
    in_connack("shared available 2", "02 2a ff"),
    in_connack("authentication data without a method", "04 16 0001 61"),
    in_connack("a server keep-alive of one byte", "02 13 00", MALFORMED),
    broken(
        "CONNECT with a will delay of three bytes",
        V5,
        "10 17 0004 4d515454 05 06 0000 00 0000 04 18 000000 0001 61 0000",
        MALFORMED,
    ),
    broken(
        "CONNECT with a will delay outside the will",
        V5,
        "10 12 0004 4d515454 05 02 0000 05 18 00000001 0000",
        ERROR,
    ),
    broken(
        "CONNECT with a topic alias in the will",
        V5,
        "10 16 0004 4d515454 05 06 0000 00 0000 03 23 0001 0001 61 0000",
        ERROR,
    ),
]

BROKEN_ANSWERS = [
    broken("CONNACK of one byte", V311, "20 01 00", MALFORMED),
    broken("CONNACK of two bytes", V5, "20 02 00 00", MALFORMED),
    broken("CONNACK with a byte too many", V311, "20 03 00 00 00", MALFORMED),
    broken("CONNACK with a byte too many", V5, "20 04 00 00 00 00", MALFORMED),
    broken("CONNACK with a reserved flag", V311, "20 02 02 00", MALFORMED),
    broken("CONNACK with a reserved flag", V5, "20 03 81 00 00", MALFORMED),
    broken("CONNACK with a session and a refusal", V311, "20 02 01 05", ERROR),
    broken("CONNACK with a session and a refusal", V5, "20 03 01 87 00", ERROR),
    broken("CONNACK 6", V311, "20 02 00 06", ERROR),
    broken("CONNACK 0x01", V5, "20 03 00 01 00", ERROR),
    broken("CONNACK 0x8e, which it can't say", V5, "20 03 00 8e 00", ERROR),
    *[
        row
        for name, first in (("PUBACK", "40"), ("PUBREC", "50"), ("PUBREL", "62"), ("PUBCOMP", "70"))
        for row in (
            *[
                row
                for level in ANY
                for row in (
                    broken(f"{name} of nothing", level, f"{first} 00", MALFORMED),
                    broken(f"{name} of one byte", level, f"{first} 01 00", MALFORMED),
                    broken(f"{name} with packet id 0", level, f"{first} 02 0000", ERROR),
                )
            ],
            broken(f"{name} with packet id 0 and a code", V5, f"{first} 03 0000 00", ERROR),
            broken(f"{name} with a code", V311, f"{first} 03 0001 00", MALFORMED),
            broken(f"{name} with an unknown code", V5, f"{first} 03 0001 01", ERROR),
            broken(f"{name} with the code of another packet", V5, f"{first} 03 0001 8e", ERROR),
            broken(f"{name} with a byte too many", V5, f"{first} 05 0001 00 00 00", MALFORMED),
            broken(f"{name} with a property of another packet", V5, f"{first} 09 0001 00 05 02 00000001", ERROR),
            broken(f"{name} with two reason strings", V5, f"{first} 0a 0001 00 06 1f 0000 1f 0000", ERROR),
        )
    ],
    broken("SUBACK without a code", V311, "90 02 0001", ERROR),
    broken("SUBACK without a code", V5, "90 03 0001 00", ERROR),
    broken("SUBACK without properties", V5, "90 02 0001", MALFORMED),
    broken("SUBACK with packet id 0", V311, "90 03 0000 00", ERROR),
    broken("SUBACK with a code of 5.0", V311, "90 03 0001 87", ERROR),
    broken("SUBACK with code 3", V311, "90 03 0001 03", ERROR),
    broken("SUBACK with code 0x11", V5, "90 04 0001 00 11", ERROR),
    broken("UNSUBACK without a code", V5, "b0 03 0001 00", ERROR),
    broken("UNSUBACK with packet id 0", V311, "b0 02 0000", ERROR),
    broken("UNSUBACK with a byte too many", V311, "b0 03 0001 00", MALFORMED),
    broken("UNSUBACK with code 1", V5, "b0 04 0001 00 01", ERROR),
    broken("PINGREQ with a byte", V311, "c0 01 00", MALFORMED),
    broken("PINGREQ with a byte", V5, "c0 01 00", MALFORMED),
    broken("PINGRESP with a byte", V311, "d0 01 00", MALFORMED),
    broken("PINGRESP with a byte", V5, "d0 01 00", MALFORMED),
    broken("DISCONNECT with a byte", V311, "e0 01 00", MALFORMED),
    broken("DISCONNECT with an unknown code", V5, "e0 01 01", ERROR),
    broken("DISCONNECT with the code of a CONNACK", V5, "e0 01 85", ERROR),
    broken("DISCONNECT with a byte too many", V5, "e0 03 00 00 00", MALFORMED),
    broken("DISCONNECT with two session expiries", V5, "e0 0c 00 0a 11 00000000 11 00000000", ERROR),
    broken("DISCONNECT with a will delay", V5, "e0 07 00 05 18 00000000", ERROR),
    broken("AUTH with an unknown code", V5, "f0 06 01 04 15 0001 6d", ERROR),
    broken("AUTH without properties", V5, "f0 01 18", MALFORMED),
    broken("AUTH that continues without a method", V5, "f0 02 18 00", ERROR),
    broken("AUTH with success and a reason, but no method", V5, "f0 06 00 04 1f 0001 72", ERROR),
    broken("AUTH with data without a method", V5, "f0 06 00 04 16 0001 64", ERROR),
    broken("AUTH with a byte too many", V5, "f0 07 18 04 15 0001 6d 00", MALFORMED),
    broken("AUTH with a session expiry", V5, "f0 0b 18 09 15 0001 6d 11 00000000", ERROR),
]

BROKEN_SUBSCRIPTIONS = [
    *[
        row
        for name, first, options in (("SUBSCRIBE", "82", "00"), ("UNSUBSCRIBE", "a2", ""))
        for row in (
            broken(f"{name} of nothing", V311, f"{first} 00", MALFORMED),
            broken(f"{name} without a filter", V311, f"{first} 02 0001", ERROR),
            broken(f"{name} without a filter", V5, f"{first} 03 0001 00", ERROR),
            broken(f"{name} without properties", V5, f"{first} 02 0001", MALFORMED),
            broken(
                f"{name} with packet id 0", V311, f"{first} {5 + len(options) // 2:02x} 0000 0001 61 {options}", ERROR
            ),
            broken(
                f"{name} with packet id 0", V5, f"{first} {6 + len(options) // 2:02x} 0000 00 0001 61 {options}", ERROR
            ),
            broken(f"{name} with half a filter", V311, f"{first} 05 0001 0002 61", MALFORMED),
            broken(
                f"{name} with a byte too many",
                V311,
                f"{first} {6 + len(options) // 2:02x} 0001 0001 61 {options} 00",
                MALFORMED,
            ),
            broken(
                f"{name} with a filter that holds U+0000",
                V311,
                f"{first} {5 + len(options) // 2:02x} 0001 0001 00 {options}",
                MALFORMED,
            ),
            broken(
                f"{name} with a filter that is no UTF-8",
                V5,
                f"{first} {6 + len(options) // 2:02x} 0001 00 0001 80 {options}",
                MALFORMED,
            ),
            broken(
                f"{name} with a reason string",
                V5,
                f"{first} {9 + len(options) // 2:02x} 0001 03 1f 0000 0001 61 {options}",
                ERROR,
            ),
        )
    ],
    broken("SUBSCRIBE without options", V311, "82 05 0001 0001 61", MALFORMED),
    broken("SUBSCRIBE with QoS 3", V311, "82 06 0001 0001 61 03", ERROR),
    broken("SUBSCRIBE with QoS 3", V5, "82 07 0001 00 0001 61 03", ERROR),
    *[
        broken(f"SUBSCRIBE with option {1 << bit:02x}", V311, f"82 06 0001 0001 61 {1 << bit:02x}", MALFORMED)
        for bit in range(2, 8)
    ],
    *[
        broken(f"SUBSCRIBE with option {1 << bit:02x}", V5, f"82 07 0001 00 0001 61 {1 << bit:02x}", MALFORMED)
        for bit in (6, 7)
    ],
    broken("SUBSCRIBE with retain handling 3", V5, "82 07 0001 00 0001 61 30", ERROR),
    broken("SUBSCRIBE with retain handling 3 and all else", V5, "82 07 0001 00 0001 61 3e", ERROR),
    broken("SUBSCRIBE with retain handling 3 and QoS 1", V5, "82 07 0001 00 0001 61 31", ERROR),
    broken("SUBSCRIBE with a second filter that is wrong", V5, "82 0b 0001 00 0001 61 00 0001 62 80", MALFORMED),
    broken("SUBSCRIBE with no local on a shared subscription", V5, "82 10 0001 00 000a 2473686172652f672f61 04", ERROR),
    broken("SUBSCRIBE with subscription identifier 0", V5, "82 09 0001 02 0b 00 0001 61 00", ERROR),
    broken("SUBSCRIBE with two subscription identifiers", V5, "82 0b 0001 04 0b 01 0b 02 0001 61 00", ERROR),
    broken("UNSUBSCRIBE with a subscription identifier", V5, "a2 08 0001 02 0b 01 0001 61", ERROR),
]

BROKEN = [*FLAGS, *BROKEN_CONNECTS, *BROKEN_PUBLISHES, *BROKEN_PROPERTIES, *BROKEN_ANSWERS, *BROKEN_SUBSCRIPTIONS]
