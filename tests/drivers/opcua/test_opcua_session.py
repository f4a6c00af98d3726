"""A session as a server sees it: what is sent, what is taken up again, and what is left behind."""

import asyncio
import threading

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import uatcp_to_binary
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from drivers.opcua.connecting import session as sessions
from drivers.opcua.connecting import way as ways
from drivers.opcua.connecting import wire as wires
from gateway import app
from gateway.errors import LineError
from gateway.metrics import Metrics

STATE = 2259


class Clock:
    """A clock that stands until it is moved."""

    boot_id = "test"

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def wall_ms(self):
        return 1_795_000_000_000

    def state(self):
        return "synced"


# --- opening ----------------------------------------------------------------------------------------------------------


def test_a_session_is_opened_with_limits_and_namespaces(stage, ua_peer, ua_session):
    ua_peer.values |= {11705: 50, 11710: 0, 11712: 5000, 11714: "many", STATE: 0}

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, max_per_call=200)
            assert await session.open() is False
            assert (await session.call(stage.read())).Results[0].Value.Value == 0
            assert repr(session) == f"<opcua session {ua_peer.url}: open, no security>"
            await session.close()
            assert repr(session) == f"<opcua session {ua_peer.url}: closed>"
            return session

    session = stage.live(scene)
    assert session.namespaces == ("http://opcfoundation.org/UA/", "urn:plant")
    assert session.limits.max_nodes_per_translate == 200
    assert (session.limits.max_nodes_per_read, session.limits.max_nodes_per_browse) == (50, 200)
    assert (session.limits.max_monitored_items_per_call, session.limits.max_history_nodes) == (200, 200)
    assert ua_peer.names()[-1] == "CloseSession"
    assert ua_peer.heard[-1].DeleteSubscriptions is True
    assert ua_peer.sessions == {}


def test_host_and_port_are_always_ours_and_the_path_is_the_servers(stage, ua_peer, ua_session, ua_endpoint):
    ua_peer.endpoints = [ua_endpoint(url="opc.tcp://inside.plant:9/line1")]

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            await session.close()

    stage.live(scene)
    hellos = [one.EndpointUrl for one in ua_peer.heard if isinstance(one, ua.Hello)]
    assert hellos == [ua_peer.url, f"{ua_peer.url}/line1"]
    created = next(one for one in ua_peer.heard if isinstance(one, ua.CreateSessionRequest))
    assert created.Parameters.EndpointUrl == f"{ua_peer.url}/line1"


def test_the_server_is_told_what_we_take_and_what_we_want(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, session_timeout="90s")
            await session.open()
            await session.close()

    stage.live(scene)
    hello = ua_peer.heard[0]
    assert (hello.ReceiveBufferSize, hello.MaxMessageSize) == (wires.MAX_CHUNK, wires.MAX_MESSAGE)
    created = next(one for one in ua_peer.heard if isinstance(one, ua.CreateSessionRequest)).Parameters
    assert created.RequestedSessionTimeout == 90_000
    assert len(created.ClientNonce) == 32


def test_a_server_that_refuses_to_read_its_limits_together_is_asked_one_by_one(stage, ua_peer, ua_session):
    ua_peer.values[11712] = 7

    def strict(request):
        if len(request.Parameters.NodesToRead) > 1:
            return ua_peer.fault("BadTooManyOperations")(request)
        return ua_peer.read(request)

    ua_peer.answers["ReadRequest"] = strict

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            await session.close()
            return session.limits

    assert stage.live(scene).max_nodes_per_translate == 7


