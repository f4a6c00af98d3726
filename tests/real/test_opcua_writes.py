"""Writes to servers of two makers: every built-in type, arrays and parts of them, names, refusals; then over MQTT."""

import asyncio
import json
import sys
import threading
import time
from contextlib import asynccontextmanager

import paho.mqtt.client as paho
import pytest

from gateway import config
from gateway.clock import SystemClock
from gateway.commands.limits import holds
from gateway.control import ControlError, ask
from gateway.driver import Mirrors, Writes, find
from gateway.errors import DeviceError, ExpiredError, LineError, TagError
from gateway.metrics import Metrics

BOTH = ["node-opcua", "asyncua"]
PLANT = "urn:headgate:tests:plant"

WRITES = {
    "Boolean": [False, True],
    "SByte": [-128, 127, 0],
    "Byte": [0, 255],
    "Int16": [-32768, 32767, 5.0],
    "UInt16": [0, 65535],
    "Int32": [-(2**31), 2**31 - 1],
    "UInt32": [0, 2**32 - 1],
    "Int64": [-(2**63), 2**63 - 1, 2**53 + 1],
    "UInt64": [0, 2**64 - 1],
    "Float": [0.1, -3, 3.4e38, 1e-45],
    "Double": [0.1, 5, 1.7e308, -0.0],
    "String": ["", "Grüße, 水", "null\0in it", "x" * 1000],
    "DateTime": ["2026-11-02T10:00:00Z", "2026-11-02T12:00:00.25+02:00", "1999-12-31T23:59:59.999Z"],
    "Guid": ["72962B91-FA75-4AE6-8D28-B404DC7DAF63", "00000000-0000-0000-0000-000000000001"],
    "ByteString": ["", "00FF10", "ff" * 100],
    "NodeId": ["i=85", f"nsu={PLANT};s=type.Byte", "ns=1;i=70000"],
    "StatusCode": ["BadSensorFailure", "Good"],
    "QualifiedName": ["1:Speed", "Plain"],
    "LocalizedText": ["Drehzahl", ""],
}
"""What is written to `write.TYPE`, one after the other."""

ARRAYS = {
    "Boolean.array": [[True, False], [True]],
    "Byte.array": [[0, 255, 7]],
    "Int16.array": [[1, -1], []],
    "Int64.array": [[2**62, -1]],
    "Float.array": [[0.1, 0.2, -7]],
    "Double.array": [[0.1, 1e300]],
    "String.array": [["", "ü", "z"]],
    "DateTime.array": [["2026-11-02T10:00:00Z"]],
    "Guid.array": [["72962b91-fa75-4ae6-8d28-b404dc7daf63"]],
    "LocalizedText.array": [["a", "b"]],
}


@pytest.fixture
def entered(tmp_path):
    """`async with entered(server, tags) as plc:` connects a driver; `plc.write("tag", 5)` and so on."""

    @asynccontextmanager
    async def enter(url, tags, **options):
        described = {
            name: {"address": f"nsu={PLANT};s={name}", "write": True} | (more or {}) for name, more in tags.items()
        }
        section = {"driver": "opcua", "url": url, "security": "none", "tags": described, **options}
        file = config.from_mapping({"gateway": "g", "devices": {"plc": section}}, base=tmp_path)
        (device,) = next(iter(file.lines.values()))
        async with find("opcua")([device], clock=SystemClock(), metrics=Metrics()) as driver:
            driver.regroup(device, file.groups["plc"])
            yield Plc(driver, device)

    return enter


class Plc:
    """A connected driver, asked by the names of tags."""

    def __init__(self, driver, device):
        assert isinstance(driver, Writes)
        assert isinstance(driver, Mirrors)
        self.driver, self.device = driver, device
        self._tags = {tag.name: tag for tag in device.tags}

    async def write(self, name, value, **more):
        await self.driver.write(self.device, self._tags[name], value, **more)

    async def read(self, name):
        return await self.driver.read_tag(self.device, self._tags[name])

    def as_read(self, name, value):
        return self.driver.as_read(self.device, self._tags[name], value)

    async def says(self, name, value):
        """How a write is refused."""
        with pytest.raises((TagError, DeviceError)) as caught:
            await self.write(name, value)
        return caught.value


