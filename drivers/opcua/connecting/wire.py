"""One TCP connection to a server and the secure channel on it: the library's protocol with bounds and reasons.

What comes from the wire is cut into chunks here, by their heads [Part 6 7.1.2.2], before the library sees it:

    3 bytes  ACK ERR OPN MSG CLO     1 byte  F C A     4 bytes  size of the whole, head included     the rest

So a peer that speaks something else is named as what it is, and no size that it announces is believed. The library
logs whatever goes wrong, and then tells its callers no more than that the connection is gone: the reason is kept here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, cast

from asyncua import ua as _ua
from asyncua.client.ua_client import UASocketProtocol
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.common.utils import Buffer, create_nonce
from asyncua.crypto.security_policies import SecurityPolicy
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary, uatcp_to_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from drivers.opcua.connecting.explaining import About, explain
from drivers.opcua.faults import ServiceFault
from drivers.opcua.url import Place
from drivers.opcua.values.status import is_bad, name_of
from gateway.errors import LineError

ua: Any = _ua  # its names are made at run time: no checker sees them

MAX_CHUNK: Final = 65_536
"""Bytes of a chunk that a server may send us; it is told so in the Hello."""
MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes of a whole answer; it is told so too."""
MAX_FROM_STRANGERS: Final = 1024 * 1024
"""Bytes of an answer before there is a session: whoever listens there may send it, and each MB takes half a second."""
MAX_DECODED: Final = 8 * 1024 * 1024
"""Bytes of an answer that the library takes apart, object by object, while all else waits: no honest one has more."""
_MAX_CHUNKS: Final = MAX_MESSAGE // 8192
_MOST_SHOWN: Final = 200
_LEAST_BUFFER: Final = 1024
"""The standard says 8192 [Part 6 7.1.2.3]; small servers have less. Below this not even the login fits."""
_KINDS: Final = frozenset((b"ACK", b"ERR", b"OPN", b"MSG", b"CLO"))
_KIND: Final = 3
_HEAD = struct.Struct("<3scI")
_COUNT = struct.Struct("<i")
_FOUR_BYTE_ID = struct.Struct("<BH8x4xI")
"""Behind the first byte of an answer: namespace and number of its type, and in its header the result [Part 4 7.33]."""
_NUMERIC_ID = struct.Struct("<HI8x4xI")
_TWO_BYTE_ID = struct.Struct("<B8x4xI")
_BEFORE_RESULTS: Final = frozenset(("TypeId", "ResponseHeader"))
_NETWORK = "is the server on, and are host and port right?"
_UNDECODABLE = (
    UaError, ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, RecursionError,
    struct.error,
)  # fmt: skip
_CURES: dict[type[OSError], str] = {
    ConnectionRefusedError: "is the server on, and is the port right?",
    socket.gaierror: "is the host name right, and does this machine reach its name server?",
}

# The library logs each failure that it also raises, some of them as critical. The frame tells of outages once.
_library_log = logging.getLogger("asyncua")
if _library_log.level == logging.NOTSET:
    _library_log.setLevel(logging.CRITICAL + 1)


class _TooLargeError(Exception):
    """An answer larger than is taken."""


class _Connection(SecureConnection):
    """The library's chunks. An answer that the server gives up half-way fails its request, not all that follow."""

    on_abort: Callable[[int, int], None]
    largest = MAX_FROM_STRANGERS

    def _receive(self, msg: Any) -> Any:
        if self._incoming_size + len(msg.Body) > self.largest:
            raise _TooLargeError
        message = super()._receive(msg)
        if msg.MessageHeader.ChunkType == ua.ChunkType.Abort:  # [Part 6 6.7.3]
            error = struct_from_binary(ua.ErrorMessage, Buffer(msg.Body))
            self.on_abort(msg.SequenceHeader.RequestId, error.Error.value)
        return message


