"""The data types of MQTT (1.5) as bytes, both ways: integers, texts, binary data. What a packet means is not said here.

    u16, u32          big-endian
    varint            1 to 4 bytes of 7 bits, lowest first, bit 7 = "more follow"; 321 is c1 02
    text, binary      u16 length, then that many bytes; "a/b" is 00 03 61 2f 62

Readers take `(data, at)`, return `(value, next at)` and raise `RemoteProtocolError` (malformed packet) where the bytes
end too early or break a rule. Writers return bytes and raise `LocalProtocolError` where a value has no such form.

Text is UTF-8 without U+0000 and surrogates. A byte order mark is a character like any other, never stripped
[MQTT-1.5.4-3]. Control characters from U+0001 on are allowed everywhere: the standard leaves them to us.
"""

from __future__ import annotations

from gateway.mqtt.errors import LocalProtocolError, RemoteProtocolError
from gateway.mqtt.reasons import Reason

LONGEST = 0xFFFF
"""Bytes of a text or of binary data."""
LARGEST_VARINT = 268_435_455
"""Also the largest remaining length of a packet (2.1.4)."""


def malformed(text: str) -> RemoteProtocolError:
    """The error for bytes that can't be read as the standard says (4.13.1)."""
    return RemoteProtocolError(Reason.MALFORMED_PACKET, text)


def u8(data: bytes, at: int) -> tuple[int, int]:
    """Read a byte."""
    if at >= len(data):
        raise malformed("a byte is missing at the end")
    return data[at], at + 1


def u16(data: bytes, at: int) -> tuple[int, int]:
    """Read a two byte integer (1.5.2)."""
    end = at + 2
    if end > len(data):
        raise malformed("a two byte integer is cut off")
    return data[at] << 8 | data[at + 1], end


def u32(data: bytes, at: int) -> tuple[int, int]:
    """Read a four byte integer (1.5.3)."""
    end = at + 4
    if end > len(data):
        raise malformed("a four byte integer is cut off")
    return int.from_bytes(data[at:end], "big"), end


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable byte integer (1.5.5), which must be as short as can be."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for shift in (0, 7, 14, 21):
        if at >= len(data):
            raise malformed("a variable byte integer is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise malformed("a variable byte integer is longer than it need be")  # [MQTT-1.5.5-1]
            return value, at
    raise malformed("a variable byte integer has more than four bytes")


def binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Read binary data (1.5.6)."""
    start = at + 2
    if start > len(data):
        raise malformed("a length is cut off")
    end = start + (data[at] << 8 | data[at + 1])
    if end > len(data):
        raise malformed(f"{end - start} bytes are announced, {len(data) - start} are there")
    return data[start:end], end


def utf8(data: bytes, at: int) -> tuple[str, int]:
    """Read a text (1.5.4)."""
    start = at + 2
    if start <= len(data):
        end = start + (data[at] << 8 | data[at + 1])
        if end <= len(data):
            return text_of(data[start:end]), end
    raise malformed("a text is cut off")


def text_of(raw: bytes) -> str:
    """The text that these bytes are, checked."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:  # surrogates and overlong forms too: [MQTT-1.5.4-1]
        raise malformed(f"a text is not UTF-8: {error.reason} at byte {error.start}") from None
    if "\0" in text:
        raise malformed("a text holds U+0000")  # [MQTT-1.5.4-2]
    return text


def pair(data: bytes, at: int) -> tuple[tuple[str, str], int]:
    """Read two texts (1.5.7)."""
    name, at = utf8(data, at)
    value, at = utf8(data, at)
    return (name, value), at


def u8_bytes(value: int) -> bytes:
    """Write a byte."""
    return _integer_bytes(value, 1)


def u16_bytes(value: int) -> bytes:
    """Write a two byte integer."""
    return _integer_bytes(value, 2)


def u32_bytes(value: int) -> bytes:
    """Write a four byte integer."""
    return _integer_bytes(value, 4)


def _integer_bytes(value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "big")
    except OverflowError:
        raise LocalProtocolError(f"{value} does not fit in {size} bytes") from None


def varint_bytes(value: int) -> bytes:
    """Write a variable byte integer, as short as can be [MQTT-1.5.5-1]."""
    if 0 <= value < 0x80:
        return value.to_bytes(1, "big")
    if not 0 <= value <= LARGEST_VARINT:
        raise LocalProtocolError(f"{value} is no variable byte integer")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def binary_bytes(value: bytes) -> bytes:
    """Write binary data."""
    if len(value) > LONGEST:
        raise LocalProtocolError(f"{len(value)} bytes are too many: {LONGEST} go")
    return len(value).to_bytes(2, "big") + value


def utf8_bytes(text: str) -> bytes:
    """Write a text."""
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"a text can't be said in UTF-8: {error.reason}") from None
    size = len(raw)
    if size > LONGEST:
        raise LocalProtocolError(f"a text of {size} bytes: {LONGEST} go")
    if "\0" in text:
        raise LocalProtocolError("a text holds U+0000")
    return size.to_bytes(2, "big") + raw


def pair_bytes(value: tuple[str, str]) -> bytes:
    """Write two texts."""
    return utf8_bytes(value[0]) + utf8_bytes(value[1])
