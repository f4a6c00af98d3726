"""The main job, end to end, with real processes: devices to a real broker through kills and outages, nothing lost."""

import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import defaultdict

import paho.mqtt.client as paho
import pytest

COMMIT_INTERVAL = 1.0
WINDOW = COMMIT_INTERVAL + 0.2


class Counter(threading.Thread):
    """A Modbus TCP device whose uint32 at holding:0 counts the reads it served; it remembers when it served each."""

    def __init__(self):
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.served = []
        self._open = True

    def run(self):
        while self._open:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            while True:
                try:
                    request = connection.recv(12, socket.MSG_WAITALL)
                except OSError:
                    return
                if len(request) < 12:
                    return
                value = len(self.served)
                tid = request[:2]
                answer = tid + struct.pack(">HHBBBI", 0, 7, request[6], 3, 4, value)
                try:
                    connection.sendall(answer)
                except OSError:
                    return
                self.served.append(time.monotonic())

    def close(self):
        self._open = False
        self._listener.close()


class Consumer:
    """A subscriber with a session of its own that stays, whatever happens to the gateway or to the broker."""

    def __init__(self, port):
        self.messages = []
        self.states = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "historian", clean_session=False)
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_connect = lambda client, *_: client.subscribe("headgate/#", qos=1)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, _client, _data, message):
        document = json.loads(message.payload)
        if "values" in document:
            self.messages.append((message.topic, document))
        else:
            self.states.append((message.topic, document))

    def values(self, device):
        """Counter values in the order of arrival, duplicates by (epoch, seq) removed."""
        seen, out = set(), []
        for topic, document in list(self.messages):
            key = (document["epoch"], document["seq"])
            if topic == f"headgate/plant/{device}" and key not in seen:
                seen.add(key)
                if document["values"]["count"] is not None:
                    out.append(document["values"]["count"])
        return out

    def keys(self):
        """How often each (epoch, seq) came, with what."""
        found = defaultdict(set)
        for _, document in self.messages:
            found[document["epoch"], document["seq"]].add(json.dumps(document["values"]))
        return found

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def counters():
    devices = [Counter() for _ in range(3)]
    for device in devices:
        device.start()
    yield devices
    for device in devices:
        device.close()


@pytest.fixture
def broker(need, free_port, start, wait_for, listening, tmp_path):
    """A mosquitto that keeps everything; `up()` and `down()` start and stop it on the same port."""
    need("mosquitto")
    port = free_port()
    file = tmp_path / "mosquitto.conf"
    file.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
        f"persistence_location {tmp_path}/\nmax_queued_messages 0\nmax_inflight_messages 0\nuser root\n"
    )

    class Broker:
        def up(self):
            self.process = start("/usr/sbin/mosquitto", "-c", str(file), name="mosquitto")
            wait_for(lambda: listening(port), "mosquitto to listen")

        def down(self):
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    it = Broker()
    it.port = port
    it.up()
    return it


@pytest.fixture
def consumer(broker):
    it = Consumer(broker.port)
    yield it
    it.close()


@pytest.fixture
def gateway(broker, counters, start, tmp_path):
    """`run()` starts the real gateway on the counters and the broker."""
    devices = "".join(
        f"  c{i}:\n    driver: modbus\n    url: tcp://127.0.0.1:{device.port}\n    every: 50ms\n"
        "    tags: {count: {address: holding:0, type: uint32}}\n"
        for i, device in enumerate(counters)
    )
    file = tmp_path / "plant.yaml"
    uplink = f"{{url: 'mqtt://127.0.0.1:{broker.port}', order: in_order, replay_delay: 1s}}"
    file.write_text(f"gateway: plant\nuplinks:\n  local: {uplink}\ndevices:\n{devices}")

    def run():
        return start(sys.executable, "-m", "gateway", "run", str(file), name="headgate", env={**os.environ})

    return run


def missing(counter, got, kills):
    """Values the device served that did not arrive, but for those in the window before a kill and around a restart."""
    present = set(got)
    return [
        value
        for value, at in enumerate(counter.served)
        if value not in present and not any(kill - WINDOW <= at <= kill + 0.01 for kill in kills)
    ]


