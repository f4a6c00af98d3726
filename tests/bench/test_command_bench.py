"""How long a command takes from its publish to its reply, while 10,000 tags are polled ten times a second.

The load is `simulate_load`'s devices; the command goes to one more device, in a process of its own, that is polled at
the same pace and holds what was written to it. Publisher, broker, gateway and devices share this machine's cores.

python -m pytest -m bench tests/bench/test_command_bench.py -s
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import paho.mqtt.client as paho
import pytest

from gateway.cli.bench import cpu_s, mosquitto, plant
from gateway.control import ControlError, ask

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

DEVICES, TAGS, EVERY = 100, 100, "100ms"
COMMANDS = 500
MOST_P99_MS = 50.0

DEVICE = """
import asyncio, struct
held = [0] * 200
async def serve(reader, writer):
    while True:
        head = await reader.readexactly(7)
        pdu = await reader.readexactly(struct.unpack(">H", head[4:6])[0] - 1)
        address, word = struct.unpack(">HH", pdu[1:5])
        if pdu[0] == 3:
            body = struct.pack(f">BB{word}H", 3, 2 * word, *held[address:address + word])
        else:
            held[address] = word
            body = pdu[:5]
        writer.write(head[:4] + struct.pack(">HB", len(body) + 1, head[6]) + body)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def writable():
    """A device of 100 registers in a process of its own; gives its part of a gateway file."""
    with subprocess.Popen(
        [sys.executable, "-c", DEVICE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            tags = {f"r{n:03}": {"address": f"holding:{n}", "type": "uint16", "write": True} for n in range(100)}
            url = f"tcp://127.0.0.1:{int(process.stdout.readline())}"
            yield {"target": {"driver": "modbus", "url": url, "every": EVERY, "tags": tags}}
        finally:
            process.kill()


@contextmanager
def gateway(folder, document):
    """A gateway on this document; gives the process once all devices are online."""
    file, spool = folder / "gateway.yaml", folder / "headgate-data" / "spool"
    file.write_text(json.dumps(document))
    command = [sys.executable, "-m", "gateway", "run", str(file), "--log-level", "warning"]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 60
            while not is_ready(spool):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield process, lambda: ask(spool, {"do": "status"})
        finally:
            process.send_signal(signal.SIGTERM)


def is_ready(spool):
    try:
        status = ask(spool, {"do": "status"})
    except ControlError:
        return False
    return all(d["state"] == "online" for d in status["devices"]) and all(u["connected"] for u in status["uplinks"])


def round_trips(port):
    """The time of each command in ms, one after the other, from publish to reply."""
    answered, ready = threading.Event(), threading.Event()
    answers = []

    def on_message(_client, _data, message):
        answers.append(json.loads(message.payload))
        answered.set()

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe("headgate/bench/target/+/set/reply", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else 40 ms of delayed ACK is measured
    client.loop_start()
    assert ready.wait(10)
    times = []
    for number in range(COMMANDS):
        answered.clear()
        started = time.perf_counter()
        client.publish(f"headgate/bench/target/r{number % 100:03}/set", f'{{"value":{number},"id":{number}}}', qos=1)
        assert answered.wait(20)
        times.append((time.perf_counter() - started) * 1000)
        time.sleep(0.01)
    client.disconnect()
    client.loop_stop()
    assert all(answer["ok"] for answer in answers), [a for a in answers if not a["ok"]][:3]
    return sorted(times)


def metric(status, name):
    return sum(m["value"] for m in status["metrics"] if m["name"] == name)


@pytest.mark.parametrize("way", ["uplink", "broker"])
def test_a_command_is_answered_in_time_under_full_poll_load(way, tmp_path, capsys):
    own = free_port()
    with plant(DEVICES, TAGS, EVERY) as load, writable() as target, mosquitto(tmp_path) as port:
        assert port is not None, "mosquitto is not installed"
        document = {"gateway": "bench", "devices": load | target, "uplinks": {"u": {"url": f"mqtt://127.0.0.1:{port}"}}}
        if way == "broker":
            document["broker"] = {"listen": f"mqtt://127.0.0.1:{own}"}
        with gateway(tmp_path, document) as (process, status):
            time.sleep(2)
            before, began, cpu = metric(status(), "line_values_total"), time.monotonic(), cpu_s(process.pid)
            times = round_trips(own if way == "broker" else port)
            rate = (metric(status(), "line_values_total") - before) / (time.monotonic() - began)
            share = (cpu_s(process.pid) - cpu) / (time.monotonic() - began)
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    with capsys.disabled():
        print(
            f"\n{way}: {COMMANDS} commands beside {rate:,.0f} values/s ({share:.0%} of a core):"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {times[-1]:.1f} ms"
        )
    assert p99 <= MOST_P99_MS