class Wire(UASocketProtocol):
    """An open connection. What it raises says why, and has the `name` of the server in front."""

    def __init__(self, name: str, policy: SecurityPolicy, on_end: Callable[[LineError], None] | None = None) -> None:
        # 0 is "no limit" to the library: its limits for sending are the server's, which it is told in hello().
        super().__init__(security_policy=policy, limits=TransportLimits(MAX_CHUNK, MAX_CHUNK, _MAX_CHUNKS, MAX_MESSAGE))
        self.name = name
        self.about = About()
        self.closed = asyncio.get_running_loop().create_future()
        self._limits = TransportLimits(MAX_CHUNK, MAX_CHUNK, _MAX_CHUNKS, MAX_MESSAGE)
        self._connection = self._chunks = _Connection(policy, self._limits)
        self._chunks.on_abort = self._on_abort
        self._on_end = on_end
        self._unread = bytearray()
        self._failure: BaseException | None = None
        self._said = ""
        self._is_entered = False
        self._is_greeted = False

    def __repr__(self) -> str:
        return f"<wire {self.name} {'closed' if self.closed.done() else 'open'}>"

    # --- what arrives ---

    def data_received(self, data: bytes) -> None:
        """Cut what came into chunks; end the connection where it is none."""
        self._unread += data
        while len(self._unread) >= _KIND and self._failure is None:
            kind = bytes(self._unread[:_KIND])
            if kind not in _KINDS:
                self._refuse(
                    f"no OPC UA server answers there: it says {bytes(self._unread[:16])!r}. Is the port right?"
                )
                return
            if len(self._unread) < _HEAD.size:
                return
            size = _HEAD.unpack_from(self._unread)[2]
            if not _HEAD.size < size <= MAX_CHUNK:
                text = f"the server sends a chunk of {size} bytes where {MAX_CHUNK} were agreed on"
                self._refuse(f"{text}: is its firmware new?")
                return
            if len(self._unread) < size:
                return
            chunk = bytes(memoryview(self._unread)[:size])
            del self._unread[:size]
            self._process_received_data(chunk)

    def _refuse(self, text: str) -> None:
        self._unread.clear()
        self.fail(f"{self.name}: {text}", "decode")

    def _process_received_message(self, msg: Any) -> None:
        if isinstance(msg, ua.ErrorMessage):
            self._said = str(msg.Reason or "")
        elif isinstance(msg, ua.Message) and isinstance(msg.SecurityHeader(), ua.AsymmetricAlgorithmHeader):
            # The library takes every answer to OpenSecureChannel for a good one, and chokes on a refusal.
            ua.StatusCode(_result_of(bytes(msg.body()))[1]).check()
        super()._process_received_message(msg)

    def _on_abort(self, request_id: int, code: int) -> None:
        waiting = self._callbackmap.pop(request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(ServiceFault(code, name_of(code), "an answer that was given up"))

    # --- its end ---

    def disconnect_socket(self) -> None:
        """The library ends a connection while it handles the error that is the reason: it is kept."""
        self._failure = self._failure or sys.exc_info()[1]
        super().disconnect_socket()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. Whoever waits for an answer is told, and who opened it."""
        self._failure = self._failure or exc
        super().connection_lost(exc)
        self.closed.set_result(None)
        if self._on_end is not None:
            self._on_end(self.ending)

    def abort(self) -> None:
        """End it now; what is unsent is dropped. Await `closed` behind it. Twice is harmless."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def ending(self) -> LineError:
        """Why it ended, anew each time."""
        failure = self._failure
        if isinstance(failure, LineError):
            return LineError(str(failure), cause=failure.cause)
        if isinstance(failure, _TooLargeError):
            text = f"{self.name}: the server sends an answer of more than {self._chunks.largest} bytes"
            cure = "Lower max_per_call" if self._is_entered else "Look who answers there"
            return LineError(f"{text}. {cure}", cause="BadResponseTooLarge")
        if isinstance(failure, UaStatusCodeError):
            name = name_of(failure.code)
            return LineError(explain(self.name, name, self.about, said=self._said), cause=name)
        if isinstance(failure, OSError):
            return LineError(f"{self.name}: {reason_of(failure)}", cause="offline")
        if failure is not None:
            text = f"the server sent what cannot be understood ({type(failure).__name__}: {_shown(failure)})"
            return LineError(f"{self.name}: {text}: is its firmware new?", cause="decode")
        doubt = "" if self._is_greeted else " without a greeting: is it an OPC UA server that listens on that port?"
        return LineError(f"{self.name}: the server closed the connection{doubt}", cause="offline")

    # --- requests ---

    def enter(self) -> None:
        """There is a session: the server is no stranger any more, and its answers may be large."""
        self._is_entered, self._chunks.largest = True, MAX_MESSAGE

    async def hello(self, url: str, timeout_s: float) -> None:
        """Greet, and agree on sizes [Part 6 7.1.2.3]. Raises LineError."""
        hello = ua.Hello(
            ReceiveBufferSize=MAX_CHUNK,
            SendBufferSize=MAX_CHUNK,
            MaxMessageSize=MAX_MESSAGE,
            MaxChunkCount=_MAX_CHUNKS,
            EndpointUrl=url,
        )
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._callbackmap[0] = waiting
        if self.transport is None:
            raise self.ending
        self.transport.write(uatcp_to_binary(ua.MessageType.Hello, hello))
        ack = await self._answer(waiting, timeout_s, "greeting")
        self._is_greeted = True
        if ack.ReceiveBufferSize < _LEAST_BUFFER:
            text = f"the server takes {ack.ReceiveBufferSize} bytes at once: too few for a login"
            raise self.fail(f"{self.name}: {text}. Raise that in the server", "BadTcpMessageTooLarge")
        # What the server acknowledges is what it takes; what we take stays as it was.
        self._limits = TransportLimits(MAX_CHUNK, min(MAX_CHUNK, ack.ReceiveBufferSize), _MAX_CHUNKS, MAX_MESSAGE)
        self._connection._limits = self._limits  # noqa: SLF001 - the library overwrites ours with the server's

    async def open_channel(self, lifetime_ms: int, timeout_s: float, *, renew: bool = False) -> int:
        """Open the secure channel or renew its key. Gives its lifetime in ms. Raises LineError [Part 4 5.6.2]."""
        policy = self._connection.security_policy
        kinds = ua.SecurityTokenRequestType
        parameters = ua.OpenSecureChannelParameters(
            RequestType=kinds.Renew if renew else kinds.Issue,
            SecurityMode=policy.Mode,
            ClientNonce=create_nonce(policy.secure_channel_nonce_length),
            RequestedLifetime=lifetime_ms,
        )
        self.timeout = timeout_s
        try:
            result = await self.open_secure_channel(parameters)
        except TimeoutError as error:
            if self.closed.done():
                raise self.ending from error
            raise self._late("opening of a secure channel", timeout_s) from None
        # The library marks an answer as come before it has looked at it, and then has none where it was refused.
        except (UaError, OSError, AssertionError, AttributeError, ValueError, TypeError) as error:
            raise self._because(error) from error
        least = policy.secure_channel_nonce_length
        if len(result.ServerNonce or b"") < least:  # the channel's keys are made of it [Part 4 5.6.2]
            text = f"the server's random number for the channel has fewer than {least} bytes"
            raise self.fail(f"{self.name}: {text}: its firmware is at fault. Update it", "BadNonceInvalid")
        # By our clock: the library reckons with it how long a former key holds, and the server's may stand in 1970.
        result.SecurityToken.CreatedAt = datetime.now(UTC)
        return int(result.SecurityToken.RevisedLifetime)

    async def ask(self, request: Any, timeout_s: float | None) -> bytes:
        """Send a request, give the body of its answer from its type id on; None waits as long as the wire lives.

        Raises ServiceFault where the server refuses it, LineError where the connection ended or the answer is late:
        then the connection is ended too, for nobody knows what the server made of the request.
        """
        what = type(request).__name__.removesuffix("Request")
        if self.transport is None or self.transport.is_closing():
            raise self.ending
        try:
            waiting = self._send_request(request, timeout_s or 0)
        except ConnectionError:
            raise self.ending from None
        body = bytes(await self._answer(waiting, timeout_s, what))
        kind, code = _result_of(body)
        if is_bad(code):
            raise ServiceFault(code, name_of(code), what)
        if kind != response_of(type(request).__name__)[1]:
            raise self.fail(f"{self.name}: the answer to {what} is none: is the server's firmware new?", "decode")
        return body

    def decode(self, request: Any, body: bytes) -> Any:
        """The answer to this request as the library's object.

        Raises ServiceFault where it cannot be understood or has more results than were asked for, and
        Bad_ResponseTooLarge where it has more than `MAX_DECODED` bytes: fewer questions may fare better.
        """
        what = type(request).__name__
        if len(body) > MAX_DECODED:
            text = f"an answer to {what.removesuffix('Request')} of {len(body)} bytes"
            raise ServiceFault(ua.StatusCodes.BadResponseTooLarge, "BadResponseTooLarge", text)
        try:
            _check_count(request, body)
            return struct_from_binary(response_of(what)[0], Buffer(body))
        except _UNDECODABLE as error:
            what = f"the answer to {what.removesuffix('Request')} ({type(error).__name__}: {_shown(error)})"
            raise ServiceFault(ua.StatusCodes.BadDecodingError, "BadDecodingError", what) from error

    def close_channel(self) -> None:
        """Take leave: there is no answer to this [Part 6 7.1.4]. What was sent before still goes out."""
        if self.transport is not None and not self.transport.is_closing():
            self._send_request(ua.CloseSecureChannelRequest(), message_type=ua.MessageType.SecureClose).cancel()
            self.transport.close()

    async def _answer(self, waiting: asyncio.Future[Any], timeout_s: float | None, what: str) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except ServiceFault:
            raise
        except TimeoutError as error:
            if self.closed.done():  # the system's own, of the connection
                raise self.ending from error
            raise self._late(what, cast(float, timeout_s)) from None
        except (UaError, OSError) as error:
            raise self._because(error) from error

    def _because(self, error: Exception) -> LineError:
        # What the library tells those who wait when the connection is gone already is no reason.
        if self._failure is None and not self.closed.done():
            self._failure = error
        self.abort()
        return self.ending

    def _late(self, what: str, timeout_s: float) -> LineError:
        text = f"no answer to {what} within {timeout_s:g} s: is the server alive, and is timeout long enough?"
        if not self._is_greeted:
            text += " Is it an OPC UA server that listens on that port?"
        return self.fail(f"{self.name}: {text}", "timeout")

    def fail(self, text: str, cause: str) -> LineError:
        """End the connection for that reason, which is also given."""
        self._failure = self._failure or LineError(text, cause=cause)
        self.abort()
        return self.ending


async def dial(
    place: Place, policy: SecurityPolicy, timeout_s: float, on_end: Callable[[LineError], None] | None = None
) -> Wire:
    """Connect, name look-up included, within `timeout_s`. `on_end` is told when it ends, and why. Raises LineError."""
    wire = Wire(place.url, policy, on_end)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: wire, place.host, place.port)
    except TimeoutError:
        raise LineError(f"{place.url}: no connection within {timeout_s:g} s: {_NETWORK}", cause="offline") from None
    except OSError as error:
        cure = next((f": {text}" for kind, text in _CURES.items() if isinstance(error, kind)), "")
        raise LineError(f"{place.url}: {reason_of(error)}{cure}", cause="offline") from error
    except ValueError as error:  # an empty or overlong label between two dots, a NUL
        text = f"{place.url}: {place.host!r} is no name of a host: is the url right?"
        raise LineError(text, cause="config") from error
    return wire


