"""Commands over MQTT, end to end: mosquitto and its tools, paho, libmodbus; and what a kill leaves of a write."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.control import ControlError, ask

HEADGATE = [sys.executable, "-m", "gateway"]
BASE = "headgate/g/plc"


class Operator:
    """A client that sends commands and hears all that is said below `headgate/g`. `version`: MQTT's."""

    def __init__(self, port, version=paho.MQTTv5, user=None):
        self.heard = []
        self._port, self._changed = port, threading.Condition()
        self._ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=version)
        if user is not None:
            self._client.username_pw_set(user)
        self._client.on_connect = lambda client, *_: client.subscribe([("headgate/g/#", 1), ("answers/#", 1)])
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def _on_message(self, _client, _data, message):
        with self._changed:
            self.heard.append(message)
            self._changed.notify_all()

    def send(self, tag, payload, *, retain=False, qos=1, **properties):
        said = None
        if properties:
            said = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(said, name, value)
        info = self._client.publish(f"{BASE}/{tag}/set", payload, qos=qos, retain=retain, properties=said)
        info.wait_for_publish(10)

    def documents(self, topic):
        return [json.loads(m.payload) for m in list(self.heard) if m.topic == topic]

    def await_count(self, topic, count, seconds=20):
        deadline = time.monotonic() + seconds
        with self._changed:
            while len(self.documents(topic)) < count:
                assert self._changed.wait(deadline - time.monotonic()), f"{topic}: {self.documents(topic)}"
        return self.documents(topic)

    def reply(self, tag, payload, **how):
        """Send and wait for the answer beside the topic."""
        topic = f"{BASE}/{tag}/set/reply"
        before = len(self.documents(topic))
        self.send(tag, payload, **how)
        return self.await_count(topic, before + 1)[-1]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def operator():
    made = []

    def make(*arguments, **options):
        made.append(Operator(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def mosquitto(need, start, listening, wait_for, free_port, tmp_path):
    need("mosquitto", "mosquitto_rr", "mosquitto_pub", "mosquitto_sub")
    port, file = free_port(), tmp_path / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    start("mosquitto", "-c", str(file), name="mosquitto", env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
    wait_for(lambda: listening(port), "mosquitto to listen")
    return port


class Gateway:
    """A gateway process on a file. `metric` asks it."""

    def __init__(self, process, spool):
        self.process, self._spool = process, spool

    def status(self):
        return ask(self._spool, {"do": "status"})

    def metric(self, name, **labels):
        rows = self.status()["metrics"]
        return sum(m["value"] for m in rows if m["name"] == name and labels.items() <= m["labels"].items())

    def is_ready(self, *, uplink):
        try:
            status = self.status()
        except ControlError:
            return False
        is_connected = not uplink or any(each["connected"] for each in status["uplinks"])
        return is_connected and all(device["state"] == "online" for device in status["devices"])


@pytest.fixture
def run_gateway(start, wait_for, tmp_path):
    """`run_gateway(port of the device, tags, uplinks=…)` runs a gateway and waits until all is well."""

    def run(device_port, tags, *, uplink=True, **sections):
        device = {"driver": "modbus", "url": f"tcp://127.0.0.1:{device_port}", "every": "200ms", "tags": tags}
        file = tmp_path / "gateway.yaml"
        file.write_text(json.dumps({"gateway": "g", "devices": {"plc": device | {"timeout": "2s"}}, **sections}))
        process = start(*HEADGATE, "run", str(file), name="headgate")
        gateway = Gateway(process, tmp_path / "headgate-data" / "spool")
        wait_for(lambda: gateway.is_ready(uplink=uplink), "the gateway", 60)
        return gateway

    return run


TAGS = {
    "pump": {"address": "coil:5", "write": True},
    "level": {"address": "holding:10", "type": "int16", "write": {"min": 0, "max": 1000}},
    "temp": {"address": "holding:11", "type": "int16", "scale": 0.1, "write": True},
    "flow": {"address": "holding:12", "type": "float32", "write": True},
    "slow": {"address": "holding:20", "type": "uint16", "write": {"every": "1m"}},
    "line/speed": {"address": "holding:21", "type": "uint16", "write": True},
    "flag": {"address": "holding:22.3", "write": True},
    "mode": {"address": "holding:23", "type": "uint16", "enum": {0: "off", 1: "auto"}, "write": True},
    "name": {"address": "holding:24", "type": "string", "length": 6, "write": True},
    "fixed": "holding:30",
}


def uplinks(port, **more):
    return {"cloud": {"url": f"mqtt://127.0.0.1:{port}"} | more}


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_commands_by_an_uplink_change_registers_and_are_answered(libmodbus, mosquitto, operator, run_gateway, version):
    server = libmodbus()
    gateway = run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto, version=version))
    hmi = operator(mosquitto, paho.MQTTv5 if version == "5" else paho.MQTTv311)
    assert hmi.reply("pump", '{"value":true,"id":"7f"}') == {"id": "7f", "ok": True, "value": True}
    assert server.get("coil", 5) == [1]
    assert hmi.reply("temp", "-12.3") == {"ok": True, "value": -12.3}
    assert server.get("holding", 11) == [(-123) & 0xFFFF]
    assert hmi.reply("flow", "1.5") == {"ok": True, "value": 1.5}
    assert server.get("holding", 12, 2) == [0x3FC0, 0]
    assert hmi.reply("line/speed", "777") == {"ok": True, "value": 777}
    assert server.get("holding", 21) == [777]
    assert hmi.reply("flag", "on") == {"ok": True, "value": True}
    assert server.get("holding", 22) == [0b1000]
    assert hmi.reply("mode", "auto") == {"ok": True, "value": "auto"}
    assert hmi.reply("mode", "0") == {"ok": True, "value": "off"}
    assert hmi.reply("mode", '{"value":1}') == {"ok": True, "value": "auto"}
    assert server.get("holding", 23) == [1]
    assert hmi.reply("name", "mill") == {"ok": True, "value": "mill"}
    assert server.get("holding", 24, 3) == [0x6D69, 0x6C6C, 0]
    seen = []
    deadline = time.monotonic() + 20
    while {"pump": True, "temp": -12.3} not in seen:  # and the new values come as samples
        assert time.monotonic() < deadline
        values = [d["values"] for d in hmi.documents(BASE) if "values" in d]
        seen = [{"pump": v.get("pump"), "temp": v.get("temp")} for v in values]
        time.sleep(0.05)
    notes = [d for d in hmi.documents("headgate/g/log") if d.get("audit") == "command"]
    assert [(n["phase"], n["tag"], n["source"]) for n in notes[:2]] == [
        ("intent", "pump", "uplink cloud"),
        ("outcome", "pump", "uplink cloud"),
    ]
    assert gateway.metric("commands_total", outcome="done") == 9


def test_the_tools_of_mosquitto_get_their_answer_where_they_want_it(libmodbus, mosquitto, run_gateway):
    server = libmodbus()
    run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto))
    command = ["mosquitto_rr", "-p", str(mosquitto), "-t", f"{BASE}/level/set", "-e", "answers/me", "-W", "20"]
    command += ["-D", "publish", "correlation-data", "four", "-F", "%t %D %p"]
    done = subprocess.run([*command, "-m", "42"], capture_output=True, text=True, check=True)
    topic, data, payload = done.stdout.strip().split(" ", 2)
    assert (topic, data, json.loads(payload)) == ("answers/me", "four", {"ok": True, "value": 42})
    assert server.get("holding", 10) == [42]
    done = subprocess.run([*command, "-m", "4200"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().split(" ", 2)[2])["code"] == "range"
    assert server.get("holding", 10) == [42]


def test_what_must_not_be_written_is_refused_and_counted(libmodbus, mosquitto, operator, run_gateway, wait_for):
    server = libmodbus()
    gateway = run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto))
    hmi = operator(mosquitto)
    now = round(time.time() * 1000)
    refusals = [
        ("retained", hmi.reply("level", "1", retain=True)),
        ("repeated", [hmi.reply("level", '{"value":2,"id":"x"}') for _ in range(2)][1]),
        ("expired", hmi.reply("level", json.dumps({"value": 3, "expires": "1s", "ts": now - 2000}))),
        ("range", hmi.reply("level", "1001")),
        ("rate", [hmi.reply("slow", "1") for _ in range(2)][1]),
        ("invalid", hmi.reply("level", "high")),
        ("not_writable", hmi.reply("fixed", "1")),
        ("unknown", hmi.reply("nothing", "1")),
    ]
    assert [answer["code"] for _, answer in refusals] == [code for code, _ in refusals]
    assert server.get("holding", 10) == [2]
    os.kill(server.process.pid, signal.SIGKILL)
    wait_for(lambda: gateway.status()["devices"][0]["state"] == "offline", "the device to be offline", 30)
    offline = hmi.reply("level", "5")
    assert offline["code"] == "offline"
    for code in (*(code for code, _ in refusals), "offline"):
        assert gateway.metric("commands_refused_total", reason=code) == 1, code


