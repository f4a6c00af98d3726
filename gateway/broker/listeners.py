"""The broker's doors to the network: listeners that are opened and closed one by one, and who is let through.

A connection is counted and may be refused before anything is spent on it. Where there is room to be polite it is told
why in CONNACK; else it is closed.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.broker.access import Access, Guard, Refusal, Reload
from gateway.broker.limits import Gate, is_loopback, plain_address
from gateway.broker.link import Link
from gateway.broker.logins import Logins, Opening
from gateway.broker.options import Address, Options
from gateway.broker.report import Report
from gateway.broker.tls import CertificateError, Certificates, revoked
from gateway.broker.turn import Broker, Store, Turn
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.mqtt.reasons import Reason

_BACKLOG = 1024
_AT_ONCE = 32
"""Connections taken from one listener in a turn: a flood of them must not starve those that are inside."""

_POLITE_S = 2.0
_NO_MORE_FILES_S = 1.0
_GO_S = 1.5
_UNSENT = 512 * 1024
"""What the kernel takes ahead of what it has sent, for each connection; else it grows to several MiB."""

_OUT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_ROOM = {
    Reason.CONNECTION_RATE_EXCEEDED: "too many connections a second from this address",
    Reason.SERVER_UNAVAILABLE: "no room for another connection",
    Reason.QUOTA_EXCEEDED: "no room for another connection from this address",
}


class ListenError(ValueError):
    """An address that cannot be opened. The text names it, says why, and the cure."""


@dataclass(slots=True, eq=False)
class Listener:
    """One address of the file, open. `bound`: where it really listens; a host name may mean several places."""

    address: Address
    bound: tuple[Address, ...] = ()
    sockets: list[socket.socket] = field(default_factory=list)
    make: type[Link] = Link


class Server:
    """Every listener of a broker, and all connections that came through them.

    Made and closed on a running loop. `start` may be called for each address; the others do not mind one that fails.
    """

    def __init__(
        self,
        options: Options,
        *,
        broker: Broker,
        access: Access,
        report: Report,
        metrics: Metrics,
        clock: Clock,
        store: Store | None,
    ) -> None:
        self._options = options
        self._access = access
        self._report = report
        self._gate = Gate(options.limits)
        self._turn = Turn(
            broker=broker,
            store=store,
            clock=clock,
            metrics=metrics,
            report=report,
            limits=options.limits,
            gate=self._gate,
        )
        if store is not None:
            store.on_written = self._turn.written
        self._logins = Logins(self._turn, access=access, report=report, metrics=metrics)
        self._turn.logins = self._logins
        self._listeners: dict[Address, Listener] = {}
        self._certificates: Certificates | None = None
        self._tls_failed = metrics.counter("broker_tls_handshakes_failed_total")
        self._arriving: set[asyncio.Task[Any]] = set()
        self._accepted = metrics.counter("broker_connections_total")
        self._refused = metrics.counter("broker_connections_refused_total")
        metrics.gauge("broker_connections", lambda: self._gate.connections)

    def __repr__(self) -> str:
        return f"<Server on {', '.join(map(str, self.bound)) or 'nothing'}: {self._gate.connections} connections>"

    @property
    def bound(self) -> tuple[Address, ...]:
        """Where it really listens, with the ports that port 0 became."""
        return tuple(address for listener in self._listeners.values() for address in listener.bound)

    async def start(self, address: Address) -> tuple[Address, ...]:
        """Open one listener. Where it listens now. Raises ListenError; what else is open stays open."""
        if address in self._listeners:
            raise ListenError(f"{address}: listens already")
        listener = Listener(address)
        if address.is_secure:
            await self._secure(address)
        if address.is_websocket:
            from gateway.broker.websocket import WebSocketLink  # noqa: PLC0415 - the library only where it is asked for

            listener.make = WebSocketLink
        try:
            for family, where in await self._places(address):
                self._bind(listener, family, where)
        except ListenError:
            self._close(listener)
            raise
        self._listeners[address] = listener
        for each in listener.sockets:
            self._turn.loop.add_reader(each.fileno(), self._accept, listener, each)
        return listener.bound

    async def stop(self, address: Address) -> None:
        """Close one listener and send away the clients that came through it."""
        listener = self._listeners.pop(address)
        self._close(listener)
        turn = self._turn
        for link in [link for link in turn.links if link.listener == address]:
            self._send_away(link)

    async def close(self) -> None:
        """Close every listener, send every client away (the wills follow), and wait until they are gone: a second."""
        for listener in self._listeners.values():
            self._close(listener)
        self._listeners.clear()
        await self._logins.close()
        await asyncio.gather(*self._arriving)  # a matter of two turns
        turn = self._turn
        turn.broker.shutdown(turn.now())
        for link in list(turn.links):
            link.finish()
        turn.soon()
        await turn.emptied(_GO_S)
        for link in list(turn.links):
            link.abort()
        await turn.emptied(_GO_S)
        turn.close()

    def _send_away(self, link: Link) -> None:
        turn = self._turn
        if link.opening is None:
            turn.broker.disconnect(link.identity.client_id, Reason.SERVER_SHUTTING_DOWN, turn.now())
        link.finish()

    async def reload(self) -> tuple[str, ...]:
        """Read certificates, revocations, users and rules anew. What is wrong with them, a sentence each.

        What is wrong changes nothing. New certificates are for connections to come, those that are open stay, but for
        whose certificate is revoked now. New rules hold for everybody at once; whoever came in by a password or token
        that is no longer good is sent away.
        """
        problems: tuple[str, ...] = ()
        if self._certificates is not None:
            try:
                await self._certificates.reload()
            except CertificateError as error:
                problems += (str(error),)
            else:
                problems += await self._send_revoked_away()
        if isinstance(self._access, Guard):
            result = await self._access.reload()
            problems += result.problems
            self._apply(result)
        return problems

    async def _send_revoked_away(self) -> tuple[str, ...]:
        tls, turn = self._options.tls, self._turn
        shown = {link: der for link in turn.links if (der := link.certificate())}
        if tls is None or tls.crl is None or not shown:
            return ()
        try:
            gone = await asyncio.to_thread(revoked, tls.crl, set(shown.values()))
        except (OSError, ValueError) as error:
            return (f"{tls.crl}: {error}",)
        now = turn.now()
        for link, der in shown.items():
            if der not in gone or link not in turn.links or link.is_finished:
                continue
            if link.opening is None:
                self._end_access(link, "its certificate is revoked", now)
            else:
                link.abort()
        turn.soon()
        return ()

    def _end_access(self, link: Link, reason: str, now: float) -> None:
        who = link.identity
        self._report.say("access_ended", client_id=who.client_id, address=who.address, reason=reason)
        self._turn.broker.disconnect(who.client_id, Reason.NOT_AUTHORIZED, now)

    def _apply(self, result: Reload) -> None:
        turn = self._turn
        now = turn.now()
        if not result.problems:
            turn.broker.access_changed(now)
        for link in list(turn.links):
            if link.opening is None and result.ends(link.identity):
                self._end_access(link, f"its {link.identity.proof} is no longer good", now)
        turn.soon()

    # Opening.

    async def _secure(self, address: Address) -> None:
        tls = self._options.tls
        if tls is None:
            raise ListenError(f"{address}: no certificate; name one under broker.tls, or take {address.scheme[:-1]}://")
        if self._certificates is None:
            try:
                self._certificates = await Certificates.read(tls, report=self._report, failed=self._tls_failed)
            except CertificateError as error:
                raise ListenError(f"{address}: {error}") from error

    async def _places(self, address: Address) -> list[tuple[socket.AddressFamily, Any]]:
        """What the host of an address means. Raises ListenError where anybody could enter from the network."""
        try:
            found = await self._turn.loop.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            cure = "name one of this machine's addresses"
            raise ListenError(f"{address}: no such host ({error.strerror}); {cure}") from error
        places: list[tuple[socket.AddressFamily, Any]] = list(
            dict.fromkeys((family, where) for family, _, _, _, where in found)
        )
        if not self._options.asks_who_at(address) and not all(is_loopback(where[0]) for _, where in places):
            cure = "name users (broker.users, made by `headgate passwd`), tokens or required client certificates"
            raise ListenError(f"{address}: anybody on the network could enter; {cure}, or listen on 127.0.0.1")
        return places

    def _bind(self, listener: Listener, family: socket.AddressFamily, where: Any) -> None:
        address = listener.address
        port = where[1] or (listener.bound[0].port if listener.bound else 0)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            _prepare(sock, family)
            sock.bind((where[0], port, *where[2:]))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise ListenError(_why(address, where[0], error)) from error
        listener.sockets.append(sock)
        listener.bound += (replace(address, host=where[0], port=sock.getsockname()[1]),)

    def _close(self, listener: Listener) -> None:
        for sock in listener.sockets:
            self._turn.loop.remove_reader(sock.fileno())
            sock.close()
        listener.sockets.clear()

    # Letting in.

    def _accept(self, listener: Listener, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, where = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _OUT_OF:
                    raise
                self._rest(listener, sock, error)
                return
            connection.setblocking(False)
            self._let_in(listener, connection, plain_address(where[0]))

    def _let_in(self, listener: Listener, sock: socket.socket, address: str) -> None:
        now = self._turn.now()
        self._accepted.value += 1
        opening = Opening(now + self._options.limits.connect_timeout_s)
        reason = self._gate.enter(address, now)
        if reason is not None:
            self._refused.value += 1
            self._report.say("connection_refused", client_id="", address=address, reason=_NO_ROOM[reason])
            if listener.address.is_secure or not self._gate.keep():  # a handshake costs more than politeness is worth
                sock.close()
                return
            opening = Opening(now + _POLITE_S, Refusal(reason, _NO_ROOM[reason]))
        link = listener.make(self._turn, address=address, listener=listener.address, opening=opening)
        task = self._turn.loop.create_task(self._arrive(sock, link), name="arrive")
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _arrive(self, sock: socket.socket, link: Link) -> None:
        """Give a connection its transport."""
        protocol = link if self._certificates is None or not link.listener.is_secure else self._certificates.wrap(link)
        try:
            await self._turn.loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:  # gone before it was there
            if not link.last_packet:
                sock.close()
                link.leave()

    def _rest(self, listener: Listener, sock: socket.socket, error: OSError) -> None:
        """No more files or memory for connections: look again in a while."""
        loop = self._turn.loop
        loop.remove_reader(sock.fileno())
        reason = f"{error.strerror}: no new connection for {_NO_MORE_FILES_S:.0f} s"
        self._report.say("accept_failed", client_id="", address=str(listener.address), reason=reason)
        loop.call_later(_NO_MORE_FILES_S, self._go_on, listener, sock)

    def _go_on(self, listener: Listener, sock: socket.socket) -> None:
        if sock in listener.sockets:
            self._turn.loop.add_reader(sock.fileno(), self._accept, listener, sock)


def _prepare(sock: socket.socket, family: socket.AddressFamily) -> None:
    """Options that accepted connections inherit."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # who promised no keep-alive may still die
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _why(address: Address, host: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        cure = (
            f"another program listens there; `ss -ltnp sport = :{address.port}` names it: stop it, or take another port"
        )
    elif error.errno == errno.EADDRNOTAVAIL:
        cure = f"this machine does not have the address {host}: name one that `ip address` shows"
    elif error.errno in (errno.EACCES, errno.EPERM):
        cure = "ports below 1024 are for the administrator: choose a higher one"
    else:
        cure = str(error.strerror)
    return f"{address}: {cure}"
