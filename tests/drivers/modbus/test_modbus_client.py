"""The connection against scripted peers: late, foreign, short, long, garbage, silent, hanging up. Time is virtual."""

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.frames.pdu import Failure, Request
from drivers.modbus.lines.client import Client
from gateway.errors import LineError

FIVE = Request(unit=1, function=3, address=5, count=1)
SIX = Request(unit=1, function=3, address=6, count=1)
WIDE = Request(unit=1, function=3, address=0, count=100)
OTHER = Request(unit=2, function=3, address=9, count=1)


@pytest.fixture
def connect(peer, clock, metrics):
    def make(**options):
        settings = {"units": frozenset({1}), "timeout_s": 1.0, "connect_delay_s": 0.0, "max_in_flight": 1}
        return Client(peer.endpoint, clock=clock, metrics=metrics, **(settings | options))

    return make


def now():
    return asyncio.get_running_loop().time()


async def turns(n=10):
    for _ in range(n):
        await asyncio.sleep(0)


# --- well ---


def test_requests_of_one_read_go_one_after_the_other_and_come_back_in_their_order(play, peer, count):
    async def script(client, fetch):
        assert await fetch(SIX, WIDE, FIVE) == [b"\0\6", b"".join(i.to_bytes(2) for i in range(100)), b"\0\5"]
        assert "open, 0 in flight" in repr(client)

    play(script)
    assert [a.what for a in peer.asked] == [(3, 6, 1), (3, 0, 100), (3, 5, 1)]
    assert len({a.transaction for a in peer.asked}) == 3
    assert count("modbus_requests_total") == 3


def test_the_answer_may_come_in_any_pieces(play, peer):
    peer.script = lambda asked: [peer.good(asked)[i : i + 1] for i in range(len(peer.good(asked)))]

    async def script(_, fetch):
        assert await fetch(FIVE, SIX) == [b"\0\5", b"\0\6"]

    play(script)


def test_reads_of_several_groups_at_once_take_turns(play, peer):
    async def script(_, fetch):
        assert await asyncio.gather(fetch(FIVE, SIX), fetch(SIX), fetch(OTHER)) == [
            [b"\0\5", b"\0\6"],
            [b"\0\6"],
            [b"\0\x09"],
        ]

    play(script)


@pytest.mark.parametrize("width", [1, 3, 16])
def test_never_more_requests_under_way_than_allowed_and_as_many_where_it_helps(play, peer, width):
    most = 0
    pending = []

    def script_of_peer(asked):
        nonlocal most
        pending.append(asked)
        most = max(most, len(pending))
        asyncio.get_running_loop().call_later(0.01, answer_one)
        return []

    def answer_one():
        peer.send(peer.good(pending.pop()))  # the last one first: order is not promised

    peer.script = script_of_peer
    requests = [Request(unit=1, function=3, address=i, count=1) for i in range(20)]

    async def script(_, fetch):
        assert await fetch(*requests) == [i.to_bytes(2) for i in range(20)]

    play(script, max_in_flight=width)
    assert most == width


# --- time ---


def test_no_answer_within_the_timeout_ends_the_read_then_and_asks_no_more(play, peer, clock):
    peer.script = lambda asked: [peer.good(asked)] if asked.address == 5 else []

    async def script(_, fetch):
        before = now()
        five, six, wide = await fetch(FIVE, SIX, WIDE)
        assert now() - before == pytest.approx(1.0)
        assert five == b"\0\5"
        assert (six.cause, six.act, six.text) == ("timeout", "unit", "no answer within 1 s")
        assert wide is None

    play(script)
    assert [a.address for a in peer.asked] == [5, 6]


def test_each_device_has_its_own_patience(play, peer):
    peer.script = lambda _: []

    async def script(_, fetch):
        slow = asyncio.create_task(fetch(FIVE, timeout_s=5.0))
        await turns()
        before = now()
        await fetch(SIX, timeout_s=0.25)
        assert now() - before == pytest.approx(0.25)
        await slow
        assert now() - before == pytest.approx(5.0)

    play(script, max_in_flight=2)


