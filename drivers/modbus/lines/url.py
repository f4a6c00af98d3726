"""What a device's url says: where its line leads to, how frames are cut there, and how long a character takes.

| url                                      | line                                                    |
| tcp://HOST[:502]                         | Modbus TCP                                              |
| rtu:///dev/ttyUSB0?baud=9600&parity=E    | RTU on a serial port                                    |
| ascii:///dev/ttyUSB0?baud=9600&bits=7    | ASCII on a serial port                                  |
| rtu+tcp://HOST:PORT                      | RTU frames over TCP, as a serial device server gives it |
| ascii+tcp://HOST:PORT                    | ASCII frames over TCP                                   |

What stands behind the `?`:

| parameter                   | where                | default                                                      |
| baud, parity, bits, stop    | serial               | 19200 8E1, for ASCII 19200 7E1 [V1.02 2.5.1, 2.5.2]          |
| echo=auto, on, off          | serial, over TCP     | auto: whether our own bytes come back is found out           |
| rs485=on, rts_low, off      | serial               | off: the port's mode is left alone                           |
| rs485_before, rs485_after   | serial               | 0ms: what the transceiver needs around what is sent          |
| low_latency=on, off         | serial               | on                                                           |

The standard wants two stop bits where there is no parity [V1.02 2.5.1]; devices in the field use one, and so do we
unless `stop=2` says otherwise. Over TCP nobody here counts bits, unless the url says by `baud` how fast the line behind
is.

It never opens anything; of a serial port it only looks where its name leads to, so that two names of one port are known
as one line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from drivers.stream import Endpoint, Tcp
from gateway.quantities import parse_duration

if TYPE_CHECKING:  # a file with TCP devices alone pays for no serial port
    from drivers.port import Parity, SerialPort

PORT = 502

Framing = Literal["tcp", "rtu", "ascii"]
Echo = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a line leads to. `port` and `parameters` make its LineKey; `character_s` is 0 where nobody counts bits.

    `echo` says whether what we send comes back to us, as some adapters of two-wire lines give it.
    """

    endpoint: Endpoint
    framing: Framing
    port: str
    parameters: str = ""
    character_s: float = 0.0
    echo: Echo = "auto"


_FRAMINGS: Final[Mapping[str, Framing]] = {
    "tcp": "tcp",
    "rtu": "rtu",
    "ascii": "ascii",
    "rtu+tcp": "rtu",
    "ascii+tcp": "ascii",
    "rtuovertcp": "rtu",
    "asciiovertcp": "ascii",
}
SCHEMES = tuple(_FRAMINGS)
"""What a url may begin with."""
_NOT_BUILT: Final[Mapping[str, str]] = {
    "udp": "Modbus over UDP is not built: such devices nearly always speak Modbus TCP too",
    "tls": "Modbus over TLS is not built: let a TLS tunnel beside the gateway, such as stunnel, listen on 127.0.0.1",
    "mbaps": "Modbus over TLS is not built: let a TLS tunnel beside the gateway, such as stunnel, listen on 127.0.0.1",
}
_CURE_TCP = f"Use tcp://HOST[:{PORT}]"
_CURE_SERIAL = "Use {scheme}:///dev/serial/by-id/NAME?baud=9600&parity=E"
_CURE_OVER = "Use {scheme}://HOST:PORT"

_CHARACTER = ("baud", "parity", "bits", "stop")
_OVER_TCP = (*_CHARACTER, "echo")
_SERIAL = (*_OVER_TCP, "rs485", "rs485_before", "rs485_after", "low_latency")

_SLOWEST, _FASTEST = 50, 4_000_000
_LONGEST_DELAY_S = 0.1
_PARITIES: Final[Mapping[str, Parity]] = {"n": "N", "none": "N", "e": "E", "even": "E", "o": "O", "odd": "O"}
_SWITCH: Final = {"on": True, "off": False}
_ECHOES: Final[Mapping[str, Echo]] = {"auto": "auto", "on": "on", "off": "off"}
_RS485: Final = {"on": True, "rts_low": False, "off": None}
_BITS: Final[Mapping[str, Literal[7, 8]]] = {"7": 7, "8": 8}
_STOPS: Final[Mapping[str, Literal[1, 2]]] = {"1": 1, "2": 2}

