"""The store's operations as bytes, and back. Pure. What they do to a state is said in `recovery`.

A frame of the log holds operations one behind the other, all of one turn of the loop: they count together or not at
all. Little endian; `s` is the core's number of a session (u32), `m` the store's number of a message (u64), `p` a packet
id (u16), texts are UTF-8 behind all fields of fixed size, in the order of their lengths:

    code  operation     fields behind the code
    ----  ------------  ------------------------------------------------------------------------------------------
       1  session       s, u32 expiry (s), f64 offline since (s since 1970, inf = connected), u16 length of client
                        id, u8 has a user name, u16 its length
       2  end session   s
       3  subscribe     s, u8 options as in SUBSCRIBE (3.8.3.1), u32 identifier (0 = none), u16 length of filter
       4  unsubscribe   s, u16 length of filter
       5  message       u32 bytes of the whole operation, m, u8 flags (1, 2: QoS; 4: retain; 8: it is also retained
                        under its topic), f64 expires at (inf = never), u16 length of topic, u16 of the publisher's
                        client id, u32 of the properties; those three, then the payload
       6  queue         s, m, u8 flags (1, 2: QoS; 4: retain), u16 n; n subscription identifiers of u32
       7  send          s, m, p
       8  received      s, p
       9  done          s, p
      10  drop          s, m
      11  inbound       s, p
      12  inbound done  s, p
      13  retain        m, u16 length of topic
      14  unretain      u16 length of topic
      15  will          s, m, f64 due (s since 1970, inf = when the connection is lost), u32 delay (s)
      16  will done     s

Worked example, packet 5 of session 7 is done: `09 07000000 0500`.
"""

from __future__ import annotations

import math
from struct import Struct, pack

from gateway.broker.client import Identity
from gateway.broker.message import NO_ONE, Message
from gateway.mqtt.packets import Subscription
from gateway.mqtt.properties import NONE, Place, decode_properties, encode_properties

SESSION, END_SESSION, SUBSCRIBE, UNSUBSCRIBE, MESSAGE, QUEUE, SEND, RECEIVED = range(1, 9)
DONE, DROP, INBOUND, INBOUND_DONE, RETAIN, UNRETAIN, WILL, WILL_DONE = range(9, 17)

RETAINED = 8
"""The flag of a message that is its topic's retained one as soon as it is stored."""

SESSION_HEAD = Struct("<BIIdHBH")
SUBSCRIBE_HEAD = Struct("<BIBIH")
MESSAGE_HEAD = Struct("<BIQBdHHI")
QUEUE_HEAD = Struct("<BIQBH")
RETAIN_HEAD = Struct("<BQH")
WILL_BODY = Struct("<BIQdI")
FLAGS_AT = 13
"""Where in a message its flags stand."""
OF_SESSION = Struct("<BI")
OF_PACKET = Struct("<BIH")
"""Also unsubscribe: the length of its filter stands where others have the packet id."""
OF_MESSAGE = Struct("<BIQ")
OF_BOTH = Struct("<BIQH")
OF_TOPIC = Struct("<BH")

_session_head = SESSION_HEAD.pack
_message_head = MESSAGE_HEAD.pack
_MESSAGE_FIXED = MESSAGE_HEAD.size
_queue_head = QUEUE_HEAD.pack


def session_operation(number: int, client_id: str, username: str | None, expiry_s: int, offline: float | None) -> bytes:
    """Operation 1. `offline`: since when, s since 1970; None = connected."""
    who, user = client_id.encode(), (username or "").encode()
    since = math.inf if offline is None else offline
    head = _session_head(SESSION, number, expiry_s, since, len(who), username is not None, len(user))
    return b"".join((head, who, user))


def read_session(data: bytes) -> tuple[str, str | None, int, float | None]:
    """What operation 1 says: client id, user name, expiry in s, offline since when."""
    _, _, expiry_s, since, of_client, has_user, _ = SESSION_HEAD.unpack_from(data)
    at = SESSION_HEAD.size + of_client
    client_id = data[SESSION_HEAD.size : at].decode()
    return client_id, data[at:].decode() if has_user else None, expiry_s, None if since == math.inf else since


def subscribe_operation(number: int, subscription: Subscription, identifier: int | None) -> bytes:
    """Operation 3."""
    text = subscription.filter.encode()
    options = subscription.qos | subscription.no_local << 2 | subscription.retain_as_published << 3
    options |= subscription.retain_handling << 4
    return SUBSCRIBE_HEAD.pack(SUBSCRIBE, number, options, identifier or 0, len(text)) + text


def read_subscription(data: bytes) -> tuple[Subscription, int | None]:
    """What operation 3 says: the subscription and its identifier."""
    _, _, options, identifier, _ = SUBSCRIBE_HEAD.unpack_from(data)
    text = data[SUBSCRIBE_HEAD.size :].decode()
    subscription = Subscription(text, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3)
    return subscription, identifier or None


def message_operation(message: Message, flags: int, ahead_s: float = 0.0) -> bytes:
    """Operation 5; `flags`: `RETAINED` or 0."""
    topic, payload = message.topic.encode(), message.payload
    origin, properties = message.origin, message.properties
    who = b"" if origin.is_gateway else origin.client_id.encode()
    field = b"" if properties is NONE else encode_properties(properties, Place.PUBLISH)
    expires_at = message.expires_at
    head = _message_head(
        MESSAGE,
        _MESSAGE_FIXED + len(topic) + len(who) + len(field) + len(payload),
        message.number,
        message.qos | message.retain << 2 | flags,
        math.inf if expires_at is None else expires_at + ahead_s,
        len(topic),
        len(who),
        len(field),
    )
    return b"".join((head, topic, who, field, payload))


def read_message(data: bytes, origins: dict[bytes, Identity]) -> Message:
    """The message of operation 5. `origins` keeps one identity a publisher. Raises what malformed bytes raise."""
    _, _, number, flags, expires_at, of_topic, of_who, of_field = MESSAGE_HEAD.unpack_from(data)
    at = MESSAGE_HEAD.size
    topic = data[at : at + of_topic].decode()
    at += of_topic
    who = data[at : at + of_who]
    at += of_who
    properties = decode_properties(data[at : at + of_field], 0, Place.PUBLISH)[0] if of_field else NONE
    payload = data[at + of_field :]
    origin = origins.get(who)
    if origin is None:
        origin = origins[who] = Identity(who.decode()) if who else NO_ONE
    expiry = None if expires_at == math.inf else expires_at
    return Message(topic, payload, flags & 3, bool(flags & 4), properties, expiry, origin, number)


def queue_operation(number: int, message: int, flags: int, identifiers: tuple[int, ...]) -> bytes:
    """Operation 6; `flags`: QoS and 4 for retain."""
    if not identifiers:
        return _queue_head(QUEUE, number, message, flags, 0)
    count = len(identifiers)
    return _queue_head(QUEUE, number, message, flags, count) + pack(f"<{count}I", *identifiers)
