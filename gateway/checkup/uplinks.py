"""The uplinks looked at: name, TCP, path MTU, TLS and its files, CONNACK and the limits it announces."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime

from gateway.checkup.certificates import Certificate, read_one
from gateway.checkup.dial import DialError, HungUpError, Wire, introduce, path_of, reach
from gateway.checkup.findings import Chart, Finding
from gateway.checkup.trust import day, judge_authorities, judge_dates, judge_own, judge_strength
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, V311, Connack, Connect
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason
from gateway.uplinks.options import Options, Server, Tls, parse_server
from gateway.uplinks.reasons import reason
from gateway.uplinks.trust import context_of

_ETHERNET, _SMALLEST = 1500, 1280
"""Bytes of a packet on Ethernet, and what every IPv6 link carries (RFC 8200, 5)."""
_TCP_IP = {4: 52, 6: 72}
"""Bytes of the headers around a segment, with time stamps."""
_SMALL_PACKET = 64 * 1024


def look_at_files(options: Options, now: datetime) -> list[Finding]:
    """The certificate files of an uplink."""
    chart = Chart(f"uplink {options.name}", "")
    tls = options.tls
    if tls is not None and tls.ca is not None:
        judge_authorities(tls.ca, now, chart)
    if tls is not None and tls.cert is not None:
        judge_own(tls.cert, tls.key, now, chart)
    if tls is not None and not tls.verify:
        chart.of("tls.verify").warn(
            "any certificate is taken: whoever stands on the way reads and forges everything",
            "Take `verify: off` out, and name the authority with `ca`",
        )
    return chart.findings


def look_at_server(options: Options, url: str, now: datetime, *, is_running: bool) -> list[Finding]:
    """One server of an uplink, from its name to CONNACK. `is_running`: the gateway is at work under its client id."""
    server = parse_server(url)
    chart = Chart(f"uplink {options.name}", str(server))
    client_id = f"{options.client_id}-doctor" if is_running else options.client_id
    versions = (V5, V311) if options.version == "5" else (V311,)
    try:
        for level in versions:
            is_last = level == versions[-1]
            with reach(server.host, server.port, options.connect_timeout_s) as wire:
                if level == versions[0]:
                    judge_path(*path_of(wire.sock), is_v6=":" in str(wire.sock.getpeername()[0]), chart=chart)
                if server.secure:
                    _secure(wire, options.tls or Tls(), server, now, None if level != versions[0] else chart)
                answer = _ask(wire, options, client_id, level, is_last=is_last)
            if answer is not None:
                _judge_answer(answer, options, level, chart, is_running=is_running)
                break
    except DialError as error:
        chart.wrong(error.text, error.cure)
    return chart.findings


# --- TLS ------------------------------------------------------------------------------------------------------------


def _secure(wire: Wire, tls: Tls, server: Server, now: datetime, chart: Chart | None) -> None:
    """Speak TLS as the uplink does, and look at the certificate that is shown. Raises DialError."""
    try:
        wire.secure(_context(tls), tls.server_name or server.host)
    except DialError as error:
        if isinstance(error.cause, ssl.SSLCertVerificationError) and chart is not None:
            _explain(tls, server, now, chart)
        raise
    shown = _shown(wire)
    if chart is None or shown is None:
        return
    if judge_dates(shown, now, chart, "the server's certificate"):
        chart.well(f"TLS: {_version(wire)}, the server's certificate is valid until {day(shown.not_after)}")
    judge_strength(shown, chart)


def _explain(tls: Tls, server: Server, now: datetime, chart: Chart) -> None:
    """Why the certificate is not trusted: what it says, by a handshake that trusts everybody and tells nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    name = tls.server_name or server.host
    with contextlib.suppress(DialError), reach(server.host, server.port, 5.0) as wire:
        wire.secure(context, name)
        shown = _shown(wire)
        if shown is None:
            return
        judge_dates(shown, now, chart, "the server's certificate")
        if not shown.covers(name):
            names = ", ".join(shown.names[:10]) or "no host at all"
            cure = f"tls: {{server_name: {shown.names[0] if shown.names else 'NAME'}}}"
            chart.wrong(
                f"the server's certificate is for {names}, not for {name}",
                f"Write one of its names in the url, or {cure}",
            )


def _shown(wire: Wire) -> Certificate | None:
    """The certificate that the server shows."""
    der = wire.sock.getpeercert(binary_form=True) if isinstance(wire.sock, ssl.SSLSocket) else None
    try:
        return None if der is None else read_one(der)
    except ValueError:
        return None


def _version(wire: Wire) -> str:
    return (wire.sock.version() if isinstance(wire.sock, ssl.SSLSocket) else None) or "?"


def _context(tls: Tls) -> ssl.SSLContext:
    """TLS as the uplink speaks it. Raises DialError where a file is no good."""
    try:
        return context_of(tls)
    except OSError as error:
        text = f"the files of tls cannot be used: {error}"
        raise DialError(text, "See the findings about these files", error) from error


# --- MQTT -----------------------------------------------------------------------------------------------------------


def _ask(wire: Wire, options: Options, client_id: str, level: int, *, is_last: bool) -> Connack | None:
    """CONNACK; None where the server does not know the version and another one is left to try."""
    connect = Connect(
        level=level,
        client_id=client_id,
        keep_alive=options.keep_alive_s,
        username=options.username,
        password=None if options.password is None else options.password.reveal().encode(),
        properties=Properties(session_expiry=0) if level == V5 else NONE,
    )
    try:
        answer = introduce(wire, connect)
    except DialError as error:
        if is_last or (not isinstance(error, HungUpError) and not isinstance(error.cause, RemoteProtocolError)):
            raise
        return None  # servers of 3.1.1 answer in words of their own, or hang up
    if answer.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION and not is_last:
        return None
    return answer


