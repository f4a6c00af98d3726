"""Commands by MQTT, from the embedded broker or an uplink: topics into tags, replies into publishes.

The reply goes to `{prefix}/{device}/{tag}/set/reply`, or where an MQTT 5 request names a response topic there, with the
request's correlation data [MQTT 5.0, 4.10]. It is the gateway that publishes it: a response topic below its own prefix,
or one that takes commands, is refused, or anybody could have values published and tags written in its name. On the
embedded broker the sender must be allowed to publish there, and to read it, for the gateway is allowed everything. On
an uplink we know neither the sender nor the rules: there the server holds us to those of the gateway's own account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gateway.clock import Clock
from gateway.commands.request import RefusalError
from gateway.commands.taking import Arrival, Commands
from gateway.commands.targets import Targets
from gateway.metrics import Metrics
from gateway.model import GOOD
from gateway.mqtt.properties import NONE, Properties
from gateway.uplinks.message import Incoming, Message
from gateway.uplinks.payload_json import plain, to_json
from gateway.uplinks.topics import check_topic

if TYPE_CHECKING:  # a file without a broker does not pay for one
    from gateway.broker.client import Identity
    from gateway.broker.door import Door
    from gateway.broker.message import Message as Heard

_REPLY = "/reply"
_LONGEST_NAME = 256

Publish = Callable[[Message, bytes | None], None]
"""Publishes a reply, with the correlation data of its request; must not raise."""


class Inbox:
    """Takes what comes on the topics of `filters`. `prefix` is that of all topics, `gateway` our name."""

    def __init__(
        self, commands: Commands, targets: Targets, *, prefix: str, gateway: str, clock: Clock, metrics: Metrics
    ) -> None:
        self._commands = commands
        self._targets = targets
        self._prefix = prefix
        self._is_ours = gateway in prefix.split("/")  # else others may share the prefix
        self._clock = clock
        self._strangers = metrics.counter("commands_ignored_total")
        self.filters = targets.filters

    def __repr__(self) -> str:
        return f"<Inbox of {self._targets!r}>"

    def take(
        self, incoming: Incoming, publish: Publish, *, source: str, who: Mapping[str, str], forbidden: str = ""
    ) -> None:
        """One message. `who` sent it, as far as that is known; `forbidden`: why they may not have its response topic.

        Never waits, never raises.
        """
        names = self._targets.locate(incoming.topic)
        if names is None or not (self._is_ours or self._targets.has(names[0])):
            self._strangers.value += 1  # with a prefix that several gateways share, it is another one's
            return
        topic = incoming.response_topic
        is_usual = topic == incoming.topic + _REPLY
        wrong = self._wrong_response(topic) or ("" if is_usual else forbidden)
        is_named = bool(topic) and not wrong
        reply_topic = topic if is_named else incoming.topic + _REPLY
        data = incoming.correlation_data

        def answer(document: dict[str, Any]) -> None:
            if check_topic(reply_topic) is not None:
                return  # the topic of the command was as long as any can be
            body = {key: plain(value, GOOD)[0] for key, value in document.items()}
            publish(Message(reply_topic, to_json(body)), data)

        expires_s = incoming.expires_s
        arrival = Arrival(
            device=names[0],
            tag=names[1],
            payload=incoming.payload,
            source=source,
            answer=answer,
            who=who,
            is_retained=incoming.retain,
            is_again=incoming.is_again,
            expires_at=None if expires_s is None else self._clock.monotonic() + expires_s,
        )
        if topic and wrong:
            self._commands.refuse(arrival, RefusalError("invalid", f"not written: its response topic {wrong}"))
        else:
            self._commands.take(arrival)

    def listen_at(self, door: Door) -> None:
        """Take what clients of the embedded broker publish; its ACL says who may."""

        def heard(message: Heard) -> None:
            said, client = message.properties, message.origin
            if client.is_gateway:
                return  # what it publishes by itself is no wish of anybody
            who = {"user": client.username, "client": client.client_id, "address": client.address}
            response = said.response_topic or ""
            self.take(
                Incoming(
                    message.topic,
                    message.payload,
                    message.retain,
                    message.is_again,
                    door.remaining_s(message),
                    response,
                    said.correlation_data,
                ),
                publish,
                source="broker",
                who={key: text[:_LONGEST_NAME] for key, text in who.items() if text},
                forbidden=_forbidden(door, client, response),
            )

        def publish(message: Message, data: bytes | None) -> None:
            properties = NONE if data is None else Properties(correlation_data=data)
            door.publish(message.topic, message.payload, qos=1, properties=properties)

        for text in self.filters:
            door.subscribe(text, heard)

    def _wrong_response(self, topic: str) -> str:
        """Why a reply cannot go to a topic; empty when it can."""
        if check_topic(topic) is not None:
            return "is no topic" if topic else ""
        if topic.startswith("$"):
            return "is the server's own"
        if topic.endswith("/set"):
            return "takes commands"
        if topic.startswith(f"{self._prefix}/") and not topic.endswith("/set/reply"):
            return "is the gateway's own"
        return ""


def _forbidden(door: Door, client: Identity, topic: str) -> str:
    """Why a client may not have something published for itself on a topic; empty when it may."""
    if not door.may_read(client, topic):
        return "may not be read by who sent it"
    return "" if door.may_publish(client, topic) else "may not be written by who sent it"
