"""Security against servers of other people: every policy, mode and login; what is wrong is refused and explained."""

import asyncio
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import ua

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.pki import Pki
from drivers.opcua.connecting.session import Session
from drivers.opcua.options import DeviceOptions
from gateway.clock import SystemClock
from gateway.errors import LineError
from gateway.metrics import Metrics

BOTH = ["node-opcua", "asyncua"]
STRONG = ["Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep"]
MODES = ["sign", "sign_and_encrypt"]
ALL_MODES = ["None", "Sign", "SignAndEncrypt"]
HOST = socket.gethostname()


class Keys:
    """A folder of certificates with keys, as people bring them, and the folder of those that a server trusts."""

    def __init__(self, folder):
        self.folder = folder
        self.made = {}

    def make(self, name, when=None):
        """`NAME.der` and `NAME.pem`, a certificate for five years from `when`."""
        if name not in self.made:
            key = certificates.make_key()
            der = certificates.make(key, f"urn:tests:{name}", HOST, when or datetime.now(UTC))
            (self.folder / f"{name}.der").write_bytes(der)
            (self.folder / f"{name}.pem").write_bytes(certificates.key_pem(key))
            self.made[name] = der
        return self.folder / f"{name}.der", self.folder / f"{name}.pem"

    def trusted(self, *names, called="trusted"):
        """A folder with these certificates alone."""
        folder = self.folder / called
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.der").write_bytes(self.made[name])
        return str(folder)

    def pki(self, name):
        """A pki folder of ours in which `name` is our certificate."""
        own = self.folder / f"pki-{name}" / "own"
        if not own.exists():
            own.mkdir(parents=True, mode=0o700)
            own.parent.chmod(0o700)
            der, key = self.make(name)
            (own / "certificate.der").write_bytes(der.read_bytes())
            (own / "key.pem").write_bytes(key.read_bytes())
            (own / "key.pem").chmod(0o600)
        return own.parent


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    return Keys(folder)


@pytest.fixture
def session_of(keys):
    """`session_of(server, security="none")` makes a session, with our certificate `gateway` unless `own` names one."""

    def make(server, *, own="gateway", channel_s=3600.0, **options):
        said = {"pki": str(keys.pki(own)), "trust": "first_use", "timeout": "10s", **options}
        checked = DeviceOptions.model_validate(said)
        return Session(server.url, checked, clock=SystemClock(), metrics=Metrics(), channel_s=channel_s)

    return make


async def state(session):
    request = ua.ReadRequest()
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=ua.NodeId(2259), AttributeId=ua.AttributeIds.Value)]
    return (await session.call(request)).Results[0].Value.Value


def refusal(session):
    """How opening fails."""

    async def scene():
        try:
            with pytest.raises(LineError) as caught:
                await session.open()
        finally:
            await session.close()
        return caught.value

    error = asyncio.run(scene())
    assert session.line in str(error)
    return error


def visit(session):
    """Open, read, take up again, read, close; gives whether the session was taken up."""

    async def scene():
        try:
            assert await session.open() is False
            assert await state(session) == 0
            shown = repr(session)
            await session.drop()
            is_resumed = await session.open()
            assert await state(session) == 0
            return is_resumed, shown
        finally:
            await session.close()

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("kind", "policies"),
    [
        ("node-opcua", ["none", *STRONG, "Basic256"]),  # newer OpenSSL has no Basic128Rsa15 for Node.js
        ("asyncua", ["none", *STRONG]),
        ("asyncua", ["Basic256", "Basic128Rsa15"]),  # by themselves: it protects logins with whichever it finds first
    ],
)
def test_every_policy_mode_and_login_goes_and_no_wrong_login_does(
    opcua_servers, session_of, keys, kind, policies, monkeypatch
):
    monkeypatch.setenv("PW", "schlüssel")
    monkeypatch.setenv("WRONG", "wrong")
    (user, user_key), (stranger, stranger_key), _ = keys.make("user"), keys.make("stranger"), keys.make("gateway")
    server = opcua_servers(
        kind,
        policies=["None", *(policy for policy in policies if policy != "none")],
        modes=ALL_MODES,
        users={"joe": "schlüssel"},
        users_trusted=keys.trusted("user", called="users"),
        trusted=keys.trusted("gateway"),
        anonymous=kind == "node-opcua",  # asyncua's server lets every certificate in where anybody may come in
        types=False,
    )
    right = {
        "user": {"username": "joe", "password": "${env:PW}"},
        "certificate": {"user_certificate": str(user), "user_key": str(user_key)},
    }
    wrong = {
        "password": ({"username": "joe", "password": "${env:WRONG}"}, "user 'joe'"),
        "user": ({"username": "jim", "password": "${env:PW}"}, "user 'jim'"),
        "certificate": ({"user_certificate": str(stranger), "user_key": str(stranger_key)}, "stranger.der"),
    }
    if kind == "node-opcua":
        right["anonymous"] = {}
    else:
        wrong["anonymous"] = {}, "the file says anonymous"
    number = 0
    for policy in policies:
        for mode in MODES if policy != "none" else MODES[1:]:
            for login, said in right.items():
                is_resumed, shown = visit(session_of(server, security=policy, security_mode=mode, **said))
                assert ("no security" if policy == "none" else f"{policy} {mode}") in shown
                # asyncua's server keeps no session without a connection; node-opcua takes no certificate for it
                assert is_resumed is (kind == "node-opcua" and login != "certificate"), (policy, mode, login)
                number += 1
            for said, called in wrong.values() if mode == MODES[1] else ():
                error = refusal(session_of(server, security=policy, security_mode=mode, **said))
                assert error.cause in ("BadUserAccessDenied", "BadIdentityTokenRejected", "BadIdentityTokenInvalid")
                assert called in str(error)
                assert ". " in str(error), "a cure"
                number += 1
    modes = 2 * len(policies) - ("none" in policies)
    assert number == len(right) * modes + len(wrong) * len(policies)


