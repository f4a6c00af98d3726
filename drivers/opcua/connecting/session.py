"""A session with a server: opened, kept alive, taken up again on a new connection, closed [Part 4 5.7].

    discover, choose -> TCP -> Hello -> OpenSecureChannel -> ActivateSession of the session that was kept
                                                          -> else CreateSession, ActivateSession, limits, namespaces

The library's own client is not used: it reconnects by itself, keeps one publish request, and believes sizes and lists
that it is told. What is left of it here is its secure channel (`wire`) and its encoding of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NoReturn

from asyncua import ua as _ua
from cryptography.exceptions import InvalidSignature

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.endpoints import Choice, choose, discover, verify
from drivers.opcua.connecting.explaining import explain
from drivers.opcua.connecting.identity import Login, activation, login_of
from drivers.opcua.connecting.limits import Limits, read_limits, read_namespaces, state_request
from drivers.opcua.connecting.pki import Own, Pki, UntrustedError
from drivers.opcua.connecting.way import Way
from drivers.opcua.connecting.wire import Wire, dial
from drivers.opcua.faults import ServiceFault
from drivers.opcua.options import DeviceOptions
from drivers.opcua.url import place_of
from drivers.opcua.values.structures import Structures
from gateway.clock import Clock
from gateway.errors import LineError, RefusedError
from gateway.metrics import Metrics

ua: Any = _ua  # its names are made at run time: no checker sees them
log = logging.getLogger("headgate.opcua")

_CHANNEL_S: Final = 3600.0
_RENEWED_AT: Final = 0.75
"""The part of its lifetime after which a channel's key is renewed [Part 4 5.6.2.1]."""
_SHORTEST_S: Final = 1.0
"""A server may grant any lifetime; it is not asked more often than this."""
_PATIENCE_S: Final = 0.7
"""How long `close` waits for the server: a line has 1 s for its whole end (gateway/app.py)."""
_NONCE: Final = 32
_LONGEST_NONCE: Final = 1024
"""Bytes of a server's random number: fewer can be guessed, and a password is encrypted with all of them."""
_UNREACHABLE: Final = ("offline", "timeout")
_SESSION_GONE: Final = frozenset((
    "BadSessionIdInvalid", "BadSessionClosed", "BadSessionNotActivated", "BadSecureChannelIdInvalid",
    "BadSecureChannelClosed", "BadSecureChannelTokenUnknown", "BadTcpSecureChannelUnknown", "BadConnectionClosed",
    "BadShutdown", "BadServerHalted",
))  # fmt: skip
"""Refusals of any request that mean that no other will fare better in this session."""
_NOT_TRUSTED: Final = frozenset((
    "BadCertificateUntrusted", "BadSecurityChecksFailed", "BadCertificateInvalid", "BadCertificateChainIncomplete",
))  # fmt: skip
"""How servers refuse a client whose certificate they do not know."""


@dataclass(slots=True)
class _Kept:
    """What is needed to take a session up on a new channel [Part 4 5.7.3]."""

    token: Any
    choice: Choice
    thumbprint: str
    server: bytes
    nonce: bytes
    timeout_s: float
    used_at: float = 0.0


