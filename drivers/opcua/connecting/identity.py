"""Who we are to a server: nobody, a user with a password, or the holder of a certificate [Part 4 7.40].

A password is encrypted with the server's certificate and its last nonce, unless the channel does it:

    UInt32  length of what follows     password, UTF-8     nonce of the server        [Part 4 7.40.2.2]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from asyncua import ua as _ua
from asyncua.crypto import security_policies as _policies
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.certificate import Key
from drivers.opcua.connecting.endpoints import NONE, STRONG, Choice, class_of
from drivers.opcua.connecting.folder import read_bounded
from drivers.opcua.options import DeviceOptions
from gateway.errors import RefusedError

ua: Any = _ua  # its names are made at run time: no checker sees them
policies: Any = _policies  # without types

_PADDING: Final = {"Aes256_Sha256_RsaPss": 66, "Basic128Rsa15": 11}
"""Bytes of a block that padding takes: twice the hash and 2 for OAEP, 42 with SHA-1; 11 for PKCS #1 v1.5."""
_OAEP: Final = 42
_LEAST_KEY: Final = 2048
_LEAST_OLD_KEY: Final = 1024


@dataclass(frozen=True, slots=True)
class Login:
    """What a login needs, read from its files. `name` is how it is called in texts."""

    name: str
    user: str | None = None
    password: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: Key | None = field(default=None, repr=False)


def login_of(options: DeviceOptions) -> Login:
    """The login of the file. Reads files: call it in a thread. Raises RefusedError with the cure."""
    if options.user_certificate is not None and options.user_key is not None:
        leaf = _loaded(options.user_certificate, certificates.read_chain)[0]
        key = _loaded(options.user_key, certificates.read_key)
        if not leaf.fits(key):
            raise RefusedError(f"{options.user_key}: the key is not that of {options.user_certificate}. Give a pair")
        return Login(f"the certificate {options.user_certificate}", certificate=leaf.der, key=key)
    if options.username is not None:
        password = "" if options.password is None else options.password.reveal()
        return Login(f"user '{options.username}'", options.username, password)
    return Login("an anonymous login")


def _loaded(path: Path, read: Callable[[bytes], Any]) -> Any:
    try:
        return read(read_bounded(path))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path}: {error}") from None


def activation(login: Login, choice: Choice, policy: Any, server: bytes, nonce: bytes) -> Any:
    """The ActivateSession request. `server` is the server's certificate, `nonce` its last one [Part 4 5.7.3].

    Raises ValueError where the login cannot be protected as the server wants it.
    """
    request = ua.ActivateSessionRequest()
    parameters = request.Parameters
    parameters.LocaleIds = ["en"]
    if choice.is_secure:
        parameters.ClientSignature.Algorithm = policy.AsymmetricSignatureURI
        parameters.ClientSignature.Signature = policy.asymmetric_cryptography.signature(server + nonce)
    if login.key is not None:
        token = ua.X509IdentityToken(CertificateData=login.certificate)
        signature, algorithm = policies.sign_asymmetric(login.key, server + nonce, class_of(choice.token_policy).URI)
        parameters.UserTokenSignature = ua.SignatureData(Algorithm=algorithm, Signature=signature)
    elif login.user is not None:
        token = ua.UserNameIdentityToken(UserName=login.user)
        token.Password, token.EncryptionAlgorithm = _password(login, choice, server, nonce)
    else:
        token = ua.AnonymousIdentityToken()
    token.PolicyId = choice.token.PolicyId
    parameters.UserIdentityToken = token
    return request


def _password(login: Login, choice: Choice, server: bytes, nonce: bytes) -> tuple[bytes, str | None]:
    """The password as it is sent, and how it is encrypted. Raises ValueError."""
    secret = login.password.encode()
    if choice.token_policy == NONE:  # the choice has seen to it that the channel encrypts, or nothing has to
        return secret, None
    policy: Any = class_of(choice.token_policy)
    key = rsa_of(server, choice.token_policy)
    plain = (len(secret) + len(nonce)).to_bytes(4, "little") + secret + nonce
    step = key.key_size // 8 - _PADDING.get(choice.token_policy, _OAEP)
    blocks = [policy.encrypt_asymmetric(key, plain[at : at + step]) for at in range(0, len(plain), step)]
    return b"".join(blocks), policy.AsymmetricEncryptionURI


def rsa_of(server: bytes, policy: str) -> RSAPublicKey:
    """The public key of a server's certificate. Raises ValueError where it is none for that policy [Part 7 6.6]."""
    least = _LEAST_KEY if policy in STRONG else _LEAST_OLD_KEY
    key = x509.load_der_x509_certificate(server).public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < least:
        raise ValueError(f"the server's key is none of RSA with {least} bits at least")
    return key
