"""Getting through to a server, step by step: name, TCP, TLS, WebSocket, CONNECT. A step that fails says why.

Blocking, with a deadline (but for the look-up of the name, which has the resolver's own): one thread a server.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from typing import Protocol, Self

from gateway.mqtt.client import ClientConnection
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import Connack, Connect, Disconnect

_IP_MTU = getattr(socket, "IP_MTU", 14)  # linux/in.h; Python 3.11 does not name it
_IPV6_MTU = getattr(socket, "IPV6_MTU", 24)
_READ_BYTES = 16 * 1024


class DialError(Exception):
    """A step failed. `text` says what, `cure` what to do. `cause` is what the system or the library said."""

    def __init__(self, text: str, cure: str, cause: Exception | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.cure = cure
        self.cause = cause


class HungUpError(DialError):
    """The server closed the connection where an answer was due."""


class Stream(Protocol):
    """Bytes to and from a server."""

    def send(self, data: bytes) -> None:
        """Send all of it. OSError where the connection is gone."""
        ...

    def receive(self) -> bytes:
        """What has come; b"" at the end. TimeoutError at the deadline, OSError where the connection is gone."""
        ...


class Wire:
    """A connected TCP socket, with or without TLS. A context manager: left = closed."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self._deadline = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _hurry(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._hurry()
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """What has come; b"" at the end."""
        self._hurry()
        return self.sock.recv(_READ_BYTES)

    def secure(self, context: ssl.SSLContext, server_name: str) -> None:
        """Speak TLS from here on. Raises DialError; `cause` is an ssl.SSLError where TLS itself failed."""
        try:
            self._hurry()
            self.sock = context.wrap_socket(self.sock, server_hostname=server_name or None)
        except (OSError, ValueError) as error:
            raise tls_error(error) from error


def reach(host: str, port: int, timeout_s: float) -> Wire:
    """Look the name up and connect to the first address that answers. Raises DialError."""
    deadline = time.monotonic() + timeout_s
    last: OSError | None = None
    for family, kind, protocol, _, address in _addresses(host, port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.1, deadline - time.monotonic()))
            sock.connect(address)
        except OSError as error:
            sock.close()
            last = error
        else:
            return Wire(sock, deadline)
    raise _unreachable(last or OSError("no address"), timeout_s)