class Session:
    """One session with one server. It outlives its connections: `drop` leaves it to the server, `open` takes it up.

    `channel_s` is the lifetime of a secure channel's key that the server is asked for, in s.
    """

    def __init__(
        self, url: str, options: DeviceOptions, *, clock: Clock, metrics: Metrics, channel_s: float = _CHANNEL_S
    ) -> None:
        self._place = place_of(url)
        self._options = options
        self._clock = clock
        self._channel_ms = round(channel_s * 1000)
        self._pki = Pki(options.pki, options.application_uri, clock=clock)
        self._choice: Choice | None = None
        self._kept: _Kept | None = None
        self._wire: Wire | None = None
        self._tending: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[LineError] | None = None
        self._cautioned: set[str] = set()
        self._requests = metrics.counter("opcua_requests_total", line=self.line)
        self._faults = metrics.counter("opcua_faults_total", line=self.line)
        self._made = metrics.counter("opcua_sessions_total", line=self.line)
        self._resumed = metrics.counter("opcua_sessions_resumed_total", line=self.line)
        self._renewals = metrics.counter("opcua_channel_renewals_total", line=self.line)
        self.limits = Limits(*[options.max_per_call] * 5)
        self.namespaces: tuple[str, ...] = ()
        self.structures = Structures()

    def __repr__(self) -> str:
        state = "closed" if self._kept is None else "kept by the server"
        if self._wire is not None:
            is_lost = self._lost is not None and self._lost.done()
            state = f"lost, {self._why().cause}" if is_lost else f"open, {self._choice}"
        return f"<opcua session {self.line}: {state}>"

    @property
    def line(self) -> str:
        """The line's name, for metrics."""
        return self._place.url

    # --- the door ---------------------------------------------------------------------------------------------------

    async def open(self) -> bool:
        """Connect. True: the session of before lives and was taken up; else there is a new one. Raises LineError."""
        await self._hang_up()
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self._hang_up)
            try:
                is_resumed = await self._open()
            except ServiceFault as fault:
                raise self._refused(fault) from fault
            except RefusedError as refused:
                cause = refused.cause if isinstance(refused, UntrustedError) else "config"
                raise LineError(self._placed(str(refused)), cause=cause) from refused
            undo.pop_all()
        (self._resumed if is_resumed else self._made).value += 1
        return is_resumed

    async def drop(self) -> None:
        """Let go of the connection alone: the server keeps the session for as long as it has granted."""
        await self._hang_up()

    async def close(self) -> None:
        """End the session and its subscriptions. Takes less than 1 s, and never raises."""
        wire, self._wire = self._wire, None  # from now on nothing is news
        try:
            if wire is not None and self._kept is not None:
                await self._give_back(wire)
                wire.close_channel()
        finally:
            self._wire, self._kept = wire, None
            await self._hang_up()

    async def gone(self) -> NoReturn:
        """Wait for as long as there is a connection, then raise LineError: why it is gone."""
        if self._lost is None:
            raise self._why()
        await asyncio.shield(self._lost)
        raise self._why()

    # --- requests ---------------------------------------------------------------------------------------------------

    async def call(self, request: Any, *, timeout_s: float | None = None) -> Any:
        """Send a request, give the response, both as the library's objects. None: wait as long as `timeout` says.

        Raises ServiceFault where the server refuses it, LineError where the connection is gone or the answer is late.
        """
        body = await self.fetch(request, timeout_s=self._options.timeout if timeout_s is None else timeout_s)
        wire = self._wire
        if wire is None:
            raise self._why()
        return wire.decode(request, body)

    async def fetch(self, request: Any, *, timeout_s: float | None) -> bytes:
        """Send a request, give the response's body as it came, its type id first. None: wait as long as it takes.

        Raises like `call`.
        """
        wire = self._wire
        if wire is None:
            raise self._why()
        self._requests.value += 1
        try:
            body = await wire.ask(request, timeout_s)
        except ServiceFault as fault:
            self._faults.value += 1
            if fault.name not in _SESSION_GONE or self._wire is not wire:
                raise
            if fault.name.startswith("BadSession"):
                self._kept = None
            self._lose(self._refused(fault))
            wire.abort()
            raise self._why() from fault
        if self._kept is not None:
            self._kept.used_at = self._clock.monotonic()
        return body

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _open(self) -> bool:
        login = await asyncio.to_thread(login_of, self._options)
        # A server that does not answer any more may have changed: what was chosen holds again once it has worked.
        before, self._choice = self._choice, None
        if before is not None:
            try:
                return await self._enter(before, login)
            except LineError as error:
                if error.cause in _UNREACHABLE:
                    raise
            except (ServiceFault, RefusedError):
                pass
            # The server is there, and not as it was: another certificate, other policies.
            await self._hang_up()
        choice = choose(await discover(self._place, self._options.timeout), self._place, self._options)
        return await self._enter(choice, login)

    async def _enter(self, choice: Choice, login: Login) -> bool:
        """Connect as chosen, once more with our former certificate where the server does not know the new one."""
        own = await self._certificates(choice)
        try:
            return await self._connect(Way(choice, login, own))
        except (LineError, ServiceFault) as error:
            cause = error.cause if isinstance(error, LineError) else error.name
            former = await asyncio.to_thread(self._pki.former) if own and cause in _NOT_TRUSTED else None
            if former is None:
                raise
        await self._hang_up()
        is_resumed = await self._connect(Way(choice, login, former))
        self._caution(
            f"the server does not trust the gateway's renewed certificate, and still takes the former one, until "
            f"{former.not_after:%Y-%m-%d}. Let it trust {own.certificate_path if own else ''} before then"
        )
        return is_resumed

    async def _certificates(self, choice: Choice) -> Own | None:
        """Ours, where it is used; the server's has been looked at, where anything hangs on it. Raises RefusedError."""
        if choice.uses_certificate:
            check = partial(self._pki.check, choice.certificate, url=self.line, trust=self._options.trust)
            self._caution(await asyncio.to_thread(check))
        if not choice.is_secure:
            return None
        own = await asyncio.to_thread(self._pki.own)
        for text in own.cautions:
            self._caution(text)
        return own

    async def _connect(self, way: Way) -> bool:
        timeout_s = self._options.timeout
        try:
            policy = way.policy()
        except ValueError as error:
            text = f"{self.line}: {error}. Make a new certificate for the server"
            raise LineError(text, cause="BadCertificateInvalid") from error
        self._lost = asyncio.get_running_loop().create_future()
        wire = await dial(self._place, policy, timeout_s, self._lose)
        self._wire = wire
        wire.about = way.about(self._options)
        await wire.hello(way.choice.url, timeout_s)
        try:
            lifetime_ms = await wire.open_channel(self._channel_ms, timeout_s)
        except LineError as error:
            if error.cause == "offline" and way.own is not None:  # many servers hang up in place of a refusal
                name = "BadSecurityChecksFailed"
                text = explain(self.line, name, wire.about, said="nothing: it closed the connection")
                raise LineError(text, cause=name) from error
            raise
        is_resumed = await self._resume(wire, way, policy)
        if not is_resumed:
            await self._create(wire, way, policy)
        wire.enter()
        if not is_resumed:
            await self._read()
            self.structures.begin(self.namespaces)
        self._choice = way.choice if self._kept is None else self._kept.choice
        self._tending = asyncio.create_task(self._tend(wire, lifetime_ms), name=f"tend {self.line}")
        return is_resumed

    async def _resume(self, wire: Wire, way: Way, policy: Any) -> bool:
        """Take up the session that the server keeps. False where there is none, or none any more."""
        kept = self._kept
        if kept is None:
            return False
        self._kept = None
        if self._clock.monotonic() - kept.used_at > kept.timeout_s:
            return False
        if not _is_nonce(kept.nonce, kept.choice):
            return False
        if (kept.thumbprint, *kept.choice.security) != (way.thumbprint, *way.choice.security):
            return False
        wire.authentication_token = kept.token
        way = replace(way, choice=kept.choice)  # its login comes from the list that was signed
        try:
            await self._activate(wire, way, policy, kept)
        except ServiceFault:
            wire.authentication_token = ua.NodeId()
            return False
        except LineError:
            self._kept = kept  # the link broke again: nobody knows what the server made of it
            raise
        return True

    async def _read(self) -> None:
        """What the server says of itself, once a session. Where that fails the session is not worth keeping."""
        try:
            self.limits = await read_limits(self.call, self._options.max_per_call)
            self.namespaces = await read_namespaces(self.call)
        except LineError:
            self._kept = None
            raise

    async def _create(self, wire: Wire, way: Way, policy: Any) -> None:
        """A new session [Part 4 5.7.2]."""
        own, nonce = way.own, os.urandom(32)
        request = way.creation(self._options, nonce)
        result = wire.decode(request, await wire.ask(request, self._options.timeout)).Parameters
        wire.authentication_token = result.AuthenticationToken
        try:
            await self._enter_session(wire, way, policy, own.certificate + nonce if own else b"", result)
        except (LineError, ServiceFault):
            await self._give_back(wire)
            raise

    async def _enter_session(self, wire: Wire, way: Way, policy: Any, signed: bytes, result: Any) -> None:
        """Look at what came with a new session, then log in. `signed` is what the server's signature is of."""
        server = certificates.leaf_of(result.ServerCertificate or way.choice.certificate)
        if way.choice.uses_certificate and server != way.server:
            text = f"{self.line}: the session has another certificate than the endpoint. Look who sits between"
            raise LineError(text, cause="BadCertificateInvalid")
        if way.own is not None:
            self._prove(policy, signed, result.ServerSignature.Signature or b"")
        way = replace(way, choice=verify(way.choice, list(result.ServerEndpoints or ()), self._place, self._options))
        kept = _Kept(
            token=result.AuthenticationToken,
            choice=way.choice,
            thumbprint=way.thumbprint,
            server=server,
            nonce=result.ServerNonce or b"",
            timeout_s=max(0.0, result.RevisedSessionTimeout / 1000),
        )
        if not _is_nonce(kept.nonce, way.choice):
            text = (
                f"{self.line}: the server's random number has {len(kept.nonce)} bytes, not {_NONCE} to {_LONGEST_NONCE}"
            )
            raise LineError(f"{text}: its firmware is at fault. Update it", cause="BadNonceInvalid")
        await self._activate(wire, way, policy, kept)

    async def _give_back(self, wire: Wire) -> None:
        """Close a session that will not be used: a refused login, tried again and again, would take all there are."""
        with contextlib.suppress(LineError, ServiceFault):
            await wire.ask(ua.CloseSessionRequest(DeleteSubscriptions=True), min(_PATIENCE_S, self._options.timeout))

    def _prove(self, policy: Any, signed: bytes, signature: bytes) -> None:
        """The server must hold the key of the certificate that was chosen [Part 4 5.7.2.2]. Raises LineError."""
        try:
            policy.asymmetric_cryptography.verify(signed, signature)
        except InvalidSignature as error:
            name = "BadApplicationSignatureInvalid"
            text = f"{self.line}: the server cannot prove that its certificate is its own. Look who sits between"
            raise LineError(text, cause=name) from error

    async def _activate(self, wire: Wire, way: Way, policy: Any, kept: _Kept) -> None:
        """Bind the session to this channel and log in."""
        if way.login.user is not None and not (way.choice.is_encrypted or way.choice.uses_certificate):
            self._caution("the password is sent for everybody to read, because the file says security: none")
        try:
            request = activation(way.login, way.choice, policy, kept.server, kept.nonce)
        except ValueError as error:
            text = f"{self.line}: the login cannot be protected with the server's certificate: {error}"
            raise LineError(f"{text}. Make a new one for the server", cause="BadIdentityTokenRejected") from error
        response = wire.decode(request, await wire.ask(request, self._options.timeout))
        kept.nonce = response.Parameters.ServerNonce or b""
        kept.used_at = self._clock.monotonic()
        self._kept = kept

    # --- the connection ---------------------------------------------------------------------------------------------

    async def _tend(self, wire: Wire, lifetime_ms: int) -> None:
        """Renew the channel's key at 75 % of its lifetime, and keep a session that is not used from running out."""
        now = asyncio.get_running_loop().time
        due = now() + _span(lifetime_ms)
        with contextlib.suppress(LineError):  # whatever raises it has ended the connection, and that is told to all
            while True:
                idle_s = max(_SHORTEST_S, self._kept.timeout_s / 3) if self._kept else _CHANNEL_S
                await asyncio.sleep(max(0.0, min(due - now(), idle_s)))
                if now() >= due:
                    lifetime_ms = await wire.open_channel(self._channel_ms, self._options.timeout, renew=True)
                    due = now() + _span(lifetime_ms)
                    self._renewals.value += 1
                elif self._kept and self._clock.monotonic() - self._kept.used_at >= idle_s:
                    with contextlib.suppress(ServiceFault):  # it has heard of us, that is enough
                        await self.fetch(state_request(), timeout_s=self._options.timeout)

    def _lose(self, error: LineError) -> None:
        """The connection is gone; the first to say so says why."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(error)

    def _why(self) -> LineError:
        """Why there is no connection, anew for each who asks."""
        if self._lost is None or not self._lost.done():
            return LineError(f"{self.line}: not connected", cause="offline")
        error = self._lost.result()
        return LineError(str(error), cause=error.cause)

    async def _hang_up(self) -> None:
        """Close the socket and end what runs on it. Nothing of it is left behind this."""
        wire, tending = self._wire, self._tending
        if wire is not None:
            self._lose(LineError(f"{self.line}: closed by us", cause="offline"))
        self._wire = self._tending = None
        if tending is not None:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
        if wire is not None:
            wire.abort()
            await wire.closed

    # --- what is said -----------------------------------------------------------------------------------------------

    def _refused(self, fault: ServiceFault) -> LineError:
        """A refusal as the end of the line: `fault` names the service."""
        wire = self._wire
        what = str(fault).removesuffix(f": {fault.name}")
        text = explain(f"{self.line}: {what}", fault.name, wire.about if wire else None)
        return LineError(text, cause=fault.name)

    def _caution(self, text: str) -> None:
        """Said once in the life of a line: a person should know, and nothing has failed."""
        if text and text not in self._cautioned:
            self._cautioned.add(text)
            log.warning("%s", self._placed(text))

    def _placed(self, text: str) -> str:
        return text if self.line in text else f"{self.line}: {text}"


def _is_nonce(nonce: bytes, choice: Choice) -> bool:
    """Whether a server's random number is one [Part 4 5.7.2.2]; where nothing hangs on it, it may be short."""
    return (_NONCE if choice.uses_certificate else 0) <= len(nonce) <= _LONGEST_NONCE


def _span(lifetime_ms: int) -> float:
    """When to renew a key of that lifetime, in s from now."""
    return max(_SHORTEST_S, lifetime_ms / 1000 * _RENEWED_AT)
