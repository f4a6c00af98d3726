"""A server by script: the library's secure channel on a real loopback port, and answers that the test writes.

peer.answers["ReadRequest"] = lambda request: response        instead of the usual answer; None: no answer at all
peer.raw["HEL"] = b"HTTP/1.1 400 Bad Request\r\n"             bytes in place of the answer to HEL, OPN or MSG
peer.heard                                                    every request that came, as the library's objects
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.common.connection import SecureConnection, TransportLimits
from asyncua.crypto import security_policies as policies
from asyncua.ua.ua_binary import (
    header_from_binary,
    nodeid_from_binary,
    struct_from_binary,
    struct_to_binary,
    uatcp_to_binary,
)
from cryptography import x509

from drivers.opcua.connecting import certificate as certificates
from drivers.opcua.connecting.session import Session
from drivers.opcua.options import DeviceOptions
from gateway.clock import SystemClock
from gateway.errors import LineError
from gateway.metrics import Metrics

POLICIES = {
    "none": policies.SecurityPolicyNone,
    "Basic256Sha256": policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": policies.SecurityPolicyAes256Sha256RsaPss,
}
BINARY = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"


def endpoint(
    policy="none", mode="none", tokens=(("anonymous", 0, None),), url="opc.tcp://elsewhere:1/", certificate=b""
):
    """An endpoint as a server describes it; `tokens` are (policy id, kind, policy's URI or name or None)."""
    modes = {"none": 1, "sign": 2, "sign_and_encrypt": 3}
    described = ua.EndpointDescription()
    described.EndpointUrl = url
    described.SecurityPolicyUri = POLICIES[policy].URI if policy in POLICIES else policy
    described.SecurityMode = ua.MessageSecurityMode(modes[mode])
    described.TransportProfileUri = BINARY
    described.ServerCertificate = certificate
    described.UserIdentityTokens = [
        ua.UserTokenPolicy(
            PolicyId=name,
            TokenType=ua.UserTokenType(kind),
            SecurityPolicyUri=POLICIES[uri].URI if uri in POLICIES else uri,
        )
        for name, kind, uri in tokens
    ]
    return described


class ScriptedServer:
    """One server for any number of connections, one after the other or at once."""

    def __init__(self, pair):
        self.pair = pair
        self.certificate = pair.der
        self.endpoints = [endpoint()]
        self.signed_endpoints = None
        self.answers = {}
        self.raw = {}
        self.heard = []
        self.opened = []
        self.lifetime = None
        self.created = None
        self.last = None
        self.session_timeout = 600_000.0
        self.values = {2255: ["http://opcfoundation.org/UA/", "urn:plant"]}
        self.sessions = {}
        self.connections = 0
        self.writers = set()
        self.tasks = set()
        self.policy = None
        self.usual = {
            "GetEndpointsRequest": self.get_endpoints,
            "CreateSessionRequest": self.create_session,
            "ActivateSessionRequest": self.activate_session,
            "CloseSessionRequest": self.close_session,
            "ReadRequest": self.read,
        }

    @property
    def url(self):
        return f"opc.tcp://127.0.0.1:{self.port}"

    def names(self):
        return [type(request).__name__.removesuffix("Request") for request in self.heard]

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()
        self.hang_up()
        await asyncio.gather(*self.tasks)

    def hang_up(self):
        for writer in self.writers:
            writer.transport.abort()

    def secure(self, *names, mode="sign_and_encrypt"):
        """Offer these policies in place of none; the first endpoint stays what discovery needs."""
        tokens = (("anonymous", 0, None), ("user", 1, None))
        self.endpoints = [endpoint(name, mode, tokens, certificate=self.pair.der) for name in names]

    # --- the channel

    async def serve(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        self.writers.add(writer)
        self.connection = SecureConnection(policies.SecurityPolicyNone(), TransportLimits())
        key = certificates.read_key(self.pair.key)
        ours = x509.load_der_x509_certificate(self.pair.der)
        modes = ua.MessageSecurityMode
        factories = [policies.SecurityPolicyFactory(policies.SecurityPolicyNone, modes.None_)]
        for kind in POLICIES.values():
            if kind is not policies.SecurityPolicyNone:
                for mode in (modes.Sign, modes.SignAndEncrypt):
                    factories.append(policies.SecurityPolicyFactory(kind, mode, ours, key))  # noqa: PERF401
        self.connection.set_policy_factories(factories)
        link = SimpleNamespace(connection=self.connection, writer=writer)
        try:
            while await self.turn(reader, link):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # whoever it was, it has gone, or cannot be decrypted
        finally:
            writer.transport.abort()

    async def turn(self, reader, link):
        head = await reader.readexactly(8)
        whole = head + await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
        kind = head[:3].decode()
        if kind in self.raw and not (kind == "OPN" and self.raw.get("OPN only secure") and b"#None" in whole):
            raw = self.raw[kind]
            if raw is None:
                return False
            link.writer.write(raw)
            return True
        buffer = ua.utils.Buffer(whole)
        header = header_from_binary(buffer)
        message = link.connection.receive_from_header_and_body(header, buffer)
        if kind == "HEL":
            self.heard.append(message)
            link.writer.write(uatcp_to_binary(ua.MessageType.Acknowledge, ua.Acknowledge()))
        elif kind == "OPN":
            self.open_channel(link, message)
        elif kind == "CLO":
            return False
        elif message is not None:
            self.answer(link, message)
        return True

    def open_channel(self, link, message):
        request = struct_from_binary(ua.OpenSecureChannelRequest, message.body())
        self.opened.append(request.Parameters)
        if "OpenSecureChannelRequest" in self.answers:
            self.send(link, message, self.answers["OpenSecureChannelRequest"](request), ua.MessageType.SecureOpen)
            return
        header = message.SecurityHeader()
        if not link.connection.is_open():
            mode = request.Parameters.SecurityMode
            link.connection.select_policy(header.SecurityPolicyURI, header.SenderCertificate, mode)
        response = ua.OpenSecureChannelResponse()
        response.Parameters = link.connection.open(request.Parameters, SimpleNamespace(get_new_channel_id=lambda: 5))
        if self.created is not None:
            response.Parameters.SecurityToken.CreatedAt = self.created
        if self.lifetime is not None:
            response.Parameters.SecurityToken.RevisedLifetime = self.lifetime
        self.send(link, message, response, ua.MessageType.SecureOpen)

    def answer(self, link, message):
        body = message.body()
        kind = ua.extension_objects_by_typeid[nodeid_from_binary(body)]
        request = struct_from_binary(kind, message.body())
        self.heard.append(request)
        self.last = link, message
        name = kind.__name__
        script = self.answers.get(name) or self.usual.get(name, lambda _request: None)
        self.policy = link.connection.security_policy
        response = script(request)
        if response is not None:
            self.send(link, message, response)

    @staticmethod
    def send(link, message, response, kind=ua.MessageType.SecureMessage):
        body = response if isinstance(response, bytes) else struct_to_binary(response)
        sent = link.connection.message_to_binary(body, message_type=kind, request_id=message.request_id())
        link.writer.write(sent)

    @staticmethod
    def fault(name):
        """An answer that refuses."""
        response = ua.ServiceFault()
        response.ResponseHeader.ServiceResult = ua.StatusCode(getattr(ua.StatusCodes, name))
        return lambda _request: response

    # --- the services

    def get_endpoints(self, _request):
        response = ua.GetEndpointsResponse()
        response.Endpoints = self.endpoints
        return response

    def create_session(self, request):
        response = ua.CreateSessionResponse()
        found = response.Parameters
        found.SessionId = found.AuthenticationToken = ua.NodeId(1000 + len(self.sessions), 1)
        found.RevisedSessionTimeout = min(self.session_timeout, request.Parameters.RequestedSessionTimeout)
        found.ServerNonce = os.urandom(32)
        found.ServerCertificate = self.certificate
        listed = self.endpoints if self.signed_endpoints is None else self.signed_endpoints
        found.ServerEndpoints = listed
        if request.Parameters.ClientCertificate:
            signed = request.Parameters.ClientCertificate + request.Parameters.ClientNonce
            found.ServerSignature.Signature = self.policy.asymmetric_cryptography.signature(signed)
        self.sessions[found.AuthenticationToken] = found.ServerNonce
        return response

    def activate_session(self, request):
        token = request.RequestHeader.AuthenticationToken
        if token not in self.sessions:
            return self.fault("BadSessionIdInvalid")(request)
        if self.policy.peer_certificate:
            signed = self.pair.der + self.sessions[token]
            self.policy.asymmetric_cryptography.verify(signed, request.Parameters.ClientSignature.Signature)
        response = ua.ActivateSessionResponse()
        response.Parameters.ServerNonce = self.sessions[token] = os.urandom(32)
        return response

    def close_session(self, request):
        self.sessions.pop(request.RequestHeader.AuthenticationToken, None)
        return ua.CloseSessionResponse()

    def read(self, request):
        response = ua.ReadResponse()
        missing = ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown))
        for node in request.Parameters.NodesToRead:
            value = self.values.get(node.NodeId.Identifier)
            response.Results.append(missing if value is None else ua.DataValue(ua.Variant(value)))
        return response