def _judge_answer(answer: Connack, options: Options, level: int, chart: Chart, *, is_running: bool) -> None:
    version = "5.0" if level == V5 else "3.1.1"
    if answer.reason >= 0x80:
        said = answer.properties.reason_string
        text = f"the server refuses: {reason(answer.reason)}" + (f", {said}" if said else "")
        if is_running and answer.reason in (Reason.CLIENT_IDENTIFIER_NOT_VALID, Reason.NOT_AUTHORIZED):
            cure = "The gateway is running, so another client id was tried; stop it and look again, if in doubt"
            chart.warn(text, cure)
        else:
            chart.wrong(text, _cure_of(answer.reason))
        return
    chart.well(f"MQTT {version}: accepted")
    if level == V311 and options.version == "5":
        chart.warn(
            "the server does not speak MQTT 5: refused publishes and its limits cannot be seen",
            "Write `version: 3.1.1` to connect without trying first, or update the server",
        )
    judge_limits(answer.properties, options, chart)


def _cure_of(code: Reason) -> str:
    match code:
        case Reason.BAD_USER_NAME_OR_PASSWORD | Reason.NOT_AUTHORIZED:
            return "Check username and password, and what the server's ACL allows this client id"
        case Reason.CLIENT_IDENTIFIER_NOT_VALID:
            return "Write the client id that the server expects: client_id"
        case Reason.UNSUPPORTED_PROTOCOL_VERSION:
            return "Write the other version: version: 5 or version: 3.1.1"
        case Reason.USE_ANOTHER_SERVER | Reason.SERVER_MOVED:
            return "Write the url of the server that took its place"
        case _:
            return "Look at the server's log"


def judge_limits(granted: Properties, options: Options, chart: Chart) -> None:
    """What CONNACK announces beside what the file asks for (3.2.2.3)."""
    keep_alive = granted.server_keep_alive
    if keep_alive is not None and not 0 < keep_alive <= 2 * options.keep_alive_s:
        often = f"after {1.5 * keep_alive:g} s of silence" if keep_alive else "never"
        text = f"keep-alive: the server sets {keep_alive} s (the file: {options.keep_alive_s} s) and hangs up {often}"
        chart.warn(text, "A dead link is noticed late; shorten it on the server")
    elif keep_alive is not None:
        chart.well(f"keep-alive: the server sets {keep_alive} s (the file: {options.keep_alive_s} s)")
    maximum_qos = granted.maximum_qos
    if maximum_qos is not None and maximum_qos < options.qos:
        text = f"the server takes QoS {maximum_qos} at most, the file asks for {options.qos}"
        chart.warn(text, f"Write qos: {maximum_qos}" + ("; nothing is acknowledged then" if maximum_qos == 0 else ""))
    if granted.retain_available == 0 and options.retain:
        chart.warn("the server keeps no retained messages, the file asks for them", "Write retain: off")
    size = granted.maximum_packet_size
    if size is not None and size < _SMALL_PACKET:
        text = f"the server takes packets of {size} bytes at most: larger batches are split"
        chart.warn(text, "Raise the server's maximum packet size")
    window = granted.receive_maximum
    if window is not None and window < min(options.max_in_flight, 20):
        text = f"the server takes {window} publishes in flight (the file: {options.max_in_flight})"
        chart.warn(
            f"{text}: a backlog drains slowly",
            "Raise the server's receive maximum (max_inflight_messages in mosquitto)",
        )
    said = {
        "receive maximum": window,
        "maximum QoS": maximum_qos,
        "maximum packet size": size,
        "topic aliases": granted.topic_alias_maximum,
        "assigned client id": granted.assigned_client_id,
    }
    if any(value is not None for value in said.values()):
        chart.well("it announces: " + ", ".join(f"{k} {v}" for k, v in said.items() if v is not None))


def judge_path(mtu: int | None, segment: int | None, *, is_v6: bool, chart: Chart) -> None:
    """Whether packets of the usual size fit on the way. `segment`: the kernel's largest TCP segment, bytes."""
    sizes = [mtu] if mtu else []
    if segment:
        sizes.append(segment + _TCP_IP[6 if is_v6 else 4])
    if not sizes:
        return
    size = min(sizes)
    if size < _SMALLEST:
        text = f"packets of {size} bytes at most fit on the way to it (path MTU; Ethernet: {_ETHERNET})"
        chart.warn(
            text, "Look for a tunnel, a VPN or a mobile link with a wrong MTU: large messages may get stuck there"
        )
    elif size < _ETHERNET:
        chart.well(f"the path MTU is {size} bytes, less than Ethernet's {_ETHERNET}: a tunnel or DSL, which is usual")
    else:
        chart.well(f"TCP connects; the path MTU is {mtu or size} bytes")


def look(options: Options, *, is_running: bool) -> list[Finding]:
    """All there is to say about an uplink, its servers one after the other."""
    now = datetime.now(UTC)
    findings = look_at_files(options, now)
    for url in dict.fromkeys(options.servers):
        findings += look_at_server(options, url, now, is_running=is_running)
    return findings
