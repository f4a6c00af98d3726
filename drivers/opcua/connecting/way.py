"""How a server is connected with: what was chosen of it, who we are, and what follows for channel and session. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from asyncua import ua as _ua
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.endpoints import Choice, class_of
from drivers.opcua.connecting.explaining import About
from drivers.opcua.connecting.identity import Login, rsa_of
from drivers.opcua.connecting.pki import Own
from drivers.opcua.connecting.wire import MAX_MESSAGE
from drivers.opcua.options import DeviceOptions

ua: Any = _ua  # its names are made at run time: no checker sees them


@dataclass(frozen=True, slots=True)
class Way:
    """`choice` is the endpoint, `login` who we are, `own` our certificate, None where nothing is signed."""

    choice: Choice
    login: Login
    own: Own | None = field(repr=False)

    @property
    def thumbprint(self) -> str:
        """Of our certificate, empty without: a session is taken up with the one it began with [Part 4 5.7.3]."""
        return self.own.thumbprint if self.own else ""

    @property
    def server(self) -> bytes:
        """The server's certificate, DER, without its chain."""
        return certificates.leaf_of(self.choice.certificate)

    def policy(self) -> Any:
        """The library's object that signs and encrypts. Raises ValueError where the server's key is none for it."""
        kind = class_of(self.choice.policy)
        if self.own is None:
            return kind()
        rsa_of(self.server, self.choice.policy)
        chain = [x509.load_der_x509_certificate(der) for der in certificates.split(self.own.chain)[1:]]
        ours = x509.load_der_x509_certificate(self.own.certificate)
        # It was looked at when its file was read; to do so again takes 40 ms of the loop, 400 on a small machine.
        key = load_pem_private_key(self.own.key, None, unsafe_skip_rsa_key_validation=True)
        return kind(self.server, ours, key, self.choice.mode, host_cert_chain=chain)

    def creation(self, options: DeviceOptions, nonce: bytes) -> Any:
        """The CreateSession request [Part 4 5.7.2]."""
        uri = self.own.application_uri if self.own else options.application_uri or "urn:headgate"
        request = ua.CreateSessionRequest()
        parameters = request.Parameters
        parameters.ClientDescription = ua.ApplicationDescription(
            ApplicationUri=uri,
            ProductUri="urn:headgate",
            ApplicationName=ua.LocalizedText("headgate"),
            ApplicationType=ua.ApplicationType.Client,
        )
        parameters.EndpointUrl = self.choice.url
        parameters.SessionName = f"headgate {uri}"
        parameters.ClientNonce = nonce
        parameters.ClientCertificate = self.own.certificate if self.own else None
        parameters.RequestedSessionTimeout = options.session_timeout * 1000
        parameters.MaxResponseMessageSize = MAX_MESSAGE
        return request

    def about(self, options: DeviceOptions) -> About:
        """What the texts of refusals speak of."""
        kept = f"for {timedelta(seconds=options.session_timeout)} at most"
        known = About(login=self.login.name, session_timeout=kept)
        if self.own is None:
            return known
        own = str(self.own.certificate_path)
        return replace(known, own=own, thumbprint=self.own.thumbprint, uri=self.own.application_uri)
