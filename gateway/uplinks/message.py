"""One publish as the payload formats make it, and its MQTT 5 user properties as bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.properties import Place, decode_properties, encode_properties
from gateway.mqtt.wire import varint_bytes

NO_MARKS: Mapping[str, Any] = {}
"""Nothing else is to be said of a record."""

_USER_PROPERTY = 0x26  # [MQTT 5.0, 3.3.2.3.7] identifier, then two UTF-8 strings with a two-byte length each
_KEEP = 1024


class Message(NamedTuple):
    """What goes to the server in one PUBLISH; its quality of service is the uplink's."""

    topic: str
    payload: bytes
    retain: bool = False


class Incoming(NamedTuple):
    """What came in one PUBLISH on a topic we subscribed to.

    `is_again`: marked as sent once more (DUP). `expires_s`: how long it is good for from now on, None for ever.
    `response_topic` is empty where the message names none.
    """

    topic: str
    payload: bytes
    retain: bool = False
    is_again: bool = False
    expires_s: float | None = None
    response_topic: str = ""
    correlation_data: bytes | None = None


class Room(NamedTuple):
    """Bytes that topic and payload of one message may have together: `most`, and what splitting should aim at."""

    most: int
    aim: int

    def less(self, size: int) -> Room:
        """What is left when so many are taken."""
        return Room(self.most - size, self.aim - size)


class UserProperties:
    """`gateway`, `device`, `epoch` and `seq` as the property field of a PUBLISH, all but `seq` encoded once.

    Gateway `g`, device `d`, epoch `e`, seq 1, behind the length of it all (a variable byte integer):

        2d 26 0007 "gateway" 0001 "g"  26 0006 "device" 0001 "d"  26 0005 "epoch" 0001 "e"  26 0003 "seq" 0001 "1"
    """

    def __init__(self, gateway: str) -> None:
        self._name = gateway
        self._gateway = _property("gateway", gateway)
        self._heads: dict[tuple[str, str], bytes] = {}

    def pack(self, device: str, epoch: str, seq: int) -> bytes:
        """The field for one record, its length in front. `device` may be empty: it is left out then."""
        head = self._heads.get((device, epoch))
        if head is None:
            if len(self._heads) >= _KEEP:
                self._heads.clear()
            head = self._gateway + (_property("device", device) if device else b"") + _property("epoch", epoch)
            head = self._heads[device, epoch] = head + b"\x26\x00\x03seq\x00"
        digits = b"%d" % seq
        size = len(head) + 1 + len(digits)
        length = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))  # names are short: < 16384
        return b"%b%b%c%b" % (length, head, len(digits), digits)

    def join(self, stored: bytes, epoch: str, seq: int) -> bytes:
        """The field for a message that was kept with `stored`, its own properties: those, and behind them ours.

        What concerned the connection that it came by (topic alias, subscription identifiers) is left out, and all of it
        where it is no property field: the message counts more.
        """
        try:
            own, _ = decode_properties(varint_bytes(len(stored)) + stored, 0, Place.PUBLISH)
        except RemoteProtocolError:
            return self.pack("", epoch, seq)
        user = (*own.user, ("gateway", self._name), ("epoch", epoch), ("seq", str(seq)))
        joined = replace(own, topic_alias=None, subscription_identifiers=(), user=user)
        return encode_properties(joined, Place.PUBLISH)


def _property(key: str, value: str) -> bytes:
    k, v = key.encode(), value.encode()
    return b"%c%b%b%b%b" % (_USER_PROPERTY, len(k).to_bytes(2), k, len(v).to_bytes(2), v)
