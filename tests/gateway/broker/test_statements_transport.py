"""Statements 18, 19, 60, 61 and 62 where they need an authentication method, a real socket, or time on one."""

import asyncio

import pytest

LEVELS = pytest.mark.parametrize("level", [4, 5])


def elapsed(since):
    return asyncio.get_running_loop().time() - since


def now():
    return asyncio.get_running_loop().time()


@LEVELS
def test_s18_one_and_a_half_times_the_keep_alive_without_a_packet_ends_the_link(serve, level):
    async def talk(served):
        watcher = await served.peer("w")
        watcher.send("82 .. 0001 () 'will' 00")
        await watcher.take()
        peer = await served.link(level)
        peer.send(f"10 .. 'MQTT' {level:02x} 06 000a () 'c' () 'will' 'gone'")
        await peer.take()
        assert 14.9 <= await peer.ended(0x8D if level == 5 else None) <= 17
        assert (await watcher.take()).payload == b"gone"

    serve(talk)


def test_s18_any_whole_packet_counts_and_half_a_packet_does_not(serve):
    async def talk(served):
        peer = await served.peer(keep_alive=10)
        for data in ("30 .. 't' ()", "40 02 0009", "62 02 0009", "c0 00"):
            await asyncio.sleep(12)
            peer.send(data)
        assert [(await peer.take()).kind for _ in range(2)] == ["PUBCOMP", "PINGRESP"]
        started = now()
        for byte in ("32", "09", "0001", "74"):
            await asyncio.sleep(4)
            peer.send(byte)
        await peer.ended(0x8D)
        assert 14.9 <= elapsed(started) <= 17.5

    serve(talk)


def test_s18_what_the_server_sends_does_not_count(serve):
    async def talk(served):
        peer = await served.peer(keep_alive=10)
        peer.send("82 .. 0001 () 't' 00")
        await peer.take()
        started = now()
        door = served.broker.door()
        for _ in range(3):
            await asyncio.sleep(4)
            door.publish("t", b"x")
        for _ in range(3):
            assert (await peer.take()).payload == b"x"
        await peer.ended(0x8D)
        assert 14.9 <= elapsed(started) <= 17.5

    serve(talk)


@LEVELS
def test_s18_a_keep_alive_of_0_is_none(serve, level):
    async def talk(served):
        peer = await served.peer(level=level)
        await asyncio.sleep(100)
        await peer.pinged()

    serve(talk)


@pytest.mark.parametrize("asked", [0, 65_535])
def test_s18_the_keep_alive_of_the_server_overrides_the_clients(serve, asked):
    async def talk(served):
        peer = await served.link()
        connack = await peer.connect(keep_alive=asked)
        assert connack.properties[0x13] == 20
        assert 29.9 <= await peer.ended(0x8D) <= 32

    serve(talk, keep_alive_maximum_s=20)


def test_s09_a_link_that_never_says_connect_is_closed(serve):
    async def talk(served):
        silent, half = await served.link(), await served.link()
        half.send(served.notation.raw("10 .. 'MQTT' 05 02 0000 () 'client'")[:-1])
        started = now()
        assert await silent.take() is None
        assert await half.take() is None
        assert 9 <= elapsed(started) <= 12

    serve(talk, connect_timeout_s=10.0)


@LEVELS
@pytest.mark.parametrize("accepted", [True, False])
def test_s19_packets_behind_connect_wait_for_a_slow_login(serve, level, accepted):
    from gateway.broker.access import Refusal
    from gateway.mqtt.reasons import Reason

    async def talk(served):
        watcher = await served.peer("w")
        watcher.send("82 .. 0001 () '#' 00")
        await watcher.take()
        served.access.gate.clear()
        served.access.answer = None if accepted else Refusal(Reason.NOT_AUTHORIZED, "no")
        peer = await served.link(level)
        connect = f"10 .. 'MQTT' {level:02x} 06 0000 () 'c' () 'will' 'gone'"
        peer.send(connect, "30 .. 't' () \"x\"", "82 .. 0001 () 'u' 00", "c0 00")
        await asyncio.sleep(3)
        await watcher.pinged()  # nothing came
        assert not peer.reader._buffer
        served.access.gate.set()
        connack = await peer.take()
        assert connack.kind == "CONNACK"
        if accepted:
            assert connack.reason == 0
            assert [(await peer.take()).kind for _ in range(2)] == ["SUBACK", "PINGRESP"]
            assert (await watcher.take()).payload == b"x"
        else:
            assert connack.reason == (0x87 if level == 5 else 5)
            assert await peer.take() is None
            await watcher.pinged()

    serve(talk)