class _Pair:
    """A certificate and its key, PEM."""

    def __init__(self, uri, host="localhost", now=None):
        key = certificates.make_key()
        self.der = certificates.make(key, uri, host, now or datetime.now(UTC))
        self.key = certificates.key_pem(key)


@pytest.fixture(scope="session")
def ua_pair() -> Callable[..., _Pair]:
    """`ua_pair("urn:somebody")` makes a certificate and its key, once a run for each URI."""
    made = {}

    def make(uri="urn:tests:server", **more):
        key = (uri, *more.items())
        if key not in made:
            made[key] = _Pair(uri, **more)
        return made[key]

    return make


@pytest.fixture
def ua_peer(ua_pair):
    """A server by script; enter it inside a running loop."""
    return ScriptedServer(ua_pair())


@pytest.fixture(scope="session")
def _ua_own(tmp_path_factory, ua_pair):
    """A folder with a certificate of ours, so that not every test makes one."""
    folder = tmp_path_factory.mktemp("pki") / "own"
    folder.mkdir(mode=0o700)
    pair = ua_pair("urn:tests:gateway")
    (folder / "certificate.der").write_bytes(pair.der)
    (folder / "key.pem").write_bytes(pair.key)
    (folder / "key.pem").chmod(0o600)
    return folder


