"""Enhanced authentication (MQTT 5.0, 4.12): AUTH goes back and forth until the method is satisfied.

Methods enter by `Access.methods`; what one client's exchange has come to stands on the client while it lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.broker.access import Continue, Done, Exchange, Peer, Refusal
from gateway.broker.client import Client, Identity
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import Auth, Connect
from gateway.mqtt.properties import Properties
from gateway.mqtt.reasons import Reason

if TYPE_CHECKING:
    from gateway.broker.access import Access


@dataclass(slots=True, eq=False)
class Proof:
    """How a client proves who it is. `exchange`: what is under way, None between CONNACK and a re-authentication."""

    method: str
    connect: Connect
    exchange: Exchange | None


class Authenticating:
    """Runs exchanges. `accept(client, connect, data, now)` and `refuse(client, reason, text)` end the first one."""

    def __init__(
        self,
        access: Access,
        *,
        accept: Callable[[Client, Connect, bytes, float], None],
        refuse: Callable[[Client, Reason, str], None],
        renewed: Callable[[Client, Identity], None],
    ) -> None:
        self._access = access
        self._accept = accept
        self._refuse = refuse
        self._renewed = renewed

    def begin(self, client: Client, connect: Connect, now: float) -> None:
        """CONNECT named a method."""
        name = connect.properties.authentication_method or ""
        method = self._access.methods.get(name)
        if method is None:
            self._refuse(client, Reason.BAD_AUTHENTICATION_METHOD, f"no authentication method {name!r}")
            return  # [MQTT-4.12.0-1]
        proof = client.exchange = Proof(name, connect, method.start(connect, self._peer(client)))
        self._step(client, proof, connect.properties.authentication_data or b"", now)

    def on_auth(self, client: Client, packet: Auth, now: float) -> None:
        """The client's next word, or its wish to authenticate again [MQTT-4.12.1-1]."""
        proof = client.exchange
        if proof is None:
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "AUTH without a method in CONNECT")  # [MQTT-4.12.0-7]
        if packet.properties.authentication_method != proof.method:  # [MQTT-4.12.0-5]
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "AUTH with another method than CONNECT")
        if packet.reason is Reason.REAUTHENTICATE:
            method = self._access.methods.get(proof.method)
            if method is None:
                raise RemoteProtocolError(Reason.NOT_AUTHORIZED, f"{proof.method!r} is not offered any more")
            proof.exchange = method.start(proof.connect, self._peer(client))
        self._step(client, proof, packet.properties.authentication_data or b"", now)

    @staticmethod
    def _peer(client: Client) -> Peer:
        return client.other_end() or Peer(address=client.identity.address)

    def _step(self, client: Client, proof: Proof, data: bytes, now: float) -> None:
        if proof.exchange is None:
            raise RemoteProtocolError(Reason.PROTOCOL_ERROR, "AUTH, and nothing was asked")
        answer = proof.exchange.step(data)
        if isinstance(answer, Continue):
            self._say(client, proof, Reason.CONTINUE_AUTHENTICATION, answer.data)  # [MQTT-4.12.0-2]
            return
        proof.exchange = None
        if isinstance(answer, Refusal):
            self._fail(client, answer)
        elif client.session is None:
            client.identity = answer.identity
            self._accept(client, proof.connect, answer.data, now)
        else:
            self._renew(client, proof, answer)

    def _fail(self, client: Client, refusal: Refusal) -> None:
        if client.session is not None:  # [MQTT-4.12.1-2]
            raise RemoteProtocolError(refusal.reason, refusal.text)
        self._refuse(client, refusal.reason, refusal.text)  # [MQTT-4.12.0-4]

    def _renew(self, client: Client, proof: Proof, answer: Done) -> None:
        if answer.identity.username != client.identity.username:
            raise RemoteProtocolError(Reason.NOT_AUTHORIZED, "re-authentication as somebody else")
        self._renewed(client, answer.identity)
        self._say(client, proof, Reason.SUCCESS, answer.data)

    def _say(self, client: Client, proof: Proof, reason: Reason, data: bytes) -> None:
        properties = Properties(authentication_method=proof.method, authentication_data=data or None)
        client.send(client.connection.send(Auth(reason=reason, properties=properties)))