# Enhanced authentication. The method "M" wants b"1", then b"2"; other words are refused.


class Method:
    def __init__(self, *words):
        self.words = list(words)

    def start(self, connect, peer):
        return Exchange(connect, list(self.words))


class Exchange:
    def __init__(self, connect, words):
        self.connect = connect
        self.words = words

    def step(self, data):
        from gateway.broker.access import Continue, Done, Refusal
        from gateway.broker.client import Identity
        from gateway.mqtt.reasons import Reason

        if data != self.words.pop(0):
            return Refusal(Reason.NOT_AUTHORIZED, "wrong word")
        return Continue(b"?" + data) if self.words else Done(Identity(self.connect.client_id, "mary"), b"bye")


CONNECT = "10 .. 'MQTT' 05 02 0000 (15 'M' 16 '1') 'c'"


@pytest.fixture
def asked(world):
    """A link whose client was asked for its second word."""
    world.access.methods["M"] = Method(b"1", b"2")
    link = world.link()
    link.send(CONNECT)
    link.expect("f0 .. 18 (15 'M' 16 '?1')")
    return link


@pytest.fixture
def proved(asked):
    """A client that has proved who it is."""
    asked.send("f0 .. 18 (15 'M' 16 '2')")
    connack = asked.take("CONNACK")
    assert connack.raw[2:4] == bytes([0, 0])
    assert connack.properties[0x15] == "M"
    assert connack.properties[0x16] == b"bye"
    return asked


def test_s60_an_unknown_method_is_refused_with_8c(world):
    world.access.methods["M"] = Method(b"1")
    for name in ("X", "m", ""):
        link = world.link()
        link.send(f"10 .. 'MQTT' 05 02 0000 (15 '{name}') 'c'", "c0 00")
        link.expect("20 .. 00 8c (*)")
        assert link.is_closed


def test_s60_auth_goes_back_and_forth_until_the_method_is_satisfied(proved):
    assert proved.client.identity.username == "mary"
    proved.send("c0 00")
    proved.expect("d0 00")


def test_s60_a_method_may_be_satisfied_at_once(world):
    world.access.methods["M"] = Method(b"1")
    link = world.link()
    link.send(CONNECT)
    connack = link.take("CONNACK")
    assert connack.reason == 0
    assert connack.properties[0x15] == "M"


@pytest.mark.parametrize("last", ["CONNECT", "AUTH"])
def test_s60_a_refusal_is_an_error_connack(world, last):
    world.access.methods["M"] = Method(b"1" if last == "AUTH" else b"0", b"2")
    link = world.link()
    link.send(CONNECT)
    if last == "AUTH":
        link.expect("f0 .. 18 (15 'M' 16 '?1')")
        link.send("f0 .. 18 (15 'M' 16 'wrong')")
    link.expect("20 .. 00 87 (*)")
    assert link.is_closed
    assert world.peer("w") is not None


@pytest.mark.parametrize(
    "data", ["c0 00", "30 .. 't' ()", "82 .. 0001 () 't' 00", "40 02 0001", CONNECT, "62 02 0001", "a2 .. 0001 () 't'"]
)
def test_s60_nothing_but_auth_and_disconnect_may_come_in_between(world, asked, data):
    watcher = world.peer("w")
    watcher.subscribe("#")
    asked.send(data, "f0 .. 18 (15 'M' 16 '2')")
    asked.ended(0x82)
    assert watcher.silent()


def test_s60_disconnect_may_come_in_between(asked):
    asked.send("e0 00")
    assert asked.is_closed
    assert not asked.received()


@pytest.mark.parametrize(
    "data",
    [
        "f0 .. 18 (15 'N' 16 '2')",  # another method
        "f0 .. 18 (16 '2')",  # none
        "f0 00",  # a client has no success to tell
        "f0 .. 00 (15 'M' 16 '2')",
        "f0 .. 01 (15 'M' 16 '2')",
        "f0 .. 87 (15 'M' 16 '2')",
    ],
)
def test_s60_the_method_stays_and_the_reason_is_continue(asked, data):
    asked.send(data)
    asked.ended(0x81, 0x82, 0x8C)


