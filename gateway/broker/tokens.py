"""Tokens (JWT, RFC 7519) in CONNECT's password: believed where a key of ours signed them, for as long as they say.

The settings name the algorithms, never the token, and a key serves the one algorithm that its kind is for. PyJWT is
imported here alone, and only when tokens are configured. A token never stands in a message or a log.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.broker.options import Jwt

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

LEEWAY_S = 30.0
"""How far clocks may differ."""
_LEAST_SECRET = 32
"""Bytes: RFC 7518, 3.2, wants as many as the hash has."""
_LEAST_RSA = 2048
_MOST_KEYS = 16
_LONGEST_NAME = 65_535
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


class TokenError(Exception):
    """The token is not believed. Says why, for the log, without quoting it."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token is for: the user name, and when (s since 1970) it is over, leeway included."""

    username: str
    expires_at: float


class Tokens:
    """Checks tokens with the keys of one file.

    `data` is the content of `options.key`: one secret for HS256, or PEM blocks of public keys; several, so that a key
    can be changed while tokens of the old one are about. Raises ValueError: `file: what, and the cure`.
    """

    def __init__(self, data: bytes, options: Jwt) -> None:
        try:
            import jwt  # noqa: PLC0415 - only when tokens are configured
        except ImportError:
            raise ValueError(f"{options.key}: tokens need the package PyJWT, which is not installed") from None
        self._jwt = jwt
        self._options = options
        self._data = data
        try:
            self._keys = _keys(data, options)
        except ValueError as error:
            raise ValueError(f"{options.key}: {error}") from None

    def __repr__(self) -> str:
        return f"<Tokens {', '.join(self._keys)}>"

    def has_keys_of(self, other: Tokens) -> bool:
        """Whether both believe the same tokens."""
        return self._data == other._data

    def check(self, token: bytes, username: str | None, now: float) -> Bearer:
        """Say whom a token is for. `username`: whom CONNECT names, if anybody. `now`: s since 1970.

        Raises TokenError.
        """
        claims = self._claims(token)
        name = claims.get(self._options.claim)
        if not isinstance(name, str) or not _is_text(name):
            raise TokenError(f"its claim {self._options.claim!r} is no user name")
        if username and username != name:
            raise TokenError(f"it is for {name[:64]!r}, but CONNECT names {username[:64]!r}")
        expires_at = _time(claims, "exp") + LEEWAY_S
        if now >= expires_at:
            raise TokenError(f"it ended {now - expires_at + LEEWAY_S:.0f} s ago, by the clock of this machine")
        if "nbf" in claims and (early := _time(claims, "nbf") - LEEWAY_S - now) > 0:
            raise TokenError(f"it begins in {early + LEEWAY_S:.0f} s, by the clock of this machine")
        return Bearer(name, expires_at)

    def _claims(self, token: bytes) -> dict[str, Any]:
        """What a token says that a key of ours signed, for our audience, by our issuer."""
        jwt = self._jwt
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError):  # the latter two: JSON as no library expects it
            raise TokenError("it is malformed") from None
        if "crit" in head or "b64" in head:  # RFC 7515, 4.1.11: who does not know what it demands must refuse
            raise TokenError("its head demands what is not known here")
        algorithm = head.get("alg")
        keys = self._keys.get(algorithm) if isinstance(algorithm, str) else None
        if keys is None:
            raise TokenError(f"it is signed with {str(algorithm)[:16]!r}, which is not among {', '.join(self._keys)}")
        problem = ""
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    audience=self._options.audience,
                    issuer=self._options.issuer,
                    options={  # times are compared by `check`, with the clock that the rest of the broker goes by
                        "require": ["exp", *(["iss"] if self._options.issuer is not None else [])],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
                return claims  # noqa: TRY300 - the loop ends here
            except jwt.InvalidSignatureError:
                problem = "its signature is of no key of ours"
            except jwt.InvalidTokenError as error:
                raise TokenError(self._reason(error)) from None
        raise TokenError(problem)

    def _reason(self, error: Exception) -> str:
        """What is wrong with a token that a key of ours signed."""
        jwt = self._jwt
        if isinstance(error, jwt.MissingRequiredClaimError):
            return f"it has no claim {error.claim!r}"
        if isinstance(error, jwt.InvalidAudienceError):
            ours = self._options.audience
            return f"its audience is not {ours!r}" if ours is not None else "it is for an audience, and ours is not set"
        if isinstance(error, jwt.InvalidIssuerError):
            return f"its issuer is not {self._options.issuer!r}"
        return "it is malformed"


def _is_text(name: str) -> bool:
    """Whether MQTT could say it: JSON can hold halves of characters, and NUL."""
    try:
        return 0 < len(name.encode()) <= _LONGEST_NAME and "\0" not in name
    except UnicodeEncodeError:
        return False


def looks_like_token(password: bytes) -> bool:
    """Whether a password has a token's shape: three parts, the first a JSON object in base64url."""
    return password.startswith(b"eyJ") and password.count(b".") == 2


def _time(claims: dict[str, Any], name: str) -> float:
    """A claim that is a time (RFC 7519, 2: NumericDate)."""
    value = claims[name]
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) < 1e15
        or not math.isfinite(value)
    ):
        raise TokenError(f"its claim {name!r} is no time")
    return float(value)


