"""A whole gateway in a process of its own between a real server and a real subscriber; and what servers really send."""

import asyncio
import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import groupby

import paho.mqtt.client as paho
import pytest
from asyncua import Client, ua

BOTH = ["node-opcua", "asyncua"]
PLANT = "urn:headgate:tests:plant"
COUNT = 10
QUICK = {"timeout": "1s", "keep_alive": "500ms"}
"""So that a test need not wait long until a silent link is given up."""


class Subscriber:
    """Who wants the records of a gateway, in the order in which the broker handed them on."""

    def __init__(self, port):
        self.records, self._client = [], paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("headgate/g/+", qos=1)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client, _data, message):
        said = json.loads(message.payload)
        self.records.append((message.topic.rpartition("/")[2], said))

    def of(self, device, tag):
        """(value, ms, whether from history, ms of the server) of every good value of a tag, in the order of arrival."""
        return [
            (
                said["values"][tag],
                said.get("times", {}).get(tag, said["ts"]),
                said.get("history", False),
                said.get("server_times", {}).get(tag),
            )
            for name, said in list(self.records)
            if name == device and "seq" in said and said["values"].get(tag) is not None
        ]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def plant(opcua_shared):
    """A server with counters that have a history, and with nodes to set; the tests of this file share it."""
    return lambda kind: opcua_shared(kind, counters=COUNT, history=COUNT)


@pytest.fixture
def gateway(free_port, start, listening, wait_for, tmp_path):
    """`gateway(devices)` runs `headgate run` on a file with these devices; gives a subscriber at its broker."""
    heard = []

    def run(devices):
        port = free_port()
        file = tmp_path / "gateway.json"
        broker = {"listen": f"mqtt://127.0.0.1:{port}"}
        file.write_text(json.dumps({"gateway": "g", "broker": broker, "devices": devices}))
        start(sys.executable, "-m", "gateway", "run", str(file), name="headgate", env={**os.environ})
        wait_for(lambda: listening(port), "the gateway's broker to listen", 20)
        heard.append(Subscriber(port))
        return heard[-1]

    yield run
    for subscriber in heard:
        subscriber.close()


# --- every count, once, whatever was lost -----------------------------------------------------------------------------


def frozen_while_the_session_ends(server, link, down):
    link.freeze()
    assert server.tell("kill_session")["killed"] == 1
    gap = down()
    link.thaw()
    return gap


def restarted(server, _link, down):
    since = server.tell("state")["started"]
    server.kill()
    gap = down()
    server.start(since=since)
    return gap


@pytest.mark.parametrize(("kind", "trouble"), [("node-opcua", frozen_while_the_session_ends), ("asyncua", restarted)])
def test_a_subscriber_gets_every_count_once_and_in_order_with_those_of_the_gap_marked(
    plant, opcua_link, opcua_rig, gateway, wait_for, kind, trouble
):
    server = plant(kind)
    started = server.tell("state")["started"]
    tags = opcua_rig.counters(COUNT)
    link = opcua_link(server.port)
    heard = gateway({"plc": opcua_rig.device(link.url, tags, **QUICK)})

    def newest():
        return min((heard.of("plc", tag) or [(0,)])[-1][0] for tag in tags)

    def come(more=5):
        last = server.tell("state")["count"] + more
        wait_for(lambda: newest() >= last, f"value {last} of each", 30)
        return last

    def down():
        """Let ten values go by that nobody sees; gives which they are."""
        first, last = (due(started) + more for more in (1, 10))
        wait_for(lambda: due(started) >= last, "ten values to go by")
        return first, last

    come()
    first, after = trouble(server, link, down)
    last = come()
    for tag in tags:
        came = heard.of("plc", tag)
        values = [value for value, *_ in came]
        assert values == list(range(values[0], values[0] + len(values))), tag
        assert values[-1] >= last, tag
        assert all(ms == started + 100 * value for value, ms, *_ in came), tag
        runs = [(is_history, [it[0] for it in run]) for is_history, run in groupby(came, lambda it: it[2])]
        assert [is_history for is_history, _ in runs] == [False, True, False], tag
        assert set(range(first, after + 1)) <= set(runs[1][1]), tag