@pytest.mark.parametrize("data", ["f0 .. 18 (15 'M')", "f0 .. 19 (15 'M')", "f0 00", "f0 .. 19 ()"])
def test_s60_there_is_no_auth_without_a_method_in_connect(world, data):
    world.access.methods["M"] = Method(b"1", b"2")
    peer = world.peer()
    assert not {0x15, 0x16} & set(peer.connack.properties)
    peer.send(data)
    peer.ended(0x82)


def test_s60_reauthentication_goes_beside_the_traffic_and_ends_with_success(proved):
    proved.send("f0 .. 19 (15 'M' 16 '1')")
    proved.expect("f0 .. 18 (15 'M' 16 '?1')")
    proved.send("c0 00", "82 .. 0001 () 't' 00", "30 .. 't' ()")
    proved.expect("d0 00", "90 .. 0001 () 00", "30 .. 't' ()")
    proved.send("f0 .. 18 (15 'M' 16 '2')")
    proved.expect("f0 .. 00 (15 'M' 16 'bye')")
    proved.send("c0 00")
    proved.expect("d0 00")


def test_s60_a_reauthentication_that_fails_drops_the_client(world, proved):
    proved.send("f0 .. 19 (15 'M' 16 '1')")
    proved.expect("f0 .. 18 (15 'M' 16 '?1')")
    proved.send("f0 .. 18 (15 'M' 16 'wrong')")
    proved.ended(0x87)


@pytest.mark.parametrize(
    "data", ["f0 .. 18 (15 'M' 16 '1')", "f0 .. 19 (15 'N' 16 '1')", "f0 .. 19 (16 '1')", "f0 .. 00 (15 'M')"]
)
def test_s60_auth_out_of_turn_is_a_protocol_error(proved, data):
    proved.send(data)
    proved.ended(0x81, 0x82, 0x8C)


def test_s60_auth_is_no_packet_of_311(world):
    peer = world.peer(level=4)
    peer.send("f0 00")
    peer.ended()


def test_s60_over_a_socket(serve):
    async def talk(served):
        served.access.methods["M"] = Method(b"1", b"2")
        link = await served.link()
        link.send(CONNECT)
        assert (await link.take()).raw == served.notation.raw("f0 .. 18 (15 'M' 16 '?1')")
        link.send("f0 .. 18 (15 'M' 16 '2')", "c0 00")
        assert (await link.take()).reason == 0
        assert (await link.take()).kind == "PINGRESP"
        other = await served.link()
        other.send(CONNECT)
        await other.take()
        started = now()
        late = await other.take()  # it never answers
        assert late is None or late.reason >= 0x80
        assert elapsed(started) <= 13

    serve(talk, connect_timeout_s=10.0)


# DISCONNECT.


@pytest.mark.parametrize(
    ("level", "data"),
    [(level, data) for level in (4, 5) for data in ("e1 00", "e4 00", "ef 00")] + [(4, "e0 01 00"), (4, "e0 02 00 00")],
)
def test_s61_disconnect_with_flags_or_with_a_body_that_its_level_has_not_is_malformed(world, level, data):
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer = world.peer(level=level, will=("will", b"gone"))
    peer.send(data)
    peer.ended(0x81)
    watcher.expect("30 .. 'will' () \"gone\"")


@pytest.mark.parametrize("data", ["e0 01 01", "e0 01 05", "e0 01 ff", "e0 03 00 00 00", "e0 02 00 01"])
def test_s61_an_unknown_reason_or_bytes_behind_are_an_error(world, data):
    watcher = world.peer("w")
    watcher.subscribe("will")
    peer = world.peer(will=("will", b"gone"))
    peer.send(data)
    peer.ended(0x81, 0x82)
    watcher.expect("30 .. 'will' () \"gone\"")