def _keys(data: bytes, options: Jwt) -> dict[str, list[Any]]:
    """The keys by the algorithm that each is for. ValueError says what is wrong with the file, and the cure."""
    wanted = options.algorithms
    if not wanted:
        raise ValueError("no algorithm is allowed. List one of HS256, RS256, ES256")
    if "HS256" not in wanted:
        return _public_keys(data, options)
    if len(wanted) > 1:
        raise ValueError(
            "HS256 wants a secret and the other algorithms a public key, which must never be taken for one another. "
            "Allow one or the other"
        )
    if b"-----BEGIN" in data:
        raise ValueError("HS256 wants a secret, and this is a key or certificate. Allow RS256 or ES256 instead")
    secret = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(secret) < _LEAST_SECRET:
        raise ValueError(
            f"the secret has {len(secret)} bytes, HS256 wants {_LEAST_SECRET}. Make one: openssl rand -hex 32"
        )
    return {"HS256": [secret]}


def _public_keys(data: bytes, options: Jwt) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for block in _PEM.finditer(data):
        key = _public_key(block[1].decode(), block[0])
        algorithm = _algorithm(key)
        if algorithm not in options.algorithms:
            raise ValueError(f"one of the keys is for {algorithm}, which is not allowed. Allow it, or take the key out")
        found.setdefault(algorithm, []).append(key)
    for algorithm in options.algorithms:
        if algorithm not in found:
            raise ValueError(
                f"there is no public key for {algorithm} in it. Add one as PEM, or do not allow {algorithm}"
            )
    if sum(map(len, found.values())) > _MOST_KEYS:
        raise ValueError(f"more than {_MOST_KEYS} keys. Take out those that no token is signed with any more")
    return found


def _public_key(kind: str, block: bytes) -> RSAPublicKey | EllipticCurvePublicKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only for these algorithms
        from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415 - only for these algorithms
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - likewise
    except ImportError:
        raise ValueError("RS256 and ES256 need the package cryptography, which is not installed") from None
    if "PRIVATE" in kind:
        raise ValueError("this is a private key, which has no business here. Make its public key: openssl pkey -pubout")
    if kind == "CERTIFICATE":
        raise ValueError("this is a certificate. Take out its public key: openssl x509 -noout -pubkey")
    try:
        key = load_pem_public_key(block)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("one of the keys cannot be read. It must be a public key as PEM") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ValueError(  # noqa: TRY004 - a mistake in a file, like the others
            "one of the keys is neither RSA nor EC. RS256 wants RSA, ES256 wants EC with the curve P-256"
        )
    return key


def _algorithm(key: RSAPublicKey | EllipticCurvePublicKey) -> str:
    """The one algorithm that a key may be used with."""
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - only for these algorithms

    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _LEAST_RSA:
            raise ValueError(f"one of the keys has {key.key_size} bits, RSA wants {_LEAST_RSA}. Make a longer one")
        return "RS256"
    if key.curve.name != "secp256r1":
        raise ValueError(f"one of the keys is on the curve {key.curve.name}, ES256 wants P-256 (prime256v1)")
    return "ES256"
