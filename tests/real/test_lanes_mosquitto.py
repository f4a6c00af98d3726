"""Lanes against mosquitto: what is new goes past a backlog, at its pace, by class, through lost links and kills."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import textwrap
import threading
import time

import aiomqtt
import paho.mqtt.client as paho
import pytest

from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.spool import Spool
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.options import Options

CLASSES = ("alarm", "data")
GROUPS = {
    name: Definition(name, ("n", "x"), ("uint32", "float32"), ("", ""), (None, None), record_class=name)
    for name in CLASSES
}


class Broker:
    """A mosquitto that keeps what it has, and can be stopped and started again on the same port."""

    def __init__(self, folder, start, listening, wait_for, port):
        self.port, self.url = port, f"mqtt://127.0.0.1:{port}"
        self._start, self._listening, self._wait_for = start, listening, wait_for
        self._file = folder / "mosquitto.conf"
        lines = [
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            "max_inflight_messages 0",
            *["user root"] * (os.geteuid() == 0),
        ]
        self._file.write_text("\n".join(lines) + "\n")

    def up(self):
        self._process = self._start("mosquitto", "-c", str(self._file), name="mosquitto")
        self._wait_for(lambda: self._listening(self.port), "mosquitto to listen")

    def down(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


class Consumer:
    """A subscriber with a session of its own that stays; notes what arrives, and when."""

    def __init__(self, port):
        self.heard = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "historian", clean_session=False)
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_connect = lambda client, *_: client.subscribe("headgate/plant7/+", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def _on_message(self, _client, _data, message):
        document = json.loads(message.payload)
        if "seq" in document:
            self.heard.append((time.monotonic(), message.topic.rpartition("/")[2], document))

    def numbers(self, device, *, replay=None):
        """The numbers of a class in the order of arrival, each when it came first."""
        found = []
        for _, name, document in list(self.heard):
            if name == device and replay in (None, document.get("replay", False)):
                found.append(document["values"]["n"])
        return list(dict.fromkeys(found))

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(need, tmp_path, start, listening, wait_for, free_port):
    need("mosquitto")
    it = Broker(tmp_path, start, listening, wait_for, free_port())
    it.up()
    return it


@pytest.fixture
def consumer(broker):
    it = Consumer(broker.port)
    yield it
    it.close()


class Gateway:
    """Spool and forwarder as the app puts them together."""

    def __init__(self, folder, url, **options):
        self.folder = folder / "spool"
        self.options = {"name": "cloud", "gateway": "plant7", "servers": (url,), "replay_delay_s": 0.0} | options
        self.count = 0

    async def __aenter__(self):
        clock, metrics = SystemClock(), Metrics()
        limits = dict.fromkeys(("alarm", "event", "data", "diag"), Limits(commit_interval_s=0.1))
        self.spool = await Spool.open(self.folder, limits, classes=CLASSES, clock=clock, metrics=metrics)
        self.forwarder = Forwarder(
            Options(**self.options),
            streams=[(queue, queue.cursor("cloud")) for queue in self.spool.queues.values()],
            states={},
            clock=clock,
            metrics=metrics,
        )
        self.task = asyncio.create_task(self.forwarder.run())
        return self

    async def __aexit__(self, *_):
        await self.forwarder.stop(2)
        await self.task
        await self.spool.close()

    def append(self, count, name="data"):
        for _ in range(count):
            batch = Batch(GROUPS[name], round(time.time() * 1000), [self.count, 0.5])
            self.spool.queue_of(batch.group).append(batch)
            self.count += 1

    async def until(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.task.done(), self.task.exception()
            assert time.monotonic() < deadline, "waited in vain"
            await asyncio.sleep(0.01)

    async def connected(self, *, is_so=True):
        await self.until(lambda: self.forwarder.status().connected == is_so)

    async def delivered(self):
        await self.until(lambda: not any(c.lag_records for c in self.spool.status().cursors))


def test_after_an_outage_what_is_new_goes_first_and_the_backlog_at_the_rate_asked_for(broker, consumer, tmp_path):
    async def story():
        async with Gateway(tmp_path, broker.url, replay_rate=1000.0) as g:
            await g.connected()
            g.append(10)
            await g.delivered()
            broker.down()
            await g.connected(is_so=False)
            g.append(2000)
            await g.spool.durable()
            broker.up()
            await g.connected()
            fresh = set()
            while len(consumer.numbers("data", replay=True)) < 1990:
                assert not g.task.done(), g.task.exception()
                fresh.add(g.count)
                g.append(1)
                await asyncio.sleep(0.02)
            await g.delivered()
            await g.until(lambda: len(consumer.numbers("data")) == g.count)
            status = g.forwarder.status()
            assert status.backlog_records == 0
            return fresh

    fresh = asyncio.run(story())
    assert fresh
    old = consumer.numbers("data", replay=True)
    assert set(range(10, 2010)) <= set(old), "also what was on its way when the link was cut is backlog"
    assert old == sorted(old)
    new = consumer.numbers("data", replay=False)
    assert fresh <= set(new)
    assert new == sorted(new)
    moments = [at for at, _, document in consumer.heard if document.get("replay")]
    assert moments[-1] - moments[0] > 2.5, "4,000 values at 1,000 a second, one second's worth at once"
    later = [at for at in moments if at > moments[0] + 1.0]
    for at in later[:: len(later) // 10]:
        assert sum(at <= other < at + 1 for other in later) < 1000
    between = [at for at, _, document in consumer.heard if document["values"]["n"] in fresh]
    assert sum(at < moments[-1] for at in between) > len(between) // 2, "while the backlog was on its way"


@pytest.mark.parametrize("order", ["live_first", "in_order"])
def test_an_alarm_overtakes_a_backlog_of_data(broker, consumer, tmp_path, order):
    async def story():
        broker.down()
        async with Gateway(tmp_path, broker.url, order=order, max_in_flight=4) as g:
            g.append(5000)
            await g.spool.durable()
            broker.up()
            await g.connected()
            await g.until(lambda: len(consumer.numbers("data")) > 100)
            before = len(consumer.numbers("data"))
            g.append(1, "alarm")
            await g.until(lambda: consumer.numbers("alarm"))
            assert len(consumer.numbers("data")) - before < 1000
            await g.delivered()
            await g.until(lambda: len(consumer.numbers("data")) == 5000)
            if order == "in_order":
                assert consumer.numbers("data") == list(range(5000))

    asyncio.run(story())


def test_links_lost_in_the_middle_of_a_backlog_lose_nothing(broker, consumer, tmp_path):
    async def story():
        broker.down()
        async with Gateway(tmp_path, broker.url, replay_rate=4000.0) as g:
            g.append(6000)
            await g.spool.durable()
            broker.up()
            for turn in range(3):
                await g.connected()
                already = len(consumer.numbers("data"))
                g.append(50)
                await g.until(lambda already=already: len(consumer.numbers("data")) > already + 300)
                # Somebody else with the same client id: the server throws us out in mid-stream.
                thief = {"identifier": "plant7-cloud", "protocol": aiomqtt.ProtocolVersion.V5}
                async with aiomqtt.Client("127.0.0.1", broker.port, **thief):
                    await g.connected(is_so=False)
                    g.append(20)
                assert len(g.spool.queues["data"]._cursors.by_name["cloud"].islands) <= turn + 1
            await g.delivered()
            await g.until(lambda: len(consumer.numbers("data")) == g.count, 60)
            assert g.spool.queues["data"]._cursors.by_name["cloud"].islands == []
            return g.count

    count = asyncio.run(story())
    assert sorted(consumer.numbers("data")) == list(range(count))
    replayed = consumer.numbers("data", replay=True)
    assert replayed == sorted(replayed)
    assert len(consumer.heard) < count + 3 * 200, "twice only what was on its way"


PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from gateway.clock import SystemClock
from gateway.metrics import Metrics
from gateway.model import Batch, Definition
from gateway.spool.limits import Limits
from gateway.spool.spool import Spool
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.options import Options

folder, url, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

async def main():
    clock, metrics = SystemClock(), Metrics()
    limits = dict.fromkeys(("alarm", "event", "data", "diag"), Limits(commit_interval_s=0.2))
    classes = ("alarm", "data")
    groups = [
        Definition(name, ("n", "x"), ("uint32", "float32"), ("", ""), (None, None), record_class=name)
        for name in classes
    ]
    spool = await Spool.open(folder, limits, classes=classes, clock=clock, metrics=metrics)
    streams = [(queue, queue.cursor("cloud")) for queue in spool.queues.values()]
    options = Options(name="cloud", gateway="plant7", servers=(url,), replay_rate=2000.0, replay_delay_s=0.2)
    uplink = Forwarder(options, streams=streams, states={}, clock=clock, metrics=metrics)
    task = asyncio.create_task(uplink.run())
    n = first
    while True:
        for _ in range(10):
            batch = Batch(groups[n % 50 != 0], round(time.time() * 1000), [n, 0.5])
            spool.queue_of(batch.group).append(batch)
            n += 1
        print("appended", n, flush=True)
        if n % 100 == 0:
            await spool.durable()
            print("durable", n, flush=True)
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.timeout(240)
def test_kills_in_the_middle_of_a_backlog_lose_nothing_that_was_durable(broker, consumer, tmp_path, start, wait_for):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    dice, first, durable = random.Random(7), 0, []
    for turn in itertools.count():
        process = start(sys.executable, str(program), str(tmp_path / "spool"), broker.url, str(first), name=f"g{turn}")
        log = tmp_path / f"g{turn}.log"

        def last(word, log=log):
            lines = [line.split() for line in log.read_text().splitlines() if line.startswith(word)]
            return int(lines[-1][1]) if lines else -1

        begun = first
        wait_for(lambda: last("durable") > begun + 200, "something durable", 20)  # noqa: B023 - asked for at once
        if turn == 5:
            break
        if turn % 2 == 0:
            broker.down()
            mark = last("durable")
            wait_for(lambda: last("durable") > mark + 1000, "an outage", 20)  # noqa: B023 - likewise
            broker.up()
        time.sleep(dice.uniform(0.05, 0.6))
        process.kill()
        process.wait()
        durable.append(range(first, last("durable")))
        first = last("appended") + 1000
    wanted = {n for numbers in durable for n in numbers}
    heard = lambda: set(consumer.numbers("data")) | set(consumer.numbers("alarm"))  # noqa: E731 - asked for often
    wait_for(lambda: wanted <= heard(), "all that was durable", 60)
    process.kill()
    contents = {}
    for _, device, document in consumer.heard:
        key = (device, document["epoch"], document["seq"])
        assert contents.setdefault(key, document["values"]) == document["values"], "one key, two contents"
    for device in CLASSES:
        fresh = consumer.numbers(device, replay=False)
        assert fresh == sorted(fresh)