@pytest.mark.parametrize("kind", BOTH)
def test_every_type_reads_back_as_it_is_said_to_parts_stay_parts_and_refusals_are_explained(
    opcua_servers, entered, kind
):
    server = opcua_servers(kind)

    async def main():
        await check_types(entered, server)
        await check_refusals(entered, server, kind)
        if kind == "node-opcua":  # asyncua's server writes the part of an array in place of the whole
            await check_parts(entered, server)

    asyncio.run(main())


async def check_types(entered, server):
    tags = {f"write.{name}": None for name in [*WRITES, *ARRAYS]}
    tags |= {"write.Mode": None, "write.Grade": {"enum": "number"}}
    wrong = []
    async with entered(server.url, tags) as plc:
        for name, values in (WRITES | ARRAYS | {"Mode": ["Auto", 0, "2"], "Grade": [20, "10"]}).items():
            tag = f"write.{name}"
            for value in values:
                try:
                    await plc.write(tag, value)
                    found, meant = await plc.read(tag), plc.as_read(tag, value)
                except (TagError, ValueError) as error:
                    wrong.append((name, value, str(error)))
                    continue
                if found != meant or not holds(found, meant, "") or type(found) is not type(meant):
                    wrong.append((name, value, found, meant))
    assert wrong == []


async def check_refusals(entered, server, kind):
    tags = dict.fromkeys(["readonly", "write.Int16", "write.structure", "vanishing", "nothing", "bad", "type.null"])
    async with entered(server.url, tags) as plc:
        if kind == "node-opcua":  # to asyncua whoever comes is the administrator, who may write everything
            error = await plc.says("readonly", 5)
            assert error.cause in {"BadNotWritable", "BadUserAccessDenied"}
            assert isinstance(error, TagError)
            assert str(error).startswith(f"plc/readonly (nsu={PLANT};s=readonly): {error.cause}: ")
        held = await plc.read("write.Int16")
        for value in (40_000, "x", 1.5, True, [1]):
            with pytest.raises(ValueError, match=r"Int16|one value"):
                await plc.write("write.Int16", value)
        with pytest.raises(ExpiredError):
            await plc.write("write.Int16", 7, is_wanted=lambda: False)
        assert await plc.read("write.Int16") == held
        with pytest.raises(ValueError, match="a structure cannot be written"):
            await plc.write("write.structure", {"Name": "x"})
        assert (await plc.says("nothing", 1)).cause == "BadNodeIdUnknown"
        server.tell("vanish", node="vanishing")
        assert (await plc.says("vanishing", 1)).cause == "BadNodeIdUnknown"
        with pytest.raises(TagError, match="BadSensorFailure"):
            await plc.read("bad")
        if kind == "node-opcua":  # asyncua's lets nobody write a node of any type that has no value yet
            server.tell("set", node="type.null", type="Double", value=1.5)
            await plc.write("type.null", 3)
            assert type(await plc.read("type.null")) is float


async def check_parts(entered, server):
    array, matrix = (f"nsu={PLANT};s={name}" for name in ("write.Int32.array", "type.matrix"))
    tags = {
        "one": {"address": array, "index_range": "1"},
        "part": {"address": array, "index_range": "0:1"},
        "whole": {"address": array},
        "cell": {"address": matrix, "index_range": "1,0:1"},
        "matrix": {"address": matrix},
        "beyond": {"address": array, "index_range": "7:8"},
    }
    async with entered(server.url, tags) as plc:
        await plc.write("whole", [1, 2, 3])
        await plc.write("part", [8, 9])
        assert (await plc.read("whole"), await plc.read("part")) == ([8, 9, 3], [8, 9])
        await plc.write("one", 5)
        assert await plc.read("whole") == [8, 5, 3]
        assert await plc.read("one") == plc.as_read("one", 5)
        with pytest.raises(ValueError, match="index_range names 2 values"):
            await plc.write("part", [1, 2, 3])
        assert (await plc.says("beyond", [1, 2])).cause.startswith("BadIndexRange")
        await plc.write("cell", [[40, 50]])
        assert await plc.read("matrix") == [[1, 2, 3], [40, 50, 6]]


def test_a_write_that_gets_no_answer_is_a_lost_line_and_says_that_it_may_be_done(opcua_servers, opcua_link, entered):
    server = opcua_servers("asyncua")
    link = opcua_link(server.port)

    async def main():
        async with entered(link.url, {"write.Int16": None}, timeout="1s") as plc:
            await plc.write("write.Int16", 1)
            link.freeze()
            with pytest.raises(LineError, match="it cannot be known whether the write was done"):
                await plc.write("write.Int16", 2)

    asyncio.run(main())


