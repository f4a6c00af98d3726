"""The life of an uplink: connecting, losing, stopping, and what the log says of it."""

import asyncio
import logging

import orjson
import pytest

from gateway.model import Batch
from gateway.uplinks.options import Tls
from gateway.uplinks.session import SessionError

TS = 1795330000123
STATUS = "headgate/plant7/status"


@pytest.fixture
def group(define):
    return define("flow float64")


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "headgate.uplinks")
    return lambda: [f"{r.levelname} {r.getMessage()}" for r in caplog.records]


def payloads(server, topic):
    return [message.payload for message, _, _ in server.seen if message.topic == topic]


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_clean_stop_sends_what_is_new_waits_and_says_stopped(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 0.5
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
            await asyncio.sleep(1)
            for i in range(150):
                b.spool.append(Batch(group, TS + i, [i]))
            await b.forwarder.stop(10)
            assert b.cursor.committed == 150
            assert b.task.done() or not await asyncio.wait_for(b.task, 1)
            assert payloads(server, STATUS) == [b'{"state":"online"}', b'{"state":"stopped"}']
            assert server.topics()[-1] == STATUS
            assert server.connections[0].end == "goodbye"
            assert not b.forwarder.status().connected

    run_virtual(story())


def test_a_stop_waits_no_longer_than_told_and_what_is_not_acknowledged_stays(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda message: 0 if message.topic == STATUS else None
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
            b.spool.append(Batch(group, TS, [1]))
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await b.forwarder.stop(3)
            assert 2.9 < loop.time() - begun < 4.2
            assert b.spool.commits == []
            assert payloads(server, STATUS)[-1] == b'{"state":"stopped"}'

    run_virtual(story())


def test_a_stop_does_not_wait_for_what_the_server_refuses(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda message: 0 if message.topic == STATUS else 0x87
        async with bench(server) as b:
            b.spool.append(Batch(group, TS, [1]))
            await b.until(lambda: b.forwarder.status().refused)
            begun = asyncio.get_running_loop().time()
            await b.forwarder.stop(30)
            assert asyncio.get_running_loop().time() - begun < 2
            assert payloads(server, STATUS)[-1] == b'{"state":"stopped"}'

    run_virtual(story())


def test_a_stop_sends_on_from_the_disk_only_until_the_time_is_up(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.late = lambda _: 1.0
        async with bench(server, max_in_flight=1) as b:
            for i in range(100):
                b.spool.append(Batch(group, TS, [i]))
            b.spool.on_disk = 100
            await b.until(lambda: b.forwarder.status().connected)
            await b.forwarder.stop(5)
            assert 3 <= b.cursor.committed <= 6

    run_virtual(story())


@pytest.mark.parametrize("when", ["never run", "connecting", "waiting", "lost while stopping"])
def test_a_stop_comes_back_in_every_state(run_virtual, bench, scripted, group, when):
    async def story():
        server = scripted()
        if when == "waiting":
            server.refusals = [SessionError("no")] * 1000
        b = bench(server)
        loop = asyncio.get_running_loop()
        if when == "never run":
            await b.forwarder.stop(5)
            return
        async with b:
            if when == "waiting":
                await asyncio.sleep(500.5)
            elif when == "connecting":
                await asyncio.sleep(0.005)
            else:
                server.answer = lambda _: None
                await b.until(lambda: b.forwarder.status().connected)
                b.spool.append(Batch(group, TS, [1]))
                loop.call_later(1, server.connections[0].drop)
            begun = loop.time()
            await b.forwarder.stop(5)
            assert loop.time() - begun <= 1.1
            await asyncio.wait_for(b.task, 1)
            assert len(server.connections) == 1 or when == "waiting"

    run_virtual(story())


def test_being_cancelled_leaves_without_a_goodbye_so_that_the_will_is_published(run_virtual, bench, scripted):
    async def story():
        async with bench(scripted()) as b:
            await b.until(lambda: b.forwarder.status().connected)
        assert b.server.connections[0].end == "hung up"
        assert payloads(b.server, STATUS) == [b'{"state":"online"}']

    run_virtual(story())


def test_a_bug_ends_run_and_is_not_swallowed(run_virtual, bench, scripted, group):
    async def story():
        b = bench(scripted())

        def broken(reading, n):
            raise ZeroDivisionError

        b.spool.take = broken
        with pytest.raises(ZeroDivisionError):
            await b.forwarder.run()
        assert b.server.connections[0].end == "hung up"

    run_virtual(story())


# --- connecting -------------------------------------------------------------------------------------------------------


def test_the_will_says_offline(run_virtual, bench, scripted):
    async def story():
        async with bench(scripted(), prefix="site/{gateway}") as b:
            await b.until(lambda: b.forwarder.status().connected)
            attempt, will = b.server.attempts[0]
            assert (will.topic, will.payload) == ("site/plant7/status", b'{"state":"offline"}')
            assert (attempt.will_qos, attempt.will_retain) == (1, True)

    run_virtual(story())


def test_servers_are_tried_in_turn_until_one_answers(run_virtual, bench, scripted, lines):
    async def story():
        server = scripted()
        server.refusals = [SessionError("refused"), SessionError("timed out")]
        async with bench(server, servers=("mqtt://a", "mqtt://b", "mqtt://c")) as b:
            await b.until(lambda: b.forwarder.status().connected, 1)
            assert [attempt.server.host for attempt, _ in server.attempts] == ["a", "b", "c"]
            assert b.forwarder.status().last_error == "mqtt://b:1883: timed out"
        assert lines() == [
            "WARNING uplink 'cloud': cannot connect to mqtt://a:1883: refused. Trying on",
            "WARNING uplink 'cloud': cannot connect to mqtt://b:1883: timed out. Trying on",
            "INFO uplink 'cloud': connected to mqtt://a:1883 as 'c', MQTT 5, at attempt 3",
        ]

    run_virtual(story())


def test_an_outage_of_a_day_is_a_few_lines_and_no_storm(run_virtual, bench, scripted, lines):
    async def story():
        server = scripted()
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
            await asyncio.sleep(100)
            server.refusals = [SessionError("refused")] * 100_000
            server.connections[0].drop()
            await asyncio.sleep(86400)
            assert 1400 < len(server.attempts) < 10_000
            server.refusals.clear()
            await b.until(lambda: b.forwarder.status().connected)
            assert len(lines()) == 4

    run_virtual(story())


def test_a_refused_login_is_an_error_that_says_a_person_must_act_and_is_tried_on(run_virtual, bench, scripted, lines):
    async def story():
        server = scripted()
        server.refusals = [SessionError("bad user name or password (0x86)", code=0x86, needs_person=True)] * 5
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
        assert lines() == [
            (
                "ERROR uplink 'cloud': cannot connect to mqtt://a:1883: bad user name or password (0x86)."
                " A person must act; trying on"
            ),
            "INFO uplink 'cloud': connected to mqtt://a:1883 as 'c', MQTT 5, at attempt 6",
        ]

    run_virtual(story())


def test_an_error_about_a_certificate_mentions_a_clock_that_may_be_wrong(
    run_virtual, bench, scripted, lines, virtual_clock, monkeypatch
):
    async def story():
        monkeypatch.setattr(virtual_clock, "state", lambda: "unsynced", raising=False)
        server = scripted()
        server.refusals = [SessionError("the certificate is not yet valid", needs_person=True)]
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
        assert "clock is not synchronised" in lines()[0]

    run_virtual(story())


def test_a_server_that_refuses_mqtt_5_gets_3_1_1_at_once(run_virtual, bench, scripted, lines):
    async def story():
        server = scripted()
        server.refusals = [SessionError("unsupported protocol version (0x84)", code=0x84, needs_person=True)]
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected, 0.1)
            assert [attempt.version for attempt, _ in server.attempts] == ["5", "3.1.1"]
        assert lines()[0].startswith(
            "INFO uplink 'cloud': mqtt://a:1883: unsupported protocol version (0x84); asking for"
        )

    run_virtual(story())


def test_a_loss_is_one_line_with_its_reason(run_virtual, bench, scripted, lines):
    async def story():
        server = scripted()
        async with bench(server) as b:
            await b.until(lambda: b.forwarder.status().connected)
            since = b.forwarder.status().since
            await asyncio.sleep(60)
            server.connections[0].drop(SessionError("session taken over (0x8E)", code=0x8E, needs_person=True))
            await b.until(lambda: not b.forwarder.status().connected)
            assert b.forwarder.status().since > since
            await b.until(lambda: b.forwarder.status().connected)
        assert lines()[1] == "ERROR uplink 'cloud': lost mqtt://a:1883: session taken over (0x8E)"

    run_virtual(story())


def test_two_gateways_with_one_id_do_not_throw_each_other_out_in_a_storm(run_virtual, bench, scripted):
    async def story():
        server = scripted()
        async with bench(server):

            async def other():
                while True:
                    await asyncio.sleep(0.05)
                    if server.connections:
                        server.connections[-1].drop(SessionError("taken over", code=0x8E, needs_person=True))

            task = asyncio.create_task(other())
            await asyncio.sleep(3600)
            task.cancel()
            assert len(server.connections) < 400

    run_virtual(story())


def test_what_the_server_cannot_do_is_said(run_virtual, bench, scripted, lines):
    async def story():
        async with bench(scripted(maximum_qos=0, can_retain=False)) as b:
            await b.until(lambda: b.forwarder.status().connected)
        assert "no more than QoS 0" in lines()[1]
        assert "retains nothing" in lines()[2]

    run_virtual(story())


def test_not_verifying_raises_an_alarm(run_virtual, bench, scripted, lines):
    async def story():
        bench(scripted(), servers=("mqtts://a",), tls=Tls(verify=False))

    run_virtual(story())
    assert lines() == ["ERROR uplink 'cloud': verify is off: whoever answers is trusted with data and password"]


def test_nothing_that_is_logged_or_shown_holds_the_password(run_virtual, bench, scripted, lines):
    class Hidden:
        def reveal(self):
            return "hunter2"

        def __repr__(self):
            return "Secret"

    async def story():
        server = scripted()
        server.refusals = [SessionError("bad user name or password (0x86)", code=0x86, needs_person=True)]
        async with bench(server, username="plant7", password=Hidden()) as b:
            await b.until(lambda: b.forwarder.status().connected)
            assert "hunter2" not in repr(b.forwarder) + repr(b.options) + repr(b.forwarder.status()) + "".join(lines())

    run_virtual(story())


def test_counters_and_the_gauge_bear_the_uplink_s_name(run_virtual, bench, scripted, group):
    async def story():
        async with bench(scripted()) as b:
            b.spool.append(Batch(group, TS, [1]))
            await b.until(lambda: b.cursor.committed == 1)
            found = {name: value for name, labels, value in b.metrics if labels == {"uplink": "cloud"}}
            assert found == {
                "uplink_acknowledged_records_total": 1,
                "uplink_connected": 1.0,
                "uplink_connects_total": 1,
                "uplink_lost_replies_total": 0,
                "uplink_publishes_total": 2,
                "uplink_refused_publishes_total": 0,
                "uplink_skipped_total": 0,
            }

    run_virtual(story())


# --- a server that hangs up on one record -----------------------------------------------------------------------------


def test_a_silent_limit_on_the_size_is_found_by_smaller_parts(run_virtual, bench, scripted, define, lines):
    async def story():
        server = scripted()
        server.answer = lambda m: SessionError("closed without a word") if len(m.payload) > 700 else 0
        async with bench(server) as b:
            group = define(*(f"t{i} uint16" for i in range(300)))
            b.spool.append(Batch(define("a uint16"), TS, [1]))
            b.spool.append(Batch(group, TS, list(range(300))))
            b.spool.append(Batch(define("a uint16"), TS, [1]))
            await b.until(lambda: b.cursor.committed == 3, 5000)
            assert b.forwarder.status().skipped == 0
            taken = [orjson.loads(p) for p in b.server.data() if len(p) <= 700]
            assert {n for p in taken for n in p["values"]} == {"a", *(f"t{i}" for i in range(300))}
            b.server.most_flying = 0
            for _ in range(50):
                b.spool.append(Batch(define("a uint16"), TS, [1]))
            await b.until(lambda: b.cursor.committed == 53)
            assert b.server.most_flying > 1  # the care is over with what caused it
        assert len([line for line in lines() if "the connection breaks whenever record 2" in line]) == 1

    run_virtual(story())


def test_a_server_that_hangs_up_without_a_reason_never_costs_a_record(run_virtual, bench, scripted, group):
    async def story():
        server = scripted()
        server.answer = lambda m: 0 if m.topic == STATUS else SessionError("closed without a word")
        async with bench(server) as b:
            b.spool.append(Batch(group, TS, [1]))
            await asyncio.sleep(20_000)
            assert b.cursor.committed == 0
            server.answer = lambda _: 0
            await b.until(lambda: b.cursor.committed == 1)
            assert b.forwarder.status().skipped == 0

    run_virtual(story())


@pytest.mark.parametrize("code", [0x95, 0x99])
def test_a_server_that_hangs_up_because_of_a_record_gets_rid_of_it(run_virtual, bench, scripted, group, code):
    async def story():
        server = scripted()
        server.answer = lambda m: SessionError("bad packet", code=code) if b'"seq":2,' in m.payload else 0
        async with bench(server) as b:
            for i in range(5):
                b.spool.append(Batch(group, TS, [i]))
            await b.until(lambda: b.cursor.committed == 5, 5000)
            assert b.forwarder.status().skipped == 1
            assert all(seq in [orjson.loads(p)["seq"] for p in server.data()] for seq in (1, 3, 4, 5))

    run_virtual(story())