T = TypeVar("T")


def route_of(url: str, backup: str | None = None) -> Route:
    """What the url of a Modbus device means; `backup` is a second way to the same devices.

    Raises ValueError with the cure.
    """
    route = _route(url)
    if not backup:
        return route
    if route.framing != "tcp" and not isinstance(route.endpoint, Tcp):
        raise ValueError(f"a backup host is for lines over TCP, and {url.partition(':')[0]}:// is none. Take it out")
    second = _route(backup)
    if second.framing != route.framing or not isinstance(second.endpoint, Tcp):
        scheme = urlsplit(url).scheme
        raise ValueError(f"the backup must speak as the url does. Use {scheme}://HOST:PORT as backup")
    if second.port == route.port:
        raise ValueError(f"the backup is the host of the url: {second.port}. Name another one, or take it out")
    from drivers.modbus.lines.backup import Backup  # noqa: PLC0415 - few files have one

    endpoint = Backup(route.endpoint, second.endpoint)
    parameters = f"{route.parameters} backup {second.port}".strip()
    return Route(endpoint, route.framing, route.port, parameters, route.character_s, route.echo)


def _route(url: str) -> Route:
    if "@" in url.partition("?")[0]:  # before anything quotes it
        raise ValueError(f"a Modbus device knows no login. {_CURE_TCP}")
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    cure = _cure(scheme)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"'{url}': {error}. {cure}") from None
    if scheme in _NOT_BUILT:
        raise ValueError(f"{_NOT_BUILT[scheme]}. {_CURE_TCP}")
    if scheme not in _FRAMINGS:
        others = "rtu:///dev/serial/by-id/NAME, rtu+tcp://HOST:PORT, or ascii in place of rtu"
        raise ValueError(f"'{url}' is no url of a Modbus device. {cure}, {others}")
    if scheme in ("rtu", "ascii"):
        return _serial(url, parts, _FRAMINGS[scheme])
    plain = scheme == "tcp"
    if host and not _is_name(host):
        raise ValueError(f"{host!r} is no name of a host. {cure}")
    if not host or port == 0 or parts.path not in ("", "/") or parts.fragment or (plain and parts.query):
        raise ValueError(f"'{url}' must hold a host and a port and nothing else. {cure}")
    if plain:
        endpoint = Tcp(host, PORT if port is None else port)
        return Route(endpoint, "tcp", str(endpoint))
    if port is None:
        raise ValueError(f"'{url}' must name a port: serial device servers have no usual one. {cure}")
    return _over_tcp(Tcp(host, port), _Query(parts.query, _OVER_TCP), _FRAMINGS[scheme])


def _is_name(host: str) -> bool:
    """Whether it can be one; an IPv6 address has been looked at when the url was taken apart."""
    labels = host.removesuffix(".").split(".")
    return ":" in host or (all(0 < len(x) < 64 for x in labels) and host.isprintable() and " " not in host)


def _cure(scheme: str) -> str:
    """What to write instead, for somebody who began like that."""
    framing = _FRAMINGS.get(scheme, "tcp")
    if framing == "tcp":
        return _CURE_TCP
    return (_CURE_SERIAL if scheme == framing else _CURE_OVER).format(scheme=scheme)


def _serial(url: str, parts: SplitResult, framing: Framing) -> Route:
    path = unquote(parts.path)
    if parts.netloc:
        raise ValueError(f"'{url}' has too few slashes. Use {framing}:///{parts.netloc.lstrip('/')}{path}, with three")
    if not path.strip("/") or "\0" in path or parts.fragment or path.endswith("/"):
        raise ValueError(f"'{url}' must hold the path of a port. {_cure(framing)}")
    query = _Query(parts.query, _SERIAL)
    endpoint = _port(path, query, framing)
    echo = query.one_of("echo", _ECHOES, "auto")
    extra = [f"{name}={query[name]}" for name in _SERIAL if name in query and name not in _CHARACTER]
    parameters = " ".join([framing, endpoint.settings, *(x for x in extra if x not in _PLAIN)])
    return Route(endpoint, framing, os.path.realpath(path), parameters, endpoint.character_s, echo)