@pytest.mark.parametrize("security", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
@pytest.mark.parametrize("mode", ["sign", "sign_and_encrypt"])
def test_a_signed_session_is_opened_and_taken_up_again(stage, ua_peer, ua_session, security, mode):
    ua_peer.secure(security, mode=mode)

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto", security_mode=mode)
            assert await session.open() is False
            await session.drop()
            assert await session.open() is True
            await session.call(stage.read())
            await session.close()

    stage.live(scene)
    assert [one.SecurityMode.name for one in ua_peer.opened] == [
        "None_", *[{"sign": "Sign", "sign_and_encrypt": "SignAndEncrypt"}[mode]] * 2
    ]  # fmt: skip


def test_auto_takes_the_strongest_policy(stage, ua_peer, ua_session):
    ua_peer.secure("Aes128_Sha256_RsaOaep", "Basic256Sha256", "Aes256_Sha256_RsaPss")

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto")
            await session.open()
            shown = repr(session)
            await session.close()
            return shown

    assert "Aes256_Sha256_RsaPss sign_and_encrypt" in stage.live(scene)


def test_who_leaves_the_stronger_policies_out_of_the_list_is_found_out(stage, ua_peer, ua_session):
    ua_peer.secure("Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
    ua_peer.signed_endpoints, ua_peer.endpoints = ua_peer.endpoints, ua_peer.endpoints[:1]

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto"))

    error = stage.live(scene)
    assert error.cause == "BadSecurityChecksFailed"
    assert "somebody has changed the list of the server's endpoints" in str(error)
    assert "ActivateSession" not in ua_peer.names()
    assert ua_peer.sessions == {}


def test_a_session_with_another_certificate_is_refused(stage, ua_peer, ua_session, ua_pair):
    ua_peer.secure("Basic256Sha256")
    ua_peer.certificate = ua_pair("urn:tests:other").der

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto"))

    error = stage.live(scene)
    assert error.cause == "BadCertificateInvalid"
    assert "ActivateSession" not in ua_peer.names()


def test_a_server_that_cannot_sign_for_its_certificate_is_refused(stage, ua_peer, ua_session):
    ua_peer.secure("Basic256Sha256")

    def unproved(request):
        response = ua_peer.create_session(request)
        response.Parameters.ServerSignature.Signature = bytes(256)
        return response

    ua_peer.answers["CreateSessionRequest"] = unproved

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto"))

    assert stage.live(scene).cause == "BadApplicationSignatureInvalid"
    assert "ActivateSession" not in ua_peer.names()


@pytest.mark.parametrize(("security", "size"), [("Basic256Sha256", 31), ("Basic256Sha256", 0), ("none", 1025)])
def test_a_random_number_that_is_too_short_or_much_too_long_is_refused(stage, ua_peer, ua_session, security, size):
    if security != "none":
        ua_peer.secure(security)

    def short(request):
        response = ua_peer.create_session(request)
        response.Parameters.ServerNonce = bytes(size)
        return response

    ua_peer.answers["CreateSessionRequest"] = short

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security=security))

    error = stage.live(scene)
    assert error.cause == "BadNonceInvalid"
    assert f"the server's random number has {size} bytes, not 32 to 1024" in str(error)
    assert "ActivateSession" not in ua_peer.names()
    assert ua_peer.sessions == {}


def test_a_session_with_a_short_random_number_is_not_taken_up(stage, ua_peer, ua_session):
    ua_peer.secure("Basic256Sha256")

    def short(request):
        response = ua_peer.activate_session(request)
        response.Parameters.ServerNonce = ua_peer.sessions[request.RequestHeader.AuthenticationToken] = bytes(8)
        return response

    ua_peer.answers["ActivateSessionRequest"] = short

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto")
            await session.open()
            await session.drop()
            assert await session.open() is False
            await session.close()

    stage.live(scene)


def test_an_unknown_certificate_is_not_even_told_who_we_are(stage, ua_peer, ua_session):
    ua_peer.secure("Basic256Sha256")

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto", trust="approved"))

    error = stage.live(scene)
    assert error.cause == "BadCertificateUntrusted"
    assert "headgate trust" in str(error)
    assert ua_peer.names() == ["Hello", "GetEndpoints"]


def test_a_server_without_security_is_refused_unless_that_is_said(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto"))

    error = stage.live(scene)
    assert error.cause == "BadSecurityPolicyRejected"
    assert str(error).endswith("Switch security on in the server; where it has none, name that: security: none")
    assert ua_peer.names() == ["Hello", "GetEndpoints"]


def test_a_password_that_all_can_read_is_sent_only_without_security_and_warned_of_once(
    stage, ua_peer, ua_session, ua_endpoint, caplog, monkeypatch
):
    monkeypatch.setenv("PW", "secret")
    ua_peer.endpoints = [ua_endpoint(tokens=(("plain", 1, "none"),))]

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, username="joe", password="${env:PW}")
            for _ in range(2):
                await session.open()
                await session.drop()
            await session.close()

    stage.live(scene)
    token = next(
        one for one in ua_peer.heard if isinstance(one, ua.ActivateSessionRequest)
    ).Parameters.UserIdentityToken
    assert (token.UserName, token.Password, token.EncryptionAlgorithm) == ("joe", b"secret", None)
    assert [record.getMessage() for record in caplog.records] == [
        f"{ua_peer.url}: the password is sent for everybody to read, because the file says security: none"
    ]
    assert "secret" not in caplog.text


