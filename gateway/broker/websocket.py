"""MQTT in WebSocket frames (MQTT 5.0 section 6). The framing is the library's; nobody else may name it.

The `Origin` of a request is not checked: it says which page a browser shows, and is no proof of who sits there. Whoever
opens a listener to the world asks for users, tokens or certificates, as with any other.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from gateway.broker.link import OPENING, Link
from gateway.broker.logins import Opening
from gateway.broker.options import Address
from gateway.broker.turn import Turn
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.reasons import Reason

_HEAD = 16 * 1024
"""The largest request that opens a WebSocket."""

_BITE = 16 * 1024
_SUBPROTOCOL = Subprotocol("mqtt")
_SMALLEST_LIMIT = 64 * 1024
_PACKET_HEAD = 5

_log = logging.getLogger("headgate.broker.websocket")
_log.setLevel(logging.WARNING)  # the library tells of each connection, which is for `report` to decide


class WebSocketLink(Link):
    """A link whose bytes come and go in binary frames."""

    __slots__ = ("_arrived", "_code", "_frames")

    def __init__(self, turn: Turn, *, address: str, listener: Address, opening: Opening) -> None:
        super().__init__(turn, address=address, listener=listener, opening=opening)
        largest = max(turn.limits.packet_bytes + _PACKET_HEAD, _SMALLEST_LIMIT)
        # [MQTT-6.0.0-3], [MQTT-6.0.0-4]: the sub-protocol is asked for and echoed by the library
        self._frames = ServerProtocol(subprotocols=[_SUBPROTOCOL], max_size=(None, largest), logger=_log)
        self._arrived = 0
        self._code = CloseCode.NORMAL_CLOSURE

    def get_buffer(self, sizehint: int) -> memoryview:
        """A smaller bite than other links take: unmasking thousands of tiny frames must not stall the turn."""
        return super().get_buffer(sizehint)[:_BITE]

    def take(self, data: bytes) -> None:
        """Take bytes of frames, and have the link take what is in them."""
        frames = self._frames
        transport = self.transport
        if transport is None:
            return
        if self.opening is not None:
            self._arrived += len(data)
            if self._arrived > _HEAD + 2 * self.turn.limits.connect_bytes:
                self._pause(OPENING)  # until it is let in, or its time is over
        frames.receive_data(data)
        for event in frames.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame):
                self._unpack(event)
        if frames.state is CONNECTING and self._arrived > _HEAD and not frames.close_expected():
            too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            frames.send_response(frames.reject(too_large, "The request is too large.\n"))
        if frames.parser_exc is not None:
            self._break_off(CloseCode.PROTOCOL_ERROR, str(frames.parser_exc))
        self._send_frames(transport)

    def _unpack(self, frame: Frame) -> None:
        if self.is_finished:
            return
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):  # [MQTT-6.0.0-2]: a packet may begin and end anywhere
            super().take(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:  # [MQTT-6.0.0-1]
            self._break_off(CloseCode.UNSUPPORTED_DATA, "a text frame")

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write bytes of the protocol as one frame."""
        frames = self._frames
        if frames.state is OPEN:
            frames.send_binary(data)
            super().write(transport, b"".join(frames.data_to_send()))

    def _shut(self, transport: asyncio.Transport) -> None:
        if self._frames.state is OPEN:
            self._frames.send_close(self._code)
            transport.write(b"".join(self._frames.data_to_send()))
        super()._shut(transport)

    def _answer(self, request: Request) -> None:
        """Open the WebSocket, or say as a web server why not."""
        frames = self._frames
        if frames.close_expected():  # what came right behind the request has ended it already
            self.turn.report.say("websocket_refused", client_id="", address=self.address, reason="bad frames")
            return
        if request.path.partition("?")[0] in (self.listener.path, "/"):  # "/": what clients ask for that name no path
            response = frames.accept(request)
        else:
            response = frames.reject(HTTPStatus.NOT_FOUND, f"MQTT is at {self.listener.path}\n")
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            reason = response.body.decode().partition("\n")[0]
            self.turn.report.say("websocket_refused", client_id="", address=self.address, reason=reason)
        frames.send_response(response)

    def _break_off(self, code: CloseCode, text: str) -> None:
        if not self.is_finished:
            self._code = code
            error = RemoteProtocolError(Reason.PROTOCOL_ERROR, text)
            self.turn.broker.violated(self, error, self.turn.now())

    def _send_frames(self, transport: asyncio.Transport) -> None:
        """Send what the library has to say: the answer to the request, pongs, the closing handshake."""
        chunks = self._frames.data_to_send()
        if chunks:
            transport.write(b"".join(chunks))
            if not chunks[-1]:  # the library's sign that it has said its last word
                self.finish()