_PLAIN = ("echo=auto", "rs485=off", "low_latency=on")
"""What is so anyway: two devices of one line agree, whether they say it or not."""


def _over_tcp(endpoint: Tcp, query: _Query, framing: Framing) -> Route:
    echo = query.one_of("echo", _ECHOES, "auto")
    behind = _port("behind", query, framing)
    counted = "baud" in query
    if not counted and (said := next((name for name in _CHARACTER if name in query), "")):
        raise ValueError(
            f"{said}={query[said]} without baud says nothing about a line behind TCP. Add baud=, or take it out"
        )
    words = [framing, *([behind.settings] if counted else []), *([f"echo={echo}"] if echo != "auto" else [])]
    return Route(endpoint, framing, str(endpoint), " ".join(words), behind.character_s if counted else 0.0, echo)


def _port(path: str, query: _Query, framing: Framing) -> SerialPort:
    """The port, with what the standard says where the url is silent."""
    from drivers.port import Rs485, SerialPort  # noqa: PLC0415 - see above

    usual: Literal[7, 8] = 8 if framing == "rtu" else 7
    bits = query.one_of("bits", _BITS, usual)
    if framing == "rtu" and bits != 8:
        raise ValueError("bits=7 cannot carry RTU, whose bytes have 8 bits. Take it out, or use ascii://")
    rts = query.one_of("rs485", _RS485, None)
    before, after = query.delay("rs485_before"), query.delay("rs485_after")
    if rts is None and (before or after):
        raise ValueError("rs485_before and rs485_after do nothing without rs485=on. Add it, or take them out")
    return SerialPort(
        path,
        query.baud(),
        bits,
        query.one_of("parity", _PARITIES, "E"),
        query.one_of("stop", _STOPS, 1),
        None if rts is None else Rs485(rts, before, after),
        query.one_of("low_latency", _SWITCH, True),
    )


class _Query(dict[str, str]):
    """The parameters of a url by name. Raises ValueError where one is unknown, empty or stands twice."""

    def __init__(self, query: str, known: tuple[str, ...]) -> None:
        super().__init__()
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in known:
                close = get_close_matches(name.lower(), known, 1, 0.5)
                meant = f" Did you mean {close[0]}?" if close else ""
                raise ValueError(f"the url knows no '{name}'.{meant} There are: {', '.join(known)}")
            if name in self:
                raise ValueError(f"the url says {name} twice. Keep one of them")
            self[name] = value

    def one_of(self, name: str, meanings: Mapping[str, T], default: T) -> T:
        """What the value means; the default where the url is silent."""
        if name not in self:
            return default
        value = self[name].lower()
        if value not in meanings:
            words = [word for word in meanings if len(word) == 1 or name != "parity"]
            shown = ", ".join(word.upper() if name == "parity" else word for word in words)
            raise ValueError(f"{name}={self[name]} is not known. Use one of: {shown}")
        return meanings[value]

    def baud(self) -> int:
        """The baud rate; any, since many adapters make any."""
        text = self.get("baud", "19200")
        if not (text.isascii() and text.isdigit() and _SLOWEST <= int(text[:9]) <= _FASTEST):
            raise ValueError(f"baud={text} is no baud rate. Use a number such as 9600, 19200, 38400, 115200")
        return int(text)

    def delay(self, name: str) -> float:
        """A time of at most 100 ms, in s."""
        if name not in self:
            return 0.0
        try:
            seconds = parse_duration(self[name])
        except ValueError as error:
            raise ValueError(f"{name}={error}") from None
        if seconds > _LONGEST_DELAY_S or not (seconds * 1000).is_integer():
            raise ValueError(f"{name}={self[name]} cannot be kept. Use whole milliseconds, at most 100ms")
        return seconds
