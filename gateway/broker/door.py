"""The gateway's own way into the broker: same router, same rules of access, no socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.broker.client import Identity
from gateway.broker.message import Message
from gateway.broker.routing import Ear
from gateway.broker.session import Entry
from gateway.broker.topics import parse_filter
from gateway.mqtt.packets import Subscription
from gateway.mqtt.properties import NONE, Properties

if TYPE_CHECKING:
    from gateway.broker.access import Access
    from gateway.broker.publishing import Publishing
    from gateway.broker.routing import Routes, Subscriptions


class Door:
    """Publishes and subscribes as the gateway. What it retains lives in memory only."""

    def __init__(
        self,
        name: str,
        *,
        publishing: Publishing,
        routes: Routes,
        subscriptions: Subscriptions,
        access: Access,
        clock: Callable[[], float],
    ) -> None:
        self.identity = Identity(name, name, is_admin=True, is_gateway=True)
        self._access = access
        self._publishing = publishing
        self._routes = routes
        self._subscriptions = subscriptions
        self._clock = clock
        self._ears: dict[str, Ear] = {}

    def __repr__(self) -> str:
        return f"<Door {self.identity.client_id!r} {len(self._ears)} subscriptions>"

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Properties = NONE
    ) -> None:
        """Publish, at once and without an answer. The topic has no wildcard."""
        now = self._clock()
        expires_at = None if properties.message_expiry is None else now + properties.message_expiry
        message = Message(topic, payload, qos, retain, properties, expires_at, self.identity)
        self._publishing.publish(message, now)

    def wanted(self, topic: str) -> bool:
        """Whether anybody would get a message on this topic now. Cheap: ask before encoding one that isn't retained."""
        return self._routes.find(topic).is_wanted

    def may_publish(self, who: Identity, topic: str) -> bool:
        """Whether a client may publish there itself."""
        return self._access.may_publish(who, topic)

    def may_read(self, who: Identity, topic: str) -> bool:
        """Whether a client may hear what is published there."""
        return self._access.may_read(who, topic)

    def remaining_s(self, message: Message) -> float | None:
        """How long a message is good for from now on, s; None for ever."""
        return None if message.expires_at is None else message.expires_at - self._clock()

    def subscribe(self, filter: str, callback: Callable[[Message], None]) -> None:  # noqa: A002 - the specification's word
        """Have `callback` called with each message on matching topics, in the turn it came in; it must not raise.

        Retained messages of earlier are not given. QoS and retain of the message are as published. A filter that is
        there already gets the new callback. ValueError: the filter is invalid, or shared.
        """
        parsed = parse_filter(filter)
        if parsed.share is not None:
            raise ValueError(f"the gateway does not share subscriptions: {filter!r}")
        self.unsubscribe(filter)
        ear = self._ears[filter] = Ear(callback)
        self._subscriptions.add(parsed, ear, Entry(parsed, Subscription(filter, 2), None, None))

    def unsubscribe(self, filter: str) -> None:  # noqa: A002 - the specification's word
        """Call nobody any more. Unknown filters are ignored."""
        ear = self._ears.pop(filter, None)
        if ear is not None:
            self._subscriptions.remove(parse_filter(filter), ear)
