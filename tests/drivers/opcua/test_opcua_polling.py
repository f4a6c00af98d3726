"""Polls: one group by Read, in as few requests as the server takes, and what fails of it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.known import Known
from drivers.opcua.options import DeviceOptions
from drivers.opcua.plan import compile_groups
from drivers.opcua.polling import Poller
from drivers.opcua.values.structures import Structures
from gateway.errors import DeviceError, LineError
from gateway.metrics import Metrics
from gateway.model import GOOD, Device, Tag

MEASURED = datetime(2026, 11, 2, 10, tzinfo=UTC)
MEASURED_MS = round(MEASURED.timestamp() * 1000)
NOW = MEASURED_MS + 50
TOO_LARGE = ServiceFault(0x80B90000, "BadResponseTooLarge", "Read")


class Server:
    """A session with a server whose values are made by `value(node id)`."""

    line = "opc.tcp://plc:4840"
    namespaces = ("", "urn:plant")

    def __init__(self, most=1000):
        self.limits = SimpleNamespace(max_nodes_per_read=most, max_nodes_per_browse=most, max_nodes_per_translate=most)
        self.structures = Structures()
        self.structures.begin(self.namespaces)
        self.asked = []
        self.under_way = self.most_under_way = 0
        self.value = lambda node: ua.DataValue(ua.Variant(float(node)), None, MEASURED, MEASURED)
        self.fault = self.too_many = self.too_large = self.raw = None

    async def fetch(self, request, *, timeout_s):
        own = request.Parameters
        self.asked.append([node.NodeId.Identifier for node in own.NodesToRead])
        self.request, self.timeout_s = request, timeout_s
        struct_to_binary(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if self.fault is not None:
            raise self.fault
        if self.too_many is not None and len(own.NodesToRead) > self.too_many:
            raise TOO_LARGE
        if self.too_large in [node.NodeId.Identifier for node in own.NodesToRead]:
            raise TOO_LARGE
        if self.raw is not None:
            return self.raw
        response = ua.ReadResponse()
        response.Results = [self.value(node.NodeId.Identifier) for node in own.NodesToRead]
        return struct_to_binary(response)


class Scene:
    """A server, a device with some tags in it, and its poller."""

    def __init__(self, count=5, most=1000, options=None, types=None, **device):
        types = types or ["float64"] * count
        tags = [
            Tag(name=f"t{n}", address=f"ns=1;i={n}", type=kind, options=(options or {}).get(n, {}))
            for n, kind in enumerate(types)
        ]
        self.device = Device(
            name="plc", driver="opcua", url=Server.line, options=DeviceOptions(mode="poll", **device), tags=tuple(tags)
        )
        (self.group,) = compile_groups(self.device, tags)
        self.server = Server(most)
        self.metrics = Metrics()
        self.known = tuple(Known(node=ua.NodeId(n, 1)) for n in range(count))
        catalogue = SimpleNamespace(known=lambda group: self.known if group is self.group else None)
        clock = SimpleNamespace(wall_ms=lambda: NOW)
        self.poller = Poller(self.server, catalogue, clock=clock, metrics=self.metrics)

    def read(self):
        return asyncio.run(self.poller.read(self.group))


def test_a_group_is_read_in_its_order_with_times_and_nothing_from_a_cache():
    scene = Scene(timeout="7s")
    batch = scene.read()
    assert batch.values == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (batch.group, batch.quality, batch.index, batch.time) == (scene.group, GOOD, None, NOW)
    assert batch.times == [MEASURED_MS] * 5
    assert scene.server.asked == [[0, 1, 2, 3, 4]]
    assert scene.server.timeout_s == 7
    own = scene.server.request.Parameters
    assert (own.MaxAge, own.TimestampsToReturn) == (0, ua.TimestampsToReturn.Both)
    assert {node.AttributeId for node in own.NodesToRead} == {13}


def test_a_large_group_is_cut_and_several_requests_are_under_way():
    scene = Scene(count=95, most=10)
    assert scene.read().values == [float(n) for n in range(95)]
    assert [len(asked) for asked in scene.server.asked] == [10] * 9 + [5]
    assert 2 <= scene.server.most_under_way <= 4


def test_a_server_that_finds_an_answer_too_large_is_asked_for_less_and_not_again_for_more():
    scene = Scene(count=100)
    scene.server.too_many = 30
    assert scene.read().values == [float(n) for n in range(100)]
    assert len(scene.server.asked[0]) == 100
    scene.server.asked.clear()
    assert scene.read().values == [float(n) for n in range(100)]
    assert max(map(len, scene.server.asked)) <= 30


def test_a_node_that_is_too_large_alone_is_the_only_one_that_suffers():
    scene = Scene(count=100)
    scene.server.too_large = 70
    for _ in range(2):
        batch = scene.read()
        assert batch.values == [None if n == 70 else float(n) for n in range(100)]
        assert {q for q in batch.quality if q is not GOOD} == {"bad:BadResponseTooLarge"}
    assert len(scene.server.asked) < 40


def test_each_tag_has_its_own_quality_and_missing_nodes_are_not_asked_for():
    scene = Scene()
    scene.known = tuple(Known(node=None, code=0x80340000) if n in (1, 4) else own for n, own in enumerate(scene.known))
    scene.server.value = lambda node: (
        ua.DataValue(ua.Variant(), ua.StatusCode(0x808C0000)) if node == 2 else ua.DataValue(ua.Variant(float(node)))
    )
    batch = scene.read()
    assert scene.server.asked == [[0, 2, 3]]
    assert batch.values == [0.0, None, None, 3.0, None]
    assert batch.quality == [GOOD, "bad:BadNodeIdUnknown", "bad:BadSensorFailure", GOOD, "bad:BadNodeIdUnknown"]


def test_a_group_of_missing_nodes_asks_nothing():
    scene = Scene(count=2)
    scene.known = (Known(node=None, code=0x80340000),) * 2
    batch = scene.read()
    assert scene.server.asked == []
    assert (batch.values, batch.quality) == ([None, None], ["bad:BadNodeIdUnknown"] * 2)


def test_what_is_known_of_the_nodes_is_taken_anew_with_a_new_session():
    scene = Scene(count=2)
    scene.read()
    scene.known = tuple(replace(own, node=ua.NodeId(own.node.Identifier + 70, 1)) for own in scene.known)
    assert scene.read().values == [70.0, 71.0]


def test_enumerations_index_ranges_and_server_times_are_as_the_file_says():
    scene = Scene(
        3, options={1: {"enum": "number"}, 2: {"index_range": "1:2"}}, types=["string", "int32", ""], server_times=True
    )
    scene.known = tuple(
        replace(own, labels={0: "Off", 1: "On"} if n < 2 else None) for n, own in enumerate(scene.known)
    )
    scene.server.value = lambda node: ua.DataValue(
        ua.Variant([1, 2] if node == 2 else 1, ua.VariantType.Int32), None, MEASURED, MEASURED
    )
    batch = scene.read()
    assert batch.values == ["On", 1, [1, 2]]
    assert batch.server_times == [MEASURED_MS] * 3
    assert [node.IndexRange for node in scene.server.request.Parameters.NodesToRead] == [None, None, "1:2"]


def test_times_that_cannot_be_are_counted():
    scene = Scene(count=3)
    scene.server.value = lambda node: ua.DataValue(ua.Variant(1.0), None, datetime(1970, 1, 1 + node, tzinfo=UTC))
    assert scene.read().times == [NOW] * 3
    assert scene.metrics.counter("opcua_absurd_times_total", line=Server.line).value == 3


@pytest.mark.parametrize("verb", ["read", "probe"])
def test_a_refusal_of_the_service_is_the_devices_and_a_lost_link_the_lines(verb):
    scene = Scene(count=3)
    ask = {"read": lambda: scene.poller.read(scene.group), "probe": lambda: scene.poller.probe(scene.device)}[verb]
    scene.server.fault = ServiceFault(0x801F0000, "BadUserAccessDenied", "Read")
    with pytest.raises(DeviceError, match="plc: the server refused to read: BadUserAccessDenied") as caught:
        asyncio.run(ask())
    assert caught.value.cause == "BadUserAccessDenied"
    scene.server.fault = LineError("gone", cause="offline")
    with pytest.raises(LineError, match="gone"):
        asyncio.run(ask())
    scene.server.fault = None
    asyncio.run(ask())


def test_a_probe_reads_the_state_of_the_server():
    scene = Scene(count=3, timeout="7s")
    asyncio.run(scene.poller.probe(scene.device))
    assert scene.server.asked == [[2259]]
    assert scene.server.timeout_s == 7
    scene.server.value = lambda _node: ua.DataValue(ua.Variant(), ua.StatusCode(0x800D0000))
    with pytest.raises(DeviceError) as caught:
        asyncio.run(scene.poller.probe(scene.device))
    assert caught.value.cause == "BadServerNotConnected"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (struct_to_binary(ua.ReadResponse()), "0 values where 3 were asked for"),
        (struct_to_binary(ua.BrowseResponse()), "in place of i=634"),
        (b"", "cannot be decoded"),
    ],
    ids=["no results", "another response", "nothing"],
)
def test_an_answer_that_is_none_is_the_devices_fault(raw, fault):
    scene = Scene(count=3)
    scene.server.raw = raw
    with pytest.raises(DeviceError, match=fault) as caught:
        scene.read()
    assert caught.value.cause == "decode"


def test_plans_of_groups_that_are_gone_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("drivers.opcua.polling._MOST_PLANS", 3)
    scene = Scene(count=1)
    for _ in range(10):
        (scene.group,) = compile_groups(scene.device, scene.device.tags)
        scene.read()
        assert len(scene.poller._plans) <= 3
