"""A connection as it lives and ends: answers, refusals, keys renewed, and peers that are no server or no good one."""

import asyncio
import logging
import socket
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import SecurityPolicyNone
from asyncua.ua.ua_binary import struct_to_binary, uatcp_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.opcua.connecting import session as module
from drivers.opcua.connecting import wire as wires
from drivers.opcua.connecting.identity import Login
from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.asking import TOO_MUCH
from gateway.errors import LineError
from gateway.metrics import Metrics

# --- requests ---------------------------------------------------------------------------------------------------------


def test_fetch_gives_the_body_as_it_came(stage, ua_peer, ua_session):
    response = ua.ReadResponse()
    response.Results = [ua.DataValue(ua.Variant(1.5, ua.VariantType.Double))]

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["ReadRequest"] = lambda _request: response
            body = await session.fetch(stage.read(), timeout_s=None)
            await session.close()
            return body

    assert stage.live(scene) == struct_to_binary(response)


def test_a_refused_request_harms_nothing_else(stage, ua_peer, ua_session):
    metrics = Metrics()

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, metrics=metrics)
            await session.open()
            ua_peer.answers["BrowseRequest"] = ua_peer.fault("BadTooManyOperations")
            with pytest.raises(ServiceFault) as caught:
                await session.call(ua.BrowseRequest())
            await session.call(stage.read())
            await session.close()
            return caught.value

    fault = stage.live(scene)
    assert (fault.name, fault.code) == ("BadTooManyOperations", ua.StatusCodes.BadTooManyOperations)
    assert {name: value for name, _, value in metrics}["opcua_faults_total"] == 1


def test_a_refusal_in_the_header_of_an_answer_counts_too(stage, ua_peer, ua_session):
    bad = ua.ReadResponse()
    bad.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadNothingToDo)

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["ReadRequest"] = lambda _request: bad
            with pytest.raises(ServiceFault, match="BadNothingToDo"):
                await session.fetch(stage.read(), timeout_s=1)
            await session.close()

    stage.live(scene)


