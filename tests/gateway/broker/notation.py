"""A way to write MQTT packets down byte by byte, and a reader of packets that knows nothing of `gateway.mqtt`.

    82 .. 0001 (0b 05) 'a/b' 01        SUBSCRIBE, id 1, subscription identifier 5, filter a/b, QoS 1

Hex digits are bytes. `..` is the remaining length of what follows. `'text'` is a string with its two bytes of length,
`"text"` is bare text, and `( … )` is a property list with its length: at level 4, which has none, it vanishes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(r"""\s+|'(?P<string>[^']*)'|"(?P<text>[^"]*)"|(?P<mark>\.\.|\(|\))|(?P<hex>(?:[0-9a-f]{2})+)""")

KINDS = (
    *("RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP"),
    *("SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"),
)

PROPERTY_SHAPES = {
    0x01: "byte",
    0x02: "four",
    0x03: "string",
    0x08: "string",
    0x09: "binary",
    0x0B: "varint",
    0x11: "four",
    0x12: "string",
    0x13: "two",
    0x15: "string",
    0x16: "binary",
    0x17: "byte",
    0x18: "four",
    0x19: "byte",
    0x1A: "string",
    0x1C: "string",
    0x1F: "string",
    0x21: "two",
    0x22: "two",
    0x23: "two",
    0x24: "byte",
    0x25: "byte",
    0x26: "pair",
    0x27: "four",
    0x28: "byte",
    0x29: "byte",
    0x2A: "byte",
}

SERVER_MAY_SAY = {  # 2.2.2.2, what a server may put into which packet
    "CONNACK": {
        *(0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A),
    },
    "PUBLISH": {0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26},
    "PUBACK": {0x1F, 0x26},
    "PUBREC": {0x1F, 0x26},
    "PUBREL": {0x1F, 0x26},
    "PUBCOMP": {0x1F, 0x26},
    "SUBACK": {0x1F, 0x26},
    "UNSUBACK": {0x1F, 0x26},
    "DISCONNECT": {0x1C, 0x1F, 0x26},  # never 0x11 [MQTT-3.14.2-2]
    "AUTH": {0x15, 0x16, 0x1F, 0x26},
}

