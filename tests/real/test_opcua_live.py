"""Subscribed to OPC UA servers of two makers: every value of every counter comes, once, in order, with its time."""

import asyncio
from itertools import chain

import pytest

BOTH = ["node-opcua", "asyncua"]


@pytest.fixture
def plant(opcua_shared):
    """A server with 200 counters that is asked for in more than one test."""
    return lambda kind: opcua_shared(kind, counters=200, types=False)


def started(server):
    return server.tell("state")["started"]


@pytest.mark.parametrize("kind", BOTH)
def test_of_200_nodes_that_change_ten_times_a_second_no_value_is_missed(plant, opcua_rig, kind):
    server = plant(kind)
    tags = list(opcua_rig.counters(200))

    async def main():
        async with opcua_rig({"plc": opcua_rig.device(server.url, opcua_rig.counters(200))}) as rig:
            await rig.until(lambda: rig.has(tags, 1), "a first value of each")
            last = max(rig.newest(tag) for tag in tags) + 30
            await rig.until(lambda: rig.has(tags, last), "30 values of each")
        assert rig.faults(tags, started=started(server), period=100) == []
        assert rig.states[-1].online

    asyncio.run(main())


def test_a_server_that_takes_50_nodes_a_call_is_asked_in_parts(opcua_servers, opcua_rig):
    names = (
        "maxMonitoredItemsPerCall", "maxNodesPerRead", "maxNodesPerBrowse", "maxNodesPerTranslateBrowsePathsToNodeIds",
        "maxNodesPerHistoryReadData",
    )  # fmt: skip
    server = opcua_servers("node-opcua", counters=120, history=120, types=False, limits=dict.fromkeys(names, 50))
    plain, paths = opcua_rig.counters(120), {f"path.{i}": f"/Plant/counter.{i}" for i in range(120)}

    async def main():
        async with opcua_rig({"plc": opcua_rig.device(server.url, plain | paths, every="500ms")}) as rig:
            await rig.until(lambda: rig.has([*plain, *paths], 10), "a tenth value of each")
            assert server.tell("kill_session") == {"ok": True, "killed": 1}
            last = server.tell("state")["count"] + 10
            await rig.until(lambda: rig.has([*plain, *paths], last), "values after the session was lost")
        assert rig.faults(list(plain), started=started(server), period=100) == []

    asyncio.run(main())


@pytest.mark.parametrize("kind", BOTH)
def test_each_interval_has_a_subscription_and_none_loses_anything(plant, opcua_rig, kind):
    server = plant(kind)
    intervals = ["50ms", "100ms", "300ms", "1s"]
    tags = {
        name: {**options, "every": every}
        for k, every in enumerate(intervals)
        for name, options in opcua_rig.counters(10, 10 * k).items()
    }

    async def main():
        async with opcua_rig({"plc": opcua_rig.device(server.url, tags)}) as rig:
            await rig.until(lambda: rig.has(list(tags), 1), "a first value of each")
            state = server.tell("state")
            assert (state["sessions"], state["subscriptions"], state["items"]) == (1, 4, 40)
            await rig.until(lambda: rig.has(list(tags), state["count"] + 25), "25 values of each")
        assert rig.faults(list(tags), started=started(server), period=100) == []
        assert server.tell("state")["subscriptions"] == 0

    asyncio.run(main())


@pytest.mark.parametrize("kind", BOTH)
def test_two_devices_of_one_server_share_its_session(plant, opcua_rig, kind):
    server = plant(kind)
    one, other = (opcua_rig.device(server.url, opcua_rig.counters(3, first)) for first in (0, 3))

    async def main():
        async with opcua_rig({"one": one, "other": other}) as rig:
            tags = list(chain(one["tags"], other["tags"]))
            last = server.tell("state")["count"] + 5
            await rig.until(lambda: rig.has(tags, last), "five values of each")
            assert server.tell("state")["sessions"] == 1
        assert server.tell("state")["sessions"] == 0

    asyncio.run(main())


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_can_be_polled_in_place_of_subscribed_to(plant, opcua_rig, kind):
    server = plant(kind)
    tags = list(opcua_rig.counters(30))

    async def main():
        async with opcua_rig({"plc": opcua_rig.device(server.url, opcua_rig.counters(30), mode="poll")}) as rig:
            last = server.tell("state")["count"] + 10
            await rig.until(lambda: rig.has(tags, last), "ten values of each")
            assert server.tell("state")["subscriptions"] == 0
        begin = started(server)
        for tag in tags:
            came = rig.good(tag)
            assert [seen.value for seen in came] == sorted({seen.value for seen in came})
            assert all(seen.time == begin + 100 * seen.value for seen in came if seen.value)

    asyncio.run(main())
