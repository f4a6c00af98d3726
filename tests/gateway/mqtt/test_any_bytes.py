"""Whatever the bytes: a packet, or RemoteProtocolError. And a packet that was read can be written and read again."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt import wire
from gateway.mqtt.decode import decode
from gateway.mqtt.encode import encode
from gateway.mqtt.errors import RemoteProtocolError
from gateway.mqtt.packets import V5, V311
from gateway.mqtt.properties import MOST
from gateway.mqtt.reasons import Reason

BOUNDARIES = bytes((0, 1, 2, 3, 4, 0x26, 0x7F, 0x80, 0x81, 0xFE, 0xFF))


def split(raw):
    size, at = wire.varint(raw, 1)
    return raw[0], raw[at : at + size]


def judge(first, body, level):
    """Whether it is a packet; fails where something else comes out."""
    try:
        packet = decode(first, body, level)
    except RemoteProtocolError:
        return False
    level = getattr(packet, "level", level)
    again_first, again = split(encode(packet, level))
    assert decode(again_first, again, level) == packet
    return True


@given(st.integers(0, 255), st.binary(max_size=100), st.sampled_from((V311, V5)))
def test_random_bytes_are_a_packet_or_an_error(first, body, level):
    judge(first, body, level)


def mutants(seeds, count, seed):
    """Valid packets with bytes changed, cut out, put in, doubled, or spliced with another's."""
    chance = random.Random(seed)
    number, bits = chance.random, chance.getrandbits
    for _ in range(count):
        first, body, level = seeds[int(number() * len(seeds))]
        changed = bytearray(body)
        for _ in range(1 + bits(2) % 3):
            at = int(number() * (len(changed) + 1))
            what = bits(3)
            if what < 3 and at < len(changed):
                changed[at] = bits(8) if what else BOUNDARIES[bits(8) % len(BOUNDARIES)]
            elif what == 3 and at < len(changed):
                changed[at] ^= 1 << bits(3)
            elif what == 4:
                del changed[at : at + 1 + bits(2)]
            elif what == 5:
                changed[at:at] = bytes((bits(8), bits(8)))
            elif what == 6:
                changed[at:at] = changed[max(0, at - bits(4)) : at]
            else:
                other = seeds[int(number() * len(seeds))][1]
                changed[at:] = other[int(number() * (len(other) + 1)) :]
        if not bits(4):
            first = bits(8)
        yield first, bytes(changed), level if bits(3) else V311 + V5 - level


def run(good_packets, count, seed):
    seeds = [(*split(row.raw), row.level) for row in good_packets if len(row.raw) < 1000]
    packets = sum(judge(*mutant) for mutant in mutants(seeds, count, seed))
    assert count * 0.02 < packets < count * 0.9, f"{packets} of {count} are packets: the mutants teach little"
    return packets


def test_changed_packets_are_packets_or_errors(good_packets):
    run(good_packets, 100_000, random.randrange(1 << 32))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_changed_packets_are_packets_or_errors(good_packets):
    packets = run(good_packets, 10_000_000, 20_250_719)
    print(f"{packets:,} of 10,000,000 were packets")


@pytest.mark.parametrize(("first", "one"), [(0x82, "0000 00"), (0xA2, "0000")])
@pytest.mark.parametrize(("level", "head"), [(V311, "0001"), (V5, "0001 00")])
def test_a_packet_of_very_many_filters_is_refused_before_it_holds_the_loop(first, one, level, head):
    head, one = bytes.fromhex(head), bytes.fromhex(one)
    assert judge(first, head + one * MOST, level)
    nonsense = b"\xff" * 1000  # is not looked at: it would be malformed
    with pytest.raises(RemoteProtocolError) as caught:
        decode(first, head + one * (MOST + 1) + nonsense, level)
    assert caught.value.reason == Reason.QUOTA_EXCEEDED