def test_an_answer_that_does_not_come_ends_the_connection_for_all(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["BrowseRequest"] = lambda _request: None
            waiting = asyncio.create_task(session.fetch(ua.BrowseRequest(), timeout_s=None))
            gone = asyncio.create_task(session.gone())
            with pytest.raises(LineError) as caught:
                await session.call(ua.BrowseRequest(), timeout_s=0.1)
            others = await asyncio.gather(waiting, gone, return_exceptions=True)
            with pytest.raises(LineError) as later:
                await session.call(stage.read())
            assert repr(session) == f"<opcua session {ua_peer.url}: lost, timeout>"
            await session.drop()
            return [caught.value, *others, later.value]

    errors = stage.live(scene)
    assert [error.cause for error in errors] == ["timeout"] * 4
    assert "no answer to Browse within 0.1 s: is the server alive, and is timeout long enough?" in str(errors[0])
    assert len({id(error) for error in errors}) == 4


@pytest.mark.parametrize("name", ["BadSessionClosed", "BadSessionIdInvalid", "BadSecureChannelIdInvalid"])
def test_a_session_killed_by_the_server_ends_the_connection(stage, ua_peer, ua_session, name):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["ReadRequest"] = ua_peer.fault(name)
            with pytest.raises(LineError) as caught:
                await session.call(stage.read())
            with pytest.raises(LineError, match=name):
                await session.gone()
            await session.drop()
            del ua_peer.answers["ReadRequest"]
            del ua_peer.heard[:]
            is_resumed = await session.open()
            await session.close()
            return caught.value, is_resumed

    error, is_resumed = stage.live(scene)
    assert error.cause == name
    assert is_resumed is (not name.startswith("BadSession"))


def test_a_connection_that_is_closed_tells_everybody_why(stage, ua_peer, ua_session):
    error = ua.ErrorMessage(ua.StatusCode(ua.StatusCodes.BadTcpServerTooBusy), "come back later")

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            for writer in ua_peer.writers:
                if not writer.transport.is_closing():
                    writer.write(uatcp_to_binary(ua.MessageType.Error, error))
            with pytest.raises(LineError) as caught:
                await session.gone()
            await session.drop()
            return caught.value

    error = stage.live(scene)
    assert error.cause == "BadTcpServerTooBusy"
    assert "come back later" in str(error)


def test_a_reset_connection_is_offline(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.hang_up()
            with pytest.raises(LineError) as caught:
                await session.gone()
            await session.drop()
            return caught.value

    assert stage.live(scene).cause == "offline"


def test_who_asks_a_session_that_was_never_opened_is_told_so(stage, ua_session):
    session = ua_session("opc.tcp://127.0.0.1:1")

    async def scene():
        for attempt in (session.call(stage.read()), session.fetch(stage.read(), timeout_s=1), session.gone()):
            with pytest.raises(LineError, match="not connected"):
                await attempt
        await session.drop()
        await session.close()

    stage.live(scene)


def test_an_answer_given_up_half_way_fails_its_request_alone(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["BrowseRequest"] = lambda _request: None
            waiting = asyncio.create_task(session.call(ua.BrowseRequest()))
            await stage.until(lambda: ua_peer.names()[-1] == "Browse")
            connection, writer = ua_peer.connection, next(w for w in ua_peer.writers if not w.transport.is_closing())
            reason = struct_to_binary(ua.ErrorMessage(ua.StatusCode(ua.StatusCodes.BadResponseTooLarge), "too much"))
            request_id = session._wire._request_id
            writer.write(connection.message_to_binary(reason, request_id=request_id).replace(b"MSGF", b"MSGA", 1))
            with pytest.raises(ServiceFault, match="BadResponseTooLarge"):
                await waiting
            await session.call(stage.read())
            await session.close()

    stage.live(scene)


@pytest.mark.parametrize("answer", [ua.BrowseResponse(), b"\x07", b"\x01\x01\x7a\x02" + bytes(30), b"\x00"])
def test_an_answer_to_something_else_ends_the_connection(stage, ua_peer, ua_session, answer):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["ReadRequest"] = lambda _request: answer
            with pytest.raises(LineError) as caught:
                await session.call(stage.read())
            with pytest.raises(LineError):
                await session.gone()
            await session.drop()
            return caught.value

    assert stage.live(scene).cause == "decode"


@pytest.mark.parametrize(
    "rest",
    [b"", bytes(9), bytes(8) + b"\xff\xff\xff\x7f", b"\x40" * 5000, bytes(8) + b"\x01\x00\x00\x00\x01\x1f"],
    ids=["nothing", "too little", "too many", "too deep", "no such type"],
)
def test_an_answer_that_cannot_be_decoded_is_a_refusal_of_its_request_alone(stage, ua_peer, ua_session, rest):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["ReadRequest"] = lambda _request: b"\x01\x00\x7a\x02" + bytes(16) + rest
            with pytest.raises(ServiceFault, match=r"the answer to Read .*BadDecodingError"):
                await session.call(stage.read())
            del ua_peer.answers["ReadRequest"]
            await session.call(stage.read())
            await session.close()

    stage.live(scene)


@pytest.mark.parametrize("answer", ["Read", "Write", "Browse", "TranslateBrowsePathsToNodeIds", "CreateMonitoredItems"])
def test_no_more_results_are_taken_apart_than_were_asked_for(stage, ua_peer, ua_session, monkeypatch, answer):
    kind = int(getattr(ua.ObjectIds, f"{answer}Response_Encoding_DefaultBinary"))
    body = b"\x01\x00" + kind.to_bytes(2, "little") + bytes(24) + (100_000).to_bytes(4, "little") + bytes(100_000)
    request = getattr(ua, f"{answer}Request")()
    if answer == "Read":
        request = stage.read()

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers[f"{answer}Request"] = lambda _request: body
            with pytest.raises(ServiceFault, match=r"100000 results for [01] questions.*BadDecodingError"):
                await session.call(request)
            del ua_peer.answers[f"{answer}Request"]
            await session.call(stage.read())
            await session.close()

    stage.live(scene)


def test_an_answer_too_large_to_be_taken_apart_is_a_refusal_of_its_request_alone(
    stage, ua_peer, ua_session, monkeypatch
):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            monkeypatch.setattr(wires, "MAX_DECODED", 100_000)
            large = ua.ReadResponse(Results=[ua.DataValue(ua.Variant("x" * 100_000))])
            ua_peer.answers["ReadRequest"] = lambda _request: large
            with pytest.raises(ServiceFault, match=r"an answer to Read of 1000.. bytes: BadResponseTooLarge") as caught:
                await session.call(stage.read())
            assert caught.value.code in TOO_MUCH
            assert len(await session.fetch(stage.read(), timeout_s=1)) > 100_000  # what we take apart ourselves
            del ua_peer.answers["ReadRequest"]
            await session.call(stage.read())
            await session.close()

    stage.live(scene)


def test_a_request_that_is_cancelled_harms_nothing(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            held = []
            ua_peer.answers["BrowseRequest"] = held.append
            waiting = asyncio.create_task(session.call(ua.BrowseRequest()))
            await stage.until(lambda: held)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            body = struct_to_binary(ua.BrowseResponse())
            late = ua_peer.connection.message_to_binary(body, request_id=session._wire._request_id)
            next(w for w in ua_peer.writers if not w.transport.is_closing()).write(late)
            await session.call(stage.read())
            await session.close()

    stage.live(scene)


# --- the channel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["none", "Basic256Sha256"])
def test_the_channel_is_renewed_at_three_quarters_of_its_lifetime(stage, ua_peer, ua_session, monkeypatch, security):
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    metrics = Metrics()
    if security != "none":
        ua_peer.secure(security)

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security=security, metrics=metrics, channel_s=60)
            ua_peer.lifetime = 100
            await session.open()
            began = asyncio.get_running_loop().time()
            while len(ua_peer.opened) < 6:
                await session.call(stage.read())
                await asyncio.sleep(0.005)
            took = asyncio.get_running_loop().time() - began
            await session.close()
            return took

    assert stage.live(scene) > 3 * 0.075
    assert [one.RequestType.name for one in ua_peer.opened[2:]] == ["Renew"] * 4
    assert {one.RequestedLifetime for one in ua_peer.opened[1:]} == {60_000}
    assert {name: value for name, _, value in metrics}["opcua_channel_renewals_total"] >= 3


@pytest.mark.parametrize("security", ["none", "Basic256Sha256"])
def test_what_was_on_its_way_while_the_key_was_renewed_counts_whatever_the_servers_clock_says(
    stage, ua_peer, ua_session, monkeypatch, security
):
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    ua_peer.created = datetime(1970, 1, 1, tzinfo=UTC)
    if security != "none":
        ua_peer.secure(security)

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security=security)
            ua_peer.lifetime = 400
            await session.open()
            ua_peer.answers["BrowseRequest"] = lambda _request: None
            waiting = asyncio.create_task(session.call(ua.BrowseRequest()))
            await stage.until(lambda: ua_peer.names()[-1] == "Browse")
            await stage.until(lambda: session._renewals.value)
            ua_peer.send(*ua_peer.last, ua.BrowseResponse())
            await waiting
            await session.close()

    stage.live(scene)


def test_a_session_that_nobody_uses_is_kept_from_running_out(stage, ua_peer, ua_session, monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    ua_peer.session_timeout = 150.0

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            del ua_peer.heard[:]
            await stage.until(lambda: len(ua_peer.heard) == 3)
            ua_peer.answers["ReadRequest"] = ua_peer.fault("BadTooManyOperations")
            await stage.until(lambda: len(ua_peer.heard) == 5)
            asyncio.get_running_loop().call_later(0.2, ua_peer.hang_up)
            with pytest.raises(LineError):
                await session.gone()
            await session.drop()

    stage.live(scene)
    assert set(ua_peer.names()) == {"Read"}


def test_a_session_in_use_is_left_alone(stage, ua_peer, ua_session, monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    ua_peer.session_timeout = 600.0

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            del ua_peer.heard[:]
            for _ in range(30):
                await session.call(stage.read())
                await asyncio.sleep(0.01)
            await session.close()

    stage.live(scene)
    assert ua_peer.names() == ["Read"] * 30 + ["CloseSession"]


def test_a_channel_that_cannot_be_renewed_ends_the_connection(stage, ua_peer, ua_session, monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    ua_peer.lifetime = 100

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["OpenSecureChannelRequest"] = ua_peer.fault("BadSecureChannelTokenUnknown")
            with pytest.raises(LineError) as caught:
                await session.gone()
            await session.drop()
            del ua_peer.answers["OpenSecureChannelRequest"]
            assert await session.open() is True
            await session.close()
            return caught.value

    assert stage.live(scene).cause == "BadSecureChannelTokenUnknown"


def test_a_renewal_that_fails_on_our_side_ends_the_connection_too(stage, ua_peer, ua_session, monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_S", 0.01)
    ua_peer.lifetime = 100

    async def broken(_parameters):
        raise ValueError("the key is gone")

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            session._wire.open_secure_channel = broken
            with pytest.raises(LineError, match="the key is gone"):
                await session.gone()
            await session.drop()

    stage.live(scene)


def test_a_server_that_grants_no_lifetime_is_not_flooded(stage, ua_peer, ua_session):
    ua_peer.lifetime = 0

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            for _ in range(20):
                await session.call(stage.read())
            await session.close()

    stage.live(scene)
    assert len(ua_peer.opened) == 2


# --- what is no server, or no good one --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "cause", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "decode", "no OPC UA server answers there: it says b'HTT"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "decode", "b'SSH-2.0-OpenSSH_'"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "decode", r"b'\x15\x03\x01"),
        (b"\x00" * 4096, "decode", "Is the port right?"),
        (b"ACKF\xff\xff\xff\x7f", "decode", "a chunk of 2147483647 bytes where 65536 were agreed on"),
        (b"ACKF\x00\x00\x00\x00", "decode", "a chunk of 0 bytes"),
        (b"ACKF\x0c\x00\x00\x00abcd", "decode", "what cannot be understood"),
        (b"MSGF\x10\x00\x00\x00" + bytes(8), "decode", "what cannot be understood"),
        (b"ACKF\x1c\x00\x00\x00" + bytes(20), "BadTcpMessageTooLarge", "the server takes 0 bytes at once"),
        (None, "offline", "the server closed the connection without a greeting: is it an OPC UA server that listens"),
        (b"", "timeout", "within 0.3 s: is the server alive, and is timeout long enough? Is it an OPC UA"),
    ],
)  # fmt: skip
def test_a_peer_that_is_no_opc_ua_server_is_named_as_what_it_is(stage, ua_peer, ua_session, raw, cause, said):
    ua_peer.raw["HEL"] = raw

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url, timeout="300ms"))

    error = stage.live(scene)
    assert (error.cause, said in str(error)) == (cause, True), error
    assert str(error).startswith(ua_peer.url)


def test_a_greeting_that_is_refused_is_explained(stage, ua_peer, ua_session):
    error = ua.ErrorMessage(ua.StatusCode(ua.StatusCodes.BadTcpEndpointUrlInvalid), "try /line1")
    ua_peer.raw["HEL"] = uatcp_to_binary(ua.MessageType.Error, error)

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url))

    error = stage.live(scene)
    assert error.cause == "BadTcpEndpointUrlInvalid"
    assert "Write it as the server shows it, with its path (the server says: try /line1)" in str(error)


