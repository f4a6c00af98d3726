"""Bytes at any split: the same packets, the same end, in linear time. Whatever the bytes, only one kind of error."""

import random
import time
import timeit
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt.client import ClientConnection
from gateway.mqtt.connection import Connection, Terms
from gateway.mqtt.decode import decode
from gateway.mqtt.encode import encode
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import (
    V5,
    V311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from gateway.mqtt.properties import NONE, Properties
from gateway.mqtt.reasons import Reason

TERMS = Terms(receive_maximum=20, maximum_packet_size=20_000, topic_alias_maximum=4)
LEVELS = st.sampled_from((V311, V5))


def opened(level=V5, terms=TERMS):
    connection = Connection(terms)
    connection.feed(encode(Connect(level=level, client_id="c"), level))
    list(connection.events())
    connection.send(Connack())
    return connection


def pieces(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def story(connection, chunks):
    """All that comes out, answered as a server would, and how it ends."""
    seen = []
    try:
        for chunk in chunks:
            connection.feed(chunk)
            for packet in connection.events():
                seen.append(packet)
                if isinstance(packet, Connect):
                    connection.send(Connack())
                elif isinstance(packet, Publish) and packet.qos == 1:
                    connection.send(Puback(packet.packet_id))
                elif isinstance(packet, Publish) and packet.qos:
                    connection.send(Pubrec(packet.packet_id))
                elif isinstance(packet, Pubrel):
                    connection.send(Pubcomp(packet.packet_id))
    except RemoteProtocolError as error:
        return seen, error.reason
    return seen, None


ids = st.integers(1, 65535)
topics = st.sampled_from(("a", "a/b", "/", "ä/€", "x" * 200, "y" * 300))
payloads = st.one_of(st.binary(max_size=5), st.sampled_from((bytes(118), bytes(127), bytes(128), bytes(16_000))))
rich = st.one_of(
    st.just(NONE),
    st.builds(
        Properties,
        content_type=st.sampled_from((None, "text")),
        message_expiry=st.sampled_from((None, 5)),
        topic_alias=st.sampled_from((None, 1, 4)),
    ),
)


@st.composite
def publishes(draw, level):
    qos = draw(st.integers(0, 2))
    properties = draw(rich) if level == V5 else NONE
    return Publish(
        draw(topics),
        draw(payloads),
        qos,
        draw(st.booleans()),
        draw(st.booleans()) and qos > 0,
        draw(ids) if qos else 0,
        properties,
    )


def packets(level):
    return st.one_of(
        publishes(level),
        publishes(level),
        st.builds(Puback, ids),
        st.builds(Pubrec, ids),
        st.builds(Pubrel, ids),
        st.builds(Pubcomp, ids),
        st.builds(lambda n, f: Subscribe(n, (Subscription(f, 1),)), ids, topics),
        st.builds(lambda n, f: Unsubscribe(n, (f,)), ids, topics),
        st.just(Pingreq()),
    )


def bare(packet):
    """As it comes out of the engine."""
    if isinstance(packet, Publish) and packet.properties.topic_alias is not None:
        properties = Properties(
            content_type=packet.properties.content_type, message_expiry=packet.properties.message_expiry
        )
        return Publish(
            packet.topic, packet.payload, packet.qos, packet.retain, packet.dup, packet.packet_id, properties
        )
    return packet


@given(st.data(), LEVELS)
def test_any_split_gives_the_packets_that_were_sent(data, level):
    sent = data.draw(st.lists(packets(level), max_size=12))
    raw = encode(Connect(level=level, client_id="c"), level) + b"".join(encode(p, level) for p in sent)
    cuts = data.draw(st.lists(st.integers(0, 1 << 20), max_size=30))
    seen, end = story(Connection(TERMS), pieces(raw, cuts))
    assert end is None or end is Reason.RECEIVE_MAXIMUM_EXCEEDED
    expected = [bare(p) for p in sent]
    assert seen[1:] == expected if end is None else expected[: len(seen) - 1]


@given(st.data(), LEVELS)
def test_any_split_of_damaged_bytes_gives_the_same_packets_and_the_same_end(data, level):
    sent = data.draw(st.lists(packets(level), min_size=1, max_size=6))
    raw = bytearray(encode(Connect(level=level, client_id="c"), level) + b"".join(encode(p, level) for p in sent))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=3)):
        raw[at % len(raw)] = value
    raw = bytes(raw)
    cuts = data.draw(st.lists(st.integers(0, 1 << 20), max_size=30))
    whole = story(Connection(TERMS), [raw])
    assert story(Connection(TERMS), pieces(raw, cuts)) == whole
    assert story(Connection(TERMS), [raw[at : at + 1] for at in range(len(raw))]) == whole