def test_s61_the_server_never_says_a_session_expiry(world):
    from gateway.mqtt.reasons import Reason

    for end in (
        lambda peer: world.peer("c", clean=False, expiry=100),
        lambda peer: peer.send("c1 00"),
        lambda peer: world.broker.disconnect("c", Reason.ADMINISTRATIVE_ACTION, world.now),
        lambda peer: world.broker.idle(peer.client, world.now),
        lambda peer: world.broker.shutdown(world.now),
    ):
        peer = world.peer("c", clean=False, expiry=100)
        end(peer)
        world.turn()
        (seen,) = peer.packets()
        assert seen.raw[0] == 0xE0
        assert 0x11 not in seen.properties


def test_s61_a_311_client_is_never_sent_disconnect(world):
    from gateway.mqtt.reasons import Reason

    peer = world.peer("c", level=4)
    world.broker.disconnect("c", Reason.ADMINISTRATIVE_ACTION, world.now)
    world.turn()
    assert peer.is_closed
    assert not peer.received()


@pytest.mark.parametrize("data", ["c1 00", "e0 00"])
def test_s61_nothing_is_sent_behind_the_last_word(world, data):
    peer = world.peer()
    peer.subscribe("t", qos=1)
    peer.send(data, "c0 00", "82 .. 0009 () 'u' 00")
    peer.packets()
    world.peer("p").publish("t", b"x", 1)
    world.advance(20)
    assert not peer.received()


@LEVELS
def test_s61_the_server_closes_behind_disconnect(serve, level):
    async def talk(served):
        peer = await served.peer(level=level)
        peer.send("e0 00", "c0 00")
        assert await peer.ended() <= 2

    serve(talk)


def test_s61_the_server_closes_behind_its_own_disconnect_even_if_the_client_lingers(serve):
    async def talk(served):
        peer = await served.peer()
        started = now()
        peer.send("c1 00")
        assert await peer.ended(0x81) <= 1
        while served.connections:  # the client keeps its side open
            await asyncio.sleep(0.1)
            assert elapsed(started) <= 3

    serve(talk)


def test_s61_the_last_word_arrives_although_the_client_is_still_talking(serve):
    async def talk(served):
        peer = await served.peer()
        peer.send("c1 00")
        for _ in range(64):
            peer.send(b"\x30\x06\x00\x01t\x00xx" * 2_000)
        assert await peer.ended(0x81) <= 3

    serve(talk)


# WebSocket.


def test_s62_the_sub_protocol_mqtt_is_required_and_echoed(serve):
    async def talk(served):
        for offered in ("mqtt", "foo, mqtt", "mqtt, foo"):
            web = await served.websocket()
            status, headers = await web.open(protocols=offered)
            assert status == 101
            assert headers["sec-websocket-protocol"] == "mqtt"
        for offered in (None, "foo", "MQTT", "mqttv3.1"):
            web = await served.websocket()
            status, _ = await web.open(protocols=offered)
            assert 400 <= status < 500, offered
        web = await served.websocket()
        status, _ = await web.open(path="/elsewhere")
        assert status == 404

    serve(talk, schemes=("ws",))


def test_s62_packets_come_and_go_in_binary_frames(serve):
    async def talk(served):
        web = await served.websocket()
        await web.open()
        web.send("10 .. 'MQTT' 05 02 0000 () 'web'")
        (connack,) = await web.packets()
        assert connack.raw[0] == 0x20
        assert connack.reason == 0
        web.send("82 .. 0001 () 't' 01")
        (suback,) = await web.packets()
        assert suback.raw == served.notation.raw("90 .. 0001 () 01")
        old = await served.websocket()
        await old.open()
        old.send("10 .. 'MQTT' 04 02 0000 'old'")
        assert await old.receive() == (2, bytes.fromhex("20020000"))

    serve(talk, schemes=("ws",))