def test_a_timer_that_was_set_for_an_answered_request_does_not_hurt_the_next_one(play, peer):
    async def script(_, fetch):
        for _ in range(30):
            peer.script = peer.obey
            assert await fetch(FIVE) == [b"\0\5"]
            await asyncio.sleep(0.3)
            peer.script = lambda asked: peer.later(0.9, peer.good(asked)) or []
            assert await fetch(SIX) == [b"\0\6"]

    play(script)


def test_a_late_answer_is_counted_and_never_taken_for_the_next_one(play, peer, count):
    def slow_once(asked):
        peer.script = peer.obey
        peer.later(1.5, peer.good(asked))
        return []

    peer.script = slow_once

    async def script(_, fetch):
        (first,) = await fetch(FIVE)
        assert first.cause == "timeout"
        peer.script = lambda asked: peer.later(0.8, peer.good(asked)) or []
        assert await fetch(SIX) == [b"\0\6"]  # the late 5 came in between
        await asyncio.sleep(2)

    play(script)
    assert count("modbus_late_answers_total") == 1
    assert count("modbus_foreign_answers_total") == 0


def test_a_device_that_is_always_late_by_one_never_shifts_values(play, peer, count):
    waiting = []

    def one_behind(asked):
        waiting.append(asked)
        return [peer.good(waiting[-2])] if len(waiting) > 1 else []

    peer.script = one_behind

    async def script(_, fetch):
        for i in range(8):
            request = Request(unit=1, function=3, address=i, count=1)
            answers = await fetch(request, OTHER)
            assert isinstance(answers[0], Failure)

    play(script, units=frozenset({1, 2, 3}))
    assert count("modbus_late_answers_total") == 7


def test_the_transaction_of_an_unanswered_request_is_not_used_again_while_its_answer_may_come(play, peer):
    peer.script = lambda _: []

    async def script(client, fetch):
        await fetch(FIVE)
        missed = peer.asked[0].transaction
        peer.script = peer.obey
        client._transaction = missed - 1
        assert await fetch(SIX) == [b"\0\6"]
        assert peer.asked[-1].transaction == missed + 1
        client._transaction = 0xFFFF
        assert await fetch(SIX) == [b"\0\6"]
        assert peer.asked[-1].transaction == 0

    play(script, units=frozenset({1, 2}))


def test_what_is_remembered_of_unanswered_requests_is_bounded(play, peer):
    peer.script = lambda _: []

    async def script(client, fetch):
        for _ in range(300):
            await fetch(FIVE, timeout_s=0.01)
            client._silences = 0
        assert len(client._missed) == 256

    play(script)


def test_request_gap_is_kept_after_the_answer_and_only_for_that_unit(play, peer):
    peer.script = lambda asked: peer.later(0.2, peer.good(asked)) or []

    async def script(_, fetch):
        await asyncio.gather(fetch(FIVE, SIX), fetch(OTHER))

    play(script, gap_s=0.5, max_in_flight=4)
    first, other, second = peer.asked
    assert (first.unit, other.unit, second.unit) == (1, 2, 1)
    assert other.at == pytest.approx(first.at)
    assert second.at == pytest.approx(first.at + 0.7)


def test_request_gap_is_kept_between_two_reads_too_and_after_a_silence(play, peer):
    async def script(_, fetch):
        peer.script = lambda _: []
        await fetch(FIVE)
        peer.script = peer.obey
        await fetch(FIVE)
        await fetch(FIVE)

    play(script, gap_s=0.5, units=frozenset({1, 2}))
    first, second, third = (a.at for a in peer.asked)
    assert second - first == pytest.approx(1.5)
    assert third - second == pytest.approx(0.5)


def test_connect_delay_passes_before_the_first_request(play, peer, run):
    async def script(_, fetch):
        await fetch(FIVE)

    play(script, connect_delay_s=2.0)
    assert peer.asked[0].at == pytest.approx(1002.0)