def due(started):
    """How far a counter that began then must be by now."""
    return (time.time_ns() // 1_000_000 - started) // 100


# --- times ------------------------------------------------------------------------------------------------------------


async def as_sent(url, node, change, count):
    """(value, ms of the source, ms of the server) of what the server sends of a node, as another client hears it."""
    got = []

    class Handler:
        def datachange_notification(self, _node, value, data):
            held = data.monitored_item.Value
            got.append((value, held.SourceTimestamp, held.ServerTimestamp))

    async with Client(url) as client:
        index = await client.get_namespace_index(PLANT)
        subscription = await client.create_subscription(50, Handler())
        item = client.get_node(ua.NodeId(node, index))
        await subscription.subscribe_data_change(item, sampling_interval=0, queuesize=100)
        async with asyncio.timeout(20):
            while not got:  # noqa: ASYNC110 - a message makes it true
                await asyncio.sleep(0.02)
            await asyncio.to_thread(change)
            while len(got) < 1 + count:  # noqa: ASYNC110 - a message makes it true
                await asyncio.sleep(0.02)
        await subscription.delete()
    return [(value, _ms(source), _ms(server)) for value, source, server in got[1:]]


def _ms(when):
    return round((when.replace(tzinfo=UTC) - datetime.fromtimestamp(0, UTC)) / timedelta(milliseconds=1), 3)


def test_both_times_come_out_of_the_payload_as_the_server_sent_them(plant, opcua_rig, gateway, wait_for):
    server = plant("asyncua")  # node-opcua's server times are its source times
    ways = {"both": {"server_times": True}, "served": {"time": "server"}, "source": {}}
    tags = {"write.Int16": {"sampling": "0s"}}
    heard = gateway({name: opcua_rig.device(server.url, tags, **more) for name, more in ways.items()})
    wait_for(lambda: server.tell("state")["items"] == 3, "the items", 20)
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    expected = [(1000 + k, round(begin.timestamp() * 1000) + 1001 * k) for k in range(1, 6)]

    def change():
        for value, ms in expected:
            when = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
            server.tell("set", node="write.Int16", type="Int16", value=value, time=when)

    sent = asyncio.run(as_sent(server.url, "write.Int16", change, 5))
    assert [(value, source) for value, source, _ in sent] == expected
    assert all(served - source > 3_000_000 for _, source, served in sent)
    wait_for(lambda: all(len(set_here(heard, name)) >= 5 for name in ways), "what was set", 20)
    both, served, source = (set_here(heard, name) for name in ways)
    assert [it[:2] for it in both] == expected
    assert [(*it[:2], it[3]) for it in source] == [(*it, None) for it in expected]
    assert [(it[0], it[3]) for it in served] == [(value, None) for value, _ in expected]
    truth = [int(at) for *_, at in sent]
    assert [it[3] for it in both] == pytest.approx(truth, abs=1)
    assert [it[1] for it in served] == pytest.approx(truth, abs=1)


def set_here(heard, device):
    """What came of the node since it was set by the test."""
    return [it for it in heard.of(device, "write.Int16") if 1000 < it[0] <= 1005]


# --- deadbands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_of_what_stays_within_a_deadband_the_server_sends_nothing(plant, opcua_rig, kind):
    server = plant(kind)
    every = {"sampling": "0s", "queue": 100}
    tags = {
        "write.Double": {**every, "deadband": 5},
        "analog": {**every, "range_deadband": 10},  # of 0 to 200: 20
        "write.Int32": every,
    }
    steps = {
        "write.Double": [100, 104, 100, 104, 120, 117, 120, 100],
        "analog": [100, 119, 81, 121, 139, 105, 143, 100],
    }
    beyond = {"write.Double": [100, 120, 100], "analog": [100, 121, 143, 100]}
    if kind == "asyncua":
        beyond["analog"] = steps["analog"]  # it takes a percent deadband and does nothing with it

    async def main():
        async with opcua_rig({"plc": opcua_rig.device(server.url, tags)}) as rig:
            await rig.until(lambda: rig.seen.keys() >= tags.keys(), "a first value of each")

            def total():
                return next(value for name, _, value in rig.metrics if name == "line_values_total")

            server.tell("set", node="write.Double", type="Double", value=1000)
            server.tell("set", node="analog", type="Double", value=1000)
            server.tell("set", node="write.Int32", type="Int32", value=71)
            await rig.until(lambda: rig.newest("write.Int32") == 71, "what comes first")
            before, at = total(), {tag: len(rig.seen[tag]) for tag in tags}
            for k in range(8):  # one after the other: node-opcua may make one of several in a millisecond
                for node, values in steps.items():
                    server.tell("set", node=node, type="Double", value=values[k])
                server.tell("set", node="write.Int32", type="Int32", value=80 + k)
                await rig.until(lambda k=k: rig.newest("write.Int32") == 80 + k, "what comes last of each step")
            came = {tag: [seen.value for seen in rig.seen[tag][at[tag] :]] for tag in steps}
            assert came == beyond
            assert total() - before == sum(map(len, beyond.values())) + 8

    asyncio.run(main())


# --- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "period", "values"), [(1000, 100, 30), pytest.param(10_000, 1000, 3, marks=pytest.mark.long)]
)
def test_of_many_nodes_no_value_is_missed(opcua_servers, opcua_rig, count, period, values):
    server = opcua_servers("node-opcua", counters=count, period=period, types=False)
    made = opcua_rig.counters(count)

    async def main():
        async with opcua_rig({"plc": opcua_rig.device(server.url, made, every=f"{period}ms")}) as rig:
            await rig.until(lambda: rig.has(list(made), 1), "a first value of each", 60)
            last = max(rig.newest(tag) for tag in made) + values
            await rig.until(lambda: rig.has(list(made), last), f"{values} values of each", 60)
        assert rig.faults(list(made), started=server.tell("state")["started"], period=period) == []

    asyncio.run(main())