def test_a_chunk_larger_than_agreed_ends_the_connection_before_it_is_read(stage, ua_peer, ua_session):
    ua_peer.raw["MSG"] = b"MSGC" + (2**31).to_bytes(4, "little") + bytes(100_000)

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url))

    assert "a chunk of 2147483648 bytes" in str(stage.live(scene))


def test_an_answer_larger_than_agreed_ends_the_connection(stage, ua_peer, ua_session, monkeypatch):
    monkeypatch.setattr(wires, "MAX_MESSAGE", 200_000)

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            body = bytes(300_000)
            ua_peer.answers["ReadRequest"] = lambda _request: body
            with pytest.raises(LineError) as caught:
                await session.call(stage.read())
            await session.drop()
            return caught.value

    error = stage.live(scene)
    assert error.cause == "BadResponseTooLarge"
    assert str(error).endswith("the server sends an answer of more than 200000 bytes. Lower max_per_call")


@pytest.mark.parametrize("service", ["GetEndpoints", "CreateSession"])
def test_a_stranger_may_not_send_much(stage, ua_peer, ua_session, service):
    ua_peer.answers[f"{service}Request"] = lambda _request: bytes(1024 * 1024 + 1)

    async def scene():
        async with ua_peer:
            return await stage.refusal(ua_session(ua_peer.url))

    error = stage.live(scene)
    assert error.cause == "BadResponseTooLarge"
    assert str(error).endswith("more than 1048576 bytes. Look who answers there")


