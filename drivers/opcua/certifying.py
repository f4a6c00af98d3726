"""The certificates of a device, for the commands that show, make, approve and remove them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drivers.opcua.connecting.pki import Own, Pki
from drivers.opcua.connecting.trusting import Entry
from drivers.opcua.faults import ServiceFault
from drivers.opcua.plan import options_of
from drivers.opcua.url import place_of
from gateway.certificates import OwnCertificate, ServerCertificate
from gateway.clock import Clock
from gateway.errors import LineError, RefusedError
from gateway.model import Device

_MOST_CHAINS = 5
"""Certificates that one server may show: one for each sort of key, where it has more than one."""
_WHY = {
    "unknown": "never seen before",
    "changed": "another one is trusted for this server: it was renewed or replaced, or somebody is in between",
    "elsewhere": "a trusted authority has issued it, but not for the host of the url",
    "out_of_date": "it is not valid at this time",
    "revoked": "its authority has revoked it",
    "removed": "somebody removed it from the trusted ones",
    "first_use": "it was the first one that came",
    "approved": "approved",
    "asked": "asked for by headgate trust",
}


class Certificates:
    """Ours and the server's, of one device."""

    def __init__(self, device: Device, *, clock: Clock) -> None:
        options = options_of(device)
        self._device = device
        self._pki = Pki(options.pki, options.application_uri, clock=clock)
        self.folder: Path = options.pki
        self.url = place_of(device.url).url
        is_anonymous = options.username is None and options.user_certificate is None
        self.unused = "security: none signs and encrypts nothing" if options.security == "none" else ""
        self.unchecked = self.unused if is_anonymous else ""  # a login may be encrypted for the server alone

    def __repr__(self) -> str:
        return f"<certificates of {self._device.name} in {self.folder}>"

    def seen(self) -> OwnCertificate | None:
        """Our certificate, where there is one. Raises RefusedError where it cannot be used."""
        own = self._pki.seen()
        return None if own is None else _own(own)

    def own(self, *, renew: bool = False) -> OwnCertificate:
        """Our certificate, made or renewed where needed. Raises RefusedError."""
        return _own(self._pki.renew() if renew else self._pki.own())

    def servers(self) -> Sequence[ServerCertificate]:
        """The servers' certificates, those that wait first. Raises RefusedError."""
        return [_server(entry) for entry in self._pki.servers.entries()]

    def faults(self) -> Sequence[str]:
        """Files that should be servers' certificates and are none. Raises RefusedError."""
        return self._pki.servers.faults()

    def approve(self, certificate: ServerCertificate) -> None:
        """Trust a certificate that waits. Raises RefusedError."""
        self._pki.servers.approve(self._entry(certificate))

    def remove(self, certificate: ServerCertificate) -> None:
        """Trust one no more; forget one that waits. Raises RefusedError."""
        self._pki.servers.remove(self._entry(certificate))

    def _entry(self, certificate: ServerCertificate) -> Entry:
        for entry in self._pki.servers.entries():
            if entry.path == certificate.path and entry.certificate.thumbprint == certificate.thumbprint:
                return entry
        raise RefusedError(f"{certificate.path}: it was taken away just now. Look again: headgate trust FILE")

    async def fetch(self) -> Sequence[ServerCertificate]:
        """Ask the server for its certificates, without security. Raises LineError and RefusedError."""
        from drivers.opcua.connecting.endpoints import discover  # noqa: PLC0415 - the library takes 25 MB

        try:
            endpoints = await discover(place_of(self._device.url), options_of(self._device).timeout)
        except ServiceFault as error:
            raise LineError(f"{self.url}: {error}", cause=error.name) from None
        chains = dict.fromkeys(bytes(one.ServerCertificate or b"") for one in endpoints)  # mostly one, for all of them
        shown = [chain for chain in chains if chain][:_MOST_CHAINS]
        return [_server(self._pki.servers.look_at(chain, self.url)) for chain in shown]


def _own(own: Own) -> OwnCertificate:
    return OwnCertificate(
        path=own.certificate_path,
        thumbprint=own.thumbprint,
        sha256=own.sha256,
        subject=own.subject,
        issuer=own.issuer,
        application_uri=own.application_uri,
        hosts=own.hosts,
        not_before=own.not_before,
        not_after=own.not_after,
        key_path=own.key_path,
        is_new=own.is_new,
        cautions=own.cautions,
    )


def _server(entry: Entry) -> ServerCertificate:
    shown = entry.certificate
    return ServerCertificate(
        path=entry.path,
        thumbprint=shown.thumbprint,
        sha256=shown.sha256,
        subject=shown.subject,
        issuer=shown.issuer,
        application_uri=shown.application_uri,
        hosts=shown.hosts,
        not_before=shown.not_before,
        not_after=shown.not_after,
        state=entry.state,
        urls=entry.note.urls,
        since=entry.note.since,
        why=_WHY.get(entry.note.why, entry.note.why),
    )
