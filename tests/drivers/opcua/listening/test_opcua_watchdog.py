"""Tags that the server forgot to tell of."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.model import Deadband


def _reads(r):
    return [len(request.Parameters.NodesToRead) for request in r.server.named("Read")]


async def _begun(r, names=("a", "b"), **group):
    r.group(list(names), **group)
    for name in names:
        r.server.change(name, 0.0)
    r.start()
    await r.until(lambda: len(r.samples()) == len(names))


def test_an_item_that_the_server_forgot_is_found_and_its_subscription_made_anew(run, rig, count, caplog):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r)
        (one,) = r.server.subscriptions.values()
        next(item for item in one.items.values() if item.node == "a").is_dead = True
        for n in range(1, 100):
            r.server.change("a", float(n))
            r.server.change("b", float(n))
            await asyncio.sleep(1)
            if count("opcua_recreated_subscriptions_total"):
                break
        await asyncio.sleep(3)
        assert count("opcua_dead_items_total") == 1
        assert n < 20
        assert sorted(set(r.values("a"))) == [float(v) for v in range(n + 1)], "and what it missed is read"
        await r.stop()

    with caplog.at_level(logging.INFO):
        run(story())
    assert "does not tell of plc: tag 'a' any more" in caplog.text


def test_tags_that_do_not_change_are_read_seldom_and_found_alive(run, rig, count):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r)
        await asyncio.sleep(100)
        assert 5 * 2 <= sum(_reads(r)) <= 11 * 2
        assert count("opcua_recreated_subscriptions_total") == 0
        await r.stop()

    run(story())


def test_the_tags_are_never_read_all_at_once(run, rig):
    async def story():
        r = rig(watchdog="60s")
        await _begun(r, [f"t{n}" for n in range(1000)])
        await asyncio.sleep(58)
        assert not _reads(r)
        await asyncio.sleep(62)
        assert sum(_reads(r)) == 1000
        assert max(_reads(r)) == 50
        await r.stop()

    run(story())


@pytest.mark.parametrize(
    ("tag", "change"),
    [
        ({"deadband": Deadband(5.0)}, {"value": 4.0}),
        ({"options": {"trigger": "status"}}, {"value": 4.0}),
        ({"options": {"range_deadband": 10.0}}, {"value": 4.0}),
        ({}, {"value": 0.0}),
        ({"options": {"trigger": "timestamp"}}, {"value": 0.0, "tick": 1}),
        ({}, {"value": 4.0, "tick": 133_000_000_000_000_000}),
    ],
)
def test_what_the_server_need_not_tell_is_no_sign_of_death(run, rig, count, tag, change):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r, **tag)
        await asyncio.sleep(5)
        r.server.change("a", **change, told=False)
        await asyncio.sleep(60)
        assert _reads(r)
        assert count("opcua_dead_items_total") == 0
        await r.stop()

    run(story())


@pytest.mark.parametrize(
    ("tag", "change"),
    [
        ({"deadband": Deadband(5.0)}, {"value": 6.0}),
        ({"options": {"trigger": "status"}}, {"value": 0.0, "code": 0x408F0000}),
        ({"options": {"range_deadband": 10.0}}, {"value": 0.0, "code": 0x80310000}),
        ({"options": {"trigger": "timestamp"}}, {"value": 0.0}),
    ],
)
def test_what_the_server_should_have_told_is(run, rig, count, tag, change):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r, **tag)
        await asyncio.sleep(5)
        r.server.change("a", **change, told=False)
        await asyncio.sleep(60)
        assert count("opcua_dead_items_total") == 1
        await r.stop()

    run(story())


def test_a_value_that_is_told_between_the_two_looks_is_alive(run, rig, count):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r, every_s=5)
        await asyncio.sleep(4)
        for n in range(1, 12):
            r.server.change("a", float(n), told=False)
            await asyncio.sleep(6)
            r.server.change("a", n + 0.5)
            await asyncio.sleep(6)
        assert count("opcua_dead_items_total") == 0
        await r.stop()

    run(story())


def test_a_value_that_is_told_during_the_second_look_is_alive_whatever_was_read(run, rig, count):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r, ["a"], every_s=0.1)
        r.server.change("a", 1.0, told=False)
        await r.until(lambda: len(_reads(r)) == 1)
        r.server.delay["Read"] = 0.5
        await r.until(lambda: len(_reads(r)) == 2)
        r.server.change("a", 2.0)
        await asyncio.sleep(0.4)
        r.server.change("a", 3.0, told=False)
        await asyncio.sleep(0.2)
        r.server.change("a", 4.0)
        await asyncio.sleep(5)
        assert count("opcua_dead_items_total") == 0
        await r.stop()

    run(story())


def test_an_item_that_stays_dead_has_its_subscription_made_anew_ever_more_seldom(run, rig, count):
    async def story():
        r = rig(watchdog="10s", history="off")
        await _begun(r)
        for n in range(3600):
            r.server.change("a", float(n), told=False)
            await asyncio.sleep(1)
        assert 3 <= count("opcua_recreated_subscriptions_total") <= 9
        await r.stop()

    run(story())


def test_an_item_that_told_something_since_is_given_no_longer_a_reprieve_for_the_former_deaths(run, rig, count):
    async def story():
        r = rig(watchdog="10s", history="off")
        await _begun(r)
        for n in range(2000):
            r.server.change("a", float(n), told=False)
            await asyncio.sleep(1)
        former = count("opcua_dead_items_total")
        for n in range(2000, 4000):
            r.server.change("a", float(n))
            await asyncio.sleep(1)
        assert count("opcua_dead_items_total") == former
        for n in range(4000, 4100):
            r.server.change("a", float(n), told=False)
            await asyncio.sleep(1)
        assert count("opcua_dead_items_total") >= former + 3
        await r.stop()

    run(story())


def test_a_watchdog_of_null_reads_nothing(run, rig):
    async def story():
        r = rig(watchdog=None)
        await _begun(r)
        await asyncio.sleep(1000)
        assert not _reads(r)
        await r.stop()

    run(story())


def test_a_read_that_the_server_refuses_proves_nothing(run, rig, count):
    async def story():
        r = rig(watchdog="10s")
        await _begun(r)
        r.server.refusals["Read"].extend([0x80100000] * 100)
        await asyncio.sleep(60)
        assert r.error is None
        assert count("opcua_dead_items_total") == 0
        await r.stop()

    run(story())
