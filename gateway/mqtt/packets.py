"""The fifteen packets of MQTT as nouns, and what they are made of. Bytes are the business of `decode` and `encode`.

One set of classes serves both levels: what MQTT 3.1.1 does not have keeps its default. Section numbers are MQTT 5.0's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

V311 = 4
V5 = 5
"""Protocol levels, as the byte in CONNECT says them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the server publishes when the client goes without a word (3.1.3.2 to 3.1.3.4).

    `properties` holds the will's own: will delay interval (s), message expiry (s), content type and so on.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """3.1. `clean_start` is 3.1.1's clean session; `keep_alive` in s, 0 = off. The password never shows in a repr."""

    level: int = V5
    client_id: str = ""
    clean_start: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None
    properties: Properties = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Connack:
    """3.2. `reason` is always one of MQTT 5.0's; `encode` turns it into 3.1.1's return code (3.2.2.3) for level 4."""

    session_present: bool = False
    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


@dataclass(slots=True)
class Publish:
    """3.3. Not frozen only because it is made for each message; nobody changes one. `packet_id` is 0 with QoS 0.

    `topic` is never empty behind the connection engine: an alias was resolved there.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = NONE


@dataclass(slots=True)
class Puback:
    """3.4. The answer to a PUBLISH with QoS 1."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


@dataclass(slots=True)
class Pubrec:
    """3.5. The first answer to a PUBLISH with QoS 2."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


@dataclass(slots=True)
class Pubrel:
    """3.6. The answer to a PUBREC."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


@dataclass(slots=True)
class Pubcomp:
    """3.7. The answer to a PUBREL, and the end of a QoS 2 exchange."""

    packet_id: int
    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


@dataclass(frozen=True, slots=True)
class Subscription:
    """One filter of a SUBSCRIBE with its options (3.8.3.1). `retain_handling`: 0 send, 1 send if new, 2 do not send."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(frozen=True, slots=True)
class Subscribe:
    """3.8. The subscription identifier is in `properties`."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = NONE


@dataclass(frozen=True, slots=True)
class Suback:
    """3.9. One code a filter in the same order: 0, 1, 2 granted, from 0x80 refused."""

    packet_id: int
    reasons: tuple[Reason, ...]
    properties: Properties = NONE


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """3.10."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NONE


@dataclass(frozen=True, slots=True)
class Unsuback:
    """3.11. 3.1.1 sends no codes; they are given all the same and left out by `encode`."""

    packet_id: int
    reasons: tuple[Reason, ...]
    properties: Properties = NONE


@dataclass(frozen=True, slots=True)
class Pingreq:
    """3.12."""


@dataclass(frozen=True, slots=True)
class Pingresp:
    """3.13."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """3.14."""

    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """3.15. MQTT 5.0 only."""

    reason: Reason = Reason.SUCCESS
    properties: Properties = NONE


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