@pytest.mark.parametrize("size", [0, 31])
def test_a_channel_whose_keys_could_be_guessed_is_refused(stage, ua_peer, ua_session, size):
    ua_peer.secure("Basic256Sha256")

    def short(request):
        response = ua.OpenSecureChannelResponse()
        response.Parameters.SecurityToken.TokenId = response.Parameters.SecurityToken.ChannelId = 1
        response.Parameters.SecurityToken.RevisedLifetime = 60_000
        response.Parameters.ServerNonce = bytes(size)
        return response

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url, security="auto")
            await session.open()
            await session.drop()
            ua_peer.answers["OpenSecureChannelRequest"] = short
            with pytest.raises(LineError) as caught:
                await session._enter(session._choice, Login("nobody"))
            await session.drop()
            return caught.value

    error = stage.live(scene)
    assert error.cause == "BadNonceInvalid"
    assert "fewer than 32 bytes" in str(error)
    assert ua_peer.names().count("ActivateSession") == 1


def test_what_nobody_asked_for_is_not_shown_whole(stage, ua_peer, ua_session):
    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            link, message = ua_peer.last
            sent = link.connection.message_to_binary(b"secret" * 9000, request_id=message.request_id() + 77)
            link.writer.write(sent)
            with pytest.raises(LineError) as caught:
                await session.gone()
            await session.drop()
            return caught.value

    error = stage.live(scene)
    assert error.cause == "decode"
    assert "No request found" in str(error)
    assert len(str(error)) < 500
    assert str(error).isprintable()


