"""Who we are to a server: what is read from files, and what is refused before anything is sent."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateBuilder, Name

from drivers.opcua.connecting.identity import login_of, rsa_of
from drivers.opcua.options import DeviceOptions
from gateway.errors import RefusedError


def certificate_of(key):
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    builder = CertificateBuilder(Name([]), Name([]), key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def holder(tmp_path, certificate, key):
    (tmp_path / "user.der").write_bytes(certificate)
    (tmp_path / "user.pem").write_bytes(key)
    return DeviceOptions(user_certificate=str(tmp_path / "user.der"), user_key=str(tmp_path / "user.pem"))


def test_without_a_login_it_is_anonymous():
    login = login_of(DeviceOptions())
    assert (login.name, login.user, login.key) == ("an anonymous login", None, None)


def test_a_login_never_shows_what_is_secret(tmp_path, ua_pair, monkeypatch):
    monkeypatch.setenv("PW", "hush")
    login = login_of(DeviceOptions.model_validate({"username": "joe", "password": "${env:PW}"}))
    assert (login.user, login.password) == ("joe", "hush")
    assert "hush" not in repr(login)
    pair = ua_pair()
    login = login_of(holder(tmp_path, pair.der, pair.key))
    assert login.certificate == pair.der
    assert "key" not in repr(login)


def test_a_user_without_a_password_has_an_empty_one():
    assert login_of(DeviceOptions(username="joe")).password == ""


def test_a_certificate_without_its_key_is_refused(tmp_path, ua_pair):
    with pytest.raises(RefusedError, match=r"user.pem: the key is not that of .*user.der. Give a pair"):
        login_of(holder(tmp_path, ua_pair().der, ua_pair("urn:tests:other").key))


@pytest.mark.parametrize("broken", ["user.der", "user.pem"])
@pytest.mark.parametrize("how", ["gone", "empty", "garbage"])
def test_files_that_cannot_be_read_are_named(tmp_path, ua_pair, broken, how):
    options = holder(tmp_path, ua_pair().der, ua_pair().key)
    if how == "gone":
        (tmp_path / broken).unlink()
    else:
        (tmp_path / broken).write_bytes(b"" if how == "empty" else b"-----BEGIN rubbish")
    with pytest.raises(RefusedError, match=broken):
        login_of(options)


@pytest.mark.parametrize(
    ("bits", "policy", "goes"),
    [(2048, "Basic256Sha256", True), (1024, "Basic256Sha256", False), (1024, "Basic256", True)],
)
def test_a_servers_key_must_be_as_long_as_its_policy_asks_for(bits, policy, goes):
    der = certificate_of(generate_private_key(65537, bits))
    if goes:
        assert rsa_of(der, policy).key_size == bits
        return
    with pytest.raises(ValueError, match="none of RSA with 2048 bits at least"):
        rsa_of(der, policy)


def test_a_key_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="none of RSA"):
        rsa_of(certificate_of(elliptic(SECP256R1())), "Basic256Sha256")
    with pytest.raises(ValueError, match=r"."):
        rsa_of(b"no certificate", "Basic256Sha256")
