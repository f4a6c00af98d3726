"""One connection to an MQTT server. The only file that knows aiomqtt, and paho below it.

A session is entered once and thrown away: clean start, session expiry 0. paho keeps what is in flight of a dead
connection and would send it again by itself; the spool is our only memory, so each connection gets a fresh client.

What aiomqtt and paho do not do is done here, and in `Wire`:

- Reason codes. aiomqtt reports a publish that the server refused as published; paho drops the code of a PUBREC (and
  asks for the release of a QoS 2 publish that was refused) and hangs up on a PUBACK code it does not know.
  Acknowledgements are read here. A PUBREC with an error ends the exchange [MQTT-4.3.3-4], a PUBCOMP completes it
  whatever it says. MQTT 3.1.1 has no codes: a server that denies a publish acknowledges it all the same (mosquitto) or
  hangs up.
- No task, future or timer per message: `publish` gives a token, the acknowledgements of one turn of the loop come back
  together.
- A server that hangs up before CONNACK is noticed at once, not after a time-out.
- CONNACK's properties are handed on as `Terms`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias, cast

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.errors import UplinkError
from gateway.uplinks.dialling import Attempt
from gateway.uplinks.message import Incoming, Message
from gateway.uplinks.options import Options, Tls, Version
from gateway.uplinks.reasons import FIRST_ERROR, UNSUPPORTED_VERSION, needs_person, reason
from gateway.uplinks.trust import context_of
from gateway.uplinks.wire import Wire

Acks: TypeAlias = list[tuple[int, int]]
"""Tokens of publishes, each with the reason code of its acknowledgement."""

_CONNACK, _PUBACK, _PUBREC, _PUBCOMP = 0x20, 0x40, 0x50, 0x70
_OLD_CONNACK = {1: UNSUPPORTED_VERSION, 2: 0x85}  # codes of 3.1.1 that paho answers by hanging up, as those of 5.0
_LARGEST_PACKET = 268_435_455 + 5
_LARGEST_COMMAND = 65536
"""Bytes of a packet that the server may send us; what is larger it drops [MQTT-3.1.2-25]. 3.1.1 knows no such limit."""

_CLOSE_S = 0.5

log = logging.getLogger("headgate.uplinks")
_unheard = logging.getLogger("headgate.uplinks.aiomqtt")
_unheard.disabled = True  # what matters of it comes back as SessionError


class SessionError(UplinkError):
    """The connection could not be made, or is gone.

    `code` is the server's reason code, 0 where it gave none. `hung_up`: it closed the connection instead of answering
    CONNECT. `needs_person`: trying again will not mend it.
    """

    def __init__(self, text: str, *, code: int = 0, hung_up: bool = False, needs_person: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.hung_up = hung_up
        self.needs_person = needs_person


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the server allows on this connection, sizes in bytes, and who we are to it."""

    server: str
    version: Version
    client_id: str
    keep_alive_s: int
    receive_maximum: int = 65535
    maximum_packet: int = _LARGEST_PACKET
    maximum_qos: int = 2
    can_retain: bool = True