SERVER_REASONS = {  # the table of each packet
    "PUBACK": {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    "PUBREC": {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    "PUBREL": {0x00, 0x92},
    "PUBCOMP": {0x00, 0x92},
    "SUBACK": {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    "UNSUBACK": {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    "AUTH": {0x00, 0x18},
    "CONNACK": {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F},
    "DISCONNECT": {0x00, *range(0x80, 0x84), 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, *range(0x93, 0xA3)},
}


def varint(value: int) -> bytes:
    """A variable byte integer, 1.5.5."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def string(text: str | bytes) -> bytes:
    """A string or binary data with its two bytes of length, 1.5.4 and 1.5.6."""
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2, "big") + data


def packet(first: int, *parts: bytes) -> bytes:
    """A whole packet: the first byte, the remaining length, the parts."""
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


def raw(text: str, level: int = 5) -> bytes:
    """The bytes of one packet, or of a piece of one, in the notation at the head of this file."""
    stack: list[bytearray] = [bytearray()]
    opened: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found, f"no token at {text[at:]!r}"
        at = found.end()
        if found["string"] is not None:
            stack[-1] += string(found["string"])
        elif found["text"] is not None:
            stack[-1] += found["text"].encode()
        elif found["hex"]:
            stack[-1] += bytes.fromhex(found["hex"])
        elif found["mark"] in ("..", "("):
            opened.append(found["mark"])
            stack.append(bytearray())
        elif found["mark"] == ")":
            assert opened.pop() == "("
            inner = stack.pop()
            stack[-1] += b"" if level == 4 else varint(len(inner)) + inner
    while opened:
        assert opened.pop() == "..", "a ( is not closed"
        inner = stack.pop()
        stack[-1] += varint(len(inner)) + inner
    return bytes(stack[0])


@dataclass(frozen=True)
class Seen:
    """A packet that a server sent, read strictly. `properties`: id -> value, or list of values for 0x0b and 0x26."""

    kind: str
    raw: bytes
    packet_id: int = 0
    reason: int = 0
    reasons: tuple[int, ...] = ()
    topic: str = ""
    payload: bytes = b""
    session_present: bool = False
    properties: dict[int, Any] = field(default_factory=dict)

    @property
    def qos(self) -> int:
        return self.raw[0] >> 1 & 3

    @property
    def dup(self) -> bool:
        return bool(self.raw[0] & 8)

    @property
    def retain(self) -> bool:
        return bool(self.raw[0] & 1)

    @property
    def bare(self) -> tuple[Any, ...]:
        """Everything but the properties."""
        first = self.raw[0]
        return first, self.packet_id, self.reason, self.reasons, self.topic, self.payload, self.session_present

    def __repr__(self) -> str:
        shown = self.raw if len(self.raw) < 80 else self.raw[:80]
        return f"<{self.kind} {shown.hex(' ')}{'…' if shown is not self.raw else ''}>"


class _Reader:
    """Reads the body of one packet, and refuses what a strict client would refuse."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.at = 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.body), f"runs out of bytes: {self.body.hex(' ')}"
        self.at += count
        return self.body[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def varint(self) -> int:
        value, shift, start = 0, 0, self.at
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        assert varint(value) == self.body[start : self.at], "not the shortest form [MQTT-1.5.5-1]"
        return value

    def string(self) -> str:
        text = self.take(self.number(2)).decode("utf-8", "strict")
        assert "\0" not in text
        return text

    def rest(self) -> bytes:
        return self.take(len(self.body) - self.at)

    def properties(self, kind: str) -> dict[int, Any]:
        end = self.varint() + self.at
        found: dict[int, Any] = {}
        while self.at < end:
            identifier = self.varint()
            assert identifier in SERVER_MAY_SAY[kind], f"property 0x{identifier:02x} in {kind}"
            shape = PROPERTY_SHAPES[identifier]
            value = self._value(shape)
            if shape in ("pair", "varint"):
                found.setdefault(identifier, []).append(value)
            else:
                assert identifier not in found, f"property 0x{identifier:02x} twice"
                found[identifier] = value
        assert self.at == end, "a property overruns its list"
        return found

    def _value(self, shape: str) -> Any:
        if shape in ("byte", "two", "four"):
            return self.number({"byte": 1, "two": 2, "four": 4}[shape])
        if shape == "varint":
            return self.varint()
        if shape == "pair":
            return self.string(), self.string()
        return self.string() if shape == "string" else self.take(self.number(2))


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole packets at the head of the bytes, and what is left."""
    found = []
    at = 0
    while at + 2 <= len(data):
        length, shift, end = 0, 0, at + 1
        while end < len(data):
            length |= (data[end] & 0x7F) << shift
            shift += 7
            end += 1
            if data[end - 1] < 0x80:
                break
        else:
            break
        assert shift <= 28
        if end + length > len(data):
            break
        found.append(data[at : end + length])
        at = end + length
    return found, data[at:]


def read(data: bytes, level: int) -> Seen:
    """One whole packet of a server, taken apart; AssertionError where the standard forbids it."""
    kind = KINDS[data[0] >> 4]
    length = _Reader(data[1:])
    body = _Reader(data[1 + len(varint(length.varint())) :])
    assert kind == "PUBLISH" or data[0] & 15 == (2 if kind == "PUBREL" else 0), "wrong flags"
    seen = _READERS[kind](kind, data, body, level)
    assert body.at == len(body.body), f"bytes left over in {seen!r}"
    if level == 5 and kind in SERVER_REASONS:
        assert {seen.reason, *seen.reasons} <= SERVER_REASONS[kind] | ({0} if seen.reasons else set()), seen
    return seen


def _connack(kind: str, data: bytes, body: _Reader, level: int) -> Seen:
    flags, code = body.number(1), body.number(1)
    assert flags in (0, 1)
    assert not (flags and code), "an error CONNACK says session present [MQTT-3.2.2-6]"
    assert level == 5 or code <= 5
    properties = body.properties(kind) if level == 5 and body.at < len(body.body) else {}
    return Seen(kind, data, reason=code, session_present=bool(flags), properties=properties)


def _publish(kind: str, data: bytes, body: _Reader, level: int) -> Seen:
    qos = data[0] >> 1 & 3
    assert qos < 3
    assert qos or not data[0] & 8, "DUP with QoS 0 [MQTT-3.3.1-2]"
    topic = body.string()
    assert not set(topic) & set("+#"), "a wildcard in a topic name [MQTT-3.3.2-2]"
    packet_id = body.number(2) if qos else 0
    assert packet_id or not qos, "packet id 0 [MQTT-2.2.1-4]"
    properties = body.properties(kind) if level == 5 else {}
    assert topic or 0x23 in properties, "no topic and no alias"
    assert properties.get(0x23, 1) > 0
    assert properties.get(0x02, 1) > 0, "expired, and sent all the same"
    assert 0 not in properties.get(0x0B, ())
    return Seen(kind, data, packet_id=packet_id, topic=topic, payload=body.rest(), properties=properties)


def _acknowledgement(kind: str, data: bytes, body: _Reader, level: int) -> Seen:
    packet_id = body.number(2)
    assert packet_id
    reason, properties = 0, {}
    if level == 5 and body.at < len(body.body):
        reason = body.number(1)
        properties = body.properties(kind) if body.at < len(body.body) else {}
    return Seen(kind, data, packet_id=packet_id, reason=reason, properties=properties)


def _list(kind: str, data: bytes, body: _Reader, level: int) -> Seen:
    packet_id = body.number(2)
    properties = body.properties(kind) if level == 5 else {}
    codes = tuple(body.rest())
    if level == 4:
        assert kind == "SUBACK" or not codes
        assert set(codes) <= {0, 1, 2, 0x80}
    return Seen(kind, data, packet_id=packet_id, reasons=codes, properties=properties)


def _pingresp(kind: str, data: bytes, body: _Reader, level: int) -> Seen:
    return Seen(kind, data)


def _reasoned(kind: str, data: bytes, body: _Reader, level: int) -> Seen:
    assert level == 5, f"{kind} is not a server's packet in 3.1.1"
    reason = body.number(1) if body.body else 0
    properties = body.properties(kind) if body.at < len(body.body) else {}
    return Seen(kind, data, reason=reason, properties=properties)


_READERS = {
    "CONNACK": _connack,
    "PUBLISH": _publish,
    "PUBACK": _acknowledgement,
    "PUBREC": _acknowledgement,
    "PUBREL": _acknowledgement,
    "PUBCOMP": _acknowledgement,
    "SUBACK": _list,
    "UNSUBACK": _list,
    "PINGRESP": _pingresp,
    "DISCONNECT": _reasoned,
    "AUTH": _reasoned,
}