def test_a_command_that_expired_at_the_server_or_was_retained_before_is_not_carried_out(
    libmodbus, mosquitto, operator, run_gateway, free_port, start, wait_for, tmp_path
):
    server = libmodbus()
    early = operator(mosquitto)
    early.send("level", "77", retain=True)
    gateway = run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto))
    assert early.reply("pump", "on")["ok"]
    assert server.get("holding", 10) == [0]
    assert gateway.metric("commands_total") == 1, "retain handling 2: it is not even sent"
    gateway.process.terminate()
    assert gateway.process.wait(20) == 0
    old = run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto, version="3.1.1"))
    assert early.reply("pump", "off")["ok"]
    assert server.get("holding", 10) == [0]
    assert old.metric("commands_refused_total", reason="retained") == 1


def test_after_the_server_was_away_commands_come_again(libmodbus, mosquitto, operator, run_gateway, wait_for):
    server = libmodbus()
    gateway = run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto))
    connects = gateway.metric("uplink_connects_total")
    thief = paho.Client(paho.CallbackAPIVersion.VERSION2, "g")  # the same client id pushes the gateway out
    thief.connect("127.0.0.1", mosquitto)
    thief.loop_start()
    wait_for(lambda: not gateway.status()["uplinks"][0]["connected"], "the connection to be lost", 20)
    thief.disconnect()
    thief.loop_stop()
    wait_for(lambda: gateway.metric("uplink_connects_total") > connects, "a new connection", 60)
    wait_for(lambda: gateway.status()["uplinks"][0]["connected"], "a new connection", 60)
    assert operator(mosquitto).reply("level", "9")["ok"]
    assert server.get("holding", 10) == [9]