@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from((0, V311, V5)))
def test_any_bytes_raise_nothing_but_the_protocol_error(chunks, level):
    story(opened(level) if level else Connection(TERMS), chunks)


@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from((0, V311, V5)))
def test_any_bytes_of_a_server_raise_nothing_but_the_protocol_error(chunks, level):
    client = ClientConnection()
    if level:
        client.connect(Connect(level=level, client_id="c"))
        client.feed(encode(Connack(), level))
        list(client.events())
    try:
        for chunk in chunks:
            client.feed(chunk)
            list(client.events())
    except RemoteProtocolError:
        assert list(client.events()) == []


def verdict(read):
    """The packet that was read, or why not."""
    try:
        return read()
    except RemoteProtocolError as error:
        return error.reason


BODIES = [
    head + packet_id + properties + payload
    for head in (b"\0\1a", b"\0\3a/b", b"\0\0", b"\0\1+", b"\0\5a/b", b"\1\0a", b"")
    for packet_id in (b"", b"\0\0", b"\0\1", b"\1\0", b"\0")
    for properties in (b"", b"\0", b"\2\1\1", b"\5", b"\x80\0")
    for payload in (b"", b"x", b"\0", bytes(200))
]


@pytest.mark.parametrize("level", [V311, V5])
@pytest.mark.parametrize("first", [*range(0x30, 0x40), 0x40, 0x50, 0x62, 0x70, 0x41, 0x60, 0xC0])
def test_what_is_read_inline_is_what_decode_would_say(level, first):
    story(opened(level), [encode(Publish(topic, b""), level) for topic in ("a", "a/b")])  # they are known now
    for body in BODIES:
        connection = opened(level)
        size = len(body)
        connection.feed(bytes((first, size) if size < 128 else (first, size & 127 | 128, size >> 7)) + body)
        expected = verdict(lambda: decode(first, body, level))  # noqa: B023 - called at once
        assert verdict(lambda: next(connection.events())) == expected  # noqa: B023 - likewise
        assert connection.buffered == 0


class Watched(Connection):
    """Says which packets took the long way."""

    __slots__ = ("long",)

    def _take(self, buffer):
        self.long += 1
        return super()._take(buffer)

    def _publish(self, first, body):
        self.long += 1
        return super()._publish(first, body)


@pytest.mark.parametrize("level", [V311, V5])
def test_hot_packets_take_the_short_way(level):
    connection = Watched(TERMS)
    connection.long = 0  # the login is one, a topic that is not known yet another
    connection.feed(encode(Connect(level=level, client_id="c"), level) + encode(Publish("hot/topic", b""), level))
    for packet in connection.events():
        if isinstance(packet, Connect):
            connection.send(Connack())
    connection.long = 0
    hot = [
        *(
            Publish("hot/topic", bytes(size), qos, retain, packet_id=9 if qos else 0)
            for qos in (0, 1, 2)
            for retain in (False, True)
            for size in (0, 1, 64, 127, 128, 1000, 16_000)
        ),
        *(kind(9) for kind in (Puback, Pubrec, Pubrel, Pubcomp)),
    ]
    connection.feed(b"".join(encode(packet, level) for packet in hot))
    assert list(connection.events()) == hot
    assert connection.long == 0