def test_an_answer_of_many_chunks_is_put_together(stage, ua_peer, ua_session):
    big = ua.ReadResponse()
    big.Results = [ua.DataValue(ua.Variant(bytes(range(256)) * 4000, ua.VariantType.ByteString))]

    async def scene():
        async with ua_peer:
            session = ua_session(ua_peer.url)
            await session.open()
            ua_peer.answers["ReadRequest"] = lambda _request: big
            answer = await session.call(stage.read())
            await session.close()
            return answer.Results[0].Value.Value

    assert stage.live(scene) == bytes(range(256)) * 4000


def test_nobody_who_listens_there_is_offline(stage, ua_session):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def scene():
        return [
            await stage.refusal(ua_session(f"opc.tcp://127.0.0.1:{port}")),
            await stage.refusal(ua_session("opc.tcp://nobody.invalid:4840")),
            await stage.refusal(ua_session(f"opc.tcp://[::1]:{port}")),
        ]

    refused, unknown, sixth = stage.live(scene)
    assert refused.cause == unknown.cause == sixth.cause == "offline"
    assert str(refused) == f"opc.tcp://127.0.0.1:{port}: connection refused: is the server on, and is the port right?"
    assert "is the host name right" in str(unknown)
    assert str(sixth).startswith(f"opc.tcp://[::1]:{port}: ")


def test_the_library_logs_nothing(stage, ua_peer, ua_session, caplog):
    caplog.set_level(logging.DEBUG)
    ua_peer.raw["HEL"] = uatcp_to_binary(ua.MessageType.Error, ua.ErrorMessage(ua.StatusCode(0x80020000), "x"))

    async def scene():
        async with ua_peer:
            await stage.refusal(ua_session(ua_peer.url))

    stage.live(scene)
    assert [record.name for record in caplog.records if record.name.startswith("asyncua")] == []


def test_a_connection_that_ends_before_the_greeting_says_so(stage):
    async def scene():
        wire = wires.Wire("opc.tcp://plc:4840", SecurityPolicyNone())
        wire.connection_made(Pipe())
        wire.connection_lost(ConnectionResetError(104, "reset"))
        for attempt in (wire.hello("opc.tcp://plc:4840", 1), wire.ask(stage.read(), 1)):
            with pytest.raises(LineError, match="connection reset by peer"):
                await attempt
        wire.close_channel()
        wire.abort()

    stage.live(scene)


class Pipe:
    """A transport that goes nowhere."""

    is_closed = False

    def abort(self):
        self.is_closed = True

    close = abort

    def is_closing(self):
        return self.is_closed


HEADS = st.sampled_from([b"ACKF", b"ERRF", b"OPNF", b"MSGF", b"MSGC", b"MSGA", b"CLOF", b"HELF", b"ACK", b"HTTP"])
CHUNKS = st.builds(
    lambda head, size, body: head + (len(body) + 8 if size is None else size).to_bytes(4, "little") + body,
    HEADS,
    st.none() | st.integers(0, 2**32 - 1),
    st.binary(max_size=80),
)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(CHUNKS | st.binary(max_size=30), max_size=6), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_whatever_comes_over_the_wire_it_is_bounded_and_ends_with_a_reason(parts, cuts):
    data = b"".join(parts)
    at = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]

    async def scene():
        wire = wires.Wire("opc.tcp://plc:4840", SecurityPolicyNone())
        wire.connection_made(Pipe())
        for begin, end in pairwise(at):
            wire.data_received(data[begin:end])
            assert len(wire._unread) <= wires.MAX_CHUNK
        is_ended = wire.transport.is_closed
        wire.connection_lost(None)
        error = wire.ending
        assert isinstance(error, LineError)
        assert str(error).startswith("opc.tcp://plc:4840: ")
        # What is no chunk at all is never waited for.
        assert is_ended or data[:3] in (b"ACK", b"ERR", b"OPN", b"MSG", b"CLO") or len(data) < 3

    asyncio.run(scene())
