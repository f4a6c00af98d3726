"""Tokens: which are believed, and all that may be tried to have a wrong one believed."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.options import Jwt
from gateway.broker.tokens import LEEWAY_S, TokenError, Tokens, looks_like_token

NOW = 1_795_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef"
RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())


def pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


KEYS = {"HS256": (SECRET, SECRET), "RS256": (RSA, pem(RSA)), "ES256": (EC, pem(EC))}


def options(*algorithms, **kwargs):
    return Jwt(key=Path("/etc/token.key"), algorithms=algorithms or ("HS256",), **kwargs)


def tokens(*algorithms, data=None, **kwargs):
    algorithms = algorithms or ("HS256",)
    return Tokens(KEYS[algorithms[0]][1] if data is None else data, options(*algorithms, **kwargs))


def signed(algorithm="HS256", key=None, headers=None, **claims):
    claims = {"sub": "pump1", "exp": NOW + 60, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, KEYS[algorithm][0] if key is None else key, algorithm, headers=headers).encode()


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=")


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_a_token_signed_with_our_key_is_believed(algorithm):
    bearer = tokens(algorithm).check(signed(algorithm), None, NOW)
    assert bearer.username == "pump1"
    assert bearer.expires_at == NOW + 60 + LEEWAY_S


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_a_token_of_another_key_is_not_believed(algorithm):
    other = {"HS256": b"x" * 32, "RS256": OTHER_RSA, "ES256": ec.generate_private_key(ec.SECP256R1())}[algorithm]
    with pytest.raises(TokenError, match="its signature is of no key of ours"):
        tokens(algorithm).check(signed(algorithm, other), None, NOW)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_a_token_that_was_changed_is_not_believed(algorithm):
    head, _, signature = signed(algorithm).split(b".")
    body = b64({"sub": "admin", "exp": NOW + 60})
    with pytest.raises(TokenError, match="its signature is of no key of ours"):
        tokens(algorithm).check(b".".join([head, body, signature]), None, NOW)


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", None, 0, [], {}, ["HS256"], "HS384", "hs256", "RS512"]
)
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_an_algorithm_that_the_settings_do_not_name_is_refused(name, algorithm):
    for signature in (b"", b64(b"x" * 64)):
        token = b".".join([b64({"alg": name, "typ": "JWT"}), b64({"sub": "pump1", "exp": NOW + 60}), signature])
        with pytest.raises(TokenError, match=r"signed with|malformed"):
            tokens(algorithm).check(token, None, NOW)


def test_a_public_key_is_never_taken_for_a_secret():
    """The classic: sign with HS256 and the text of the RSA key, which everybody may know."""
    head, body = b64({"alg": "HS256", "typ": "JWT"}), b64({"sub": "admin", "exp": NOW + 60})
    for secret in (pem(RSA), pem(RSA).strip(), pem(RSA) + b"\n"):
        signature = b64(hmac.digest(secret, head + b"." + body, "sha256"))
        for believed in (tokens("RS256"), tokens("RS256", "ES256", data=pem(RSA) + pem(EC))):
            with pytest.raises(TokenError, match="signed with 'HS256', which is not among RS256"):
                believed.check(head + b"." + body + b"." + signature, None, NOW)


def test_a_key_in_the_tokens_own_head_is_not_used():
    numbers = OTHER_RSA.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256, "big")).decode(), "e": "AQAB"}
    for headers in ({"jwk": jwk}, {"jku": "http://127.0.0.1/keys"}, {"x5u": "http://127.0.0.1/keys"}):
        with pytest.raises(TokenError, match="signature"):
            tokens("RS256").check(signed("RS256", OTHER_RSA, headers), None, NOW)


@pytest.mark.parametrize("headers", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}])
def test_a_head_that_demands_what_is_not_known_here_is_refused(headers):
    payload = json.dumps({"sub": "pump1", "exp": NOW + 60}).encode()
    head = b64({"alg": "HS256", **headers})
    signature = b64(hmac.new(SECRET, head + b"." + b64(payload), hashlib.sha256).digest())
    with pytest.raises(TokenError, match=r"demands|malformed"):
        tokens().check(head + b"." + b64(payload) + b"." + signature, None, NOW)


@pytest.mark.parametrize(("age", "is_believed"), [(-60, True), (0, True), (29.9, True), (30, False), (1e6, False)])
def test_a_token_ends_with_the_leeway_and_not_later(age, is_believed):
    token = signed(exp=NOW - age)
    if is_believed:
        assert tokens().check(token, None, NOW).expires_at > NOW
    else:
        with pytest.raises(TokenError, match=f"it ended {age:.0f} s ago, by the clock of this machine"):
            tokens().check(token, None, NOW)


@pytest.mark.parametrize(("early", "is_believed"), [(-60, True), (0, True), (30, True), (30.5, False), (1e6, False)])
def test_a_token_begins_with_the_leeway_and_not_sooner(early, is_believed):
    token = signed(nbf=NOW + early)
    if is_believed:
        assert tokens().check(token, None, NOW)
    else:
        with pytest.raises(TokenError, match=r"it begins in .* by the clock of this machine"):
            tokens().check(token, None, NOW)


def test_a_token_without_an_end_is_refused():
    with pytest.raises(TokenError, match="it has no claim 'exp'"):
        tokens().check(signed(exp=None), None, NOW)


@pytest.mark.parametrize("time", ["1895000000", True, [], {}, "never", 1e300, -1e300])
@pytest.mark.parametrize("claim", ["exp", "nbf"])
def test_times_that_are_none_are_refused(claim, time):
    head, body = b64({"alg": "HS256"}), b64({"sub": "pump1", "exp": NOW + 60, claim: time})
    signature = b64(hmac.digest(SECRET, head + b"." + body, "sha256"))
    with pytest.raises(TokenError, match=f"its claim '{claim}' is no time"):
        tokens().check(b".".join([head, body, signature]), None, NOW)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"null", b"9" * 5000])
def test_numbers_that_are_none_are_refused(number):
    head, body = b64({"alg": "HS256"}), b64(b'{"sub":"pump1","exp":' + number + b"}")
    signature = b64(hmac.digest(SECRET, head + b"." + body, "sha256"))
    with pytest.raises(TokenError):
        tokens().check(b".".join([head, body, signature]), None, NOW)


@pytest.mark.parametrize("name", [None, "", 7, ["pump1"], {"a": 1}, True, "a\0b", "\ud800", "x" * 65_536])
@pytest.mark.parametrize("claim", ["sub", "client"])
def test_a_claim_that_is_no_user_name_is_refused(name, claim):
    with pytest.raises(TokenError, match=f"its claim '{claim}' is no user name|malformed"):
        tokens(claim=claim).check(signed(**{claim: name}), None, NOW)


def test_the_claim_that_the_settings_name_is_the_user():
    assert tokens(claim="client").check(signed(client="valve"), None, NOW).username == "valve"


def test_whom_connect_names_must_be_whom_the_token_is_for():
    assert tokens().check(signed(), "pump1", NOW).username == "pump1"
    assert tokens().check(signed(), "", NOW).username == "pump1"
    with pytest.raises(TokenError, match="it is for 'pump1', but CONNECT names 'admin'"):
        tokens().check(signed(), "admin", NOW)


@pytest.mark.parametrize(
    ("audience", "aud", "wrong"),
    [
        ("mqtt", "mqtt", ""),
        ("mqtt", ["web", "mqtt"], ""),
        (None, None, ""),
        ("mqtt", None, "no claim 'aud'"),
        ("mqtt", "web", "its audience is not 'mqtt'"),
        ("mqtt", ["web"], "its audience is not 'mqtt'"),
        ("mqtt", {"mqtt": 1}, "its audience is not 'mqtt'"),
        (None, "mqtt", "it is for an audience, and ours is not set"),
    ],
)
def test_the_audience_must_be_ours(audience, aud, wrong):
    believed = tokens(audience=audience)
    if not wrong:
        assert believed.check(signed(aud=aud), None, NOW)
    else:
        with pytest.raises(TokenError, match=wrong):
            believed.check(signed(aud=aud), None, NOW)


@pytest.mark.parametrize(
    ("issuer", "iss", "wrong"),
    [("us", "us", ""), (None, "us", ""), ("us", None, "no claim 'iss'"), ("us", "them", "its issuer is not 'us'")],
)
def test_the_issuer_must_be_ours(issuer, iss, wrong):
    believed = tokens(issuer=issuer)
    if not wrong:
        assert believed.check(signed(iss=iss), None, NOW)
    else:
        with pytest.raises(TokenError, match=wrong):
            believed.check(signed(iss=iss), None, NOW)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"eyJ..",
        b"eyJhbGciOiJIUzI1NiJ9",
        b"eyJhbGciOiJIUzI1NiJ9..",
        b"\xff\xfe..",
        b"eyJhbGciOiJIUzI1NiJ9.\xff.\xff",
        b64(b"[" * 100_000) + b"..",
        b64(b'{"a":' * 50_000) + b"..",
        b64(b"7") + b".e30.x",
    ],
)
def test_what_is_no_token_is_refused_without_ado(token):
    with pytest.raises(TokenError):
        tokens().check(token, None, NOW)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(token):
    with pytest.raises(TokenError):
        tokens().check(token, None, NOW)


def test_no_message_quotes_a_token_or_a_secret():
    token = signed(exp=NOW - 100)
    with pytest.raises(TokenError) as caught:
        tokens().check(token, None, NOW)
    assert token.decode()[:20] not in str(caught.value)
    assert SECRET.decode() not in repr(tokens())
    with pytest.raises(ValueError) as wrong:
        tokens(data=b"short-secret")
    assert "short-secret" not in str(wrong.value)


def test_several_public_keys_serve_while_one_replaces_the_other():
    both = tokens("RS256", data=b"old\n" + pem(RSA) + b"\nnew\n" + pem(OTHER_RSA))
    assert both.check(signed("RS256"), None, NOW)
    assert both.check(signed("RS256", OTHER_RSA), None, NOW)
    assert not both.has_keys_of(tokens("RS256"))
    assert tokens("RS256").has_keys_of(tokens("RS256"))


def test_a_token_that_two_keys_do_not_fit_is_refused_for_its_signature():
    both = tokens("RS256", data=pem(RSA) + pem(OTHER_RSA))
    with pytest.raises(TokenError, match="signature"):
        both.check(signed("RS256", rsa.generate_private_key(65537, 2048)), None, NOW)


def _certificate():
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    times = {"not_valid_before": 1_700_000_000, "not_valid_after": 1_900_000_000}
    builder = x509.CertificateBuilder(name, name, RSA.public_key(), 1)
    for part, at in times.items():
        builder = getattr(builder, part)(dt.datetime.fromtimestamp(at, dt.UTC))
    return builder.sign(RSA, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


PRIVATE = RSA.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize(
    ("algorithms", "data", "wrong"),
    [
        ((), SECRET, "no algorithm is allowed"),
        (("HS256", "RS256"), SECRET, "must never be taken for one another"),
        (("RS256", "HS256"), pem(RSA), "must never be taken for one another"),
        (("HS256",), pem(RSA), "HS256 wants a secret, and this is a key"),
        (("HS256",), b"  " + PRIVATE, "HS256 wants a secret, and this is a key"),
        (("HS256",), b"x" * 31 + b"\n", "31 bytes, HS256 wants 32. Make one: openssl rand -hex 32"),
        (("HS256",), b"", "0 bytes"),
        (("RS256",), SECRET, "no public key for RS256"),
        (("RS256",), b"", "no public key for RS256"),
        (("RS256",), PRIVATE, "private key"),
        (("RS256",), _certificate(), "openssl x509 -noout -pubkey"),
        (("RS256",), pem(EC), "for ES256, which is not allowed"),
        (("ES256",), pem(RSA), "for RS256, which is not allowed"),
        (("RS256", "ES256"), pem(RSA), "no public key for ES256"),
        (("RS256",), pem(RSA) * 17, "more than 16 keys"),
        (("RS256",), pem(rsa.generate_private_key(65537, 1024)), "1024 bits, RSA wants 2048"),
        (("ES256",), pem(ec.generate_private_key(ec.SECP384R1())), "curve secp384r1"),
        (("ES256",), pem(ed25519.Ed25519PrivateKey.generate()), "neither RSA nor EC"),
        (("RS256",), b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "cannot be read"),
    ],
)
def test_a_key_that_does_not_fit_is_named_with_its_file(algorithms, data, wrong):
    with pytest.raises(ValueError, match=r"^/etc/token\.key: ") as caught:
        Tokens(data, Jwt(key=Path("/etc/token.key"), algorithms=algorithms))
    assert wrong in str(caught.value)
    assert "BEGIN" not in str(caught.value)


def test_a_secret_ends_before_its_line_end():
    for end in (b"\n", b"\r\n"):
        assert tokens(data=SECRET + end).check(signed(), None, NOW)


@pytest.mark.parametrize(
    ("password", "does"),
    [(signed(), True), (b"secret", False), (b"", False), (b"a.b.c", False), (b"eyJ.", False), (b"eyJ.b.c.d.e", False)],
)
def test_a_token_is_told_from_a_password_by_its_shape(password, does):
    assert looks_like_token(password) == does