@pytest.fixture
def ua_session(tmp_path, _ua_own):
    """`ua_session(url, security="none")` makes a Session; its folder has a certificate of ours, and pins at first."""

    def make(url, *, clock=None, metrics=None, channel_s=3600.0, **options):
        pki = tmp_path / "pki"
        if not pki.exists():
            pki.mkdir(mode=0o700)
            own = pki / "own"
            own.mkdir(mode=0o700)
            for file in _ua_own.iterdir():
                (own / file.name).write_bytes(file.read_bytes())
                (own / file.name).chmod(0o600)
        said = {"pki": str(pki), "trust": "first_use", "timeout": "5s", "security": "none", **options}
        checked = DeviceOptions.model_validate(said)
        return Session(url, checked, clock=clock or SystemClock(), metrics=metrics or Metrics(), channel_s=channel_s)

    return make


class Stage:
    """What every scene with a session needs."""

    @staticmethod
    def live(scene):
        """Run a scene. Afterwards no task is left, and the loop has heard of nothing that nobody awaited."""
        noise = []

        async def whole():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _loop, context: noise.append(context))
            result = await asyncio.wait_for(scene(), 20)
            for _ in range(3):
                await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return result

        result = asyncio.run(whole())
        gc.collect(1)
        assert noise == []
        return result

    @staticmethod
    async def until(condition):
        """Wait for a condition, 10 s at most."""
        deadline = asyncio.get_running_loop().time() + 10
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "waited in vain"
            await asyncio.sleep(0.002)

    @staticmethod
    def read(*nodes):
        """A request for values of nodes of namespace 0, the server's state where none is named."""
        request = ua.ReadRequest()
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId=ua.NodeId(node), AttributeId=ua.AttributeIds.Value) for node in nodes or (2259,)
        ]
        return request

    @staticmethod
    async def refusal(session):
        """The error that opening ends with."""
        with pytest.raises(LineError) as caught:
            await session.open()
        await session.close()
        return caught.value


@pytest.fixture(scope="session")
def stage():
    """See Stage."""
    return Stage()


@pytest.fixture(scope="session")
def ua_endpoint():
    """Makes an endpoint as a server describes it."""
    return endpoint
