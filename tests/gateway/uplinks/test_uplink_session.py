"""The session against a server that speaks MQTT byte by byte, on loopback."""

import asyncio
import gc
import time

import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch
from gateway.spool.cursor import Cursor
from gateway.uplinks.dialling import Attempt
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.message import Message
from gateway.uplinks.options import Options, Server
from gateway.uplinks.session import Session, SessionError

WILL = Message("g/status", b'{"state":"offline"}', retain=True)
CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_4 = b"\x20\x02\x00\x00"


class Peer:
    """Reads packets as (first byte, body), and answers by script: `{kind: bytes or function(body)}`."""

    def __init__(self, answers):
        self.answers = answers
        self.packets = []
        self.writers = []
        self.ended = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        for writer in self.writers:
            writer.close()
        self.server.close()

    async def _serve(self, reader, writer):
        self.writers.append(writer)
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                size = shift = 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    size |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                body = await reader.readexactly(size)
                self.packets.append((first, body))
                answer = self.answers.get(first >> 4)
                answer = answer(body) if callable(answer) else answer
                if answer is None:
                    continue
                writer.write(answer)
                if answer == b"":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.ended += 1
        writer.close()

    def kinds(self):
        return [first >> 4 for first, _ in self.packets]


def session(port, *, version="5", **options):
    url = f"mqtt://127.0.0.1:{port}"
    return Session(
        Attempt(Server("127.0.0.1", port, secure=False), version, 1, will_retain=True),
        Options(**{"name": "cloud", "gateway": "plant7", "servers": (url,), "connect_timeout_s": 5.0} | options),
        WILL,
    )


async def until(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


def token_of(body):
    size = int.from_bytes(body[:2])
    return body[2 + size : 4 + size]


def run(story, loop_factory=None):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story)
    gc.collect()  # what was left open would be complained of now


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request):
    if request.param == "asyncio":
        return None
    return pytest.importorskip("uvloop").new_event_loop


# --- connecting -------------------------------------------------------------------------------------------------------


def test_connect_is_a_clean_start_with_will_and_login():
    class Hidden:
        def reveal(self):
            return "hunter2"

    async def story():
        async with (
            Peer({1: CONNACK_5}) as peer,
            session(peer.port, username="plant7", password=Hidden(), keep_alive_s=30),
        ):
            (packet,) = peer.packets
            assert packet == (
                0x10,
                b"\x00\x04MQTT\x05"
                b"\xee"  # user name, password, will retain, will QoS 1, will, clean start
                b"\x00\x1e"
                b"\x05\x11\x00\x00\x00\x00"  # session expiry 0
                b"\x00\x0cplant7-cloud"
                b"\x00\x00\x08g/status\x00\x13" + WILL.payload + b"\x00\x06plant7\x00\x07hunter2",
            )

    run(story())


def test_connect_of_3_1_1_is_a_clean_session():
    async def story():
        async with Peer({1: CONNACK_4}) as peer, session(peer.port, version="3.1.1") as s:
            assert peer.packets[0][1][:10] == b"\x00\x04MQTT\x04\x2e\x00\x0f"
            assert s.terms.version == "3.1.1"

    run(story())


def test_the_server_s_terms_are_read_from_connack():
    properties = (
        b"\x21\x00\x0a"  # receive maximum 10
        b"\x27\x00\x00\x08\x00"  # maximum packet size 2048
        b"\x24\x01"  # maximum QoS 1
        b"\x25\x00"  # retain available 0
        b"\x12\x00\x03abc"  # assigned client identifier
        b"\x13\x00\x07"  # server keep alive
    )

    async def story():
        connack = b"\x20" + bytes([3 + len(properties)]) + b"\x00\x00" + bytes([len(properties)]) + properties
        async with Peer({1: connack}) as peer, session(peer.port) as s:
            t = s.terms
            assert (t.receive_maximum, t.maximum_packet, t.maximum_qos, t.can_retain) == (10, 2048, 1, False)
            assert (t.client_id, t.keep_alive_s) == ("abc", 7)

    run(story())


def test_without_properties_the_terms_are_what_we_asked_for():
    async def story():
        async with Peer({1: CONNACK_5}) as peer, session(peer.port, max_packet=5000) as s:
            t = s.terms
            assert (t.receive_maximum, t.maximum_packet, t.maximum_qos, t.can_retain) == (65535, 5000, 2, True)
            assert (t.client_id, t.keep_alive_s, t.server) == ("plant7-cloud", 15, f"mqtt://127.0.0.1:{peer.port}")

    run(story())


