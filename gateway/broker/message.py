"""A message on its way through the broker, and its bytes: encoded once for all clients that get the same ones."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from gateway.broker.client import Identity
from gateway.mqtt.encode import publish_parts
from gateway.mqtt.packets import V5
from gateway.mqtt.properties import NONE, Properties

Parts = tuple[bytes, bytes]
"""A PUBLISH with the packet identifier cut out: what stands before it, and what behind."""

Form = int | tuple[int, tuple[int, ...], int | None]
"""Level, QoS and retain in one number; with the identifiers and what is left of the expiry, where there are any."""

_NOTHING: Parts = (b"", b"")

NO_ONE = Identity("", is_gateway=True)
"""Where a message comes from when its publisher is not known: it was read back from disk."""

OVERHEAD_BYTES = 200
"""What a message costs beside its topic and payload: the object, its bytes' headers, its place in a queue."""

_PROPERTY_BYTES = 400
_USER_PROPERTY_BYTES = 200

_ENCODINGS = 64
"""Encoded forms of one message that are kept: each holds its payload once more."""


class Message:
    """An application message (MQTT 5.0, 1.2) and where it comes from. Nobody changes one.

    `properties` are the publisher's without topic alias and will delay; message expiry is as it came. `expires_at`: s
    since 1970, None = never. `number`: the store's name for it, 0 = not stored. `size`: what it is charged for, bytes.
    `is_again`: its publisher marked it as sent once more (DUP); nobody is told that but the gateway [MQTT-3.3.1-3].
    """

    __slots__ = (
        "_form",
        "_last",
        "_others",
        "expires_at",
        "is_again",
        "number",
        "origin",
        "payload",
        "properties",
        "qos",
        "retain",
        "size",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,  # noqa: FBT001 - positional: one is made for each message
        properties: Properties = NONE,
        expires_at: float | None = None,
        origin: Identity = NO_ONE,
        number: int = 0,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.expires_at = expires_at
        self.origin = origin
        self.number = number
        self.is_again = False
        self.size = len(topic) + len(payload) + OVERHEAD_BYTES
        if properties is not NONE:
            self.size += _weight(properties)
        self._form: Form = 0
        self._last = _NOTHING
        self._others: dict[Form, Parts] | None = None

    def __repr__(self) -> str:
        return f"<Message {self.topic!r} {len(self.payload)} B qos={self.qos} retain={self.retain:d} #{self.number}>"

    def is_expired(self, now: float) -> bool:
        """Whether its lifetime is over [MQTT-3.3.2-5]."""
        return self.expires_at is not None and self.expires_at <= now

    def remaining(self, now: float) -> int | None:
        """The message expiry to forward, s: reduced by the time waited, never 0 [MQTT-3.3.2-6]. None = has none."""
        if self.expires_at is None:
            return None
        return max(1, min(math.ceil(self.expires_at - now), self.properties.message_expiry or 1))

    def outward(self, identifiers: tuple[int, ...], now: float) -> Properties:
        """The properties a subscriber gets: the publisher's [MQTT-3.3.2-4, -15 to -20], and the identifiers."""
        properties = self.properties
        if properties is NONE:
            return _identified(identifiers) if identifiers else NONE
        remaining = self.remaining(now)
        if not identifiers and remaining == properties.message_expiry:
            return properties
        return replace(properties, message_expiry=remaining, subscription_identifiers=identifiers)

    def parts(self, level: int, qos: int, retain: bool, identifiers: tuple[int, ...], now: float) -> Parts:  # noqa: FBT001 - hot
        """The encoded PUBLISH for all subscribers who get it like this."""
        plain = level << 3 | qos << 1 | retain
        form: Form = plain
        if level == V5 and (identifiers or self.expires_at is not None):
            form = (plain, identifiers, self.remaining(now))
        if form == self._form:
            return self._last
        others = self._others
        if self._form:
            if others is None:
                others = self._others = {}
            others[self._form] = self._last
            if len(others) > _ENCODINGS:
                others.clear()
        known = None if others is None else others.get(form)
        if known is None:
            properties = self.outward(identifiers, now) if level == V5 else NONE
            known = publish_parts(self.topic, self.payload, qos, retain, level, properties)
        self._form = form
        self._last = known
        return known

    def copy(self) -> Message:
        """The same message, which the store has not seen yet."""
        return Message(self.topic, self.payload, self.qos, self.retain, self.properties, self.expires_at, self.origin)

    def forget(self) -> None:
        """Drop the encoded bytes: the message is kept, and nobody is to get it soon."""
        self._form = 0
        self._last = _NOTHING
        self._others = None


def _weight(properties: Properties) -> int:
    texts = len(properties.content_type or "") + len(properties.response_topic or "")
    texts += len(properties.correlation_data or b"")
    return _PROPERTY_BYTES + texts + sum(len(key) + len(value) + _USER_PROPERTY_BYTES for key, value in properties.user)


@lru_cache(4096)
def _identified(identifiers: tuple[int, ...]) -> Properties:
    return Properties(subscription_identifiers=identifiers)


def forwarded(properties: Properties) -> Properties:
    """What of a publisher's properties, or a will's, goes on to subscribers: all but alias and will delay."""
    if properties.topic_alias is None and properties.will_delay is None:
        return properties
    rest = replace(properties, topic_alias=None, will_delay=None)
    return NONE if rest == NONE else rest