def test_a_password_is_encrypted_block_by_block_with_the_servers_nonce(
    stage, ua_peer, ua_session, ua_endpoint, ua_pair, monkeypatch
):
    password = "ü" * 300  # longer than a block
    monkeypatch.setenv("PW", password)
    ua_peer.endpoints = [ua_endpoint(tokens=(("user", 1, "Basic256Sha256"),), certificate=ua_peer.pair.der)]
    nonces = []

    def create(request):
        response = ua_peer.create_session(request)
        nonces.append(response.Parameters.ServerNonce)
        return response

    ua_peer.answers["CreateSessionRequest"] = create

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, username="joe", password="${env:PW}")
            await session.open()
            await session.close()

    stage.live(scene)
    token = next(
        one for one in ua_peer.heard if isinstance(one, ua.ActivateSessionRequest)
    ).Parameters.UserIdentityToken
    assert token.EncryptionAlgorithm == "http://www.w3.org/2001/04/xmlenc#rsa-oaep"
    from asyncua.crypto.uacrypto import decrypt_rsa_oaep

    from drivers.opcua.connecting.certificate import read_key

    key = read_key(ua_peer.pair.key)
    plain = b"".join(decrypt_rsa_oaep(key, token.Password[at : at + 256]) for at in range(0, len(token.Password), 256))
    secret = password.encode() + nonces[0]
    assert plain == len(secret).to_bytes(4, "little") + secret


def test_a_password_is_encrypted_for_a_trusted_server_alone_even_without_security(
    stage, ua_peer, ua_session, ua_endpoint, monkeypatch
):
    monkeypatch.setenv("PW", "secret")
    ua_peer.endpoints = [ua_endpoint(tokens=(("user", 1, "Basic256Sha256"),), certificate=ua_peer.pair.der)]

    async def scene():
        async with ua_peer:
            said = {"username": "joe", "password": "${env:PW}", "trust": "approved"}
            return await stage.refusal(ua_session(ua_peer.url, **said))

    assert stage.live(scene).cause == "BadCertificateUntrusted"
    assert ua_peer.names() == ["Hello", "GetEndpoints"]


def test_a_password_is_not_encrypted_with_another_certificate_than_the_trusted_one(
    stage, ua_peer, ua_session, ua_endpoint, ua_pair, monkeypatch
):
    monkeypatch.setenv("PW", "secret")
    ua_peer.endpoints = [ua_endpoint(tokens=(("user", 1, "Basic256Sha256"),), certificate=ua_peer.pair.der)]
    ua_peer.certificate = ua_pair("urn:tests:other").der

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, username="joe", password="${env:PW}"))

    assert stage.live(scene).cause == "BadCertificateInvalid"
    assert "ActivateSession" not in ua_peer.names()


def test_a_refused_login_leaves_no_session_behind(stage, ua_peer, ua_session):
    ua_peer.answers["ActivateSessionRequest"] = ua_peer.fault("BadIdentityTokenRejected")

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url))

    error = stage.live(scene)
    assert error.cause == "BadIdentityTokenRejected"
    assert "ActivateSession: BadIdentityTokenRejected: the server refuses an anonymous login" in str(error)
    assert ua_peer.names()[-1] == "CloseSession"


def test_a_server_that_hangs_up_on_an_unknown_certificate_is_explained(stage, ua_peer, ua_session):
    ua_peer.secure("Basic256Sha256")
    ua_peer.raw |= {"OPN": None, "OPN only secure": True}

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto"))

    error = stage.live(scene)
    assert error.cause == "BadSecurityChecksFailed"
    assert "own/certificate.der into the server's folder of trusted clients" in str(error)


@pytest.mark.parametrize("name", ["BadCertificateUriInvalid", "BadCertificateUntrusted", "BadSecurityChecksFailed"])
def test_a_refusal_of_our_certificate_is_explained(stage, ua_peer, ua_session, name):
    ua_peer.secure("Basic256Sha256")
    error = ua.ErrorMessage(ua.StatusCode(getattr(ua.StatusCodes, name)), "no\nsuch client")
    ua_peer.raw |= {"OPN": uatcp_to_binary(ua.MessageType.Error, error), "OPN only secure": True}

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, security="auto"))

    error = stage.live(scene)
    assert error.cause == name
    assert "own/certificate.der" in str(error)
    assert "(the server says: no such client)" in str(error)