def test_an_uplink_that_may_not_command_is_not_listened_to(libmodbus, mosquitto, operator, run_gateway):
    server = libmodbus()
    gateway = run_gateway(server.port, TAGS, uplinks=uplinks(mosquitto, commands=False))
    hmi = operator(mosquitto)
    hmi.send("level", "9")
    hmi.await_count(BASE, 5)
    assert server.get("holding", 10) == [0]
    assert gateway.metric("commands_total") == 0


def test_the_acl_of_the_embedded_broker_says_who_may_write(libmodbus, operator, run_gateway, need, free_port, tmp_path):
    need("mosquitto_pub")
    server, port = libmodbus(), free_port()
    (tmp_path / "acl").write_text(f"user op\ntopic readwrite {BASE}/+/set\ntopic read #\n\nuser guest\ntopic read #\n")
    broker = {"listen": f"mqtt://127.0.0.1:{port}", "acl": str(tmp_path / "acl")}
    gateway = run_gateway(server.port, TAGS, uplink=False, broker=broker)
    publish = ["mosquitto_pub", "-p", str(port), "-t", f"{BASE}/level/set", "-q", "1", "-V", "5"]
    subprocess.run([*publish, "-u", "guest", "-m", "5"], capture_output=True, check=False)
    assert gateway.metric("broker_publish_denied_total") == 1
    hmi = operator(port, user="op")
    assert hmi.reply("level", "6")["ok"]
    assert server.get("holding", 10) == [6]
    assert gateway.metric("commands_total") == 1
    audit = [d for d in hmi.documents("headgate/g/log") if d.get("audit")]
    assert [(a["phase"], a["user"], a["value"]) for a in audit] == [("intent", "op", 6), ("outcome", "op", 6)]


def send_by_hand(port, payload, *, again):
    """A PUBLISH of QoS 1; `again`: as a client sends it whose PUBACK was lost, with DUP and the same packet id."""
    topic = f"{BASE}/level/set".encode()
    body = len(topic).to_bytes(2) + topic + b"\0\1" + payload.encode()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"\x10\x0f\0\4MQTT\4\2\0\x3c\0\3hmi")
        assert client.recv(4) == b" \2\0\0"
        client.sendall(bytes([0x3A if again else 0x32, len(body)]) + body)
        assert client.recv(4) == b"@\2\0\1"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_sent_again_after_a_restart_is_not_written_again(libmodbus, operator, run_gateway, free_port, end):
    server, port = libmodbus(), free_port()
    broker = {"listen": f"mqtt://127.0.0.1:{port}"}
    gateway = run_gateway(server.port, TAGS, uplink=False, broker=broker)
    hmi = operator(port)
    send_by_hand(port, '{"value":5,"id":"a"}', again=False)
    hmi.await_count(f"{BASE}/level/set/reply", 1)
    assert hmi.reply("level", "6")["ok"]
    hmi.close()
    gateway.process.send_signal(end)
    gateway.process.wait(20)
    gateway = run_gateway(server.port, TAGS, uplink=False, broker=broker)
    hmi = operator(port)
    send_by_hand(port, '{"value":5,"id":"a"}', again=True)
    (answer,) = hmi.await_count(f"{BASE}/level/set/reply", 1)
    assert answer["code"] == "repeated"
    assert server.get("holding", 10) == [6]