def test_a_peer_that_hangs_up_during_the_connect_delay_is_a_lost_line(run, connect, peer):
    async def main():
        client = connect(connect_delay_s=2.0)
        asyncio.get_running_loop().call_soon(peer.later, 1, None)
        with pytest.raises(LineError, match="closed by the peer"):
            await client.open()
        assert "closed" in repr(client)

    run(main())


def test_leaving_during_the_connect_delay_closes_the_connection(run, connect, peer):
    async def main():
        opening = asyncio.create_task(connect(connect_delay_s=2.0).open())
        await asyncio.sleep(1)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await turns()
        assert isinstance(peer.lost, LineError)

    run(main())


# --- answers that are none ---


def not_ours(peer, asked):
    return {
        "another transaction": peer.frame(asked, peer.values(asked), transaction=asked.transaction + 7),
        "another unit": peer.frame(asked, peer.values(asked), unit=9),
    }


@pytest.mark.parametrize("what", ["another transaction", "another unit"])
def test_a_foreign_answer_is_counted_and_the_right_one_still_waited_for(play, peer, count, what):
    peer.script = lambda asked: [not_ours(peer, asked)[what], peer.good(asked)]

    async def script(_, fetch):
        assert await fetch(FIVE, SIX) == [b"\0\5", b"\0\6"]

    play(script)
    assert count("modbus_foreign_answers_total") == 2


def test_a_unit_that_answers_for_another_is_named_when_the_right_one_stays_silent(play, peer):
    peer.script = lambda asked: [not_ours(peer, asked)["another unit"]]

    async def script(_, fetch):
        (answer,) = await fetch(FIVE)
        assert answer.text == "no answer within 1 s, but unit 9 answered: is it unit: 9?"

    play(script)


def test_an_answer_nobody_asked_for_is_counted_and_dropped(play, peer, count):
    async def script(_, fetch):
        assert await fetch(FIVE) == [b"\0\5"]
        peer.send(peer.good(peer.asked[0]))  # a second time
        await turns()
        assert await fetch(SIX) == [b"\0\6"]

    play(script)
    assert count("modbus_foreign_answers_total") == 1


BAD_PDUS = {
    "another function": "04 02 00 05",
    "fewer registers": "03 00",
    "more registers": "03 04 00 05 00 06",
    "shorter than it says": "03 02 00",
    "longer than it says": "03 02 00 05 00",
    "an exception to another function": "84 02",
    "an exception without a code": "83",
}


@pytest.mark.parametrize("pdu", BAD_PDUS.values(), ids=BAD_PDUS)
def test_an_answer_to_our_transaction_that_does_not_fit_is_a_failure_not_a_value(play, peer, pdu):
    peer.script = lambda asked: [peer.frame(asked, bytes.fromhex(pdu))]

    async def script(_, fetch):
        five, six = await fetch(FIVE, SIX)
        assert (five.cause, five.act) == ("decode", "unit")
        assert six is None
        peer.script = peer.obey
        assert await fetch(FIVE) == [b"\0\5"]  # the connection lives

    play(script)


def test_an_exception_is_a_failure_of_that_request_alone(play, peer):
    peer.holes = {5: 2}

    async def script(_, fetch):
        five, six = await fetch(FIVE, SIX)
        assert five.cause == "exception:2"
        assert six == b"\0\6"

    play(script)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\1\0\0\0\0\1\3", bytes(7), b"\xff" * 300])
def test_garbage_that_breaks_framing_ends_the_line(play, peer, garbage):
    peer.script = lambda _: [garbage]

    async def script(client, fetch):
        with pytest.raises(LineError, match="is no Modbus TCP header: is this a Modbus TCP port") as caught:
            await fetch(FIVE, SIX)
        assert caught.value.cause == "decode"
        assert "closed" in repr(client)
        with pytest.raises(LineError, match="is no Modbus TCP header"):
            await fetch(FIVE)
        await turns()
        assert isinstance(peer.lost, LineError)  # and the peer was told

    play(script)


