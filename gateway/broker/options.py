"""What an embedded broker is asked to be: listeners, who may enter, and how much anybody may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 8083, "wss": 8084}

Scheme = Literal["mqtt", "mqtts", "ws", "wss"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener listens. `scheme`: mqtt, mqtts, ws or wss; port 0 means any free one; `path` is WebSocket's."""

    scheme: Scheme
    host: str
    port: int
    path: str = "/mqtt"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" + (self.path if self.is_websocket else "")

    @property
    def is_secure(self) -> bool:
        """Whether the listener speaks TLS."""
        return self.scheme in ("mqtts", "wss")

    @property
    def is_websocket(self) -> bool:
        """Whether MQTT comes in WebSocket frames."""
        return self.scheme in ("ws", "wss")


def parse_address(url: str) -> Address:
    """The listener that a url names: `mqtt://127.0.0.1:1883`. Raises ValueError with the cure."""
    example = "write mqtt://127.0.0.1:1883, or mqtts:// ws:// wss:// likewise"
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that do not close, or hold no address
        raise ValueError(f"'{url}' is no listener: an address of IPv6 stands in brackets, mqtt://[::1]:1883") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"'{url}' is no listener: {example}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"'{url}': a port is a number from 0 to 65535 (0: any free one)") from None
    if not parts.hostname:
        raise ValueError(f"'{url}' has no address to listen on: {example}; 0.0.0.0 means all of IPv4, [::] of IPv6")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"'{url}': nothing but address, port and path stands in a listener's url")
    scheme = cast(Scheme, parts.scheme)
    if scheme in ("mqtt", "mqtts") and parts.path.strip("/"):
        raise ValueError(f"'{url}': only ws:// and wss:// have a path")
    return Address(scheme, parts.hostname, _PORTS[scheme] if port is None else port, parts.path or "/mqtt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How mqtts and wss listeners show who they are, and whom they believe.

    `ca`: authorities whose client certificates are accepted; without it none is asked for. `clients`: whether a
    certificate must be shown. `identity`: what of it is the user name; `none` leaves the user name to CONNECT.
    """

    cert: Path
    key: Path | None = None
    ca: Path | None = None
    crl: Path | None = None
    clients: Literal["required", "optional"] = "required"
    identity: Literal["none", "cn", "subject"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwt:
    """How a token in CONNECT's password is believed. `key`: PEM of a public key, or the file of an HS256 secret.

    The user name is the token's claim `claim`; where CONNECT names a user, both must be equal.
    """

    key: Path
    algorithms: tuple[Literal["HS256", "RS256", "ES256"], ...]
    audience: str | None = None
    issuer: str | None = None
    claim: str = "sub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may take. Bytes, seconds, and counts; None = no limit."""

    connections: int = 10_000
    connections_per_address: int = 10_000
    connects_per_s: float = 500.0
    """New connections of one address a second, twice as many in a burst."""
    connect_timeout_s: float = 10.0
    connect_bytes: int = 16 * 1024
    """The largest packet before a login succeeded."""
    packet_bytes: int = 1024 * 1024
    receive_maximum: int = 1_000
    """Publishes with QoS 1 or 2 that a client may have in flight to us."""
    max_in_flight: int = 1_000
    """Those that we have in flight to a client, where it does not ask for fewer."""
    topic_alias_maximum: int = 64
    keep_alive_maximum_s: int | None = None
    session_expiry_maximum_s: int | None = None
    sessions: int = 10_000
    """Sessions that outlive their connection; beyond it the one that is longest offline goes."""
    subscriptions: int = 1_000
    """Per session."""
    topic_levels: int = 64
    queue_messages: int = 10_000
    """Waiting for one session; beyond it the oldest go."""
    queue_bytes: int = 8 * 1024 * 1024
    total_queue_bytes: int = 64 * 1024 * 1024
    retained_messages: int = 100_000
    retained_bytes: int = 64 * 1024 * 1024
    publish_per_s: float | None = None
    """Messages of one client a second; beyond it the client is read no faster."""
    publish_bytes_per_s: float | None = None
    stall_s: float = 60.0
    """A client that takes nothing for so long while messages wait is disconnected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All of it. Users come from a password file, tokens or certificates; where there is none, anybody may enter.

    `users` and `acl` are in mosquitto's formats. `admins`: user names that may read `$SYS` without a rule of the ACL.
    `anonymous`: whether a client without user name is let in although users are set.
    """

    listen: tuple[Address, ...]
    users: Path | None = None
    acl: Path | None = None
    admins: frozenset[str] = frozenset()
    anonymous: bool = False
    tls: Tls | None = None
    jwt: Jwt | None = None
    limits: Limits = field(default_factory=Limits)
    commit_interval_s: float = 1.0
    sync: Literal["interval", "always"] = "interval"

    @property
    def knows_who(self) -> bool:
        """Whether there is anything by which a client can prove who it is."""
        by_certificate = self.tls is not None and self.tls.ca is not None and self.tls.identity != "none"
        return self.users is not None or self.jwt is not None or by_certificate

    @property
    def asks_who(self) -> bool:
        """Whether a client must prove who it is on every listener."""
        return all(self.asks_who_at(address) for address in self.listen)

    def asks_who_at(self, address: Address) -> bool:
        """Whether a client must prove who it is on this listener."""
        certificates = self.tls is not None and self.tls.ca is not None and self.tls.clients == "required"
        by_certificate = certificates and address.is_secure
        return by_certificate or (not self.anonymous and (self.users is not None or self.jwt is not None))