def test_our_key_is_not_proved_prime_again_on_the_event_loop(stage, ua_peer, ua_session, monkeypatch):
    ua_peer.secure("Basic256Sha256")
    on_loop = []

    def seen(data, password, *, unsafe_skip_rsa_key_validation=False):
        on_loop.append(threading.current_thread() is threading.main_thread() and not unsafe_skip_rsa_key_validation)
        return load_pem_private_key(data, password, unsafe_skip_rsa_key_validation=unsafe_skip_rsa_key_validation)

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto")
            monkeypatch.setattr(ways, "load_pem_private_key", seen)
            await session.open()
            await session.close()

    stage.live(scene)
    assert on_loop == [False]


# --- taken up again ---------------------------------------------------------------------------------------------------


def test_a_dropped_session_is_taken_up_and_nothing_is_read_again(stage, ua_peer, ua_session):
    metrics = Metrics()

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, metrics=metrics)
            await session.open()
            wire = session._wire
            await session.drop()
            assert repr(wire) == f"<wire {ua_peer.url} closed>"
            assert repr(session) == f"<opcua session {ua_peer.url}: kept by the server>"
            del ua_peer.heard[:]
            assert await session.open() is True
            names = ua_peer.names()
            assert session.namespaces[1] == "urn:plant"
            await session.close()
            return names

    assert stage.live(scene) == ["Hello", "ActivateSession"]
    shown = {name: value for name, _, value in metrics}
    assert (shown["opcua_sessions_total"], shown["opcua_sessions_resumed_total"]) == (1, 1)


def test_a_session_is_taken_up_with_the_login_of_the_signed_list_however_often_the_server_is_looked_at(
    stage, ua_peer, ua_session, ua_endpoint
):
    ua_peer.secure("Basic256Sha256")
    signed = ua_endpoint("Basic256Sha256", "sign_and_encrypt", [("signed", 0, None)])
    ua_peer.signed_endpoints = [signed]

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto", timeout="300ms")
            await session.open()
            await session.drop()
            ua_peer.raw |= {"OPN": b"", "OPN only secure": True}
            with pytest.raises(LineError):
                await session.open()
            ua_peer.raw.clear()
            del ua_peer.heard[:]
            assert await session.open() is True
            await session.close()

    stage.live(scene)
    assert ua_peer.names() == ["Hello", "GetEndpoints", "Hello", "ActivateSession", "CloseSession"]
    assert ua_peer.heard[3].Parameters.UserIdentityToken.PolicyId == "signed"


def test_a_session_that_the_server_forgot_is_made_anew_on_the_same_channel(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            await session.drop()
            ua_peer.sessions.clear()
            connections = ua_peer.connections
            assert await session.open() is False
            assert ua_peer.connections == connections + 1
            await session.call(stage.read())
            await session.close()

    stage.live(scene)


def test_a_session_that_is_older_than_the_server_keeps_it_is_not_asked_for(stage, ua_peer, ua_session):
    ua_peer.session_timeout = 30_000.0
    clock = Clock()

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, clock=clock)
            await session.open()
            clock.now += 20
            await session.call(stage.read())
            await session.drop()
            clock.now += 29
            assert await session.open() is True
            await session.drop()
            clock.now += 31
            del ua_peer.heard[:]
            assert await session.open() is False
            await session.close()

    stage.live(scene)
    assert ua_peer.names()[:2] == ["Hello", "CreateSession"]


def test_a_link_that_breaks_again_while_the_session_is_taken_up_does_not_lose_it(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, timeout="300ms")
            await session.open()
            await session.drop()
            ua_peer.answers["ActivateSessionRequest"] = lambda _request: None
            with pytest.raises(LineError) as caught:
                await session.open()
            assert caught.value.cause == "timeout"
            del ua_peer.answers["ActivateSessionRequest"]
            assert await session.open() is True
            await session.close()

    stage.live(scene)


