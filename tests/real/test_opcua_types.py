"""Every type of OPC UA, as it comes out of the payload that a broker hands on; and addresses that lead nowhere."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from gateway import config
from gateway.app import App

BOTH = ["node-opcua", "asyncua"]
PLANT = "urn:headgate:tests:plant"
VALUES = json.loads((Path(__file__).parent / "opcua" / "values.json").read_text())
SAID = {
    "Int64": int,
    "UInt64": int,
    "DateTime": lambda v: v.replace(".000Z", "Z"),
    "Guid": str.lower,
    "ByteString": lambda v: base64.b64decode(v).hex(),
    "StatusCode": lambda v: {0: "Good", 2156199936: "BadRequestTimeout"}[v],
    "QualifiedName": lambda v: v.removeprefix("0:"),
}
"""How values.json's are written in the payload, where they are not written alike."""
ONE = {"Name": "r1", "Count": 1, "Ratio": 0.5, "Where": {"X": 1.5, "Y": -1.0}, "Steps": ["mix", "heat"]}
TWO = {"Name": "r2", "Count": 2, "Ratio": 1.0, "Where": {"X": 1.5, "Y": -2.0}, "Steps": ["mix", "heat"]}


def expected(kind, server):
    """Tag by tag what is to come, with its quality where that is not good."""
    found = {}
    for name, (scalar, array) in VALUES.items():
        turn = SAID.get(name, lambda v: v)
        found[f"type.{name}"] = turn(scalar)
        found[f"type.{name}.array"] = [turn(v) for v in array]
    found["type.NodeId.array"] = ["i=2258", f"nsu={server.namespaces[1]};s=here"]
    return found | {
        "type.empty": [],
        "type.matrix": [[1, 2, 3], [4, 5, 6]],
        "type.variants": [1, "two"],
        "type.structure": ONE,
        "type.structure.array": [ONE, TWO],
        "type.Mode": "Auto",
        "type.Grade": "Fine",
        "analog": 100.0,
        "vanishing": 1,
    }


class Heard:
    """All that a device has published, merged: the newest value and quality of each tag."""

    def __init__(self, port, topic):
        self.values, self.quality, self.status = {}, {}, {}
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client, _data, message):
        said = json.loads(message.payload)
        quality = said.get("quality", {})
        for tag, value in said["values"].items():
            self.quality[tag] = quality.get(tag, "good")
            self.values[tag] = value

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def plant(opcua_shared):
    """A server with nodes of all types that is asked for in more than one test."""
    return lambda kind: opcua_shared(kind, counters=5)


@pytest.fixture
def gateway(free_port, tmp_path):
    """A whole gateway with one OPC UA device and a broker, and somebody who listens there."""

    @asynccontextmanager
    async def run(device):
        port = free_port()
        file = config.from_mapping(
            {"gateway": "g", "broker": {"listen": f"mqtt://127.0.0.1:{port}"}, "devices": {"plc": device}},
            base=tmp_path,
        )
        async with App(file) as app:
            heard = Heard(port, "headgate/g/plc")
            try:
                yield app, heard
            finally:
                await asyncio.to_thread(heard.close)

    return run


async def until(condition, what, seconds=20):
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - another thread makes it true
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited {seconds} s in vain for: {what}")


def device(server, tags, **more):
    """Each tag says its value once a second, for who begins to listen late."""
    said = {name: {"address": address, "max_silence": "1s"} for name, address in tags.items()}
    return {"driver": "opcua", "url": server.url, "security": "none", "every": "200ms", "tags": said, **more}


def nodes(names):
    return {name: f"nsu={PLANT};s={name}" for name in names}


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
@pytest.mark.parametrize("kind", BOTH)
def test_every_type_comes_out_of_the_payload_as_what_it_is(plant, gateway, kind, mode):
    server = plant(kind)
    good = expected(kind, server)
    others = {"type.null": None, "type.beyond": "7", "bad": None, "uncertain": 1.5}
    quality = {
        "type.beyond": "uncertain:range",
        "bad": "bad:BadSensorFailure",
        "uncertain": "uncertain:UncertainLastUsableValue",
    }

    async def main():
        async with gateway(device(server, nodes(good | others), mode=mode)) as (_, heard):
            await until(lambda: heard.values.keys() >= (good | others).keys(), "every tag")
            wrong = {tag: heard.values[tag] for tag, value in (good | others).items() if heard.values[tag] != value}
            assert wrong == {}
            types = {tag for tag, value in good.items() if type(heard.values[tag]) is not type(value)}
            assert types == set()
            assert {
                tag: said for tag, said in heard.quality.items() if tag != "type.null" and said != "good"
            } == quality

    asyncio.run(main())