@pytest.mark.parametrize(
    ("version", "connack", "code", "needs_person"),
    [
        ("5", b"\x20\x03\x00\x86\x00", 0x86, True),
        ("5", b"\x20\x03\x00\x87\x00", 0x87, True),
        ("5", b"\x20\x03\x00\x84\x00", 0x84, True),
        ("5", b"\x20\x02\x00\x01", 0x84, True),
        ("5", b"\x20\x03\x00\x88\x00", 0x88, False),
        ("5", b"\x20\x03\x00\x9a\x00", 0x9A, False),
        ("3.1.1", b"\x20\x02\x00\x01", 0x84, True),
        ("3.1.1", b"\x20\x02\x00\x02", 0x85, True),
        ("3.1.1", b"\x20\x02\x00\x03", 0x88, False),
        ("3.1.1", b"\x20\x02\x00\x04", 0x86, True),
        ("3.1.1", b"\x20\x02\x00\x05", 0x87, True),
    ],
)
def test_a_refused_connect_says_why_at_once(version, connack, code, needs_person):
    async def story():
        async with Peer({1: connack}) as peer:
            begun = time.monotonic()
            with pytest.raises(SessionError, match=f"0x{code:02X}") as caught:
                async with session(peer.port, version=version):
                    pass
            assert (caught.value.code, caught.value.needs_person) == (code, needs_person)
            assert time.monotonic() - begun < 2
            await until(lambda: peer.ended)

    run(story())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_server_that_hangs_up_before_connack_is_noticed_at_once(version):
    async def story():
        async with Peer({1: b""}) as peer:
            begun = time.monotonic()
            with pytest.raises(SessionError, match="hung up instead of answering") as caught:
                async with session(peer.port, version=version):
                    pass
            assert caught.value.hung_up
            assert time.monotonic() - begun < 2

    run(story())


def test_a_server_that_does_not_answer_connect_is_left_after_the_time_out():
    async def story():
        async with Peer({}) as peer:
            with pytest.raises(SessionError, match=r"no answer within 0\.3 s"):
                async with session(peer.port, connect_timeout_s=0.3):
                    pass
            await until(lambda: peer.ended)

    run(story())


def test_nobody_listening_is_said(free_port):
    async def story():
        with pytest.raises(SessionError, match="refused"):
            async with session(free_port):
                pass

    run(story())


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_host_that_cannot_be_a_host_needs_a_person():
    async def story():
        attempt = Attempt(Server("a" * 70 + ".example", 1883, secure=False), "5", 1, will_retain=True)
        options = Options(name="cloud", gateway="plant7", servers=("mqtt://x",))
        with pytest.raises(SessionError) as caught:
            async with Session(attempt, options, WILL):
                pass
        assert str(caught.value)

    run(story())


def test_being_cancelled_while_connecting_leaves_nothing_open():
    async def story():
        async with Peer({}) as peer:
            task = asyncio.create_task(session(peer.port).__aenter__())
            await until(lambda: peer.packets)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: peer.ended)

    run(story())


def test_being_cancelled_before_the_socket_is_open_leaves_nothing_open():
    async def story():
        async with Peer({1: CONNACK_5}) as peer:
            task = asyncio.create_task(session(peer.port).__aenter__())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.get_running_loop().shutdown_default_executor()  # the thread has done what it could not leave
            for _ in range(20):
                await asyncio.sleep(0)
            await until(lambda: peer.ended == len(peer.writers))
            assert 3 not in peer.kinds()

    run(story())


def test_a_connection_nobody_waits_for_any_more_does_not_even_say_connect():
    async def story():
        async with Peer({1: CONNACK_5}) as peer:
            s = session(peer.port)
            s._client.abort()
            with pytest.raises(SessionError, match="nobody waits"):
                await s.__aenter__()
            await until(lambda: peer.ended)
            assert peer.packets == []

    run(story())


# --- publishing -------------------------------------------------------------------------------------------------------


def acks(kind, *tail):
    return lambda body: bytes([kind, 2 + len(tail)]) + token_of(body) + bytes(tail)