def settle(counters, consumer, wait_for, kills, seconds):
    marks = [len(device.served) for device in counters]
    wait_for(
        lambda: all(
            not [v for v in missing(device, consumer.values(f"c{i}"), kills) if v < mark]
            for i, (device, mark) in enumerate(zip(counters, marks, strict=True))
        ),
        "every value of before to arrive",
        seconds,
    )


def check(counters, consumer, kills):
    for i in range(len(counters)):
        got = consumer.values(f"c{i}")
        assert got == sorted(got), f"c{i} came out of order"
        assert len(got) == len(set(got)), f"a value of c{i} came under two keys"
    assert all(len(values) == 1 for values in consumer.keys().values()), "one key, two contents"
    assert len(kills) == 0 or sum(len(device.served) for device in counters) > 100


def outage_and_kills(broker, consumer, counters, gateway, wait_for, *, outage_s, kills, pause):
    dice = random.Random()
    process = gateway()
    wait_for(lambda: len(consumer.values("c0")) > 20, "first values", 20)
    broker.down()
    time.sleep(outage_s)
    broker.up()
    settle(counters, consumer, wait_for, [], 60)
    killed = []
    for _ in range(kills):
        time.sleep(dice.uniform(*pause))
        killed.append(time.monotonic())
        process.kill()
        process.wait()
        process = gateway()
    wait_for(lambda: len(consumer.states) > 0, "states", 10)
    time.sleep(2 * WINDOW)
    settle(counters, consumer, wait_for, killed, 60)
    return killed


@pytest.mark.timeout(240)
def test_an_outage_and_kills_lose_nothing_that_was_accepted_in_time(broker, consumer, counters, gateway, wait_for):
    killed = outage_and_kills(broker, consumer, counters, gateway, wait_for, outage_s=4, kills=3, pause=(0.5, 3.0))
    check(counters, consumer, killed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_minute_of_outage_and_ten_kills_lose_nothing(broker, consumer, counters, gateway, wait_for):
    killed = outage_and_kills(broker, consumer, counters, gateway, wait_for, outage_s=60, kills=10, pause=(0.2, 6.0))
    check(counters, consumer, killed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_kills_lose_nothing_that_was_accepted_in_time(broker, consumer, counters, gateway, wait_for):
    killed = outage_and_kills(broker, consumer, counters, gateway, wait_for, outage_s=5, kills=100, pause=(0.1, 4.5))
    check(counters, consumer, killed)


@pytest.mark.timeout(240)
def test_kills_while_the_link_is_down_lose_nothing_that_was_accepted_in_time(
    broker, consumer, counters, gateway, wait_for
):
    process = gateway()
    wait_for(lambda: len(consumer.values("c0")) > 20, "first values", 20)
    broker.down()
    killed = []
    for _ in range(3):
        time.sleep(3)
        killed.append(time.monotonic())
        process.kill()
        process.wait()
        process = gateway()
    time.sleep(3)
    broker.up()
    settle(counters, consumer, wait_for, killed, 60)
    check(counters, consumer, killed)
    assert any(document.get("replay") for _, document in consumer.messages)


@pytest.mark.timeout(120)
def test_a_stop_is_ordered_quick_and_says_stopped(broker, consumer, counters, gateway, wait_for):
    process = gateway()
    wait_for(lambda: len(consumer.values("c0")) > 20, "first values", 20)
    before = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - before < 5
    settle(counters, consumer, wait_for, [], 20)
    wait_for(lambda: ("headgate/plant/status", {"state": "stopped"}) in consumer.states, "stopped")
    assert ("headgate/plant/status", {"state": "online"}) in consumer.states


@pytest.mark.timeout(120)
def test_a_stop_without_a_link_is_quick_and_loses_nothing(broker, consumer, counters, gateway, wait_for):
    process = gateway()
    wait_for(lambda: len(consumer.values("c0")) > 20, "first values", 20)
    broker.down()
    time.sleep(1)
    before = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - before < 5
    broker.up()
    process = gateway()
    settle(counters, consumer, wait_for, [], 30)
    check(counters, consumer, [])