def test_an_enumeration_can_come_as_its_number(plant, gateway):
    server = plant("node-opcua")
    said = device(server, nodes(["type.Mode", "type.Grade"]))
    for tag in said["tags"].values():
        tag["enum"] = "number"

    async def main():
        async with gateway(said) as (_, heard):
            await until(lambda: len(heard.values) == 2, "both tags")
            assert heard.values == {"type.Mode": 1, "type.Grade": 20}

    asyncio.run(main())


def test_part_of_an_array_is_what_is_asked_for(plant, gateway):
    server = plant("node-opcua")
    said = device(server, nodes(["type.String.array", "type.Int16.array", "type.matrix"]))
    ranges = {"type.String.array": "1:2", "type.Int16.array": "1", "type.matrix": "0:1,1:2"}
    for name, text in ranges.items():
        said["tags"][name]["index_range"] = text

    async def main():
        async with gateway(said) as (_, heard):
            await until(lambda: len(heard.values) == 3, "all three tags")
            assert heard.values == {
                "type.String.array": ["a", "Grüße"],
                "type.Int16.array": [32767],
                "type.matrix": [[2, 3], [5, 6]],
            }

    asyncio.run(main())


@pytest.mark.parametrize("kind", BOTH)
def test_addresses_that_lead_nowhere_are_bad_with_the_reason_while_the_rest_runs(plant, gateway, kind):
    server = plant(kind)
    wrong = {
        "missing": f"nsu={PLANT};s=missing",
        "stranger": "nsu=urn:nobody:here;s=x",
        "number": "i=999999",
        "path": "/Plant/missing",
        "folder": f"nsu={PLANT};s=Plant",
    }
    right = nodes([f"counter.{i}" for i in range(5)])

    async def main():
        async with gateway(device(server, wrong | right)) as (_, heard):
            await until(lambda: heard.values.keys() >= wrong.keys(), "the wrong ones to be told of")
            last = server.tell("state")["count"] + 5
            await until(lambda: all((heard.values.get(tag) or 0) >= last for tag in right), "the right ones")
            assert {tag: heard.values[tag] for tag in wrong} == dict.fromkeys(wrong)
            assert {tag: heard.quality[tag] for tag in wrong} == {
                "missing": "bad:BadNodeIdUnknown",
                "stranger": "bad:BadNodeIdUnknown",
                "number": "bad:BadNodeIdUnknown",
                "path": "bad:BadNoMatch",
                "folder": "bad:BadAttributeIdInvalid",
            }
            assert {heard.quality[tag] for tag in right} == {"good"}

    asyncio.run(main())


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", BOTH)
def test_a_node_that_vanishes_is_bad_and_good_again_when_it_is_back(plant, gateway, kind):
    server = plant(kind)

    async def main():
        async with gateway(device(server, nodes(["vanishing", "counter.0"]), watchdog="1s")) as (_, heard):
            await until(lambda: heard.values.get("vanishing") == 1, "the node")
            server.tell("vanish", node="vanishing")
            await until(lambda: heard.values["vanishing"] is None, "the node to be missed")
            assert heard.quality["vanishing"].startswith("bad:BadNodeId")  # Unknown; node-opcua says Invalid
            server.tell("appear", node="vanishing")
            await until(lambda: heard.values["vanishing"] == 1, "the node to be found again", 150)
            assert heard.quality == {"vanishing": "good", "counter.0": "good"}

    asyncio.run(main())


@pytest.mark.parametrize("kind", BOTH)
def test_namespaces_in_another_order_after_a_restart_still_give_the_right_values(opcua_servers, gateway, kind):
    server = opcua_servers(kind)
    tags = nodes(["type.Int16", "type.structure"]) | {"path": "/Plant/type.String"}

    async def main():
        async with gateway(device(server, tags)) as (_, heard):
            await until(lambda: len(heard.values) == 3, "all three tags")
            before = dict(heard.values)
            at = server.namespaces.index(PLANT)
            await asyncio.to_thread(server.quit)
            await until(lambda: set(heard.values.values()) == {None}, "all to be bad")
            server.start(namespaces=["urn:new", "urn:newer", PLANT])
            assert server.namespaces.index(PLANT) != at
            await until(lambda: heard.values == before, "the same values as before")

    asyncio.run(main())