def test_a_server_with_another_certificate_after_a_restart_is_looked_at_anew(stage, ua_peer, ua_session, ua_pair):
    ua_peer.secure("Basic256Sha256")

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto")
            await session.open()
            await session.drop()
            ua_peer.pair = ua_pair("urn:tests:other")
            ua_peer.certificate = ua_peer.pair.der
            ua_peer.secure("Basic256Sha256")
            return await stage.refusal(session)

    error = stage.live(scene)
    assert error.cause == "BadCertificateUntrusted"


def test_a_server_that_has_lost_its_security_is_looked_at_anew_and_not_talked_to(
    stage, ua_peer, ua_session, ua_endpoint
):
    ua_peer.secure("Basic256Sha256")

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto", timeout="300ms")
            await session.open()
            await session.drop()
            ua_peer.endpoints = [ua_endpoint()]
            ua_peer.raw |= {
                "OPN": b"",
                "OPN only secure": True,
            }  # it does not even refuse what it no longer understands
            with pytest.raises(LineError) as caught:
                await session.open()
            assert caught.value.cause == "timeout"
            return await stage.refusal(session)

    assert stage.live(scene).cause == "BadSecurityPolicyRejected"


def test_a_session_is_not_offered_to_a_server_that_is_secured_otherwise_now(stage, ua_peer, ua_session):
    ua_peer.secure("Basic256Sha256")

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto", timeout="300ms")
            await session.open()
            await session.drop()
            ua_peer.raw |= {"OPN": b"", "OPN only secure": True}
            with pytest.raises(LineError):
                await session.open()
            ua_peer.raw.clear()
            ua_peer.secure("Aes256_Sha256_RsaPss")
            del ua_peer.heard[:]
            assert await session.open() is False
            await session.close()

    stage.live(scene)
    assert ua_peer.names()[:4] == ["Hello", "GetEndpoints", "Hello", "CreateSession"]


def test_a_session_whose_limits_were_never_read_is_not_taken_up(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, timeout="300ms")
            ua_peer.answers["ReadRequest"] = lambda _request: None
            with pytest.raises(LineError):
                await session.open()
            del ua_peer.answers["ReadRequest"]
            assert await session.open() is False
            assert session.namespaces[1] == "urn:plant"
            await session.close()

    stage.live(scene)


def test_a_former_certificate_is_shown_where_the_new_one_is_not_known_yet(
    stage, ua_peer, ua_session, monkeypatch, caplog
):
    ua_peer.secure("Basic256Sha256")
    shown = []

    def pick(request):
        shown.append(request)
        if len(shown) == 2:  # the first is the discovery's
            return ua_peer.fault("BadCertificateUntrusted")(request)
        del ua_peer.answers["OpenSecureChannelRequest"]
        raise ConnectionResetError

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto")
            own = session._pki.own()
            monkeypatch.setattr(session._pki, "former", lambda: own)
            error = ua.ErrorMessage(ua.StatusCode(ua.StatusCodes.BadCertificateUntrusted), "")
            refused = uatcp_to_binary(ua.MessageType.Error, error)
            ua_peer.raw |= {"OPN": refused, "OPN only secure": True}
            connect = session._connect

            async def once_more(way):
                if ua_peer.connections == 2:
                    ua_peer.raw.clear()
                return await connect(way)

            monkeypatch.setattr(session, "_connect", once_more)
            assert await session.open() is False
            await session.close()

    stage.live(scene)
    assert "still takes the former one" in caplog.text


# --- the end ----------------------------------------------------------------------------------------------------------


def test_closing_does_not_wait_long_for_the_server_and_never_raises(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["CloseSessionRequest"] = lambda _request: None
            began = asyncio.get_running_loop().time()
            await session.close()
            took = asyncio.get_running_loop().time() - began
            await session.close()
            return took

    assert stage.live(scene) < 3


def test_a_line_has_time_for_the_closing_when_the_gateway_stops():
    assert sessions._PATIENCE_S <= 0.75 * app._LINE_STOP_S


def test_a_server_that_is_gone_or_refuses_does_not_disturb_the_closing(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.hang_up()
            await session.close()
            await session.open()
            ua_peer.answers["CloseSessionRequest"] = ua_peer.fault("BadSessionIdInvalid")
            await session.close()

    stage.live(scene)


def test_who_is_cancelled_while_opening_leaves_nothing_open(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            ua_peer.answers["CreateSessionRequest"] = lambda _request: None
            opening = asyncio.create_task(session.open())
            await stage.until(lambda: "CreateSession" in ua_peer.names())
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert session._wire is None

    stage.live(scene)