@pytest.mark.parametrize(
    ("answers", "qos", "code"),
    [
        ({3: acks(0x40)}, 1, 0),
        ({3: acks(0x40, 0x10)}, 1, 0x10),
        ({3: acks(0x40, 0x87)}, 1, 0x87),
        ({3: acks(0x40, 0x97, 0)}, 1, 0x97),
        ({3: acks(0x40, 0x95)}, 1, 0x95),  # not in the standard's table for PUBACK: paho would hang up
        ({3: acks(0x40, 0xEE)}, 1, 0xEE),
        ({3: acks(0x50), 6: lambda body: b"\x70\x02" + body[:2]}, 2, 0),
        ({3: acks(0x50), 6: lambda body: b"\x70\x03" + body[:2] + b"\x92"}, 2, 0),
        ({3: acks(0x50, 0x87)}, 2, 0x87),
    ],
)
def test_the_code_of_an_acknowledgement_comes_with_its_token(answers, qos, code):
    async def story():
        async with Peer({1: CONNACK_5} | answers) as peer, session(peer.port) as s:
            heard = []
            s.listen(heard.extend)
            token = s.publish(Message("a/b", b"x"), qos)
            assert heard == []
            await until(lambda: heard)
            assert heard == [(token, code)]
            assert (6 in peer.kinds()) == (qos == 2 and code == 0)  # no release of what was refused
            token = s.publish(Message("a/b", b"y"), qos)
            await until(lambda: len(heard) == 2)
            assert heard[1] == (token, code)
            assert not s._client.paho._out_messages

    run(story())


def test_a_publish_is_these_bytes():
    async def story():
        async with Peer({1: CONNACK_5, 3: acks(0x40)}) as peer, session(peer.port) as s:
            s.publish(Message("a/b", b"xyz", retain=True), 1, b"\x0b\x26\x00\x03key\x00\x03val")
            await until(lambda: len(peer.packets) == 2)
            assert peer.packets[1] == (0x33, b"\x00\x03a/b\x00\x01\x0b\x26\x00\x03key\x00\x03valxyz")

    run(story())


def test_properties_stay_at_home_with_3_1_1():
    async def story():
        async with Peer({1: CONNACK_4, 3: acks(0x40)}) as peer, session(peer.port, version="3.1.1") as s:
            heard = []
            s.listen(heard.extend)
            s.publish(Message("a/b", b"xyz"), 1, b"\x01\x00")
            await until(lambda: heard)
            assert peer.packets[1] == (0x32, b"\x00\x03a/b\x00\x01xyz")

    run(story())


def test_qos_0_is_acknowledged_when_it_was_written():
    async def story():
        async with Peer({1: CONNACK_5}) as peer, session(peer.port) as s:
            heard = []
            s.listen(heard.extend)
            token = s.publish(Message("a/b", b"xyz"), 0)
            assert heard == []
            await until(lambda: heard)
            assert heard == [(token, 0)]
            await until(lambda: len(peer.packets) == 2)
            assert peer.packets[1][0] == 0x30

    run(story())


def test_acknowledgements_of_one_turn_come_together():
    async def story():
        held = []

        def hold(body):
            held.append(b"\x40\x02" + token_of(body))
            return b"".join(held) if len(held) == 50 else None

        async with Peer({1: CONNACK_5, 3: hold}) as peer, session(peer.port) as s:
            calls = []
            s.listen(calls.append)
            tokens = [s.publish(Message("a/b", b"x"), 1) for _ in range(50)]
            await until(lambda: sum(map(len, calls)) == 50)
            assert [token for call in calls for token, _ in call] == tokens
            assert len(calls) <= 3

    run(story())


def test_an_acknowledgement_nobody_waits_for_is_ignored():
    async def story():
        def twice(body):
            return (b"\x40\x02" + token_of(body)) * 2 + b"\x40\x02\x77\x77" + b"\x50\x03\x66\x66\x87"

        async with Peer({1: CONNACK_5, 3: twice}) as peer, session(peer.port) as s:
            heard = []
            s.listen(heard.extend)
            for _ in range(3):
                s.publish(Message("a/b", b"x"), 1)
            await until(lambda: len(heard) == 3)

    run(story())


def test_a_server_that_reads_slowly_gets_everything_in_the_end(loop_factory):
    async def story():
        payload = bytes(100_000)
        async with Peer({1: CONNACK_5, 3: acks(0x40)}) as peer, session(peer.port) as s:
            await until(lambda: peer.writers)
            peer.writers[0].transport.pause_reading()
            heard = []
            s.listen(heard.extend)
            for _ in range(100):
                s.publish(Message("a/b", payload), 1)
            await until(lambda: s._client._is_waiting)
            for _ in range(20):
                s.publish(Message("a/b", payload), 1)
            await asyncio.sleep(0)
            assert len(heard) < 100
            peer.writers[0].transport.resume_reading()
            await until(lambda: len(heard) == 120)
            assert not s._client._is_waiting
            assert len(peer.packets) == 121
            assert all(body.endswith(payload) for _, body in peer.packets[1:])

    run(story(), loop_factory)