def test_a_good_answer_before_the_garbage_is_kept(play, peer):
    peer.script = lambda asked: [peer.good(asked) + b"garbage garbage"]

    async def script(_, fetch):
        assert await fetch(FIVE) == [b"\0\5"]
        with pytest.raises(LineError):
            await fetch(SIX)

    play(script)


def strange_frame(transaction, unit, pdu):
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


strange = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(  # well-formed answers to requests 3 to 9, which are never sent
        strange_frame,
        st.integers(3, 9),
        st.integers(0, 2),
        st.one_of(st.binary(min_size=1, max_size=20), st.sampled_from([b"\3\2\x63\x63", b"\x83\2"])),
    ),
)


@given(noise=st.lists(strange, max_size=8), place=st.integers(0, 7))
def test_whatever_a_peer_sends_a_value_comes_only_from_the_answer(kit, noise, place):
    peer = kit.Peer()
    peer.script = lambda asked: [*noise[:place], peer.good(asked), *noise[place:]]
    settings = {"units": frozenset({1}), "timeout_s": 1, "connect_delay_s": 0, "max_in_flight": 1}

    async def main():
        client = Client(peer.endpoint, clock=kit.VirtualClock(), metrics=kit.Metrics(), **settings)
        await client.open()
        try:
            for request, value in ((FIVE, b"\0\5"), (SIX, b"\0\6")):
                (answer,) = (await client.fetch([request], timeout_s=1, gap_s=0)).answers
                assert answer == value or isinstance(answer, Failure)
        except LineError:
            pass
        finally:
            await client.close()

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as runner:
        runner.run(main())


def test_after_garbage_a_new_connection_starts_with_a_clean_slate(run, connect, peer):
    peer.script = lambda _: [b"garbage, and then some"]

    async def main():
        client = connect()
        await client.open()
        with pytest.raises(LineError):
            await client.fetch([FIVE], timeout_s=1, gap_s=0)
        await client.close()
        peer.script = peer.obey
        await client.open()
        assert (await client.fetch([FIVE], timeout_s=1, gap_s=0)).answers == [b"\0\5"]
        await client.close()

    run(main())


# --- the end of a connection ---


def test_a_peer_that_hangs_up_fails_what_is_under_way_and_what_waits_at_once(play, peer):
    peer.script = lambda _: [None]

    async def script(client, fetch):
        before = now()
        results = await asyncio.gather(fetch(FIVE, SIX), fetch(OTHER), return_exceptions=True)
        assert now() == before
        assert all(isinstance(r, LineError) and r.cause == "offline" for r in results)
        assert results[0] is not results[1]

    play(script)


def test_half_an_answer_and_then_the_end_is_a_lost_line(play, peer):
    peer.script = lambda asked: [peer.good(asked)[:9], None]

    async def script(_, fetch):
        with pytest.raises(LineError, match="closed by the peer"):
            await fetch(FIVE)

    play(script)


def test_closing_fails_who_waits_and_opening_again_starts_afresh(run, connect, peer):
    async def main():
        client = connect()
        await client.open()
        peer.script = lambda _: []
        reading = asyncio.create_task(client.fetch([FIVE], timeout_s=1, gap_s=0))
        await turns()
        await client.close()
        with pytest.raises(LineError, match="closed by us"):
            await reading
        await client.close()
        peer.script = peer.obey
        await client.open()
        assert (await client.fetch([FIVE], timeout_s=1, gap_s=0)).answers == [b"\0\5"]
        assert peer.opened == 2
        await client.close()
        assert asyncio.get_running_loop()._scheduled == [] or all(
            timer.cancelled() for timer in asyncio.get_running_loop()._scheduled
        )

    run(main())


def test_a_client_that_never_was_opened_says_so(run, connect):
    async def main():
        with pytest.raises(LineError, match="not connected"):
            await connect().fetch([FIVE], timeout_s=1, gap_s=0)

    run(main())