@pytest.mark.parametrize("kind", BOTH)
def test_what_the_file_does_not_allow_is_refused_before_the_server_is_told_anything(
    opcua_servers, session_of, keys, kind
):
    keys.make("gateway")
    server = opcua_servers(
        kind,
        policies=["None", "Aes128_Sha256_RsaOaep", "Basic256Sha256"],
        modes=["None", "SignAndEncrypt"],
        types=False,
    )
    error = refusal(session_of(server, trust="approved"))
    assert error.cause == "BadCertificateUntrusted"
    assert "headgate trust" in str(error)
    assert "Basic256Sha256 sign_and_encrypt" in visit(session_of(server, trust="first_use"))[1]
    visit(session_of(server, trust="approved"))
    error = refusal(session_of(server, security_mode="sign"))
    assert error.cause == "BadSecurityModeRejected"
    error = refusal(session_of(server, security="Aes256_Sha256_RsaPss"))
    assert error.cause == "BadSecurityPolicyRejected"
    assert "the server offers Aes128_Sha256_RsaOaep sign_and_encrypt, Basic256Sha256 sign_and_encrypt, none" in str(
        error
    )
    server.quit()
    server.start(policies=["None"], modes=["None"])
    error = refusal(session_of(server))
    assert error.cause == "BadSecurityPolicyRejected"
    assert "the server offers connections without security alone" in str(error)
    assert "Switch security on in the server" in str(error)


@pytest.mark.parametrize("kind", BOTH)
def test_a_certificate_of_ours_that_the_server_does_not_take_is_explained(opcua_servers, session_of, keys, kind):
    keys.make("gateway")
    keys.make("other")
    keys.make("expired", datetime.now(UTC) - timedelta(days=6 * 365))
    server = opcua_servers(
        kind,
        policies=["None", "Basic256Sha256"],
        modes=["None", "SignAndEncrypt"],
        trusted=keys.trusted("gateway", "expired"),
        types=False,
    )
    visit(session_of(server))

    unknown = refusal(session_of(server, own="other"))
    assert unknown.cause in ("BadCertificateUntrusted", "BadSecurityChecksFailed")
    assert "pki-other/own/certificate.der into the server's folder of trusted clients" in str(unknown)

    session = session_of(server)
    own = session._pki.own()
    session._pki.own = lambda: replace(own, application_uri="urn:tests:somebody:else")
    wrong = refusal(session)
    assert wrong.cause == "BadCertificateUriInvalid"
    assert "(urn:tests:somebody:else) is not the one in the certificate" in str(wrong)
    assert "headgate certificate" in str(wrong)

    session = session_of(server)
    der, key = keys.make("expired")
    session._pki.own = lambda: replace(
        own,
        certificate=der.read_bytes(),
        chain=der.read_bytes(),
        key=key.read_bytes(),
        application_uri="urn:tests:expired",
    )
    expired = refusal(session)
    assert expired.cause in ("BadCertificateTimeInvalid", "BadSecurityChecksFailed", "BadCertificateUntrusted")
    assert ". " in str(expired)


@pytest.mark.parametrize(("kind", "security"), [("node-opcua", "Basic256Sha256"), ("asyncua", "Aes256_Sha256_RsaPss")])
def test_a_channel_is_renewed_under_load(opcua_servers, session_of, keys, kind, security):
    keys.make("gateway")
    server = opcua_servers(
        kind,
        policies=["None", security],
        modes=["None", "SignAndEncrypt"],
        types=False,
        token_lifetime=4000,
    )
    session = session_of(server, security=security, channel_s=4.0)

    async def scene():
        await session.open()

        async def ask():
            while session._renewals.value < 1:
                assert await state(session) == 0
                await asyncio.sleep(0.01)
            for _ in range(20):
                assert await state(session) == 0

        try:
            await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(4))), 30)
        finally:
            await session.close()

    asyncio.run(scene())


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_that_was_not_told_of_our_renewed_certificate_is_shown_the_former_one(
    opcua_servers, session_of, keys, kind, caplog
):
    folder = keys.pki("gateway")
    server = opcua_servers(
        kind,
        policies=["None", "Basic256Sha256"],
        modes=["None", "SignAndEncrypt"],
        trusted=keys.trusted("gateway"),
        types=False,
    )
    new = Pki(folder, None, clock=SystemClock()).renew()
    assert new.certificate != keys.made["gateway"] == (folder / "own" / "former.der").read_bytes()

    is_resumed, shown = visit(session_of(server))
    assert shown.endswith("open, Basic256Sha256 sign_and_encrypt>")
    assert is_resumed is (kind == "node-opcua")
    said = [record.getMessage() for record in caplog.records if "renewed certificate" in record.getMessage()]
    assert len(said) == 1, "once, though it was connected twice"
    assert str(new.certificate_path) in said[0]

    (folder / "own" / "former.der").unlink()
    error = refusal(session_of(server))
    assert error.cause in ("BadCertificateUntrusted", "BadSecurityChecksFailed")