# --- the command line -------------------------------------------------------------------------------------------------


def headgate(*arguments):
    return subprocess.run([*HEADGATE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


def test_write_goes_through_the_running_gateway_or_to_the_device_itself(libmodbus, run_gateway, tmp_path):
    server = libmodbus()
    gateway = run_gateway(server.port, TAGS, uplink=False)
    file = tmp_path / "gateway.yaml"
    done = headgate("write", file, "plc", "temp", "21.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "plc/temp = 21.5\n", "")
    assert server.get("holding", 11) == [215]
    assert gateway.metric("commands_total", outcome="done") == 1
    refused = headgate("write", "--json", file, "plc", "level", "1001")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (1, "range")
    assert headgate("write", file, "plc", "temp", "--", "-5").returncode == 0
    assert server.get("holding", 11) == [(-50) & 0xFFFF]
    gateway.process.terminate()
    assert gateway.process.wait(20) == 0
    done = headgate("write", file, "plc", "temp", "22")
    assert (done.returncode, done.stdout) == (0, "plc/temp = 22.0\n")
    assert "no gateway runs on this file: writing to the device directly" in done.stderr
    assert server.get("holding", 11) == [220]
    assert headgate("write", file, "plc", "level", "1001").stdout.startswith("plc/level: range: 1001 is above 1000")
    assert headgate("write", file, "plc", "fixed", "1").stdout.startswith("plc/fixed: not_writable:")
    assert headgate("write", file, "x", "fixed", "1").stdout.startswith("x/fixed: unknown:")
    server.process.kill()
    server.process.wait()
    dead = headgate("write", "--json", file, "plc", "level", "1")
    assert (dead.returncode, json.loads(dead.stdout)["code"]) == (1, "offline")


# --- killed between intent and outcome --------------------------------------------------------------------------------


class Mute(threading.Thread):
    """A Modbus TCP device that answers reads, and never a write: `written` is set when one has come."""

    def __init__(self):
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.written = threading.Event()

    def run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection:
            while len(request := connection.recv(12)) == 12:
                if request[7] == 3:
                    count = request[11]
                    body = struct.pack(">HHBBB", 0, 3 + 2 * count, request[6], 3, 2 * count) + bytes(2 * count)
                    connection.sendall(request[:2] + body)
                else:
                    self.written.set()

    def close(self):
        self._listener.close()


@pytest.fixture
def mute():
    device = Mute()
    device.start()
    yield device
    device.close()


def test_a_kill_between_intent_and_outcome_leaves_the_intent(
    mute, mosquitto, operator, run_gateway, free_port, wait_for
):
    port = free_port()
    tags = {"level": {"address": "holding:10", "type": "int16", "write": True}}
    sections = {"broker": {"listen": f"mqtt://127.0.0.1:{port}"}, "commands": {"audit": "strict"}}
    gateway = run_gateway(mute.port, tags, uplink=False, uplinks=uplinks(free_port()), **sections)
    operator(port).send("level", '{"value":5,"id":"last"}')
    assert mute.written.wait(20)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.process.wait()
    historian = operator(mosquitto)
    run_gateway(mute.port, tags, uplinks=uplinks(mosquitto, replay_delay="0s"), **sections)
    wait_for(lambda: any(d.get("audit") for d in historian.documents("headgate/g/log")), "the audit entry", 30)
    (entry,) = [d for d in historian.documents("headgate/g/log") if d.get("audit") == "command"]
    facts = {key: entry[key] for key in ("phase", "source", "device", "tag", "value", "id", "replay")}
    what = {"device": "plc", "tag": "level", "value": 5, "id": "last"}
    assert facts == {"phase": "intent", "source": "broker", **what, "replay": True}