def test_a_read_that_is_cancelled_keeps_its_place_until_its_answer_came(play, peer, count):
    peer.script = lambda asked: peer.later(0.5, peer.good(asked)) or []

    async def script(client, fetch):
        reading = asyncio.create_task(fetch(FIVE, SIX))
        await turns()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        before = now()
        assert await fetch(OTHER) == [b"\0\x09"]
        assert now() - before == pytest.approx(1.0)  # 0.5 s of the first one and 0.5 s of its own

    play(script)
    assert [a.address for a in peer.asked] == [5, 9]
    assert count("modbus_late_answers_total") == 0


@pytest.mark.parametrize("pdu", [None, "83 0B", "83 02"])
def test_what_becomes_of_the_request_of_a_cancelled_read_hurts_nobody(play, peer, pdu):
    def script_of_peer(asked):
        peer.script = peer.obey
        peer.later(0.5, *([peer.frame(asked, bytes.fromhex(pdu))] if pdu else []))
        return []

    peer.script = script_of_peer

    async def script(_, fetch):
        reading = asyncio.create_task(fetch(FIVE, SIX, WIDE))
        await turns()
        reading.cancel()
        assert await fetch(OTHER) == [b"\0\x09"]
        assert reading.cancelled()

    play(script, units=frozenset({1, 2}))
    assert [a.address for a in peer.asked] == [5, 9]


def test_a_read_that_is_cancelled_before_its_turn_is_never_sent(play, peer):
    peer.script = lambda asked: peer.later(0.5, peer.good(asked)) or []

    async def script(_, fetch):
        first, second = asyncio.create_task(fetch(FIVE)), asyncio.create_task(fetch(SIX))
        await turns()
        second.cancel()
        await first
        assert await fetch(OTHER) == [b"\0\x09"]

    play(script)
    assert [a.address for a in peer.asked] == [5, 9]


# --- silence of the line ---


def test_three_silences_of_all_units_give_the_connection_up(play, peer):
    peer.script = lambda _: []

    async def script(client, fetch):
        for _ in range(2):
            (answer,) = await fetch(FIVE)
            assert answer.cause == "timeout"
        with pytest.raises(LineError, match="nothing was answered 3 times in a row") as caught:
            await fetch(FIVE)
        assert caught.value.cause == "timeout"
        assert "closed" in repr(client)

    play(script)


def test_a_unit_that_is_always_late_keeps_its_connection(play, peer, count):
    peer.script = lambda asked: peer.later(1.1, peer.good(asked)) or []

    async def script(_, fetch):
        for _ in range(20):
            (answer,) = await fetch(FIVE)
            assert answer.cause == "timeout"

    play(script)
    assert count("modbus_late_answers_total") == 19


def test_a_scan_of_units_that_are_not_there_does_not_cost_the_connection(play, peer):
    peer.script = lambda asked: [peer.good(asked)] if asked.unit == 1 else []

    async def script(_, fetch):
        for unit in range(2, 40):
            assert (await fetch(Request(unit, 3, 0, 1)))[0].cause == "timeout"
        assert await fetch(FIVE) == [b"\0\5"]
        peer.script = lambda _: []
        await fetch(FIVE)
        for unit in range(2, 12):
            await fetch(Request(unit, 3, 0, 1))

    play(script)


def test_a_silent_unit_does_not_cost_the_others_their_connection(play, peer):
    peer.script = lambda asked: [] if asked.unit == 2 else [peer.good(asked)]

    async def script(_, fetch):
        for _ in range(40):
            assert (await fetch(OTHER))[0].cause == "timeout"
            assert await fetch(FIVE) == [b"\0\5"]
        for _ in range(9):
            assert (await fetch(OTHER))[0].cause == "timeout"
        with pytest.raises(LineError, match="10 times in a row"):  # nobody else was asked for so long
            await fetch(OTHER)

    play(script, units=frozenset({1, 2}))
