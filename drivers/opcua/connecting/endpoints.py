"""Which of a server's endpoints is taken: asked for without security, chosen by rule, and verified in the session.

Whoever sits between us and the server may change the list, for it comes unsigned [Part 4 5.5.4]. So nothing is ever
taken that the file does not allow, and the list that comes signed with the session must lead to the same choice
[Part 4 5.7.2.2]: who has left the stronger policies out is found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

from asyncua import ua as _ua
from asyncua.crypto import security_policies as _policies

from drivers.opcua.connecting.wire import dial
from drivers.opcua.options import DeviceOptions
from drivers.opcua.url import Place
from gateway.errors import LineError

ua: Any = _ua  # its names are made at run time: no checker sees them
policies: Any = _policies  # without types

NONE: Final = "none"
STRONG: Final = ("Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep")
"""What `auto` takes, strongest first; their URIs end like this [Part 7 6.6]."""
_CLASSES: Final[dict[str, Any]] = {
    "Aes256_Sha256_RsaPss": policies.SecurityPolicyAes256Sha256RsaPss,
    "Basic256Sha256": policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": policies.SecurityPolicyAes128Sha256RsaOaep,
    "Basic256": policies.SecurityPolicyBasic256,
    "Basic128Rsa15": policies.SecurityPolicyBasic128Rsa15,
    NONE: policies.SecurityPolicyNone,
}
_URI: Final = "http://opcfoundation.org/UA/SecurityPolicy#"
_BINARY: Final = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
_MODES: Final = {"sign": ua.MessageSecurityMode.Sign, "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt}
_MODE_NAMES: Final = {mode: name for name, mode in _MODES.items()}
_CHANNEL_MS: Final = 60_000
_MOST_SHOWN: Final = 12
"""Endpoints that a message lists: a server may have any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is taken. `url` is ours with the path that the server announces for it: its host may not be reachable.

    `certificate` is the server's, perhaps with its chain. `token` is the policy for the login, `token_policy` the name
    of the security policy that protects it.
    """

    policy: str
    mode: Any
    url: str
    certificate: bytes = field(repr=False)
    token: Any = field(repr=False)
    token_policy: str

    @property
    def is_secure(self) -> bool:
        """Whether messages are signed at least."""
        return self.policy != NONE

    @property
    def security(self) -> tuple[str, Any, bytes]:
        """What must be the same for a session to be taken up: policy, mode, and the server's certificate."""
        return self.policy, self.mode, self.certificate

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody else can read what is sent."""
        return bool(self.mode == ua.MessageSecurityMode.SignAndEncrypt)

    @property
    def uses_certificate(self) -> bool:
        """Whether anything is protected with the server's certificate, so that it must be trusted."""
        return self.is_secure or self.token_policy != NONE

    def __str__(self) -> str:
        return f"{self.policy} {_MODE_NAMES[self.mode]}" if self.is_secure else "no security"


def class_of(policy: str) -> Any:
    """The library's class for a policy."""
    return _CLASSES[policy]


async def discover(place: Place, timeout_s: float) -> list[Any]:
    """Ask the server for its endpoints, on a connection of its own without security. Raises LineError, ServiceFault."""
    wire = await dial(place, policies.SecurityPolicyNone(), timeout_s)
    try:
        await wire.hello(place.url, timeout_s)
        await wire.open_channel(_CHANNEL_MS, timeout_s)
        request = ua.GetEndpointsRequest()
        request.Parameters.EndpointUrl = place.url
        answer = wire.decode(request, await wire.ask(request, timeout_s))
        wire.close_channel()
    finally:
        wire.abort()
        await wire.closed
    return list(answer.Endpoints)


# --- the choice -----------------------------------------------------------------------------------------------------


