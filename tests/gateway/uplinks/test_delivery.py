"""From the spool to acknowledged publishes and back, on virtual time, against a scripted server."""

import asyncio
import itertools
import logging
import random

import orjson
import pytest

from gateway.image import Image
from gateway.model import Batch, DeviceState
from gateway.uplinks.session import SessionError

TS = 1795330000123
STATUS = "headgate/plant7/status"


def seqs(server):
    return [orjson.loads(payload)["seq"] for payload in server.data() if b'"values"' in payload]


def fill(bench, group, count, start=0):
    for i in range(count):
        bench.spool.append(Batch(group, TS + start + i, [float(start + i)]))


@pytest.fixture
def group(define):
    return define("flow float64")


# --- the good case ----------------------------------------------------------------------------------------------------


def test_records_go_out_in_order_and_are_committed_when_acknowledged(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            await b.until(lambda: b.forwarder.status().connected)
            await b.until(lambda: len(b.server.seen) == 1)
            fill(b, group, 250)
            await b.until(lambda: b.cursor.committed == 250)
            assert seqs(b.server) == list(range(1, 251))
            message, qos, properties = b.server.seen[1]
            assert message.payload == (b'{"ts":1795330000123,"seq":1,"epoch":"9f31c2-3","values":{"flow":0.0}}')
            assert (message.topic, message.retain, qos) == ("headgate/plant7/boiler", False, 1)
            assert b"plant7" in properties
            assert b"9f31c2-3" in properties
            assert b.server.most_flying <= 100
            status = b.forwarder.status()
            assert (status.published, status.acknowledged, status.in_flight) == (251, 250, 0)

    run_virtual(story())


def test_nothing_is_committed_before_it_is_acknowledged(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda message: 0 if message.topic == STATUS else None
        async with bench(server) as b:
            fill(b, group, 5)
            await b.until(lambda: len(server.seen) == 6)
            await asyncio.sleep(10)
            assert b.spool.commits == []
            assert b.forwarder.status().in_flight == 5

    run_virtual(story())


@pytest.mark.parametrize("order", ["in_order", "live_first"])
@pytest.mark.parametrize("seed", range(3))
def test_acknowledgements_in_any_order_are_committed_in_order(run_virtual, bench, scripted, group, seed, order):
    async def story():
        server = scripted()
        dice = random.Random(seed)
        acknowledged = set()
        server.late = lambda message: dice.choice([0.01, 0.05, 1.0])
        async with bench(server, order=order) as b:
            await b.until(lambda: b.forwarder.status().connected)
            commit = b.spool.commit

            def checked(reading, seq):
                assert set(range(max(reading.after, reading.cursor.committed) + 1, seq + 1)) <= acknowledged
                commit(reading, seq)

            b.spool.commit = checked
            answered = b.server.connections[-1]._answer
            tokens = {}

            def noted(token, code):
                if token in tokens:
                    acknowledged.add(tokens[token])
                answered(token, code)

            b.server.connections[-1]._answer = noted
            publish = b.server.connections[-1].publish

            def counted(message, qos, properties=b""):
                token = publish(message, qos, properties)
                if b'"seq"' in message.payload:
                    tokens[token] = orjson.loads(message.payload)["seq"]
                return token

            b.server.connections[-1].publish = counted
            fill(b, group, 300)
            await b.until(lambda: b.cursor.committed == 300)

    run_virtual(story())


@pytest.mark.parametrize(
    ("terms", "options", "most"),
    [
        ({"receive_maximum": 3}, {}, 3),
        ({"receive_maximum": 1}, {}, 1),
        ({}, {"max_in_flight": 7}, 7),
        ({}, {"qos": 2}, 20),
        ({"maximum_qos": 1}, {"qos": 2}, 100),
        ({"receive_maximum": 5}, {"payload": "value"}, 5),
    ],
)
def test_no_more_is_in_flight_than_anybody_allows(run_virtual, bench, scripted, group, terms, options, most):
    async def story():
        states = {f"d{i}": DeviceState(f"d{i}", online=True, cause="", since=0) for i in range(10)}
        async with bench(scripted(**terms), states=states, order="in_order", **options) as b:
            fill(b, group, 200)
            await b.until(lambda: b.cursor.committed == 200)
            assert b.server.most_flying == most

    run_virtual(story())


@pytest.mark.parametrize(
    ("options", "terms", "qos"), [({"qos": 0}, {}, 0), ({"qos": 2}, {}, 2), ({}, {"maximum_qos": 0}, 0)]
)
def test_the_quality_of_service_is_the_lower_of_asked_and_allowed(
    run_virtual, bench, scripted, group, options, terms, qos
):
    async def story():
        async with bench(scripted(**terms), **options) as b:
            fill(b, group, 30)
            await b.until(lambda: b.cursor.committed == 30)
            assert {q for message, q, _ in b.server.seen if message.topic != STATUS} == {qos}
            assert {q for message, q, _ in b.server.seen if message.topic == STATUS} == {min(1, qos)}

    run_virtual(story())


def test_a_backlog_on_the_disk_is_read_and_new_records_follow(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            fill(b, group, 500)
            b.spool.on_disk = 480
            await b.until(lambda: b.cursor.committed == 500)
            fill(b, group, 5, 500)
            await b.until(lambda: b.cursor.committed == 505)
            assert seqs(b.server) == list(range(1, 506))

    run_virtual(story())


def test_the_loop_is_never_held_for_long(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.0
        async with bench(server, max_in_flight=10000) as b:
            await b.until(lambda: b.forwarder.status().connected)
            await asyncio.sleep(1)
            fill(b, group, 1600)
            turns = [len(server.seen)]
            while len(server.seen) < 1601 and len(turns) < 10_000:  # virtual time stands still meanwhile
                await asyncio.sleep(0)
                turns.append(len(server.seen))
            assert turns[-1] == 1601
            assert max(after - before for before, after in itertools.pairwise(turns)) <= 16

    run_virtual(story())


def test_a_lonely_record_goes_at_once_and_a_crowd_shares_its_turns(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            await b.until(lambda: b.forwarder.status().connected)
            await asyncio.sleep(1)
            loop = asyncio.get_running_loop()
            asked = loop.time()
            fill(b, group, 1)
            await b.until(lambda: len(seqs(b.server)) == 1)
            assert loop.time() - asked < 0.005

    run_virtual(story())


# --- losses -----------------------------------------------------------------------------------------------------------


def test_what_was_in_flight_is_sent_again_as_replay_and_nothing_is_lost(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda message: 0 if b'"seq":3' not in message.payload or len(server.connections) > 1 else None
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
            fill(b, group, 5)
            await b.until(lambda: b.cursor.committed == 2)
            server.connections[0].drop()
            await b.until(lambda: len(server.connections) == 2)
            fill(b, group, 1, 5)
            await b.until(lambda: b.cursor.committed == 6)
            assert seqs(server) == [1, 2, 3, 4, 5, 3, 4, 5, 6]
            replayed = [orjson.loads(p).get("replay", False) for p in server.data()]
            assert replayed[:8] == [False] * 5 + [True] * 3
            assert server.connections[0].end == "hung up"

    run_virtual(story())


def test_a_backlog_is_marked_and_not_retained_and_what_comes_live_is(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), retain=True) as b:
            fill(b, group, 3)
            await b.until(lambda: b.cursor.committed == 3)
            fill(b, group, 2, 3)
            await b.until(lambda: b.cursor.committed == 5)
            marks = [(orjson.loads(m.payload).get("replay"), m.retain) for m, _, _ in b.server.seen[1:]]
            assert marks == [(True, False)] * 3 + [(None, True)] * 2

    run_virtual(story())


@pytest.mark.parametrize("order", ["in_order", "live_first"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_every_record_arrives_and_the_commit_never_runs_ahead(
    run_virtual, bench, scripted, group, seed, order
):
    async def story():
        dice = random.Random(seed)
        server = scripted(receive_maximum=dice.choice([1, 5, 100]))
        arrived = set()

        def answer(message):
            roll = dice.random()
            if b'"values"' not in message.payload:
                return 0
            if roll < 0.02:
                return SessionError("cut")
            if roll < 0.04:
                return None
            if roll < 0.10:
                return dice.choice([0x87, 0x97, 0x80])
            arrived.add(orjson.loads(message.payload)["seq"])
            return 0

        server.answer = answer
        server.late = lambda _: dice.choice([0.0, 0.01, 0.3])
        async with bench(server, ack_timeout_s=5.0, order=order) as b:
            commit = b.spool.commit

            def checked(reading, seq):
                assert set(range(reading.after + 1, seq + 1)) <= arrived
                commit(reading, seq)

            b.spool.commit = checked
            for start in range(0, 200, 20):
                fill(b, group, 20, start)
                await asyncio.sleep(dice.random())
            await b.until(lambda: b.cursor.committed == 200, 100_000)
            assert arrived == set(range(1, 201))

    run_virtual(story())


def test_a_server_that_forgets_an_acknowledgement_is_left_after_the_time_out(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda message: None if b'"seq":1,' in message.payload and len(server.connections) == 1 else 0
        async with bench(server, ack_timeout_s=60.0) as b:
            fill(b, group, 1)
            for i in range(1, 20):  # life goes on behind the one that hangs
                await asyncio.sleep(5)
                fill(b, group, 1, i)
            await b.until(lambda: b.cursor.committed == 20)
            assert len(server.connections) == 2
            assert "no acknowledgement within 60 s" in b.forwarder.status().last_error

    run_virtual(story())


def test_what_piles_up_behind_a_missing_acknowledgement_is_bounded(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda message: None if b'"seq":1,' in message.payload else 0
        async with bench(server, max_in_flight=10) as b:
            fill(b, group, 500)
            await asyncio.sleep(30)
            assert 40 <= len(seqs(server)) < 40 + 16

    run_virtual(story())


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x80, 0x87, 0x97])
def test_a_refused_record_waits_is_named_once_and_holds_what_is_behind_it(
    run_virtual, bench, scripted, group, caplog, code
):
    caplog.set_level(logging.INFO, "headgate.uplinks")

    async def story():
        server = scripted()
        server.answer = lambda message: 0 if message.topic == STATUS else code
        async with bench(server, max_in_flight=2) as b:
            await b.until(lambda: b.forwarder.status().connected)
            fill(b, group, 10)
            await asyncio.sleep(300)
            assert b.spool.commits == []
            assert set(seqs(server)) == {1, 2}
            assert 6 <= len(seqs(server)) <= 40  # 2 to 60 s apart, by chance
            server.answer = lambda _: 0
            await b.until(lambda: b.cursor.committed == 10)
            first = {seq: seqs(server).index(seq) for seq in range(3, 11)}
            assert sorted(first, key=first.get) == list(range(3, 11))
            assert b.forwarder.status().refused >= 6
        lines = [r.getMessage() for r in caplog.records if "boiler" in r.getMessage()]
        assert len(lines) == 2
        assert "refuses 'headgate/plant7/boiler'" in lines[0]
        assert f"0x{code:02X}" in lines[0]
        assert "takes 'headgate/plant7/boiler' again" in lines[1]

    run_virtual(story())


def test_a_record_that_was_refused_goes_again_as_replay_and_alone(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        denied = {2, 4}
        server.answer = lambda message: 0x97 if message.topic != STATUS and _seq(message) in denied else 0
        async with bench(server, retain=True) as b:
            await b.until(lambda: b.forwarder.status().connected)
            fill(b, group, 5)
            await b.until(lambda: b.cursor.committed == 1)
            await b.until(lambda: len(seqs(server)) == 6)
            denied.clear()
            await b.until(lambda: b.cursor.committed == 5)
            assert seqs(server) == [1, 2, 3, 4, 5, 2, 2, 4]
            again = [(orjson.loads(m.payload).get("replay"), m.retain) for m, _, _ in server.seen[-3:]]
            assert again == [(True, False)] * 3

    run_virtual(story())


def _seq(message):
    return orjson.loads(message.payload)["seq"]


def test_a_refusal_is_not_named_again_on_the_next_connection(run_virtual, bench, scripted, group, caplog):
    async def story():
        server = scripted()
        server.answer = lambda message: 0 if message.topic == STATUS else 0x87
        async with bench(server) as b:
            fill(b, group, 1)
            for n in range(1, 4):
                await b.until(lambda n=n: b.forwarder.status().refused >= n)
                server.connections[-1].drop()
                await asyncio.sleep(100)
        assert len([r for r in caplog.records if "refuses" in r.getMessage()]) == 1

    run_virtual(story())


def test_a_refused_status_is_named_holds_nothing_and_is_tried_again(run_virtual, bench, scripted, group, caplog):
    caplog.set_level(logging.INFO, "headgate.uplinks")

    async def story():
        server = scripted()
        server.answer = lambda message: 0x97 if message.topic == STATUS else 0
        async with bench(server) as b:
            fill(b, group, 3)
            await b.until(lambda: b.cursor.committed == 3)
            await asyncio.sleep(300)
            assert 5 <= server.topics().count(STATUS) <= 20
            server.answer = lambda _: 0
            await b.until(lambda: len(caplog.records) == 3)
            tries = server.topics().count(STATUS)
            await asyncio.sleep(300)
            assert server.topics().count(STATUS) == tries
        assert [r.getMessage() for r in caplog.records[1:]] == [
            f"uplink 'cloud': the server refuses '{STATUS}': quota exceeded (0x97). What waits stays",
            f"uplink 'cloud': the server takes '{STATUS}' again",
        ]

    run_virtual(story())


@pytest.mark.parametrize("code", [0x90, 0x95, 0x99])
def test_bytes_the_server_calls_wrong_are_left_out_after_three_tries(run_virtual, bench, scripted, group, caplog, code):
    async def story():
        server = scripted()
        server.answer = lambda message: code if b'"seq":2,' in message.payload else 0
        async with bench(server) as b:
            fill(b, group, 4)
            await b.until(lambda: b.cursor.committed == 4)
            assert seqs(server).count(2) == 3
            status = b.forwarder.status()
            assert (status.skipped, status.acknowledged) == (1, 4)
            fill(b, group, 1, 4)
            await b.until(lambda: b.cursor.committed == 5)
        assert any("left out" in r.getMessage() and f"0x{code:02X}" in r.getMessage() for r in caplog.records)

    run_virtual(story())


def test_several_hopeless_and_refused_records_at_once_are_sorted_out(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        denied = {3, 8}

        def answer(message):
            if message.topic == STATUS:
                return 0
            seq = _seq(message)
            return 0x99 if seq in (1, 2, 5, 9) else 0x87 if seq in denied else 0

        server.answer = answer
        async with bench(server) as b:
            fill(b, group, 10)
            await b.until(lambda: b.cursor.committed == 2, 1000)
            await asyncio.sleep(200)
            assert b.cursor.committed == 2
            denied.clear()
            await b.until(lambda: b.cursor.committed == 10, 1000)
            assert b.forwarder.status().skipped == 4

    run_virtual(story())


def test_a_record_in_many_messages_is_refused_and_sent_again_as_a_whole(run_virtual, bench, scripted, define):
    async def story():
        server = scripted()
        denied = {"headgate/plant7/boiler/t7"}
        server.answer = lambda message: 0x87 if message.topic in denied else 0
        group = define(*(f"t{i} uint16" for i in range(20)))
        async with bench(server, payload="value", max_in_flight=3) as b:
            await b.until(lambda: b.forwarder.status().connected)
            b.spool.append(Batch(group, TS, list(range(20))))
            b.spool.append(Batch(group, TS, list(range(20))))
            await b.until(lambda: b.forwarder.status().refused == 3)
            assert b.spool.commits == []
            assert not any(topic.endswith("t19") for topic in server.topics())
            denied.clear()
            await b.until(lambda: b.cursor.committed == 2)
            sent = [m for m, _, _ in server.seen if m.topic.endswith("t19")]
            assert [m.retain for m in sent] == [False, True]

    run_virtual(story())


# --- sizes, topics, gaps ----------------------------------------------------------------------------------------------


def test_a_record_too_large_for_the_server_goes_in_parts_and_is_committed_as_one(run_virtual, bench, scripted, define):
    async def story():
        async with bench(scripted(maximum_packet=400), max_in_flight=2) as b:
            b.spool.append(Batch(define(*(f"t{i} uint16" for i in range(60))), TS, list(range(60))))
            b.spool.append(Batch(define("a uint16"), TS, [1]))
            await b.until(lambda: b.cursor.committed == 2)
            parts = [orjson.loads(p) for p in b.server.data()[:-1]]
            assert [p["part"][0] for p in parts] == list(range(1, len(parts) + 1))
            assert sum(len(p["values"]) for p in parts) == 60
            for message, _, properties in b.server.seen:
                assert 9 + len(message.topic) + len(message.payload) + len(properties) <= 400
            assert b.spool.commits[-1] == 2

    run_virtual(story())


def test_a_value_too_large_for_the_server_is_left_out_and_the_queue_goes_on(
    run_virtual, bench, scripted, define, caplog
):
    async def story():
        async with bench(scripted(maximum_packet=400)) as b:
            for _ in range(3):
                b.spool.append(Batch(define("a string"), TS, ["x" * 1000]))
            b.spool.append(Batch(define("a string"), TS, ["y"]))
            await b.until(lambda: b.cursor.committed == 4)
            assert b.forwarder.status().skipped == 3
            assert len(b.server.data()) == 1
        assert len([r for r in caplog.records if "left out" in r.getMessage()]) == 1

    run_virtual(story())


def test_a_record_without_a_topic_is_left_out_and_the_queue_goes_on(run_virtual, bench, scripted, define, caplog):
    async def story():
        async with bench(scripted(), topic="{site}/{device}") as b:
            b.spool.append(Batch(define("a uint16", site="#"), TS, [1]))
            b.spool.append(Batch(define("a uint16", site="north"), TS, [1]))
            await b.until(lambda: b.cursor.committed == 2)
            assert b.server.topics()[1:] == ["north/boiler"]
            assert b.forwarder.status().skipped == 1

    run_virtual(story())


def test_a_gap_is_told_on_the_log_topic(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted(), qos=2) as b:
            fill(b, group, 2)
            b.spool.lose(3)
            fill(b, group, 1, 5)
            await b.until(lambda: b.cursor.committed == 6)
            message, qos, properties = b.server.seen[3]
            assert message.topic == "headgate/plant7/log"
            assert orjson.loads(message.payload) == {
                "event": "gap",
                "seq": 5,
                "epoch": "9f31c2-3",
                "first": 3,
                "last": 5,
                "count": 3,
                "cause": "evicted",
                "from": 1000,
                "to": 2000,
            }
            assert (message.retain, qos) == (False, 2)
            assert b"plant7" in properties
            assert seqs(b.server) == [1, 2, 6]

    run_virtual(story())


# --- states and last values -------------------------------------------------------------------------------------------


def test_the_birth_comes_first_then_the_devices_then_records_on_every_connection(run_virtual, bench, scripted, group):
    async def story():
        states = {"boiler": DeviceState("boiler", online=True, cause="", since=1)}
        async with bench(scripted(), states=states) as b:
            fill(b, group, 1)
            await b.until(lambda: b.cursor.committed == 1)
            states["meter"] = DeviceState("meter", online=False, cause="timeout", since=5)
            b.forwarder.device_changed(states["meter"])
            await b.until(lambda: len(b.server.seen) == 4)
            b.server.connections[0].drop()
            await b.until(lambda: len(b.server.seen) == 7)
            assert b.server.topics() == [
                STATUS,
                "headgate/plant7/boiler/status",
                "headgate/plant7/boiler",
                "headgate/plant7/meter/status",
                STATUS,
                "headgate/plant7/boiler/status",
                "headgate/plant7/meter/status",
            ]
            assert all(m.retain for m, _, _ in b.server.seen if m.topic.endswith("status"))

    run_virtual(story())


def test_a_device_that_changes_while_the_window_is_full_is_told_once_with_its_last_state(
    run_virtual, bench, scripted, group
):
    async def story():
        server = scripted()
        server.late = lambda _: 1.0
        async with bench(server, max_in_flight=1) as b:
            await b.until(lambda: b.forwarder.status().in_flight == 1)
            for cause in ("timeout", "offline", "decode"):
                b.forwarder.device_changed(DeviceState("boiler", online=False, cause=cause, since=1))
            await b.until(lambda: len(server.seen) == 2)
            assert b'"decode"' in server.seen[1][0].payload

    run_virtual(story())


def test_a_device_s_state_does_not_queue_behind_records(run_virtual, bench, scripted, define):
    async def story():
        group = define(*(f"t{i} uint16" for i in range(50)))
        async with bench(scripted(), payload="value", max_in_flight=1) as b:
            b.spool.append(Batch(group, TS, list(range(50))))
            await b.until(lambda: len(b.server.seen) == 5)
            b.forwarder.device_changed(DeviceState("boiler", online=True, cause="", since=1))
            await b.until(lambda: b.cursor.committed == 1)
            assert b.server.topics().index("headgate/plant7/boiler/status") in (5, 6)

    run_virtual(story())


def test_a_device_that_changes_without_a_connection_is_told_by_the_next(run_virtual, bench, scripted):
    async def story():
        states = {}
        server = scripted()
        server.refusals = [SessionError("no")]
        async with bench(server, states=states) as b:
            states["boiler"] = DeviceState("boiler", online=True, cause="", since=1)
            b.forwarder.device_changed(states["boiler"])
            await b.until(lambda: len(server.seen) == 2)
            assert server.topics() == [STATUS, "headgate/plant7/boiler/status"]

    run_virtual(story())


def test_nothing_is_retained_where_the_server_cannot(run_virtual, bench, scripted):
    async def story():
        states = {"boiler": DeviceState("boiler", online=True, cause="", since=1)}
        async with bench(scripted(can_retain=False), states=states) as b:
            await b.until(lambda: len(b.server.seen) == 2)
            assert not any(message.retain for message, _, _ in b.server.seen)

    run_virtual(story())


def test_last_values_are_published_anew_after_each_connect_before_the_backlog(run_virtual, bench, scripted, define):
    async def story():
        group = define("a uint16", "b uint16")
        image = Image()
        image.add(group)
        image.note(Batch(group, TS, [7, 8]))
        async with bench(scripted(), payload="value", latest=image.batches) as b:
            b.spool.append(Batch(group, TS, [1, 2]))
            await b.until(lambda: b.cursor.committed == 1)
            assert [(m.topic[-1], m.payload, m.retain) for m, _, _ in b.server.seen[1:]] == [
                ("a", b"7", True),
                ("b", b"8", True),
                ("a", b"1", False),
                ("b", b"2", False),
            ]
            b.server.connections[0].drop()
            image.note(Batch(group, TS, [9], index=[0]))
            await b.until(lambda: len(b.server.seen) == 8)
            assert [m.payload for m, _, _ in b.server.seen[6:]] == [b"9", b"8"]

    run_virtual(story())


def test_last_values_that_have_no_topic_do_not_stop_the_others(run_virtual, bench, scripted, define):
    async def story():
        image = Image()
        for site in ("#", "north"):
            image.add(group := define("a uint16", device=f"boiler{site == '#'}", site=site))
            image.note(Batch(group, TS, [7]))
        async with bench(scripted(), payload="value", topic="{site}/{tag}", latest=image.batches) as b:
            await b.until(lambda: b.server.topics()[1:] == ["north/a"])
            assert b.forwarder.status().skipped == 1

    run_virtual(story())


def test_last_values_are_not_published_where_nothing_is_retained(run_virtual, bench, scripted, define):
    async def story():
        image = Image()
        image.add(group := define("a uint16"))
        image.note(Batch(group, TS, [7]))
        async with bench(scripted(), payload="value", retain=False, latest=image.batches) as b:
            await b.until(lambda: len(b.server.seen) == 1)
            await asyncio.sleep(1)
            assert b.server.topics() == [STATUS]

    run_virtual(story())
