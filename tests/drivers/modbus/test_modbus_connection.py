"""A TCP connection as the field wants it: urgent requests first, closed when idle, wrong ids, statistics."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.driver import Driver
from drivers.modbus.frames.pdu import Request
from drivers.modbus.lines.client import Client
from drivers.modbus.lines.exchange import EXPIRED
from drivers.modbus.options import DeviceOptions
from gateway.errors import LineError
from gateway.model import Device


def reading(address, count=1, unit=1):
    return Request(unit=unit, function=3, address=address, count=count)


@pytest.fixture
def connect(peer, clock, metrics):
    def make(**options):
        settings = {"units": frozenset({1, 2}), "timeout_s": 1.0, "connect_delay_s": 0.0, "max_in_flight": 1}
        return Client(peer.endpoint, clock=clock, metrics=metrics, **(settings | options))

    return make


def now():
    return asyncio.get_running_loop().time()


async def turns(n=10):
    for _ in range(n):
        await asyncio.sleep(0)


def slowly(peer, seconds=0.1):
    """Each answer takes a while."""
    peer.script = lambda asked: peer.later(seconds, peer.good(asked)) or []


# --- urgent ---


def test_an_urgent_request_goes_between_two_requests_of_a_read_and_before_all_that_waits(play, peer):
    slowly(peer)

    async def script(_, fetch):
        polls = [asyncio.create_task(fetch(reading(1), reading(2), reading(3))), asyncio.create_task(fetch(reading(4)))]
        await asyncio.sleep(0.05)
        before = now()
        assert await fetch(reading(9), urgent=True) == [b"\0\x09"]
        assert now() - before == pytest.approx(0.15)  # the rest of what is under way, and its own
        await asyncio.gather(*polls)

    play(script)
    assert [asked.address for asked in peer.asked] == [1, 9, 2, 3, 4]


def test_what_is_not_wanted_any_more_when_its_turn_comes_is_never_sent(play, peer):
    slowly(peer)

    async def script(client, fetch):
        polls = asyncio.create_task(fetch(reading(1), reading(2)))
        await asyncio.sleep(0.05)
        late = now() + 0.04
        exchange = await client.fetch(
            [reading(9)], timeout_s=1.0, gap_s=0.0, urgent=True, is_wanted=lambda: now() < late
        )
        assert exchange.answers == [EXPIRED]
        exchange = await client.fetch(
            [reading(8)], timeout_s=1.0, gap_s=0.0, urgent=True, is_wanted=lambda: now() < late + 0.2
        )
        assert exchange.answers == [b"\0\x08"]
        await polls

    play(script)
    assert [asked.address for asked in peer.asked] == [1, 2, 8]


@pytest.mark.parametrize("gap_s", [0.0, 0.001])
def test_a_flood_of_urgent_requests_does_not_starve_the_polls(play, peer, gap_s):
    slowly(peer)

    async def script(_, fetch):
        async def flood(at):
            while True:
                await fetch(reading(at), urgent=True, gap_s=gap_s)

        floods = [asyncio.create_task(flood(at)) for at in (10, 20, 30)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(3.0):
            found = await fetch(reading(1), gap_s=gap_s)
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        return found

    assert play(script) == [b"\0\1"]


def test_urgent_requests_keep_their_order_among_themselves(play, peer):
    slowly(peer)

    async def script(_, fetch):
        tasks = [asyncio.create_task(fetch(reading(1), reading(2)))]
        await turns()
        tasks += [asyncio.create_task(fetch(reading(at), reading(at + 1), urgent=True)) for at in (10, 20, 30)]
        tasks.append(asyncio.create_task(fetch(reading(3))))
        await asyncio.gather(*tasks)

    play(script)
    assert [asked.address for asked in peer.asked] == [1, 10, 11, 20, 21, 30, 31, 2, 3]


def test_an_urgent_request_waits_for_the_gap_of_its_unit_and_holds_nobody_else_up(play, peer):
    async def script(_, fetch):
        await fetch(reading(1), gap_s=1.0)
        at = now()
        urgent = asyncio.create_task(fetch(reading(9), urgent=True, gap_s=1.0))
        await turns()
        assert await fetch(reading(5, unit=2)) == [b"\0\5"]
        assert now() == at
        await urgent
        assert now() - at == pytest.approx(1.0)

    play(script)


# --- closed when idle ---


@pytest.mark.parametrize("linger_s", [0.0, 5.0])
def test_a_connection_is_closed_so_long_after_the_last_answer_and_opened_by_the_next_read(play, peer, linger_s):
    async def script(client, fetch):
        for opened in (1, 2, 3):
            assert await fetch(reading(1), reading(2)) == [b"\0\1", b"\0\2"]
            assert peer.opened == opened
            await asyncio.sleep(linger_s - 0.001 if linger_s else 0)
            assert ("open" in repr(client)) is bool(linger_s)
            await asyncio.sleep(0.002)
            assert "closed" in repr(client)
            assert "closed by the peer" in str(peer.lost)
            await asyncio.sleep(10)

    play(script, linger_s=linger_s)


def test_a_connection_lives_on_while_it_is_asked_often_enough(play, peer):
    async def script(_, fetch):
        for _ in range(20):
            await fetch(reading(1))
            await asyncio.sleep(4)
        assert peer.opened == 1

    play(script, linger_s=5.0)


def test_a_read_of_several_parts_is_not_cut_by_closing(play, peer):
    async def script(_, fetch):
        await fetch(reading(1))
        await fetch(reading(2))  # as a driver does that asks for a block in two halves
        assert peer.opened == 1

    play(script, linger_s=0.0)


def test_nothing_is_closed_while_an_answer_is_waited_for(play, peer):
    slowly(peer, 0.9)

    async def script(_, fetch):
        short, long = reading(1), [reading(2), reading(3), reading(4)]
        await asyncio.gather(fetch(short), fetch(*long))
        assert peer.opened == 1

    play(script, linger_s=0.1)


def test_a_silent_device_is_closed_too_and_asked_anew(play, peer):
    peer.script = lambda _: []

    async def script(_, fetch):
        for opened in (1, 2, 3, 4, 5):
            (failure,) = await fetch(reading(1))
            assert failure.cause == "timeout"
            await asyncio.sleep(1)
            assert peer.opened == opened

    play(script, linger_s=0.0)


def test_two_silences_at_the_same_moment_do_not_close_the_line_under_the_next_read(play, peer):
    peer.script = lambda _: []

    async def script(_, fetch):
        await asyncio.gather(fetch(reading(1)), fetch(reading(1, unit=2)))
        slowly(peer, 0.9)
        assert await fetch(reading(3)) == [b"\0\3"]
        assert peer.opened == 1

    play(script, linger_s=0.5, max_in_flight=2)


def test_who_gives_up_before_anything_was_sent_leaves_a_line_that_is_closed_in_time(play, peer):
    async def script(client, fetch):
        await fetch(reading(1), gap_s=9.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fetch(reading(2), gap_s=9.0), 1.0)
        await asyncio.sleep(5.001)
        assert "closed" in repr(client)

    play(script, linger_s=5.0)
    assert len(peer.asked) == 1


def test_an_answer_to_the_connection_before_is_no_answer_to_this_one(play, peer, count):
    """A gateway to a serial line gives what it hears late to whoever is connected now."""
    peer.script = lambda _: []

    async def script(client, fetch):
        await fetch(reading(1))
        await client.close()
        await client.open()
        peer.script = lambda asked: [peer.good(peer.asked[0]), peer.good(asked)]
        assert await fetch(reading(2)) == [b"\0\2"]

    play(script)
    assert count("modbus_foreign_answers_total") == 1


def test_two_who_ask_at_once_open_one_connection_and_wait_for_its_delay(play, peer):
    async def script(_, fetch):
        await fetch(reading(1))
        await asyncio.sleep(1)
        at = now()
        first = asyncio.create_task(fetch(reading(2)))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(fetch(reading(3), urgent=True))
        await asyncio.gather(first, second)
        assert peer.opened == 2
        assert min(asked.at for asked in peer.asked[1:]) - at == pytest.approx(2.0)

    play(script, linger_s=0.0, connect_delay_s=2.0)


def test_who_gives_up_while_it_is_opened_takes_it_from_nobody_else(play, peer):
    async def script(_, fetch):
        await fetch(reading(1))
        await asyncio.sleep(1)
        first = asyncio.create_task(fetch(reading(2)))
        second = asyncio.create_task(fetch(reading(3)))
        await asyncio.sleep(0.1)
        first.cancel()
        assert await second == [b"\0\3"]
        assert await fetch(reading(4)) == [b"\0\4"]

    play(script, linger_s=0.0, connect_delay_s=2.0)


def test_a_connection_that_is_closed_while_a_read_opens_it_stays_closed(play, peer):
    async def script(client, fetch):
        await fetch(reading(1))
        await asyncio.sleep(1)
        late = asyncio.create_task(fetch(reading(2)))
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(LineError, match="closed by us"):
            await late
        assert "closed" in repr(client)
        with pytest.raises(LineError, match="closed by us"):
            await fetch(reading(3))
        assert peer.opened == 2
        assert [asked.address for asked in peer.asked] == [1]

    play(script, linger_s=0.0, connect_delay_s=2.0)


def test_a_connection_that_was_closed_before_it_was_open_never_is(play, peer):
    async def script(client, fetch):
        await fetch(reading(1))
        await asyncio.sleep(1)
        real = client._endpoint.open

        async def slow(*args, **options):
            await asyncio.sleep(0.5)
            return await real(*args, **options)

        client._endpoint.open = slow
        late = asyncio.create_task(fetch(reading(2)))
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(LineError, match="closed by us"):
            await late
        assert "closed" in repr(client)
        assert [asked.address for asked in peer.asked] == [1]

    play(script, linger_s=0.0)


def test_a_connection_that_cannot_be_opened_again_is_a_lost_line_for_all_who_wait(play, peer):
    async def script(client, fetch):
        await fetch(reading(1))
        await asyncio.sleep(1)

        async def refuse(*_, **__):
            await asyncio.sleep(0.5)
            raise LineError("refused", cause="offline")

        client._endpoint.open = refuse
        for result in await asyncio.gather(fetch(reading(2)), fetch(reading(3)), return_exceptions=True):
            assert isinstance(result, LineError)
            assert str(result) == "refused"

    play(script, linger_s=0.0)


def test_the_gap_of_a_unit_holds_across_a_new_connection(play, peer):
    async def script(_, fetch):
        await fetch(reading(1), gap_s=3.0)
        await asyncio.sleep(1)
        await fetch(reading(2), gap_s=3.0)
        assert peer.opened == 2

    play(script, linger_s=0.0)
    first, second = (asked.at for asked in peer.asked)
    assert second - first == pytest.approx(3.0)


# --- wrong transaction ids ---


def wrong(peer, asked, number=0x0BAD):
    return peer.frame(asked, peer.values(asked), transaction=number)


def too_late(peer, asked, seconds):
    """The answer comes after all, on the connection on which it was asked for."""
    asyncio.get_running_loop().call_later(seconds, peer.stream.write, wrong(peer, asked))
    return []


def test_an_answer_with_a_wrong_id_is_no_value_and_the_log_of_the_silence_says_what_to_do(play, peer, count):
    peer.script = lambda asked: [wrong(peer, asked)]

    async def script(_, fetch):
        (failure,) = await fetch(reading(1))
        assert failure.text == (
            "no answer within 1 s, but an answer with another transaction id came: where that is always so, "
            "write match: order"
        )

    play(script)
    assert count("modbus_foreign_answers_total") == 1


def test_a_gateway_with_wrong_ids_is_read_in_order_one_request_at_a_time(play, peer, count):
    under_way, most = [], []

    def answer(asked):
        under_way.append(asked)
        most.append(len(under_way))
        asyncio.get_running_loop().call_later(0.1, lambda: peer.send(wrong(peer, under_way.pop())))
        return []

    peer.script = answer

    async def script(_, fetch):
        assert await asyncio.gather(fetch(reading(1), reading(2, 5)), fetch(reading(7, unit=2))) == [
            [b"\0\1", b"\0\2\0\3\0\4\0\5\0\6"],
            [b"\0\7"],
        ]

    play(script, in_order=True, max_in_flight=16)
    assert set(most) == {1}
    assert count("modbus_foreign_answers_total") == 0


@pytest.mark.parametrize("what", ["unit", "function", "size"])
def test_in_order_what_does_not_fit_is_dropped_and_the_answer_still_waited_for(play, peer, count, what):
    def answer(asked):
        other = {
            "unit": peer.frame(asked, b"\3\2\xbb\xbb", transaction=99, unit=2),
            "function": peer.frame(asked, b"\4\2\xbb\xbb", transaction=99),
            "size": peer.frame(asked, b"\3\4\xbb\xbb\xbb\xbb", transaction=99),
        }
        return [other[what], wrong(peer, asked)]

    peer.script = answer

    async def script(_, fetch):
        assert await fetch(reading(5)) == [b"\0\5"]

    play(script, in_order=True)
    assert count("modbus_foreign_answers_total") == 1


def test_in_order_an_exception_is_known_too(play, peer, count):
    peer.script = lambda asked: [peer.frame(asked, b"\x83\2", transaction=0)]

    async def script(_, fetch):
        (failure,) = await fetch(reading(5))
        assert failure.cause == "exception:2"

    play(script, in_order=True)
    assert count("modbus_exceptions_total", unit="1") == 1


def test_in_order_a_silence_ends_the_connection_so_that_a_late_answer_is_never_taken_for_the_next(play, peer):
    def late(asked):
        peer.script = lambda asked: [wrong(peer, asked)]
        return too_late(peer, asked, 1.5)

    peer.script = late

    async def script(_, fetch):
        slow = asyncio.create_task(fetch(reading(0xAA)))
        await turns()
        waits = asyncio.create_task(fetch(reading(1), reading(2), reading(3)))
        (failure,) = await slow
        assert failure.cause == "timeout"
        assert await waits == [b"\0\1", b"\0\2", b"\0\3"]
        assert peer.opened == 2
        for address in range(50):
            assert await fetch(reading(address)) == [address.to_bytes(2)]
            await asyncio.sleep(0.05)

    play(script, in_order=True)


def test_in_order_who_waits_is_not_harmed_by_the_silence_of_another_unit(play, peer):
    def answer(asked):
        return [] if asked.unit == 2 else [wrong(peer, asked)]

    peer.script = answer

    async def script(_, fetch):
        results = await asyncio.gather(
            *(fetch(reading(i, unit=1 + i % 2), reading(i + 1, unit=1 + i % 2)) for i in range(6))
        )
        assert [result[0] for result in results[::2]] == [b"\0\0", b"\0\2", b"\0\4"]
        assert {result[0].cause for result in results[1::2]} == {"timeout"}

    play(script, in_order=True)
    assert peer.opened == 3  # and a fourth time when somebody asks


def test_a_gateway_that_mixes_ids_up_under_load_is_asked_one_by_one_from_then_on(play, peer, caplog):
    heard = []

    def answer(asked):
        heard.append(asked)
        if len(heard) == 1:
            asyncio.get_running_loop().call_later(0.01, reply)
        return []

    def reply():
        last = heard[-1].transaction  # the mistake: all get the id of the latest request
        for asked in heard:
            peer.send(wrong(peer, asked, last))
        heard.clear()

    peer.script = answer
    caplog.set_level(logging.WARNING, "headgate.modbus")

    async def script(_, fetch):
        for _ in range(5):
            requests = [reading(i, 1 + i) for i in range(4)]
            answers = await fetch(*requests)
            for request, got in zip(requests, answers, strict=True):
                if isinstance(got, bytes):
                    assert got == b"".join(i.to_bytes(2) for i in range(request.address, 2 * request.address + 1))
        assert all(isinstance(got, bytes) for got in answers)

    play(script, max_in_flight=4)
    (record,) = caplog.records
    assert record.getMessage() == (
        "memory: mixes up the transaction ids of requests under way: asked one by one from now on, as "
        "max_in_flight: 1 says"
    )


def test_a_gateway_with_ids_of_its_own_under_load_is_asked_one_by_one_from_then_on(play, peer, caplog):
    waiting = []

    def answer(asked):
        waiting.append(asked)
        asyncio.get_running_loop().call_later(0.1, reply)
        return []

    def reply():
        busy = len(waiting) > 1
        for asked in waiting:
            peer.send(wrong(peer, asked, 0xFFFF) if busy else peer.good(asked))
        waiting.clear()

    peer.script = answer

    async def script(client, fetch):
        first = await fetch(*(reading(i) for i in range(4)))
        assert {failure.cause for failure in first} == {"timeout"}
        assert await fetch(*(reading(i) for i in range(4))) == [i.to_bytes(2) for i in range(4)]

    play(script, max_in_flight=4)
    assert caplog.text.count("mixes up the transaction ids") == 1


def test_a_gateway_that_swaps_ids_is_found_out_by_an_answer_that_fits_another_request(play, peer, caplog):
    heard = []

    def answer(asked):
        heard.append(asked)
        if len(heard) == 2:
            first, second = heard
            heard.clear()
            return [wrong(peer, first, second.transaction), wrong(peer, second, first.transaction)]
        return []

    peer.script = answer

    async def script(client, fetch):
        answers = await fetch(reading(1, 1), reading(2, 2))
        assert [failure.cause for failure in answers] == ["decode", "decode"]
        assert client._max_in_flight == 1

    play(script, max_in_flight=2)
    assert "mixes up the transaction ids" in caplog.text


def test_a_duplicate_of_an_answer_does_not_make_the_line_slow(play, peer, count):
    before = []

    def answer(asked):
        duplicates = [*before]
        before[:] = [peer.good(asked)]
        return [*duplicates, peer.good(asked)]

    peer.script = answer

    async def script(client, fetch):
        for address in range(10):
            assert await fetch(*[reading(address + i) for i in range(8)]) == [
                (address + i).to_bytes(2) for i in range(8)
            ]
        assert client._max_in_flight == 8

    play(script, max_in_flight=8)
    assert count("modbus_foreign_answers_total") == 79


HAPPENINGS = {
    "good": lambda peer, asked: [peer.good(asked)],
    "wrong id": lambda peer, asked: [wrong(peer, asked, 7)],
    "silent": lambda *_: [],
    "late": lambda peer, asked: too_late(peer, asked, 1.3),
    "refused": lambda peer, asked: [peer.refusal(asked, 2)],
    "hang up": lambda *_: [None],
}


async def read_again_and_again(client, first, opening):
    """Values that came, by the address they were asked at; a lost line is opened again."""
    for address in range(first, first + 30, 3):
        try:
            exchange = await client.fetch([reading(address + i) for i in range(3)], timeout_s=1, gap_s=0)
        except LineError:
            await asyncio.sleep(1)
            async with opening:
                if "closed" in repr(client):
                    await client.open()
            continue
        for i, got in enumerate(exchange.answers):
            if isinstance(got, bytes):
                assert got == (address + i).to_bytes(2)
        await asyncio.sleep(0.3)


@given(st.lists(st.sampled_from(sorted(HAPPENINGS)), min_size=1, max_size=12), st.sampled_from([None, 0.0, 0.5]))
def test_in_order_whatever_happens_a_value_is_that_of_its_own_request(kit, happenings, linger_s):
    peer, script = kit.Peer(), iter(happenings)
    peer.script = lambda asked: HAPPENINGS[next(script, "good")](peer, asked)

    async def main():
        client = Client(
            peer.endpoint, units=frozenset({1}), timeout_s=1.0, connect_delay_s=0.0, max_in_flight=1,
            clock=kit.VirtualClock(), metrics=kit.Metrics(), in_order=True, linger_s=linger_s,
        )  # fmt: skip
        opening = asyncio.Lock()
        await client.open()
        await asyncio.gather(*(read_again_and_again(client, first, opening) for first in (100, 200)))
        await client.close()

    with asyncio.Runner(loop_factory=kit.VirtualLoop) as virtual:
        virtual.run(main())


# --- from the file ---


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        ([{}, {}], (None, False, 4)),
        ([{"linger": "5s"}, {"linger": "1s"}], (1.0, False, 4)),
        ([{"linger": "0s"}, {}], (0.0, False, 4)),
        ([{}, {"match": "order"}], (None, True, 1)),
    ],
    ids=["nothing said", "the shortest linger", "one lingers", "one has wrong ids"],
)
def test_what_devices_of_one_line_say_is_put_together(clock, metrics, keys, seen):
    devices = [
        Device(name=f"d{i}", driver="modbus", url="tcp://h", options=DeviceOptions(unit=i, max_in_flight=4, **said))
        for i, said in enumerate(keys, 1)
    ]
    client = Driver(devices, clock=clock, metrics=metrics)._client
    assert (client._linger_s, client._in_order, client._max_in_flight) == seen


# --- statistics ---


def test_each_unit_is_counted_by_itself(play, peer, count):
    def answer(asked):
        if asked.unit == 2:
            return [] if asked.address == 1 else [peer.refusal(asked, 2)]
        peer.later(0.02, peer.good(asked))
        return []

    peer.script = answer

    async def script(client, fetch):
        for _ in range(3):
            await fetch(reading(1), reading(2))
        await fetch(reading(1, unit=2))
        await fetch(reading(2, unit=2))
        assert client.statistics.turnaround(1) == pytest.approx(0.02, rel=0.05)
        assert client.statistics.turnaround(2) == pytest.approx(0, abs=0.001)

    play(script)
    names = ("requests", "timeouts", "exceptions", "late_answers")
    assert [[count(f"modbus_{name}_total", unit=unit) for name in names] for unit in "12"] == [
        [6, 0, 0, 0],
        [2, 1, 1, 0],
    ]


def test_under_way_together_each_answer_has_the_time_of_its_own_request(play, peer):
    peer.script = lambda asked: peer.later(0.1 * asked.unit, peer.good(asked)) or []

    async def script(client, fetch):
        await asyncio.gather(fetch(reading(1, unit=1)), fetch(reading(1, unit=2), timeout_s=0.5))
        assert client.statistics.turnaround(1) == pytest.approx(0.1, rel=0.05)
        assert client.statistics.turnaround(2) == pytest.approx(0.2, rel=0.05)

    play(script, max_in_flight=2)
