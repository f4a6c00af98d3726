"""Several lanes over one connection: what is new past a backlog, classes past one another, each at its pace."""

import asyncio
import logging
import random

import orjson
import pytest

from gateway.image import Image
from gateway.model import Batch
from gateway.uplinks.session import SessionError

TS = 1795330000123
STATUS = "headgate/plant7/status"
ALL = ("alarm", "event", "data", "diag")


def fill(spool, group, count, start=0):
    for i in range(start, start + count):
        spool.append(Batch(group, TS + i, [float(i)]))


def sent(server, device="boiler"):
    """What was published for a device: (number in the story, whether it was marked), in order."""
    found = []
    for message, _, _ in server.seen:
        if message.topic == f"headgate/plant7/{device}" and b'"seq"' in message.payload:
            document = orjson.loads(message.payload)
            found.append((int(next(iter(document["values"].values()))), document.get("replay", False)))
    return found


@pytest.fixture
def group(define):
    return define("flow float64")


@pytest.fixture
def groups(define):
    return {name: define("flow float64", device=name) for name in ALL}


# --- live first -------------------------------------------------------------------------------------------------------


def test_new_records_go_at_once_past_a_backlog_that_is_marked(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.1
        async with bench(server, max_in_flight=10) as b:
            fill(b.spool, group, 500)
            b.spool.on_disk = 500
            await b.until(lambda: len(sent(server)) > 10)
            loop, longest = asyncio.get_running_loop(), 0.0
            for i in range(500, 600):
                begun = loop.time()
                fill(b.spool, group, 1, i)
                await b.until(lambda i=i: (i, False) in sent(server))
                longest = max(longest, loop.time() - begun)
                await asyncio.sleep(0.04)
            assert longest < 0.02
            assert len(sent(server)) < 500, "the backlog is still on its way"
            await b.until(lambda: b.cursor.committed == 600)
            assert [n for n, replay in sent(server) if replay] == list(range(500))
            assert [n for n, replay in sent(server) if not replay] == list(range(500, 600))
            assert b.cursor.islands == []

    run_virtual(story())


def test_a_backlog_takes_no_more_than_half_of_the_window(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 1.0
        async with bench(server, max_in_flight=10) as b:
            fill(b.spool, group, 200)
            await b.until(lambda: len(sent(server)) > 50)
            assert server.most_flying == 6, "five, and the status at the start"
            fill(b.spool, group, 50, 200)
            await asyncio.sleep(3)
            assert server.most_flying == 10
            await b.until(lambda: b.cursor.committed == 250)

    run_virtual(story())


def test_a_backlog_that_shares_nothing_may_use_a_window_of_one(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(receive_maximum=1)) as b:
            fill(b.spool, group, 20)
            await b.until(lambda: b.forwarder.status().connected)
            fill(b.spool, group, 20, 20)
            await b.until(lambda: b.cursor.committed == 40)
            assert b.server.most_flying == 1

    run_virtual(story())


def test_connections_lost_in_the_middle_lose_nothing_and_repeat_only_what_was_in_flight(
    run_virtual, bench, scripted, group
):
    async def story():
        server = scripted()
        server.late = lambda _: 0.05
        async with bench(server, max_in_flight=8) as b:
            fill(b.spool, group, 300)
            n = 300
            for _ in range(6):
                await b.until(lambda: b.forwarder.status().connected)
                for _ in range(10):
                    fill(b.spool, group, 1, n)
                    n += 1
                    await asyncio.sleep(0.02)
                server.connections[-1].drop()
                await b.until(lambda: not b.forwarder.status().connected)
                fill(b.spool, group, 3, n)
                n += 3
            assert len(b.cursor.islands) > 2
            await b.until(lambda: b.cursor.committed == n)
            numbers = [number for number, _ in sent(server)]
            assert set(numbers) == set(range(n))
            assert len(numbers) <= n + 6 * 8, "twice only what was in flight"
            fresh = [number for number, replay in sent(server) if not replay]
            assert fresh == sorted(set(fresh))

    run_virtual(story())


def test_in_order_everything_goes_in_order(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.1
        async with bench(server, order="in_order", max_in_flight=10) as b:
            fill(b.spool, group, 100)
            await b.until(lambda: b.forwarder.status().connected)
            fill(b.spool, group, 20, 100)
            await b.until(lambda: b.cursor.committed == 120)
            assert sent(server) == [(n, n < 100) for n in range(120)]

    run_virtual(story())


def test_numbers_that_no_record_bears_end_a_backlog_too(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            fill(b.spool, group, 5)
            b.spool.head += 1000  # a start after a power cut begins so far above what may have been used
            await b.until(lambda: b.cursor.committed == 1005)
            fill(b.spool, group, 5, 5)
            await b.until(lambda: b.cursor.committed == 1010)
            assert b.cursor.islands == []

    run_virtual(story())


# --- pace -------------------------------------------------------------------------------------------------------------


def at_times(bench):
    """When each record went out."""
    loop, times = asyncio.get_running_loop(), {}
    answer = bench.server.answer

    def noted(message):
        if b'"seq"' in message.payload:
            times.setdefault(orjson.loads(message.payload)["seq"], loop.time())
        return answer(message)

    bench.server.answer = noted
    return times


@pytest.mark.parametrize("order", ["live_first", "in_order"])
def test_a_backlog_goes_at_the_rate_that_was_asked_for_and_what_is_new_beside_it(
    run_virtual, bench, scripted, define, order
):
    async def story():
        group = define(*(f"t{i} float64" for i in range(10)))
        async with bench(scripted(), order=order, replay_rate=1000.0) as b:
            times = at_times(b)
            for i in range(1000):
                b.spool.append(Batch(group, TS + i, [float(i)] * 10))
            await b.until(lambda: len(times) > 200)
            b.spool.append(Batch(group, TS, [1.0] * 10))
            new = asyncio.get_running_loop().time()
            await b.until(lambda: b.cursor.committed == 1001)
            begun, moments = times[1], [times[n] for n in range(1, 1001)]
            assert 8.5 < moments[-1] - begun < 10.5, "10,000 values, a second's worth of them at once"
            for second in range(10):
                passed = sum(begun + second <= moment < begun + second + 1 for moment in moments)
                assert passed <= 203
            assert (times[1001] - new < 0.01) == (order == "live_first")

    run_virtual(story())


def test_a_record_larger_than_a_second_s_worth_goes_on_credit(run_virtual, bench, scripted, define):
    async def story():
        group = define(*(f"t{i} float64" for i in range(500)))
        async with bench(scripted(), replay_rate=100.0) as b:
            times = at_times(b)
            for i in range(4):
                b.spool.append(Batch(group, TS + i, [float(i)] * 500))
            await b.until(lambda: b.cursor.committed == 4)
            gaps = [times[n + 1] - times[n] for n in range(1, 4)]
            assert 3.9 < gaps[0] < 4.1
            assert all(4.9 < gap < 5.1 for gap in gaps[1:])

    run_virtual(story())


def test_a_backlog_waits_a_part_of_the_outage_and_what_is_new_does_not(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        async with bench(server, dice=lambda: 1.0) as b:
            loop, times = asyncio.get_running_loop(), at_times(b)
            fill(b.spool, group, 1)
            await b.until(lambda: b.cursor.committed == 1)
            for outage in (20, 3600):
                server.refusals = [SessionError("no")] * 10_000
                server.connections[-1].drop()
                lost, n = loop.time(), b.spool.head
                fill(b.spool, group, 10, n)
                await asyncio.sleep(outage)
                server.refusals.clear()
                await b.until(lambda: b.forwarder.status().connected)
                connected = loop.time()
                fill(b.spool, group, 1, n + 10)
                await b.until(lambda n=n: b.cursor.committed == n + 11)
                assert times[n + 11] - connected < 0.3
                assert abs(times[n + 1] - connected - min(30.0, (connected - lost) / 2)) < 2
                assert times[n + 10] - times[n + 1] < 0.1

    run_virtual(story())


def test_at_the_start_of_the_program_the_age_of_the_backlog_counts_as_the_outage(
    run_virtual, bench, scripted, group, virtual_clock
):
    async def story():
        async with bench(scripted(), dice=lambda: 1.0, replay_delay_s=60.0) as b:
            times = at_times(b)
            b.spool.append(Batch(group, virtual_clock.wall_ms() - 30_000, [1.0]))
            await b.until(lambda: b.cursor.committed == 1)
            assert 14.5 < times[1] - 1000 < 16

    run_virtual(story())


@pytest.mark.parametrize(("age_s", "waits"), [(30, False), (90, True)])
def test_in_order_only_an_old_backlog_waits(run_virtual, bench, scripted, group, virtual_clock, age_s, waits):
    async def story():
        async with bench(scripted(), order="in_order", dice=lambda: 1.0) as b:
            times = at_times(b)
            b.spool.append(Batch(group, virtual_clock.wall_ms() - age_s * 1000, [1.0]))
            await b.until(lambda: b.cursor.committed == 1)
            assert times[1] - 1000 > 29 if waits else times[1] - 1000 < 1

    run_virtual(story())


def test_a_stop_does_not_wait_for_a_backlog_that_has_its_pace(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), replay_rate=1.0) as b:
            fill(b.spool, group, 1000)
            await b.until(lambda: len(sent(b.server)) >= 2)
            begun = asyncio.get_running_loop().time()
            await b.forwarder.stop(30)
            assert asyncio.get_running_loop().time() - begun < 1

    run_virtual(story())


# --- last values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [False, True])
def test_last_values_go_out_before_what_is_new_where_a_backlog_waits(run_virtual, bench, scripted, define, retain):
    async def story():
        group, other, never = define("a uint16", "b uint16"), define("c uint16"), define("d uint16")
        image = Image()
        for one in (group, other, never):
            image.add(one)
        image.note(Batch(group, TS, [7, 8]))
        image.note(Batch(other, TS + 1, [9]))
        async with bench(scripted(), latest=image.batches, retain=retain, dice=lambda: 1.0) as b:
            b.spool.append(Batch(group, TS, [1, 2]))
            await b.until(lambda: b.forwarder.status().connected)
            b.spool.append(Batch(group, TS, [3, 4]))
            await b.until(lambda: b.cursor.committed == 2)
            found = [(m.payload, m.retain) for m, _, _ in b.server.seen[1:]]
            assert found[:2] == [
                (b'{"ts":1795330000123,"values":{"a":7,"b":8},"latest":true}', retain),
                (b'{"ts":1795330000124,"values":{"c":9},"latest":true}', retain),
            ]
            assert [orjson.loads(payload)["seq"] for payload, _ in found[2:]] == [2, 1]

    run_virtual(story())


@pytest.mark.parametrize("options", [{}, {"order": "in_order"}])
def test_last_values_are_not_sent_where_they_would_tell_nothing(run_virtual, bench, scripted, define, options):
    async def story():
        image = Image()
        image.add(group := define("a uint16"))
        image.note(Batch(group, TS, [7]))
        async with bench(scripted(), latest=image.batches, **options) as b:
            if options:
                b.spool.append(Batch(group, TS, [1]))
            await b.until(lambda: b.forwarder.status().connected)
            b.spool.append(Batch(group, TS, [2]))
            await b.until(lambda: b.cursor.committed == b.spool.head)
            assert not any(b'"latest"' in payload for payload in b.server.data())

    run_virtual(story())


# --- classes ----------------------------------------------------------------------------------------------------------


def test_an_alarm_overtakes_everything_and_the_others_follow_by_importance(run_virtual, bench, scripted, groups):
    async def story():
        server = scripted()
        server.late = lambda _: 0.1
        async with bench(server, classes=ALL, max_in_flight=2) as b:
            await b.until(lambda: b.forwarder.status().connected)
            for name in ("diag", "data", "event"):
                fill(b.spools[name], groups[name], 5)
            await b.until(lambda: len(server.seen) > 3)
            fill(b.spools["alarm"], groups["alarm"], 2)
            told = len(server.seen)
            await b.until(lambda: all(b.cursors[name].committed == b.spools[name].head for name in ALL))
            order = [topic.rpartition("/")[2] for topic in server.topics()[1:]]
            assert order[told - 1 : told + 1] == ["alarm", "alarm"]
            rest = [name for name in order if name != "alarm"]
            assert rest == ["event"] * 5 + ["data"] * 5 + ["diag"] * 5

    run_virtual(story())


def test_alarms_of_an_outage_go_before_what_is_new_and_have_no_pace(run_virtual, bench, scripted, groups):
    async def story():
        async with bench(scripted(), classes=ALL, dice=lambda: 1.0, replay_rate=1.0, max_in_flight=4) as b:
            for name in ALL:
                fill(b.spools[name], groups[name], 20)
            await b.until(lambda: b.cursors["alarm"].committed == 20)
            assert asyncio.get_running_loop().time() < 1001
            assert set(b.server.topics()[1:]) == {"headgate/plant7/alarm"}

    run_virtual(story())


def test_a_flood_of_events_leaves_data_its_turn(run_virtual, bench, scripted, groups):
    async def story():
        server = scripted()
        server.late = lambda _: 0.01
        async with bench(server, classes=ALL, max_in_flight=2) as b:
            await b.until(lambda: b.forwarder.status().connected)
            for name in ("diag", "data", "event"):
                fill(b.spools[name], groups[name], 3000)
            await b.until(lambda: len(server.seen) > 1000)
            counts = {name: len(sent(server, name)) for name in ALL}
            assert 40 < counts["data"] < 80
            assert counts["diag"] == 0, "what is left, and nothing is"
            await b.until(lambda: b.cursors["diag"].committed == 3000)

    run_virtual(story())


def test_what_is_refused_in_one_class_holds_no_other(run_virtual, bench, scripted, groups):
    async def story():
        server = scripted()
        server.answer = lambda message: 0x87 if message.topic.endswith("/data") else 0
        async with bench(server, classes=ALL) as b:
            await b.until(lambda: b.forwarder.status().connected)
            for name in ALL:
                fill(b.spools[name], groups[name], 100)
            await b.until(lambda: all(b.cursors[name].committed == 100 for name in ("alarm", "event", "diag")))
            assert b.cursors["data"].committed == 0
            fill(b.spools["alarm"], groups["alarm"], 1, 100)
            await b.until(lambda: b.cursors["alarm"].committed == 101)
            server.answer = lambda _: 0
            await b.until(lambda: b.cursors["data"].committed == 100)

    run_virtual(story())


def test_a_record_that_breaks_the_connection_goes_alone_and_takes_no_other_with_it(
    run_virtual, bench, scripted, groups
):
    async def story():
        server = scripted()
        bad = b'"values":{"flow":3.0}'
        server.answer = lambda m: (
            SessionError("bad packet", code=0x99) if bad in m.payload and m.topic.endswith("/alarm") else 0
        )
        async with bench(server, classes=ALL) as b:
            for name in ALL:
                fill(b.spools[name], groups[name], 10)
            await b.until(lambda: all(cursor.committed == 10 for cursor in b.cursors.values()), 5000)
            assert b.forwarder.status().skipped == 1
            for name in ALL:
                found = {n for n, _ in sent(server, name)}
                assert found == set(range(10))
            server.most_flying = 0
            for name in ALL:
                fill(b.spools[name], groups[name], 20, 10)
            await b.until(lambda: all(cursor.committed == 30 for cursor in b.cursors.values()))
            assert server.most_flying > 1, "the care is over with what caused it"

    run_virtual(story())


def unreliable(dice, arrived):
    """A server that cuts, forgets and refuses now and then."""

    def answer(message):
        name, roll = message.topic.rpartition("/")[2], dice.random()
        if name not in arrived:
            return 0
        if roll < 0.02:
            return SessionError("cut")
        if roll < 0.04:
            return None
        if roll < 0.08:
            return dice.choice([0x87, 0x97, 0x80])
        arrived[name].add(orjson.loads(message.payload)["seq"])
        return 0

    return answer


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("order", ["live_first", "in_order"])
def test_whatever_happens_every_record_of_every_class_arrives(run_virtual, bench, scripted, groups, seed, order):
    async def story():
        dice = random.Random(seed)
        server = scripted(receive_maximum=dice.choice([1, 5, 100]))
        arrived = {name: set() for name in ALL}

        server.answer = unreliable(dice, arrived)
        server.late = lambda _: dice.choice([0.0, 0.01, 0.3])
        async with bench(server, classes=ALL, ack_timeout_s=5.0, order=order, replay_rate=200.0) as b:
            for name, spool in b.spools.items():
                commit = spool.commit

                def checked(reading, seq, commit=commit, name=name):
                    cursor = reading.cursor
                    known = {n for first, last in cursor.islands for n in range(first, last + 1)}
                    known |= set(range(1, cursor.committed + 1)) | arrived[name]
                    assert set(range(reading.after + 1, seq + 1)) <= known
                    commit(reading, seq)

                spool.commit = checked
            for start in range(0, 100, 10):
                for name in ALL:
                    fill(b.spools[name], groups[name], 10, start)
                await asyncio.sleep(dice.random())
            await b.until(lambda: all(cursor.committed == 100 for cursor in b.cursors.values()), 100_000)
            assert all(numbers == set(range(1, 101)) for numbers in arrived.values())

    run_virtual(story())


# --- how it stands ----------------------------------------------------------------------------------------------------


def test_the_status_says_how_much_is_left_how_fast_it_goes_and_until_when(
    run_virtual, bench, scripted, define, virtual_clock
):
    async def story():
        server = scripted()
        server.refusals = [SessionError("no")]
        group = define(*(f"t{i} float64" for i in range(10)))
        async with bench(server, replay_rate=100.0) as b:
            for i in range(1000):
                b.spool.append(Batch(group, TS + i, [0.0] * 10))
            assert b.forwarder.status().backlog_records == 1000
            assert b.forwarder.status().done_at is None
            await b.until(lambda: b.forwarder.status().connected)
            await asyncio.sleep(40)
            for i in range(5):
                b.spool.append(Batch(group, TS + i, [0.0] * 10))
            status = b.forwarder.status()
            assert 550 < status.backlog_records < 620
            assert 90 < status.replay_rate < 110
            assert abs(status.done_at - (virtual_clock.wall_ms() + status.backlog_records * 100)) < 5000
            done_at = status.done_at
            await b.until(lambda: b.cursor.committed == 1005)
            assert abs(virtual_clock.wall_ms() - done_at) < 5000
            status = b.forwarder.status()
            assert (status.backlog_records, status.replay_rate, status.done_at) == (0, 0.0, None)

    run_virtual(story())


def test_a_long_backlog_is_told_of_when_it_begins_and_when_it_is_done_and_a_short_one_is_not(
    run_virtual, bench, scripted, group, caplog
):
    caplog.set_level(logging.INFO, "headgate.uplinks")

    async def story():
        server = scripted()
        async with bench(server, replay_rate=100.0) as b:
            fill(b.spool, group, 300)
            await b.until(lambda: b.cursor.committed == 300)
            await asyncio.sleep(10)
            server.refusals = [SessionError("no")] * 2
            server.connections[-1].drop()
            fill(b.spool, group, 3000, 300)
            await b.until(lambda: b.cursor.committed > 1500)
            server.connections[-1].drop()  # one backlog, over two connections
            await b.until(lambda: b.cursor.committed == 3300)
            await asyncio.sleep(5)
        told = [r.getMessage() for r in caplog.records if "backlog" in r.getMessage()]
        assert len(told) == 2
        assert told[0].startswith("uplink 'cloud': a backlog of about 3000 records is being sent, at ")
        assert told[0].endswith(" s")
        assert told[1].startswith("uplink 'cloud': the backlog is sent, 3")

    run_virtual(story())
