"""Urls of servers: opc.tcp://HOST:PORT/PATH."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

PORT = 4840
"""What IANA has registered for OPC UA."""
_EXAMPLE = "Write opc.tcp://10.0.0.9:4840"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens. `url` is the whole, as it is sent to the server."""

    url: str
    host: str
    port: int


def place_of(url: str) -> Place:
    """Take a url apart. Raises ValueError with the cure."""
    parts = urlsplit(url)
    if parts.scheme != "opc.tcp":
        raise ValueError(f"'{url}' is no url of an OPC UA server. {_EXAMPLE}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a login stands in the url, for everybody to see. Write username: and password: beside it")
    try:
        port = PORT if parts.port is None else parts.port
    except ValueError:
        raise ValueError(f"the port of '{url}' is none. {_EXAMPLE}") from None
    if not parts.hostname or not 0 < port < 65536:
        raise ValueError(f"'{url}' names no host, or no port that can be. {_EXAMPLE}")
    if parts.query or parts.fragment:
        raise ValueError(f"'{url}' has something behind its path. Take it out")
    host = parts.hostname
    shown = f"[{host}]" if ":" in host else host
    return Place(f"opc.tcp://{shown}:{port}{parts.path}", host, port)
