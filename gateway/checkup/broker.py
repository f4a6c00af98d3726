"""The embedded broker looked at from outside: its listeners, certificates, users and ACL."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.broker import acl, passwords
from gateway.broker.options import Address, Options
from gateway.checkup.certificates import Certificate
from gateway.checkup.dial import DialError, Stream, WebSocket, Wire, introduce, reach
from gateway.checkup.findings import Chart, Finding
from gateway.checkup.trust import judge_authorities, judge_crl, judge_own
from gateway.mqtt.packets import V5, Connack, Connect
from gateway.mqtt.reasons import Reason
from gateway.uplinks.reasons import reason

CLIENT_ID = "headgate-doctor"
_PATIENCE_S = 5.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on
_LOGIN = (Reason.BAD_USER_NAME_OR_PASSWORD, Reason.NOT_AUTHORIZED)
_MOST_NAMES = 10


def look(options: Options, *, is_running: bool) -> list[Finding]:
    """All there is to say about a broker. `is_running`: the gateway of this file is at work."""
    now = datetime.now(UTC)
    chart = Chart("broker", "")
    chain = _look_at_tls(options, now, chart)
    _look_at_users(options.users, chart)
    _look_at_acl(options.acl, chart)
    for address in options.listen:
        there = Chart("broker", str(address))
        if address.is_secure and chain:
            _judge_names(address, chain[0], there)
        _look_at_listener(address, options, chain, there, is_running=is_running)
        chart.findings += there.findings
    return chart.findings


# --- files ----------------------------------------------------------------------------------------------------------


def _look_at_tls(options: Options, now: datetime, chart: Chart) -> list[Certificate]:
    tls = options.tls
    if tls is None:
        return []
    chain = judge_own(tls.cert, tls.key, now, chart)
    if tls.ca is not None:
        judge_authorities(tls.ca, now, chart)
    if tls.crl is not None:
        judge_crl(tls.crl, now, chart)
    return chain


def _judge_names(address: Address, certificate: Certificate, chart: Chart) -> None:
    """Note a certificate by whose names nobody can call this listener."""
    if not certificate.names:
        chart.wrong(
            f"the certificate names no host: clients that check it refuse ({certificate.subject})",
            "Have one issued with subjectAltName: the names and addresses by which clients call this machine",
        )
    elif address.host in _ANYWHERE or certificate.covers(address.host):
        chart.well("clients may call it " + ", ".join(certificate.names[:_MOST_NAMES]))
    else:
        names = ", ".join(certificate.names[:_MOST_NAMES])
        chart.warn(
            f"the certificate is for {names}, not for {address.host}",
            "Have clients connect by one of its names, or have a certificate issued for this address too",
        )


def _look_at_users(path: Path | None, chart: Chart) -> None:
    if path is None:
        return
    chart = chart.of(str(path))
    try:
        users = passwords.parse(path.read_bytes(), str(path))
    except OSError as error:
        chart.wrong((error.strerror or str(error)).lower(), "Check the path and its permissions")
    except ValueError as error:
        for line in str(error).splitlines():
            chart.wrong(line, "Mend the line; a broker does not start with it")
    else:
        for caution in users.cautions:
            chart.warn(caution, f"Write it anew: headgate passwd {path} USER")
        if not users.cautions:
            count = sum(1 for _ in users)
            chart.well(f"{count} user{'s' * (count != 1)}, all hashes strong")


def _look_at_acl(path: Path | None, chart: Chart) -> None:
    if path is None:
        return
    chart = chart.of(str(path))
    try:
        acl.parse(path.read_bytes(), str(path))
        mode = path.stat().st_mode
    except OSError as error:
        chart.wrong((error.strerror or str(error)).lower(), "Check the path and its permissions")
    except ValueError as error:
        for line in str(error).splitlines():
            chart.wrong(line, "Mend the line; a broker does not start with it")
    else:
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            chart.wrong("others on this machine can change who may do what", f"chmod go-w,o= {path}")
        elif mode & stat.S_IRWXO:
            chart.warn("everybody on this machine can read who may do what", f"chmod o= {path}")
        else:
            chart.well("can be read, and by nobody else")


# --- listeners ------------------------------------------------------------------------------------------------------


def _look_at_listener(
    address: Address, options: Options, chain: Sequence[Certificate], chart: Chart, *, is_running: bool
) -> None:
    """Whether it answers where the gateway runs, and whether the port is free where it does not."""
    if address.port == 0:
        chart.well("takes any free port: there is nothing to look at")
        return
    if not is_running:
        _judge_port(address, chart)
        return
    try:
        wire = reach(_ANYWHERE.get(address.host, address.host), address.port, _PATIENCE_S)
    except DialError as error:
        chart.wrong(f"the gateway runs, but here: {error.text}", "Look at its log, or start it again")
        return
    with wire:
        try:
            answer = introduce(_stream(wire, address, chain, chart), Connect(level=V5, client_id=CLIENT_ID))
        except DialError as error:
            if _asks_certificate(error, options, address):
                chart.well("answers, and asks for a client certificate")
            else:
                chart.wrong(error.text, error.cure)
        else:
            _judge_answer(answer, address, options, chart)


def _judge_port(address: Address, chart: Chart) -> None:
    """Whether the gateway could listen here."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(where)
    except OSError as error:
        cures = {
            errno.EADDRNOTAVAIL: "This machine has no such address (ip address): write one it has, or 0.0.0.0",
            errno.EACCES: "Ports below 1024 are for root: take another, or give the service CAP_NET_BIND_SERVICE",
            errno.EADDRINUSE: f"Find who holds it (ss -ltnp 'sport = :{address.port}') or take another port",
        }
        said = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        chart.wrong(
            f"the gateway does not run, and could not listen here: {said}",
            cures.get(error.errno or 0, "Check the address"),
        )
    else:
        chart.well("the gateway does not run, and the port is free for it")


def _stream(wire: Wire, address: Address, chain: Sequence[Certificate], chart: Chart) -> Stream:
    """What MQTT goes over. A certificate is compared, not trusted: its file is ours. Raises DialError."""
    if address.is_secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        wire.secure(context, "" if address.host in _ANYWHERE else address.host)
        der = wire.sock.getpeercert(binary_form=True) if isinstance(wire.sock, ssl.SSLSocket) else None
        if chain and der != chain[0].der:
            text = "it shows another certificate than the one in the file"
            chart.warn(text, "Have the gateway read its certificates again: systemctl reload headgate")
    if address.is_websocket:
        return WebSocket(wire, address.host, address.port, address.path)
    return wire


def _asks_certificate(error: DialError, options: Options, address: Address) -> bool:
    """Whether we were turned away for want of a client certificate, as we should be."""
    tls = options.tls
    required = address.is_secure and tls is not None and tls.ca is not None and tls.clients == "required"
    return required and (isinstance(error.cause, (ssl.SSLError, ConnectionError)) or "hung up" in error.text)


def _judge_answer(answer: Connack, address: Address, options: Options, chart: Chart) -> None:
    if answer.reason < 0x80:
        if options.asks_who_at(address):
            chart.wrong(
                "a client without a login is let in, although the file asks for one",
                "The gateway runs with an older file: start it again",
            )
        else:
            chart.well("answers, and accepts a client")
    elif answer.reason in _LOGIN and (
        options.asks_who_at(address) or options.users is not None or options.jwt is not None
    ):
        chart.well("answers, and asks for a login")
    else:
        chart.wrong(f"answers, and refuses a client: {reason(answer.reason)}", "Look at the gateway's log")