def test_s62_packets_may_be_split_and_joined_over_frames(serve):
    async def talk(served):
        raw = served.notation.raw
        web = await served.browser()
        together = raw("82 .. 0001 () 't' 00") + raw("30 .. 't' () \"1\"") + raw("30 .. 't' () \"2\"")
        web.frame(2, together)  # three in one
        seen = []
        while len(seen) < 3:
            seen += await web.packets()
        assert [one.raw for one in seen] == [
            raw("90 .. 0001 () 00"),
            raw("30 .. 't' () \"1\""),
            raw("30 .. 't' () \"2\""),
        ]
        for byte in raw("30 .. 't' () \"3\""):  # one in many
            web.frame(2, bytes([byte]))
        web.frame(2, b"")
        assert [one.payload for one in await web.packets()] == [b"3"]
        data = raw("30 .. 't' () \"4\"") + raw("30 .. 't' () \"5\"")
        web.frame(2, data[:3], fin=False)  # one message in fragments, with a ping in between
        web.frame(9, b"ping")
        web.frame(0, data[3:11], fin=False)
        web.frame(0, data[11:])
        assert await web.receive() == (10, b"ping")
        seen = []
        while len(seen) < 2:
            seen += await web.packets()
        assert [one.payload for one in seen] == [b"4", b"5"]

    serve(talk, schemes=("ws",))


@pytest.mark.parametrize("opened", [True, False])
def test_s62_a_text_frame_ends_the_link(serve, opened):
    async def talk(served):
        if opened:
            web = await served.browser()
        else:
            web = await served.websocket()
            await web.open()
        web.frame(1, served.notation.raw("c0 00"))
        frames = []
        while (frame := await web.receive())[0] != -1:
            frames.append(frame)
        assert [opcode for opcode, _ in frames] in ([8], [2, 8], [2], [])
        assert all(data[0] == 0xE0 for opcode, data in frames if opcode == 2)
        started = now()
        while served.connections:
            await asyncio.sleep(0.1)
            assert elapsed(started) <= 3

    serve(talk, schemes=("ws",))


@pytest.mark.parametrize(
    "data", ["30 ffffffff", "30 ffffffff7f", "c0 8000", "82 8080808001", "30 ffff7f", "32 03 0001"]
)
@pytest.mark.parametrize("opened", [True, False])
def test_s62_a_bad_remaining_length_reads_nothing_beyond_its_frame(serve, data, opened):
    async def talk(served):
        other = await served.peer("other")
        if opened:
            web = await served.browser()
        else:
            web = await served.websocket()
            await web.open()
        web.frame(2, bytes.fromhex(data))
        if data not in ("30 ffff7f", "32 03 0001"):  # these two are incomplete or too large, not malformed
            frames = []
            while (frame := await web.receive())[0] != -1:
                frames.append(frame)
            if opened:
                assert frames[0][1][:1] == b"\xe0"
                assert frames[0][1][2] == 0x81
        await other.pinged()
        web.writer.close()

    serve(talk, schemes=("mqtt", "ws"))


def test_s62_a_close_frame_ends_the_link_and_the_will_is_published(serve):
    async def talk(served):
        watcher = await served.peer("w")
        watcher.send("82 .. 0001 () 'will' 00")
        await watcher.take()
        web = await served.websocket()
        await web.open()
        web.send("10 .. 'MQTT' 05 06 0000 () 'web' () 'will' 'gone'")
        await web.packets()
        web.frame(8, (1000).to_bytes(2, "big"))
        assert (await web.receive())[0] == 8
        assert (await web.receive())[0] == -1
        assert (await watcher.take()).payload == b"gone"

    serve(talk, schemes=("mqtt", "ws"))


def test_s62_disconnect_in_a_frame_ends_the_link_without_the_will(serve):
    async def talk(served):
        watcher = await served.peer("w")
        watcher.send("82 .. 0001 () 'will' 00")
        await watcher.take()
        web = await served.websocket()
        await web.open()
        web.send("10 .. 'MQTT' 05 06 0000 () 'web' () 'will' 'gone'", "e0 00")
        while (await web.receive())[0] != -1:
            pass
        await watcher.pinged()

    serve(talk, schemes=("mqtt", "ws"))


def test_s62_keep_alive_is_kept_by_packets_not_by_frames(serve):
    async def talk(served):
        web = await served.websocket()
        await web.open()
        web.send("10 .. 'MQTT' 05 02 000a () 'web'")
        await web.packets()
        started = now()
        for _ in range(3):
            await asyncio.sleep(4)
            web.frame(9, b"")
            assert (await web.receive())[0] == 10
        (seen,) = await web.packets()
        assert (seen.kind, seen.reason) == ("DISCONNECT", 0x8D)
        assert 14.9 <= elapsed(started) <= 17.5

    serve(talk, schemes=("ws",))