def _shown(error: BaseException) -> str:
    """What the library says of it, which may have the whole message in it."""
    return "".join(c if c.isprintable() else " " for c in str(error)[:_MOST_SHOWN])


def reason_of(error: OSError) -> str:
    """What the system says, without the tuple that asyncio wraps around it."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


@cache
def response_of(request: str) -> tuple[type[Any], int]:
    """What answers a request, by the name of its class: a class, and the number of its encoding in namespace 0."""
    name = request.removesuffix("Request") + "Response"
    return getattr(ua, name), int(getattr(ua.ObjectIds, f"{name}_Encoding_DefaultBinary"))


def _check_count(request: Any, body: bytes) -> None:
    """Hold the results of an answer to the questions [Part 4 7.6], before the library makes an object of each.

    Only of answers that begin with them. Raises ValueError where there are more, and what the library raises.
    """
    fields = getattr(response_of(type(request).__name__)[0], "__dataclass_fields__", {})
    if [name for name in fields if name not in _BEFORE_RESULTS][:1] != ["Results"]:
        return
    asking = getattr(request, "Parameters", request)
    parts = (getattr(asking, name) for name in asking.__dataclass_fields__)
    asked = max((len(part) for part in parts if isinstance(part, (list, tuple))), default=0)
    buffer = Buffer(body)
    nodeid_from_binary(buffer)
    struct_from_binary(ua.ResponseHeader, buffer)
    (count,) = _COUNT.unpack(buffer.read(_COUNT.size))
    if count > asked:
        text = f"{count} results for {asked} questions"
        raise ValueError(text)


def _result_of(body: bytes) -> tuple[int, int]:
    """The number of an answer's type and its service result; 0 for a type that is none of the standard's."""
    try:
        match body[:1]:
            case b"\x01":
                namespace, kind, code = _FOUR_BYTE_ID.unpack_from(body, 1)
            case b"\x02":
                namespace, kind, code = _NUMERIC_ID.unpack_from(body, 1)
            case b"\x00":
                namespace, (kind, code) = 0, _TWO_BYTE_ID.unpack_from(body, 1)
            case _:
                return 0, 0
    except struct.error:
        return 0, 0
    return (0 if namespace else kind), code