def mutants(seeds, count, seed):
    """Streams of a few packets with bytes changed, cut out, doubled, or put in, and where to cut them."""
    chance = random.Random(seed)
    number, bits = chance.random, chance.getrandbits
    for _ in range(count):
        raw = bytearray(b"".join(seeds[int(number() * len(seeds))] for _ in range(1 + bits(2))))
        for _ in range(bits(2)):
            at = int(number() * (len(raw) + 1))
            what = bits(2)
            if what == 0:
                raw[at : at + 1] = bytes((bits(8),))
            elif what == 1:
                del raw[at : at + 1 + bits(2)]
            elif what == 2:
                raw[at:at] = raw[max(0, at - bits(4)) : at]
            else:
                raw[at:at] = bytes((bits(8), bits(8)))
        yield bytes(raw), [int(number() * (len(raw) + 1)) for _ in range(bits(2))]


def storm(good_packets, count, seed):
    """Feed mutants of real streams to connections in all stages of their life; count those that ended well."""
    small = [row for row in good_packets if len(row.raw) < 300]
    well = 0
    for level in (V311, V5):
        seeds = [row.raw for row in small if row.level == level and row.raw[0] >> 4 not in (1, 2, 9, 11, 13)]
        connects = [row.raw for row in small if row.level == level and row.raw[0] >> 4 == 1]
        for number, (raw, cuts) in enumerate(mutants(seeds, count // 4, seed)):
            if number % 2:
                raw = connects[number % len(connects)] + raw  # noqa: PLW2901 - a login before it
            connection = Connection(TERMS) if number % 2 else opened(level)
            whole = story(connection, pieces(raw, cuts))
            well += whole[1] is None
            assert story(Connection(TERMS) if number % 2 else opened(level), [raw]) == whole
    return well


def test_damaged_streams_raise_nothing_but_the_protocol_error(good_packets):
    assert storm(good_packets, 20_000, random.randrange(1 << 32)) > 500


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_damaged_streams_raise_nothing_but_the_protocol_error(good_packets):
    well = storm(good_packets, 10_000_000, 20_250_719)
    print(f"{well:,} of 5,000,000 streams, each at two splits, ended without an error")


# the consumer's freedom


def test_a_consumer_may_stop_and_iterate_anew():
    connection = opened()
    raw = [encode(Publish("a", bytes((n,))), V5) for n in range(10)]
    connection.feed(b"".join(raw))
    seen = []
    while connection.buffered:
        for packet in connection.events():
            seen.append(packet.payload[0])
            break
        assert connection.buffered == sum(map(len, raw[len(seen) :]))
    assert seen == list(range(10))


def test_a_consumer_may_feed_while_it_iterates():
    connection = opened()
    ping, publish = encode(Pingreq(), V5), encode(Publish("a", b"x"), V5)
    connection.feed(publish)
    seen = []
    for packet in connection.events():
        seen.append(type(packet))
        if len(seen) == 1:
            connection.feed(publish)  # the same object again, nothing is left of the first
        elif len(seen) == 2:
            connection.feed(publish[:3])
            connection.feed(publish[3:] + ping + publish[:-1])
        elif len(seen) == 4:
            connection.feed(publish[-1:] + ping)
    assert seen == [Publish, Publish, Publish, Pingreq, Publish, Pingreq]


def test_two_iterators_share_one_stream():
    connection = opened()
    connection.feed(b"".join(encode(Publish("a", bytes((n,))), V5) for n in range(6)))
    first, second = connection.events(), connection.events()
    assert [next(it).payload[0] for it in (first, second, first, first, second, second)] == [0, 1, 2, 3, 4, 5]
    assert list(first) == list(second) == []


def test_an_iterator_that_slept_while_another_read_on_does_not_go_back():
    connection = opened()
    old, new = (b"".join(encode(Publish("a", bytes((n,))), V5) for n in numbers) for numbers in ((0, 1), (2, 3)))
    connection.feed(old)
    sleeper, reader = connection.events(), connection.events()
    assert next(sleeper).payload[0] == 0
    assert next(reader).payload[0] == 1
    connection.feed(new)
    assert next(reader).payload[0] == 2  # as far into the new buffer as the sleeper was in the old one
    assert [packet.payload[0] for packet in sleeper] == [3]


def test_nothing_is_kept_of_what_was_read():
    connection = opened()
    connection.feed(encode(Publish("a", bytes(10_000)), V5) + b"\xc0")
    assert len(list(connection.events())) == 1
    assert len(connection._buffer) == 1
    connection.feed(b"\0")
    assert len(list(connection.events())) == 1
    assert connection._buffer == b""


# linear time


def cpu(action):
    started = time.process_time()
    action()
    return time.process_time() - started


def test_a_large_packet_in_small_pieces_takes_linear_time():
    terms = Terms(maximum_packet_size=1 << 21)

    def trickle(size, step):
        connection = opened(terms=terms)
        raw = encode(Publish("a", bytes(size)), V5)
        for at in range(0, len(raw), step):
            connection.feed(raw[at : at + step])
            if next(connection.events(), None) is not None:
                assert at + step >= len(raw)
        assert connection.buffered == 0

    assert cpu(lambda: trickle(200_000, 1)) < 1.5  # 200,000 copies of 100 kB would take 1.5 s at best, without the rest
    assert cpu(lambda: trickle(2_000_000, 4)) < 3.5


@pytest.mark.parametrize("packet", [Publish("a", b"x"), Pingreq(), Subscribe(1, (Subscription("a"),))])
def test_many_small_packets_in_one_chunk_take_linear_time(packet):
    def gulp(count):
        connection = opened()
        connection.feed(encode(packet, V5) * count)
        assert sum(1 for _ in connection.events()) == count

    few = min(cpu(lambda: gulp(2_000)) for _ in range(3))
    assert cpu(lambda: gulp(100_000)) < 50 * few * 4 + 0.2


def test_small_packets_read_one_at_a_time_from_a_large_chunk_take_linear_time():
    connection = opened()
    connection.feed(encode(Publish("a", b"x"), V5) * 100_000)

    def sip():
        while connection.buffered:
            next(connection.events())

    assert cpu(sip) < 3


@pytest.mark.bench
@pytest.mark.parametrize("level", [V311, V5])
def test_what_a_packet_costs(level, capsys):
    """Floors of the hot path, in us on one core of the machine that the figures of the README are from."""
    count = 2_000
    cases = {
        "PUBLISH QoS 0, 64 bytes": (Publish("plant/line/tag", bytes(64)), 1.2),
        "PUBLISH QoS 1, 64 bytes": (Publish("plant/line/tag", bytes(64), 1, packet_id=7), 1.4),
        "PUBACK": (Puback(7), 0.5),
    }
    rows = []
    for name, (packet, most) in cases.items():
        connection = opened(level)
        data = encode(packet, level) * count

        def drain(connection=connection, data=data):
            connection.feed(data)
            for _ in connection.events():
                pass

        rows.append((name, min(timeit.repeat(drain, number=10, repeat=20)) / 10 / count * 1e6, most))
    connection = opened(level)
    answer = Puback(7)
    rows.append(("answer PUBACK", min(timeit.repeat(lambda: connection.send(answer), number=count)) / count * 1e6, 0.5))
    with capsys.disabled():
        print("".join(f"\nlevel {level} {name}: {us:.2f} us" for name, us, _ in rows))
    assert all(us < most for _, us, most in rows)


def test_every_stage_of_a_login_takes_any_split():
    method = Properties(authentication_method="M")
    answer = Auth(reason=Reason.CONTINUE_AUTHENTICATION, properties=method)
    raw = encode(Connect(client_id="c", properties=method), V5), encode(answer, V5), encode(Disconnect(), V5)
    connection = Connection(TERMS)
    seen = []
    for stage in raw:
        for byte in stage:
            connection.feed(bytes((byte,)))
            seen.extend(connection.events())
        if len(seen) == 1:
            connection.send(Auth(reason=Reason.CONTINUE_AUTHENTICATION))
        elif len(seen) == 2:
            connection.send(Connack())
    assert [type(p) for p in seen] == [Connect, Auth, Disconnect]