def choose(endpoints: Iterable[Any], place: Place, options: DeviceOptions) -> Choice:
    """The strongest endpoint that the file allows and whose login fits. Raises LineError, which says what there is."""
    usable = [one for one in endpoints if _is_usable(one)]
    wanted = STRONG if options.security == "auto" else (options.security,)
    mode = ua.MessageSecurityMode.None_ if options.security == NONE else _MODES[options.security_mode]
    fitting = [one for policy in wanted for one in _nearest(usable, place) if _name_of(one.SecurityPolicyUri) == policy]
    if not fitting:
        raise _no_policy(usable, place, options)
    fitting = [one for one in fitting if one.SecurityMode == mode]
    if not fitting:
        text = f"the server offers {_listed(usable)}, and security_mode asks for {options.security_mode}"
        raise LineError(
            f"{place.url}: {text}. Name the other mode, or switch this one on in the server",
            cause="BadSecurityModeRejected",
        )
    for one in fitting:
        token = _token_of(one, options)
        if token is not None:
            return Choice(
                policy=_name_of(one.SecurityPolicyUri),
                mode=one.SecurityMode,
                url=_own_url(one, place),
                certificate=one.ServerCertificate or b"",
                token=token,
                token_policy=_protection_of(token, one),
            )
    raise _no_login(fitting, place, options)


def verify(choice: Choice, endpoints: Sequence[Any], place: Place, options: DeviceOptions) -> Choice:
    """The same choice from the list that came with the session, with the login as that says. Raises LineError.

    Where the session is not signed the list is worth no more than the first one; some servers send none at all. They
    need not repeat their certificates in it.
    """
    if not endpoints or not choice.is_secure:
        return choice
    signed = choose(endpoints, place, options)
    if (signed.policy, signed.mode) != (choice.policy, choice.mode):
        text = (
            f"somebody has changed the list of the server's endpoints: it led to {choice}, the signed one to {signed}"
        )
        raise LineError(f"{place.url}: {text}. Look who sits between", cause="BadSecurityChecksFailed")
    return replace(choice, token=signed.token, token_policy=signed.token_policy)


def _is_usable(endpoint: Any) -> bool:
    """Whether it speaks binary messages over TCP, which is what we speak; some servers leave the profile out."""
    if not endpoint.TransportProfileUri:
        return str(endpoint.EndpointUrl or "").startswith("opc.tcp://")
    return bool(endpoint.TransportProfileUri == _BINARY)


def _nearest(endpoints: Sequence[Any], place: Place) -> list[Any]:
    """Those with our path and our host first: a server may listen under many."""
    path = urlsplit(place.url).path.rstrip("/")

    def distance(endpoint: Any) -> tuple[bool, bool]:
        host, found = _parts(endpoint)
        return found.rstrip("/") != path, host != place.host

    return sorted(endpoints, key=distance)


def _own_url(endpoint: Any, place: Place) -> str:
    path = urlsplit(place.url).path
    return place.url.removesuffix(path) + (_parts(endpoint)[1] or path)


def _parts(endpoint: Any) -> tuple[str, str]:
    """Host and path as the server announces them; nothing where they cannot be read."""
    try:
        parts = urlsplit(str(endpoint.EndpointUrl or ""))
    except ValueError:
        return "", ""
    return parts.hostname or "", parts.path


def _name_of(uri: object) -> str:
    """Our name for a policy's URI, empty for one that we do not know."""
    name = str(uri or "").removeprefix(_URI)
    name = NONE if name == "None" else name
    return name if name in _CLASSES and str(uri).startswith(_URI) else ""


# --- the login ------------------------------------------------------------------------------------------------------