def test_a_server_that_knows_only_3_1_1_is_reached_all_the_same(loop_factory, memory_spool, define):
    async def story():
        answers = {1: lambda body: CONNACK_4 if body[6] == 4 else b"\x20\x02\x00\x01", 3: acks(0x40)}
        async with Peer(answers) as peer:
            spool, cursor = memory_spool(), Cursor("cloud", holds=True, committed=0)
            for i in range(50):
                spool.append(Batch(define("a uint16"), 1795330000123, [i]))
            forwarder = Forwarder(
                Options(name="cloud", gateway="plant7", servers=(f"mqtt://127.0.0.1:{peer.port}",)),
                streams=[(spool, cursor)],
                states={},
                clock=SystemClock(),
                metrics=Metrics(),
            )
            running = asyncio.create_task(forwarder.run())
            await until(lambda: cursor.committed == 50)
            assert forwarder.status().version == "3.1.1"
            await forwarder.stop(1)
            await running
            assert peer.kinds()[-2:] == [3, 14]
            assert peer.packets[-2][1].endswith(b'{"state":"stopped"}')

    run(story(), loop_factory)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_leaving_says_disconnect_after_what_was_published(loop_factory):
    async def story():
        async with Peer({1: CONNACK_5}) as peer:
            async with session(peer.port) as s:
                s.publish(Message("a/b", b"x"), 1)
            await until(lambda: peer.ended)
            assert peer.kinds() == [1, 3, 14]

    run(story(), loop_factory)


def test_leaving_with_an_exception_hangs_up_without_a_word():
    async def story():
        async with Peer({1: CONNACK_5}) as peer:
            with pytest.raises(ZeroDivisionError):
                async with session(peer.port):
                    raise ZeroDivisionError
            await until(lambda: peer.ended)
            assert 14 not in peer.kinds()

    run(story())


def test_leaving_a_server_that_is_gone_comes_back():
    async def story():
        async with Peer({1: CONNACK_5}) as peer:
            s = session(peer.port)
            await s.__aenter__()
            peer.writers[0].transport.abort()
            await until(lambda: peer.ended)
            await asyncio.wait_for(s.__aexit__(None, None, None), 5)

    run(story())


@pytest.mark.parametrize(
    ("last_words", "text", "code"),
    [
        (b"\xe0\x02\x8e\x00", "session taken over", 0x8E),
        (b"\xe0\x02\x8b\x00", r"server shutting down \(0x8B\)", 0x8B),
        (b"\xe0\x0d\x97\x0b\x1f\x00\x08too many", "quota exceeded .*too many", 0x97),
        (b"\xe0\x00", "the server closed it$", 0),
        (b"", "without a word", 0),
        (b"\xf5\x03abc", "sent what is no MQTT", 0),
    ],
)
def test_the_end_of_a_connection_says_why(last_words, text, code):
    async def story():
        async with Peer({1: CONNACK_5}) as peer, session(peer.port) as s:
            await until(lambda: peer.writers)
            peer.writers[0].write(last_words)
            peer.writers[0].close()
            with pytest.raises(SessionError, match=text) as caught:
                await asyncio.wait_for(s.lost(), 5)
            assert caught.value.code == code
            with pytest.raises(SessionError):
                s.publish(Message("a/b", b"x"), 1)

    run(story())


def test_a_server_that_stops_answering_pings_is_noticed():
    connack = b"\x20\x06\x00\x00\x03\x13\x00\x01"  # server keep alive 1 s

    async def story():
        async with Peer({1: connack}) as peer, session(peer.port) as s:
            with pytest.raises(SessionError, match="no answer to a ping within 1 s"):
                await asyncio.wait_for(s.lost(), 10)
            assert 12 in peer.kinds()

    run(story())


def test_a_server_that_answers_pings_is_kept():
    connack = b"\x20\x06\x00\x00\x03\x13\x00\x01"

    async def story():
        async with Peer({1: connack, 12: b"\xd0\x00"}) as peer, session(peer.port) as s:
            lost = asyncio.create_task(s.lost())
            await until(lambda: peer.kinds().count(12) >= 3, 10)
            assert not lost.done()
            lost.cancel()

    run(story())


