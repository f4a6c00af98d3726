"""Certificates by which devices and the gateway know each other: what commands show of them, and ask a driver to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCertificate:
    """A certificate as people compare it. Times are UTC; `thumbprint` is SHA-1, it and `sha256` are lower case hex."""

    path: Path
    thumbprint: str
    sha256: str
    subject: str
    issuer: str
    application_uri: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate(ShownCertificate):
    """What the gateway shows to servers. `is_new`: made or renewed just now, so no server knows it yet.

    `cautions` are what a person should know of it, each with its cure.
    """

    key_path: Path
    is_new: bool
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate(ShownCertificate):
    """What a server shows to the gateway. `urls` are those of servers that showed it; none: it was put there by hand.

    `since`: when it came or was approved, ISO 8601; `why` it waits or is trusted, in words.
    """

    state: Literal["trusted", "pending"]
    urls: tuple[str, ...] = ()
    since: str = ""
    why: str = ""


class Certificates(Protocol):
    """The certificates on both sides of a device's connection. Raises RefusedError where files are in the way.

    `folder` is where they are; devices may share it. `url` is the device's as certificates remember it. `unused` says
    why ours does not matter for this device, where that is so, and `unchecked` why the server's does not.
    """

    folder: Path
    url: str
    unused: str
    unchecked: str

    def seen(self) -> OwnCertificate | None:
        """Our certificate, where there is one. Nothing is changed."""

    def own(self, *, renew: bool = False) -> OwnCertificate:
        """Our certificate: made where there is none, renewed where it is time to, or where that is asked for."""

    def servers(self) -> Sequence[ServerCertificate]:
        """The servers' certificates: those that wait for a person first, then the trusted ones."""

    def faults(self) -> Sequence[str]:
        """What is wrong with files that should be servers' certificates, each with its path."""

    def approve(self, certificate: ServerCertificate) -> None:
        """Trust a certificate that waits, from the next connection on."""

    def remove(self, certificate: ServerCertificate) -> None:
        """Trust one no more, from the next connection on: it waits again. One that waits already is forgotten."""

    async def fetch(self) -> Sequence[ServerCertificate]:
        """Ask the server for its certificates; those that are not trusted wait from now on. Raises LineError.

        Nothing else is told or asked: no login, no certificate of ours.
        """