def _token_of(endpoint: Any, options: DeviceOptions) -> Any:
    """The policy of our login, the best protected first; None where there is none that may be used."""
    kinds = ua.UserTokenType
    kind, ranks = kinds.Anonymous, None
    if options.user_certificate is not None:
        kind, ranks = kinds.Certificate, _ranks(options, is_plain_allowed=False)
    elif options.username is not None:
        # A password that nothing encrypts is sent where the channel encrypts, or where the file renounces security.
        is_encrypted = endpoint.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt
        is_plain_allowed = is_encrypted or options.security == NONE
        kind, ranks = kinds.UserName, _ranks(options, is_plain_allowed=is_plain_allowed)
    found = [one for one in endpoint.UserIdentityTokens or () if one.TokenType == kind]
    if ranks is None:
        return next(iter(found), None)
    protected = ((ranks.get(_protection_of(one, endpoint)), one) for one in found)
    usable = [(rank, one) for rank, one in protected if rank is not None]
    return min(usable, key=lambda pair: pair[0])[1] if usable else None


def _protection_of(token: Any, endpoint: Any) -> str:
    """The policy that protects a login: its own, or else the endpoint's [Part 4 7.41]. Nobody's needs none."""
    if token.TokenType == ua.UserTokenType.Anonymous:
        return NONE
    return _name_of(token.SecurityPolicyUri or endpoint.SecurityPolicyUri)


def _ranks(options: DeviceOptions, *, is_plain_allowed: bool) -> dict[str, int]:
    """Policies that may protect a login, the best first. A deprecated one must be named, here as everywhere."""
    names = [*STRONG]
    if options.security not in (*STRONG, "auto", NONE):
        names.append(options.security)
    if is_plain_allowed:
        names.append(NONE)
    return {name: rank for rank, name in enumerate(names)}


# --- what is said where nothing fits ---------------------------------------------------------------------------------


def _no_policy(usable: Sequence[Any], place: Place, options: DeviceOptions) -> LineError:
    cause = "BadSecurityPolicyRejected"
    names = {_name_of(one.SecurityPolicyUri) for one in usable}
    if not usable:
        return LineError(
            f"{place.url}: the server offers no endpoint that speaks opc.tcp. Look at the port", cause=cause
        )
    text = f"{place.url}: the server offers {_listed(usable)}"
    if options.security != "auto":
        return LineError(f"{text}, not {options.security}. Name another one with security", cause=cause)
    old = sorted(names - {NONE, ""})
    if old:
        cure = f"Switch a newer policy on in the server, or name the deprecated one, security: {old[0]}"
        return LineError(f"{text}, which is not taken by itself. {cure}", cause=cause)
    text = f"{place.url}: the server offers connections without security alone, and those are not taken by themselves"
    return LineError(
        f"{text}. Switch security on in the server; where it has none, name that: security: none", cause=cause
    )


def _no_login(fitting: Sequence[Any], place: Place, options: DeviceOptions) -> LineError:
    kinds = {ua.UserTokenType.Anonymous: "anonymous", ua.UserTokenType.UserName: "a user name",
             ua.UserTokenType.Certificate: "a certificate"}  # fmt: skip
    wanted = "anonymous"
    if options.username is not None or options.user_certificate is not None:
        wanted = "a user name" if options.username is not None else "a certificate"
    tokens = [token.TokenType for one in fitting for token in one.UserIdentityTokens or ()]
    there = [name for kind, name in kinds.items() if kind in tokens]
    if wanted in there:
        text = f"the server takes {wanted} only in a way that others could read or forge"
        cure = "Set security_mode: sign_and_encrypt, or switch another policy for it on in the server"
    else:
        text = f"the server takes these logins: {', '.join(there) or 'none that we have'}; the file says {wanted}"
        cure = "Write username and password, or user_certificate and user_key, or allow it in the server"
    return LineError(f"{place.url}: {text}. {cure}", cause="BadIdentityTokenRejected")


def _listed(usable: Sequence[Any]) -> str:
    names = {
        " ".join(
            filter(None, (_name_of(one.SecurityPolicyUri) or "an unknown policy", _MODE_NAMES.get(one.SecurityMode)))
        )
        for one in usable
    }
    return ", ".join(sorted(names)[:_MOST_SHOWN])
