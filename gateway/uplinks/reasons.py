"""MQTT's reason codes in words, and what each means for a record that waits. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Verdict: TypeAlias = Literal["wait", "hopeless"]
"""`wait`: the server may change its mind, nothing is lost. `hopeless`: these bytes will never be taken."""

FIRST_ERROR: Final = 0x80
"""Below it a reason code means success [MQTT 5.0, 2.4]."""

UNSUPPORTED_VERSION: Final = 0x84
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B

_NAMES = {
    0x00: "success",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    UNSUPPORTED_VERSION: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over: another client connected with the same client id",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    RETAIN_NOT_SUPPORTED: "retain not supported",
    QOS_NOT_SUPPORTED: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
}
_HOPELESS = frozenset({0x90, 0x95, 0x99})
_PERSON = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 0x9C, 0x9D})
_BLAMES_PACKET = frozenset({0x81, 0x82, 0x90, 0x95, 0x99})


def reason(code: int) -> str:
    """The code in words and as the standard writes it: `not authorized (0x87)`."""
    return f"{_NAMES.get(code, 'unknown reason')} (0x{code:02X})"


def verdict(code: int) -> Verdict:
    """What a refused publish means for its record."""
    return "hopeless" if code in _HOPELESS else "wait"


def needs_person(code: int) -> bool:
    """Whether a refused connect, or a closed connection, will not mend itself."""
    return code in _PERSON


def blames_packet(code: int) -> bool:
    """Whether a DISCONNECT says that something we sent was wrong."""
    return code in _BLAMES_PACKET
