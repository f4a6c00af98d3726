"""What a server's refusal means and what helps against it: a table of the status codes that people meet. Pure.

The names are those of Part 4 7.39 (StatusCode) and Part 6 Annex A. A text names the thing, the place and the cure; it
goes behind the url of the server and the name of the code. The library is not imported here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the texts speak of. `own`: where our certificate lies; `thumbprint`: what the server knows it by.

    `uri`: our application URI; `login`: who we are there; `session_timeout`: how long the server keeps a session.
    """

    own: str = "own/certificate.der in the pki folder"
    thumbprint: str = "what headgate certificate FILE shows"
    uri: str = "the one in the certificate"
    login: str = "the login"
    session_timeout: str = "as long as session_timeout says"


_ANEW = "take certificate and key out of the folder own in pki, then: headgate certificate FILE"
"""To make another key: `--renew` keeps it."""
_TRUST_US = "Copy {own} into the server's folder of trusted clients, or accept {thumbprint} in its list of refused ones"

_MEANING = {
    # --- our certificate, as the server sees it [Part 4 6.1.3] ---
    "BadCertificateUntrusted": "the server does not trust the gateway's certificate. " + _TRUST_US,
    "BadSecurityChecksFailed": "the server refuses the gateway without a reason, mostly because it does not trust its "
    "certificate. " + _TRUST_US + "; its log tells more",
    "BadCertificateUriInvalid": "the application URI that was sent ({uri}) is not the one in the certificate {own}. "
    "Take application_uri out of the file, or make a new certificate: headgate certificate FILE --renew",
    "BadCertificateTimeInvalid": "the server finds the certificate {own} expired, or not valid yet. Compare both "
    "clocks; if the certificate is over, renew it: headgate certificate FILE --renew",
    "BadCertificateIssuerTimeInvalid": "who issued the certificate {own} has a certificate that is over. Get a new "
    "one, or " + _ANEW,
    "BadCertificateHostNameInvalid": "the host in a certificate is not the host in the url. Write the url with a name "
    "that the server's certificate has, or make a new certificate for the server",
    "BadCertificateUseNotAllowed": "the certificate {own} may not be used for this: its key usage lacks what OPC UA "
    "asks for. Get a new one, or " + _ANEW,
    "BadCertificateIssuerUseNotAllowed": "who issued the certificate {own} may not issue any. Get one of "
    "another, or " + _ANEW,
    "BadCertificateInvalid": "the server cannot use the certificate {own}, or was given a certificate of its own that "
    "it no longer has. If the server has a new certificate, approve it: headgate trust FILE --fetch",
    "BadCertificateRevoked": "the certificate {own} was revoked. Get a new one, or " + _ANEW,
    "BadCertificateIssuerRevoked": "who issued the certificate {own} was revoked. Get one of another, or " + _ANEW,
    "BadCertificateRevocationUnknown": "the server finds no revocation list of who issued {own}. Give it one, or "
    + _ANEW,
    "BadCertificateIssuerRevocationUnknown": "the server finds no revocation list of who issued {own}. Give it one, "
    "or " + _ANEW,
    "BadCertificateChainIncomplete": "the server does not know who issued {own}. Give it the issuer's certificate, or "
    + _ANEW,
    "BadCertificatePolicyCheckFailed": "the key or the hash of {own} is too weak for the security policy, or too "
    "strong. Name another policy with security, or " + _ANEW,
    "BadNoValidCertificates": "no certificate fits the policy. Make one: headgate certificate FILE",
    "BadApplicationSignatureInvalid": "a signature is wrong: the certificate and the key of one side do not belong "
    "together. Look at the server's, or " + _ANEW,
    "BadNonceInvalid": "the server finds our random number wrong or used before. If it comes again, the server's "
    "firmware is at fault: update it, or name another policy with security",
    # --- policy and mode ---
    "BadSecurityPolicyRejected": "the server does not take this security policy. Name another one with security, or "
    "switch it on in the server",
    "BadSecurityModeRejected": "the server does not take this mode. Name the other one with security_mode, or switch "
    "it on in the server",
    "BadSecurityModeInsufficient": "the server wants encrypted messages. Set security_mode: sign_and_encrypt",
    "BadInvalidTimestamp": "the server finds our clock wrong. Compare both clocks",
    # --- identity [Part 4 5.7.3] ---
    "BadUserAccessDenied": "the server does not let {login} in, or not do this. Look at the name and the password, and "
    "at the user's rights in the server",
    "BadIdentityTokenInvalid": "the server cannot read the login of {login}: a wrong password, or an encryption it "
    "does not know. Look at the password, then at the server's log",
    "BadIdentityTokenRejected": "the server refuses {login}. Look at username and password or user_certificate, and "
    "at which logins the server allows",
    "BadIdentityChangeNotSupported": "the server does not let a session change its user. Restart the gateway",
    "BadUserSignatureInvalid": "the server finds the signature of {login} wrong: user_key does not belong to "
    "user_certificate. Give both of one pair",
    "BadLicenseExpired": "the server's licence is over. Renew it, or restart the server for another demo period",
    "BadLicenseLimitsExceeded": "the server's licence allows no more. Close other clients, or get a larger one",
    "BadLicenseNotAvailable": "the server has no licence for this. Get one",
    # --- sessions and connections ---
    "BadTooManySessions": "all sessions of the server are taken. Close other clients, raise its limit, or wait until "
    "it drops dead ones",
    "BadMaxConnectionsReached": "the server takes no more connections. Close other clients, or raise its limit",
    "BadTcpNotEnoughResources": "the server has no room for another connection. Close other clients",
    "BadTcpInternalError": "the server has a fault of its own. Look at its log; it may not have this security policy",
    "BadTcpServerTooBusy": "the server is too busy for another connection. It is tried again",
    "BadResourceUnavailable": "the server has no room left. Close other clients, or ask for less",
    "BadOutOfMemory": "the server's memory is full. Ask for fewer tags, or restart it",
    "BadSessionIdInvalid": "the server has forgotten the session, which it keeps {session_timeout}. A new one is made",
    "BadSessionClosed": "the server has closed the session. A new one is made",
    "BadSessionNotActivated": "the session is not in use. A new one is made",
    "BadSecureChannelClosed": "the server has closed the secure channel. It is opened again",
    "BadSecureChannelIdInvalid": "the server does not know the secure channel, which may be over. It is opened again",
    "BadSecureChannelTokenUnknown": "the server does not know the key of the secure channel. It is opened again",
    "BadTcpSecureChannelUnknown": "the server does not know the secure channel, which may be over. It is opened again",
    "BadConnectionClosed": "the server has closed the connection. It is opened again",
    "BadConnectionRejected": "the server refuses the connection. Look whether it allows another client, and its log",
    "BadServerHalted": "the server is halted. Start it",
    "BadShutdown": "the server is shutting down. It is tried again",
    "BadServerNotConnected": "the server has lost what it gets its values from. Look at the device behind it",
    "BadServerUriInvalid": "the server does not know itself by that URI. Look at the url",
    "BadTcpEndpointUrlInvalid": "the server does not know this url. Write it as the server shows it, with its path",
    "BadTcpMessageTypeInvalid": "the server does not understand us. Is it an OPC UA server, and is the port right?",
    "BadTcpMessageTooLarge": "a message is larger than the server takes. Lower max_per_call",
    "BadRequestTooLarge": "a request is larger than the server takes. Lower max_per_call",
    "BadResponseTooLarge": "an answer is larger than can be sent. Lower max_per_call",
    "BadEncodingLimitsExceeded": "a message is larger than the server takes. Lower max_per_call",
    "BadDecodingError": "what was sent cannot be understood. Look whether the server's firmware can be updated",
    "BadEncodingError": "the server cannot put its answer together. Look at its log",
    "BadTooManyOperations": "a request names more nodes than the server takes. Lower max_per_call",
    "BadProtocolVersionUnsupported": "the server speaks another version of the protocol. Update it",
    "BadServiceUnsupported": "the server does not have this service",
    "BadTimeout": "the server gave up on its own answer. Raise timeout, or ask for less at once",
    "BadRequestTimeout": "the server gave up on its own answer. Raise timeout, or ask for less at once",
    "BadCommunicationError": "the server cannot reach what it asks. Look at the device behind it",
    # --- subscriptions ---
    "BadTooManySubscriptions": "the server has no room for another subscription. Use fewer different values of every, "
    "close other clients, or set mode: poll",
    "BadTooManyMonitoredItems": "the server watches no more nodes. Subscribe to fewer, or set mode: poll for some",
    "BadTooManyPublishRequests": "the server keeps fewer requests than publish_requests says. Lower it",
    "BadNoSubscription": "the server has no subscription of ours any more. It is made again",
    "BadSubscriptionIdInvalid": "the server has dropped the subscription. It is made again",
    "BadMonitoredItemFilterUnsupported": "the server has no such filter for this node. Leave it to the gateway",
}


def meaning(name: str, about: About | None = None) -> str:
    """What the code of that name means, where to look, and the cure; empty for a name that is not in the table."""
    text = _MEANING.get(name, "")
    return text.format_map(asdict(about or About())) if text else ""


def explain(what: str, name: str, about: About | None = None, *, said: str = "") -> str:
    """`WHAT: NAME: what it means and the cure`. `said` is what the server said itself, which is shown where it is."""
    text = meaning(name, about)
    said = " ".join("".join(c if c.isprintable() else " " for c in said[:200]).split())
    return f"{what}: {name}{': ' if text else ''}{text}" + (f" (the server says: {said})" if said else "")