# --- over MQTT --------------------------------------------------------------------------------------------------------


class Operator:
    """A client of the gateway's broker that sends commands and hears the answers."""

    def __init__(self, port):
        self.heard = []
        self._changed = threading.Condition()
        ready = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("headgate/g/#", 1)
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def _on_message(self, _client, _data, message):
        if message.topic.endswith("/set"):
            return
        with self._changed:
            self.heard.append((message.topic, json.loads(message.payload)))
            self._changed.notify_all()

    def ask(self, tag, payload):
        """Publish to a tag's topic; gives the reply."""
        topic = f"headgate/g/plc/{tag}/set"
        before = len(self.replies(tag))
        self._client.publish(topic, payload, qos=1)
        deadline = time.monotonic() + 20
        with self._changed:
            while len(self.replies(tag)) == before:
                assert self._changed.wait(deadline - time.monotonic()), f"no reply to {tag}: {self.heard[-3:]}"
        return self.replies(tag)[-1]

    def replies(self, tag):
        return [said for topic, said in list(self.heard) if topic == f"headgate/g/plc/{tag}/set/reply"]

    def values(self, tag):
        """What was published of a tag."""
        found = [said["values"] for topic, said in list(self.heard) if topic == "headgate/g/plc"]
        return [values[tag] for values in found if tag in values]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


COMMANDS = [
    ("Boolean", "off", False),
    ("Int16", "-5", -5),
    ("UInt64", "18446744073709551614", 18446744073709551614),
    ("Float", "0.3", 0.3),
    ("Double", '{"value": 2.5, "id": "d1"}', 2.5),
    ("String", "Grüße", "Grüße"),
    ("String", "5", "5"),
    ("DateTime", "2026-11-02T12:00:00+02:00", "2026-11-02T10:00:00Z"),
    ("Guid", "82962B91-FA75-4AE6-8D28-B404DC7DAF63", "82962b91-fa75-4ae6-8d28-b404dc7daf63"),
    ("Mode", "Hand", "Hand"),
    ("Mode", "1", "Auto"),
    ("Int32.array", "[7,8,9]", [7, 8, 9]),
    ("LocalizedText", "Druck", "Druck"),
]
"""None of it is what the servers begin with: each is a change that is published."""


@pytest.mark.parametrize("kind", BOTH)
def test_a_command_over_mqtt_reaches_the_server_and_the_reply_says_what_it_holds(
    opcua_servers, start, wait_for, free_port, tmp_path, kind
):
    server = opcua_servers(kind)
    port, file = free_port(), tmp_path / "g.yaml"
    names = sorted({name for name, _, _ in COMMANDS} | {"SByte"})
    tags = {name: {"address": f"nsu={PLANT};s=write.{name}", "write": True} for name in names}
    tags["scaled"] = {"address": f"nsu={PLANT};s=write.UInt16", "write": {"max": 100}, "scale": 0.1}
    tags["readonly"] = {"address": f"nsu={PLANT};s=readonly", "write": True}
    device = {"driver": "opcua", "url": server.url, "security": "none", "every": "100ms", "tags": tags}
    document = {"gateway": "g", "broker": {"listen": [f"mqtt://127.0.0.1:{port}"]}, "devices": {"plc": device}}
    file.write_text(json.dumps(document))
    start(sys.executable, "-m", "gateway", "run", str(file), name="headgate")

    def is_online():
        try:
            return all(
                each["state"] == "online"
                for each in ask(tmp_path / "headgate-data" / "spool", {"do": "status"})["devices"]
            )
        except ControlError:
            return False

    wait_for(is_online, "the gateway", 60)
    operator = Operator(port)
    try:
        for name, payload, expected in COMMANDS:
            reply = operator.ask(name, payload)
            held = pytest.approx(expected) if isinstance(expected, float) else expected
            assert (reply["ok"], reply.get("value")) == (True, held), reply
            wait_for(lambda name=name, expected=expected: expected in operator.values(name), f"{name} {expected}")
        assert operator.ask("scaled", "12.3") == {"ok": True, "value": pytest.approx(12.3)}
        assert "123" in str(server.tell("get", node="write.UInt16")["value"])
        assert operator.ask("scaled", "101")["code"] == "range"
        assert operator.ask("SByte", "200")["code"] == "range"
        if kind == "node-opcua":
            refused = operator.ask("readonly", "1")
            assert refused["code"] == "refused"
            assert "plc/readonly" in refused["error"]
    finally:
        operator.close()