def _addresses(host: str, port: int) -> Iterable[tuple[int, int, int, str, tuple[object, ...]]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise DialError(
            f"the name {host} is not known: {said}",
            f"Check the name, and this machine's DNS: getent hosts {host}",
            error,
        ) from error


def _unreachable(error: OSError, timeout_s: float) -> DialError:
    if isinstance(error, TimeoutError):
        text = f"no answer within {timeout_s:g} s"
        return DialError(text, "Check address and port, and firewalls on the way (they drop packets silently)", error)
    if isinstance(error, ConnectionRefusedError):
        return DialError("the machine answers, but nothing listens on this port", "Check the port", error)
    said = os.strerror(error.errno).lower() if error.errno else str(error)
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return DialError(f"there is no way to it: {said}", "Check this machine's network, routes and gateway", error)
    return DialError(f"cannot connect: {said}", "Check address and port", error)


def tls_error(error: OSError | ValueError) -> DialError:
    """A failed handshake in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return DialError(f"the server's certificate is not trusted: {error.verify_message}", _cure_of(error), error)
    if isinstance(error, TimeoutError):
        return DialError(
            "TCP connects, then no TLS handshake comes about in time",
            "Check that this port speaks TLS; if so, look at the path MTU: small packets pass, large ones do not",
            error,
        )
    if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return DialError("this port does not speak TLS", "Write mqtt:// for it, or take the port for TLS", error)
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        text = "the server hung up during the TLS handshake"
        return DialError(text, "Check that this port speaks TLS, and look at the server's log", error)
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).lower().replace("_", " ")
        return DialError(f"the TLS handshake failed: {said}", "Look at the server's log", error)
    return DialError(f"the TLS handshake failed: {error}", "Check host and server_name", error)


def _cure_of(error: ssl.SSLCertVerificationError) -> str:
    """What helps against a certificate that OpenSSL does not accept, by its X509_V_ERR number."""
    match error.verify_code:
        case 9 | 10 | 13 | 14:
            return "Check this machine's clock; if it is right, the server's certificate must be renewed"
        case 18 | 19 | 20 | 21:
            return "Name the file of the authority that issued it: tls: {ca: FILE}"
        case 62 | 64:
            return "Write the host as the certificate names it, or set tls: {server_name: NAME}"
        case _:
            return "Have a certificate issued that OpenSSL accepts: openssl verify -CAfile CA CERT"


class WebSocket:
    """MQTT's bytes in binary WebSocket frames (6). Raises DialError where the server does not agree."""

    def __init__(self, wire: Wire, host: str, port: int, path: str) -> None:
        from websockets.client import ClientProtocol  # noqa: PLC0415 - only where a listener is a WebSocket
        from websockets.frames import Frame, Opcode  # noqa: PLC0415
        from websockets.protocol import State  # noqa: PLC0415
        from websockets.uri import parse_uri  # noqa: PLC0415

        self._frame, self._binary = Frame, (Opcode.BINARY, Opcode.CONT)
        self._wire = wire
        shown = f"[{host}]" if ":" in host else host
        self._protocol = ClientProtocol(parse_uri(f"ws://{shown}:{port}{path}"), subprotocols=["mqtt"])  # type: ignore[list-item]
        self._protocol.send_request(self._protocol.connect())
        try:
            self._flush()
            while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
                data = wire.receive()
                self._protocol.receive_data(data) if data else self._protocol.receive_eof()
        except OSError as error:
            raise DialError(f"no WebSocket handshake comes about: {error}", "Look at the log", error) from error
        wrong = self._protocol.handshake_exc
        if wrong is not None or self._protocol.subprotocol != "mqtt":
            text = f"the server does not speak MQTT over WebSocket on {path}: {wrong or 'it did not take mqtt'}"
            raise DialError(text, "Check the path, and that nothing else listens there")
        self._protocol.events_received()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._wire.send(data)

    def send(self, data: bytes) -> None:
        """Send it as one frame."""
        self._protocol.send_binary(data)
        self._flush()

    def receive(self) -> bytes:
        """The bytes of the frames that have come; b"" at the end."""
        while data := self._wire.receive():
            self._protocol.receive_data(data)
            events = self._protocol.events_received()
            parts = [e.data for e in events if isinstance(e, self._frame) and e.opcode in self._binary]
            self._flush()
            if parts:
                return b"".join(map(bytes, parts))
        return b""


def introduce(stream: Stream, connect: Connect) -> Connack:
    """Say CONNECT, hear CONNACK, say DISCONNECT where it was accepted. Raises DialError."""
    client = ClientConnection()
    try:
        stream.send(client.connect(connect))
        answer = _connack(stream, client)
        if answer.reason < 0x80:
            stream.send(client.send(Disconnect()))
    except TimeoutError as error:
        raise DialError("no answer to CONNECT", "Check that it is an MQTT server, and its log", error) from error
    except RemoteProtocolError as error:
        raise DialError(f"what answers does not keep to MQTT: {error.text}", "Check address and port", error) from error
    except OSError as error:
        raise HungUpError(
            f"the server hung up instead of answering: {_said(error)}", "Look at its log", error
        ) from error
    return answer


def _connack(stream: Stream, client: ClientConnection) -> Connack:
    while data := stream.receive():
        client.feed(data)
        for packet in client.events():
            if isinstance(packet, Connack):
                return packet
    raise HungUpError("the server hung up instead of answering CONNECT", "Look at its log")


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return (error.strerror or str(error)).lower()


def path_of(sock: socket.socket) -> tuple[int | None, int | None]:
    """The largest packet and TCP segment that the kernel believes to fit on the way, bytes; None = unknown."""
    is_v6 = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_v6 else (socket.IPPROTO_IP, _IP_MTU)
    return _number(sock, level, option), _number(sock, socket.IPPROTO_TCP, socket.TCP_MAXSEG)


def _number(sock: socket.socket, level: int, option: int) -> int | None:
    try:
        return int(struct.unpack("i", sock.getsockopt(level, option, 4))[0])
    except OSError:
        return None
