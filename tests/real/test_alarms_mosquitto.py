"""A tag of class alarm in a whole gateway: it has a queue of its own, and overtakes what waits of all other tags."""

import asyncio
import json
import threading
import time

import paho.mqtt.client as paho
import pytest

from gateway.app import App
from gateway.config import load
from gateway.model import Batch

TAGS = {"level": "holding:1", "leak": {"address": "coil:5", "class": "alarm"}}
MANY = 3000


class Consumer:
    """Subscribes to the tank's topic before anything is sent, and notes what arrives."""

    def __init__(self, port):
        self.heard = []
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("headgate/g/tank", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self.heard.append(json.loads(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def of(self, tag):
        """The good values of a tag as records bring them, in the order of arrival."""
        values = [m["values"].get(tag) for m in list(self.heard) if "seq" in m]
        return [value for value in values if value is not None]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(need, start, listening, wait_for, free_port, tmp_path):
    need("mosquitto")
    port, file = free_port(), tmp_path / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    start("mosquitto", "-c", str(file), name="mosquitto")
    wait_for(lambda: listening(port), "mosquitto to listen")
    return port


@pytest.fixture
def consumer(broker):
    it = Consumer(broker)
    yield it
    it.close()


def gateway(folder, port, order):
    """The gateway of a file whose uplink leads to that port."""
    uplink = {"url": f"mqtt://127.0.0.1:{port}", "order": order, "max_in_flight": 4, "replay_delay": "0s"}
    device = {"driver": "modbus", "url": "tcp://127.0.0.1:1", "tags": TAGS}
    file = folder / "gateway.yaml"
    file.write_text(json.dumps({"gateway": "g", "uplinks": {"u": uplink}, "devices": {"tank": device}}))
    return App(load(file))


def take(app, tag, value):
    """Hand over one sample as a line does."""
    of = {"level": "data", "leak": "alarm"}[tag]
    group = next(group for group in app._config.groups["tank"] if group.record_class == of)
    app._sink(Batch(group, round(time.time() * 1000), [value]))


async def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("order", ["in_order", "live_first"])
def test_an_alarm_of_the_outage_and_a_new_one_arrive_before_the_backlog_of_data(
    broker, consumer, free_port, tmp_path, order
):
    async def outage():
        async with gateway(tmp_path, free_port(), order) as app:
            for number in range(MANY):
                take(app, "level", number)
            take(app, "leak", value=True)
            await app.spool.durable()

    async def afterwards():
        async with gateway(tmp_path, broker, order) as app:
            await until(lambda: len(consumer.of("level")) > 100)
            assert consumer.of("leak") == [True]
            take(app, "leak", value=False)
            await until(lambda: consumer.of("leak") == [True, False])
            assert len(consumer.of("level")) < MANY // 2
            await until(lambda: len(consumer.of("level")) >= MANY)

    asyncio.run(outage())
    assert (tmp_path / "headgate-data" / "spool" / "alarm").is_dir()
    asyncio.run(afterwards())
    assert "leak" in next(m for m in consumer.heard if "seq" in m)["values"], "the alarm is the first record of all"
    assert consumer.of("level") == list(range(MANY))