def test_an_error_in_our_own_callback_is_not_taken_for_a_lost_connection():
    async def story():
        async with Peer({1: CONNACK_5}) as peer, session(peer.port) as s:
            s._client._acknowledge = lambda *_: 1 / 0
            s.publish(Message("a/b", b"x"), 1)
            await until(lambda: len(peer.packets) == 2)
            peer.writers[0].write(b"\x40\x02\x00\x01")
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(s.lost(), 5)

    run(story())


# --- messages in ------------------------------------------------------------------------------------------------------


def incoming(topic, payload, *, first=0x32, properties=b"\x00"):
    """A PUBLISH of QoS 1, packet identifier 7, MQTT 5 unless `properties` is empty."""
    body = len(topic).to_bytes(2) + topic.encode() + b"\x00\x07" + properties + payload
    return bytes((first, len(body))) + body


FILTERS = ("headgate/g/+/+/set", "headgate/g/+/+/+/set")


def test_it_asks_for_live_messages_only_and_hears_what_they_say(loop_factory):
    heard = []
    properties = (
        b"\x18" + b"\x02\x00\x00\x00\x05" + b"\x08\x00\x07answers" + b"\x09\x00\x04\x00\xff\x00\x01" + b"\x01\x00"
    )

    async def story():
        message = incoming("headgate/g/boiler/pump/set", b"true", properties=properties)
        suback = b"\x90\x05\x00\x01\x00\x01\x01"
        async with Peer({1: CONNACK_5, 8: suback + message}) as peer, session(peer.port) as it:
            it.subscribe(FILTERS, heard.append, lambda: None)
            await until(lambda: heard and 4 in peer.kinds())
        return next(body for first, body in peer.packets if first == 0x82)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        subscribe = runner.run(story())
    options = 0x01 | 0x04 | 0x08 | 0x20  # QoS 1, no local, as published, do not send what is retained
    for text in FILTERS:
        assert text.encode() + bytes((options,)) in subscribe
    (message,) = heard
    assert message == ("headgate/g/boiler/pump/set", b"true", False, False, 5, "answers", b"\x00\xff\x00\x01")


def test_with_the_old_version_flags_are_all_that_a_message_says():
    heard = []

    async def story():
        messages = b"".join(
            incoming("headgate/g/boiler/pump/set", b"%d" % first, first=first, properties=b"")
            for first in (0x32, 0x33, 0x3A)
        )
        async with Peer({1: CONNACK_4, 8: b"\x90\x03\x00\x01\x01" + messages}) as peer:
            async with session(peer.port, version="3.1.1") as it:
                it.subscribe(FILTERS[:1], heard.append, lambda: None)
                await until(lambda: peer.kinds().count(4) == 3)
            return [body for first, body in peer.packets if first == 0x82]

    with asyncio.Runner() as runner:
        (subscribe,) = runner.run(story())
    assert subscribe.endswith(FILTERS[0].encode() + b"\x01")
    assert [(m.retain, m.is_again, m.expires_s, m.response_topic) for m in heard] == [
        (False, False, None, ""),
        (True, False, None, ""),
        (False, True, None, ""),
    ]


def test_filters_that_the_server_refuses_are_named(caplog):
    async def story():
        async with Peer({1: CONNACK_5, 8: b"\x90\x05\x00\x01\x00\x01\x87"}) as peer, session(peer.port) as it:
            answers = []
            it.subscribe(FILTERS, lambda _: None, lambda: answers.append(1))
            await until(lambda: caplog.messages)
            assert answers == [1]

    run(story())
    assert len([text for text in caplog.messages if "does not let us" in text]) == 1
    assert f"does not let us subscribe to '{FILTERS[1]}'" in caplog.text


def test_a_topic_that_is_no_text_is_passed_over():
    heard = []

    async def story():
        bad = b"\x32\x08\x00\x02\xff\xfe\x00\x07\x00x"
        good = incoming("a", b"1")
        async with Peer({1: CONNACK_5, 8: b"\x90\x04\x00\x01\x00\x01" + bad + good}) as peer, session(peer.port) as it:
            it.subscribe(FILTERS[:1], heard.append, lambda: None)
            await until(lambda: heard)

    run(story())
    assert [message.topic for message in heard] == ["a"]


def test_after_the_end_nobody_can_subscribe():
    async def story():
        async with Peer({1: CONNACK_5, 8: b""}) as peer, session(peer.port) as it:
            it.subscribe(FILTERS, lambda _: None, lambda: None)
            with pytest.raises(SessionError):
                await it.lost()
            with pytest.raises(SessionError, match="cannot subscribe"):
                it.subscribe(FILTERS, lambda _: None, lambda: None)

    run(story())