class Session:
    """A connection: constructed = valid, entered = connected, left = closed.

    Left without an exception it says DISCONNECT; left with one it just hangs up, and the server publishes the will.
    """

    def __init__(self, attempt: Attempt, options: Options, will: Message) -> None:
        self._client = _Client(attempt, options, will)
        self._is_v5 = attempt.version == "5"

    def __repr__(self) -> str:
        return f"<Session with {self._client.attempt.server}, MQTT {self._client.attempt.version}>"

    async def __aenter__(self) -> Self:
        """Connect. Raises SessionError."""
        is_open = False
        try:
            await self._client.__aenter__()
            is_open = True
        except aiomqtt.MqttError as error:
            raise self._client.refusal(error) from error
        finally:
            if not is_open:
                self._client.abort()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, within half a second."""
        try:
            if error is None:
                self._client.timeout = _CLOSE_S
                with suppress(aiomqtt.MqttError):
                    await self._client.__aexit__(None, None, None)
        finally:
            self._client.abort()

    @property
    def terms(self) -> Terms:
        """What the server allows."""
        return self._client.terms

    def listen(self, on_acks: Callable[[Acks], None]) -> None:
        """Call `on_acks` with acknowledgements; for QoS 0 they come when the publish was written to the socket."""
        self._client.on_acks = on_acks

    def publish(self, message: Message, qos: int, properties: bytes = b"") -> int:
        """Queue a publish and give its token. `properties`: the packed property field, of MQTT 5 only.

        Raises SessionError when the connection is gone.
        """
        packed = cast("Properties", _Packed(properties)) if properties and self._is_v5 else None
        info = self._client.paho.publish(message.topic, message.payload, qos, message.retain, packed)
        if info.rc:
            raise SessionError(f"cannot publish: {paho.error_string(info.rc)}")
        return int(info.mid)

    def subscribe(
        self, filters: Sequence[str], on_message: Callable[[Incoming], None], on_answer: Callable[[], None]
    ) -> None:
        """Ask for messages on these topics with QoS 1 and without those retained before; call `on_message` with each.

        `on_answer` is called when the server has answered; filters that it refuses are logged. Neither may raise.
        Raises SessionError when the connection is gone.
        """
        self._client.subscribe_to(filters, on_message, on_answer)

    async def lost(self) -> NoReturn:
        """Wait until the connection is gone. Raises SessionError then."""
        await self._client.gone()
        raise self._client.loss()


class _Packed:
    """A property field that is bytes already, where paho expects to pack one for every message."""

    __slots__ = ("_field",)

    def __init__(self, field: bytes) -> None:
        self._field = field

    def pack(self) -> bytes:
        return self._field

    def __str__(self) -> str:
        return "user properties"


class _Client(aiomqtt.Client):
    """aiomqtt's client with our socket below it and our handling of acknowledgements."""

    def __init__(self, attempt: Attempt, options: Options, will: Message) -> None:
        is_v5 = attempt.version == "5"
        connect = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        connect.SessionExpiryInterval = 0
        if options.commands:
            connect.MaximumPacketSize = _LARGEST_COMMAND
        super().__init__(
            attempt.server.host,
            attempt.server.port,
            username=options.username,
            password=None if options.password is None else options.password.reveal(),
            logger=_unheard,
            identifier=options.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if is_v5 else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(will.topic, will.payload, attempt.will_qos, attempt.will_retain),
            clean_session=None if is_v5 else True,
            clean_start=True if is_v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=connect if is_v5 else None,
            timeout=options.connect_timeout_s,
            keepalive=options.keep_alive_s,
            max_inflight_messages=0,  # no second window below ours: it is searched from the start at each PUBACK
        )
        self.attempt = attempt
        self._options = options
        self.terms = self._terms(None)
        self.on_acks: Callable[[Acks], None] = lambda _: None
        self._on_incoming: Callable[[Incoming], None] = lambda _: None
        self._asked: dict[int, tuple[Sequence[str], Callable[[], None]]] = {}
        self.paho = cast("Any", self._client)
        self.paho.disable_logger()
        self.paho._create_socket = self._create_socket  # noqa: SLF001 - paho's only seam below TLS
        self._handle = self.paho._packet_handle  # noqa: SLF001 - and its only one above the parser
        self.paho._packet_handle = self._packet_handle  # noqa: SLF001
        self._wire: Wire | None = None
        self._thread = threading.get_ident()
        self._acks: Acks = []
        self._is_waiting = False
        self._is_abandoned = False
        self._failure: SessionError | None = None
        self._farewell: SessionError | None = None

    # --- connecting: in a thread, for it may block ------------------------------------------------------------------

    def _create_socket(self) -> Wire:
        host, port = self.attempt.server.host, self.attempt.server.port
        try:
            with ExitStack() as stack:
                sock = socket.create_connection((host, port), self._options.connect_timeout_s)
                stack.callback(sock.close)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.attempt.server.secure:
                    tls = self._options.tls or Tls()
                    sock = context_of(tls).wrap_socket(sock, server_hostname=tls.server_name or host)
                    stack.callback(sock.close)
                if self._is_abandoned:
                    raise ConnectionAbortedError("nobody waits for this connection any more")
                stack.pop_all()
        except (OSError, ValueError) as error:  # ValueError: a host name that IDNA cannot encode
            self._failure = _failure(error)
            raise OSError(str(error)) from error
        self._wire = Wire(sock)
        return self._wire

    def _client_connect(self) -> None:
        super()._client_connect()
        if self._is_abandoned:
            self._loop.call_soon_threadsafe(self.abort)

    def refusal(self, error: aiomqtt.MqttError) -> SessionError:
        """Why there is no connection."""
        if self._failure is not None:
            return self._failure
        rc = getattr(error, "rc", None)
        if isinstance(rc, ReasonCode):
            return SessionError(reason(rc.value), code=rc.value, needs_person=needs_person(rc.value))
        return SessionError(f"no answer within {self.timeout:g} s")

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self.terms = self._terms(properties)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _terms(self, connack: Properties | None) -> Terms:
        options = self._options
        return Terms(
            server=str(self.attempt.server),
            version=self.attempt.version,
            client_id=getattr(connack, "AssignedClientIdentifier", options.client_id),
            keep_alive_s=getattr(connack, "ServerKeepAlive", options.keep_alive_s),  # paho obeys [MQTT-3.1.2-21]
            receive_maximum=getattr(connack, "ReceiveMaximum", 65535),
            maximum_packet=min(
                getattr(connack, "MaximumPacketSize", _LARGEST_PACKET), options.max_packet or _LARGEST_PACKET
            ),
            maximum_qos=getattr(connack, "MaximumQoS", 2),
            can_retain=bool(getattr(connack, "RetainAvailable", 1)),
        )

    # --- acknowledgements -------------------------------------------------------------------------------------------

    def _packet_handle(self) -> Any:
        packet = self.paho._in_packet  # noqa: SLF001 - whole: paho calls this when its last byte has come
        kind, body = packet["command"] & 0xF0, packet["packet"]
        code = body[2] if len(body) > 2 else 0
        is_end = kind in (_PUBACK, _PUBCOMP) or (kind == _PUBREC and code >= FIRST_ERROR)
        if is_end and len(body) >= 2:
            token = body[0] << 8 | body[1]
            if self.paho._out_messages.pop(token, None) is not None:  # noqa: SLF001
                self.paho._inflight_messages -= 1  # noqa: SLF001
                self._acknowledge(token, 0 if kind == _PUBCOMP else code)
            return paho.MQTT_ERR_SUCCESS
        if kind == _CONNACK and len(body) == 2 and body[1] in _OLD_CONNACK:
            code = _OLD_CONNACK[body[1]]
            self._failure = SessionError(reason(code), code=code, needs_person=needs_person(code))
        return self._handle()

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:  # noqa: ARG002 - aiomqtt's signature; only QoS 0 comes this way
        self._acknowledge(mid, 0)

    def _acknowledge(self, token: int, code: int) -> None:
        if not self._acks:
            self._loop.call_soon(self._deliver)
        self._acks.append((token, code))

    def _deliver(self) -> None:
        acks, self._acks = self._acks, []
        self.on_acks(acks)

    # --- messages in ------------------------------------------------------------------------------------------------

    def subscribe_to(
        self, filters: Sequence[str], on_message: Callable[[Incoming], None], on_answer: Callable[[], None]
    ) -> None:
        self._on_incoming = on_message
        if self.attempt.version == "5":
            # As published: a command that was sent to be retained is known as one although it comes live.
            how = SubscribeOptions(
                qos=1, noLocal=True, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
            )
            rc, token = self.paho.subscribe([(text, how) for text in filters])
        else:
            rc, token = self.paho.subscribe([(text, 1) for text in filters])
        if rc:
            raise SessionError(f"cannot subscribe: {paho.error_string(rc)}")
        self._asked[token] = (filters, on_answer)

    def _on_subscribe(
        self,
        client: Any,  # noqa: ARG002 - aiomqtt's signature
        userdata: Any,  # noqa: ARG002
        mid: int,
        reason_codes: list[ReasonCode],
        properties: Any = None,  # noqa: ARG002
    ) -> None:
        asked = self._asked.pop(mid, None)
        if asked is None:
            return
        filters, on_answer = asked
        on_answer()
        for text, code in zip(filters, reason_codes, strict=False):
            if code.value >= FIRST_ERROR:
                log.error("%s does not let us subscribe to '%s': %s", self.attempt.server, text, reason(code.value))

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:  # noqa: ARG002 - aiomqtt's
        try:
            topic = message.topic
        except UnicodeDecodeError:  # [MQTT-1.5.4-1] it cannot be one of ours
            return
        said = message.properties
        self._on_incoming(
            Incoming(
                topic,
                bytes(message.payload),
                message.retain,
                message.dup,
                getattr(said, "MessageExpiryInterval", None),
                getattr(said, "ResponseTopic", ""),
                getattr(said, "CorrelationData", None),
            )
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    def _on_socket_register_write(self, client: Any, userdata: Any, sock: Any) -> None:  # noqa: ARG002
        soon = self._loop.call_soon if threading.get_ident() == self._thread else self._loop.call_soon_threadsafe
        soon(self._write)

    def _on_socket_unregister_write(self, client: Any, userdata: Any, sock: Any) -> None:
        """Nothing to do: `_write` watches the socket only while it must."""

    def _write(self) -> None:
        wire = self._wire
        if wire is None or self.paho.socket() is not wire:
            return
        try:
            is_through = wire.flush()
            if is_through:
                self.paho.loop_write()
                is_through = wire.flush()
        except OSError:
            self._broken()
            return
        if is_through == self._is_waiting and self.paho.socket() is wire:
            self._is_waiting = not is_through
            if is_through:
                self._loop.remove_writer(wire.fileno())
            else:
                self._loop.add_writer(wire.fileno(), self._write)

    def _broken(self) -> None:
        """Writing failed: hear the server's last words, if any, and go."""
        if self._wire is not None:
            self._wire.discard()
        self.paho.loop_read()
        self._hang_up()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            code = reason_code.value
            words = getattr(properties, "ReasonString", "")
            text = f"the server closed it{f': {reason(code)}' if code else ''}{f', {words}' if words else ''}"
            self._farewell = SessionError(text, code=code, needs_person=needs_person(code))
        elif str(reason_code) == "Keep alive timeout":
            self._farewell = SessionError(f"no answer to a ping within {self.terms.keep_alive_s} s")
        elif str(reason_code) == "Protocol error":
            self._farewell = SessionError("the server sent what is no MQTT packet")
        if self._connected.done():
            super()._on_disconnect(client, userdata, flags, reason_code, properties)
            return
        if self._failure is None:
            said = self._wire.error if self._wire is not None else ""
            text = f"the server hung up instead of answering{f': {said}' if said else ''}"
            self._failure = SessionError(text, hung_up=True, needs_person="ALERT" in said.upper())
        self._connected.set_exception(aiomqtt.MqttError(str(self._failure)))

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._loop.remove_writer(sock.fileno())
        super()._on_socket_close(client, userdata, sock)

    async def gone(self) -> None:
        """Wait for the end. Raises what is no failure of the connection: an error of ours inside a callback."""
        await asyncio.wait([self._disconnected])
        error = self._disconnected.exception()
        if error is not None and not isinstance(error, (aiomqtt.MqttError, OSError)):
            raise error

    def loss(self) -> SessionError:
        """Why the connection is gone."""
        said = self._wire.error if self._wire is not None else ""
        return self._farewell or SessionError(said or "the server closed it without a word")

    def _hang_up(self) -> None:
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    def abort(self) -> None:
        """Close the socket, whatever state it is in, and say nothing."""
        self._is_abandoned = True
        self.on_acks = lambda _: None
        self._on_incoming = lambda _: None
        if self._wire is not None:
            self._wire.discard()
        self.paho._sock_close()  # noqa: SLF001 - paho closes by itself only what it could say goodbye to
        self._hang_up()
        for future in (self._connected, self._disconnected):
            if future.done() and not future.cancelled():
                future.exception()  # seen: asyncio need not complain


def _failure(error: OSError | ValueError) -> SessionError:
    """A failed connect in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return SessionError(f"the server's certificate is not trusted: {error.verify_message}", needs_person=True)
    text = str(error)
    is_person = isinstance(error, ssl.SSLError) or text.startswith("tls.") or not isinstance(error, OSError)
    return SessionError(text, needs_person=is_person and not isinstance(error, (TimeoutError, ssl.SSLEOFError)))
