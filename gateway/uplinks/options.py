"""What an uplink is told: where to connect, as whom, and in what shape to publish. Pure; knows nothing of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from gateway.uplinks.topics import check_template

Version: TypeAlias = Literal["5", "3.1.1"]
Order: TypeAlias = Literal["live_first", "in_order"]

_PORTS = {"mqtt": 1883, "mqtts": 8883}
DEFAULT_TOPICS = {"json": "{prefix}/{device}", "value": "{prefix}/{device}/{tag}"}


class Secret(Protocol):
    """A text that never prints itself; `gateway.secrets.Secret` is one."""

    def reveal(self) -> str:
        """The text itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to trust the server and how to prove who we are. Files are read anew at each connect: rotate them freely.

    Without `ca` the system's certificate store is trusted. `cert` and `key` are PEM files; where `key` is None it
    stands in `cert`. `server_name` replaces the host in SNI and in the check of the certificate. `verify=False`
    accepts any certificate: an alarm is logged.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""
    alpn: tuple[str, ...] = ()
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Server:
    """One server, as its url named it."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.secure else 'mqtt'}://{host}:{self.port}"


def parse_server(url: str) -> Server:
    """The server an `mqtt://` or `mqtts://` url names. Raises ValueError with the cure."""
    if "@" in url:  # before anything quotes it
        raise ValueError("a url here carries no login: put it under `username` and `password`")
    parts = urlsplit(url)
    shown = url.partition("?")[0].partition("#")[0]  # what follows may be a token
    if parts.scheme not in _PORTS:
        raise ValueError(f"'{shown}' is no server: write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"'{shown}': nothing may follow the port")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0:
        raise ValueError(f"'{url}': write mqtt://HOST:PORT with a port from 1 to 65535, or leave the port out")
    return Server(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "mqtts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One uplink. `servers` are urls, tried in turn from the first. Raises ValueError with the cure.

    `client_id` is `{gateway}-{name}` where none is given, `topic` the default of the payload format, and `retain` what
    fits it: no for `json`, yes for `value`. `prefix` and `topic` are templates, see `topics`. Sizes in bytes, times in
    seconds. `max_packet` limits packets for servers that announce no limit; `max_in_flight` is lowered to 20 for QoS 2
    and to what the server announces. `version` "5" falls back to 3.1.1 where the server refuses it. `holds`: whether
    the spool keeps records until this uplink has acknowledged them; by default unless `qos` is 0.

    `order`: after an outage, what is new goes at once and the backlog beside it (`live_first`), or everything in the
    order of its numbers. The backlog is sent at `replay_rate` values a second (None: as fast as it goes with half of
    what may be in flight), and begins after a random time of at most `replay_delay_s`. `commands`: whether tags may be
    written from there.
    """

    name: str
    gateway: str
    servers: tuple[str, ...]
    client_id: str = ""
    username: str | None = None
    password: Secret | None = None
    tls: Tls | None = None
    qos: Literal[0, 1, 2] = 1
    version: Version = "5"
    keep_alive_s: int = 15
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 60.0
    payload: Literal["json", "value"] = "json"
    prefix: str = "headgate/{gateway}"
    topic: str = ""
    retain: bool | None = None
    max_in_flight: int = 100
    max_packet: int | None = None
    holds: bool | None = None
    order: Order = "live_first"
    replay_rate: float | None = None
    replay_delay_s: float = 30.0
    commands: bool = False

    def __post_init__(self) -> None:
        if not self.client_id:
            object.__setattr__(self, "client_id", f"{self.gateway}-{self.name}")
        if not self.topic:
            object.__setattr__(self, "topic", DEFAULT_TOPICS[self.payload])
        if self.holds is None:
            object.__setattr__(self, "holds", self.qos > 0)
        if self.retain is None:
            object.__setattr__(self, "retain", self.payload == "value")
        mistake = self._mistake()
        if mistake:
            raise ValueError(mistake)

    def _mistake(self) -> str | None:
        servers = [parse_server(url) for url in self.servers]
        if not servers:
            return "an uplink needs at least one server"
        if self.tls is not None and not all(server.secure for server in servers):
            return "`tls` needs mqtts:// urls: mqtt:// is not encrypted"
        if self.tls is not None and self.tls.key is not None and self.tls.cert is None:
            return "`tls.key` needs `tls.cert`"
        if self.password is not None and self.username is None:
            return "`password` needs a `username`"
        if not 5 <= self.keep_alive_s <= 65535:
            return "`keep_alive` is between 5 s and 65535 s"
        if not 1 <= self.max_in_flight <= 10000:
            return "`max_in_flight` is between 1 and 10000"
        if self.max_packet is not None and self.max_packet < 1024:
            return "`max_packet` is at least 1024 bytes"
        if self.payload == "value" and "{tag}" not in self.topic:
            return "`payload: value` needs {tag} in its `topic`"
        wrong = check_template(self.prefix, {"gateway"})
        return self._wrong_pace() if wrong is None else f"`prefix`: {wrong}"

    def _wrong_pace(self) -> str | None:
        if self.replay_rate is not None and not 1 <= self.replay_rate <= 10_000_000:
            return "`replay_rate` is between 1 and 10000000 values a second"
        if not 0 <= self.replay_delay_s <= 3600:
            return "`replay_delay` is between 0 s and 1 h"
        return None
